//! A cluster of machines and what can happen to it: each a real node, in a network of their own where that can be made, else
//! with addresses of loopback.

use crate::network::{Network, Place};
use crate::node::{Node, Settings};
use crate::{process, wait};
use rustix::process::Signal;
use std::fmt;

/// What happens. Machines are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// The node's process is killed; its instances go on.
    Kill(usize),
    /// Everything on the machine stands still, all at once.
    Freeze(usize),
    Thaw(usize),
    /// Everything on the machine is gone, its link too. Of all machines where none is named.
    PowerCut(Option<usize>),
    /// A machine that was killed or lost its power starts again.
    Rejoin(usize),
    /// Two machines do not hear each other any more; or one and all others.
    Partition(usize, Option<usize>),
    /// What the first sends does not reach the second.
    OneWay(usize, usize),
    Delay(usize, u64),
    /// Per mille.
    Loss(usize, u32),
    Heal,
    /// One machine more.
    Join,
    /// One machine more, without power, with a copy of this one's disk.
    Copy(usize),
    Status,
    Help,
    Quit,
}

pub const HELP: &str = "kill N            kill -9 of the node's process on machine N; what it runs goes on
freeze N, thaw N  everything on it stands still, and goes on
power-cut [N]     everything on it is gone at once; on all machines if none is named
rejoin N          it starts again, with what is on its disk
partition A [B]   A and B do not hear each other; A and nobody if no B is named
oneway A B        what A sends does not reach B
delay N 50ms      what it sends and receives is late, each way
loss N 10%        of what it sends and receives, so much is lost, each way
heal              no partition, delay or loss any more
join              one machine more
copy N            one machine more, without power, with a copy of N's disk
status            what is with each
help, quit";

impl Verb {
    /// Reads a line; the error says what was expected.
    pub fn read(line: &str) -> Result<Verb, String> {
        let mut words = line.split_whitespace();
        let (name, first, second) = (words.next().unwrap_or_default(), words.next(), words.next());
        if words.next().is_some() {
            return Err(format!("`{name}` takes less than that; `help` lists what there is"));
        }
        let number = |word: &str| {
            word.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("`{word}` is no number of a machine"))
        };
        let missing = || format!("`{name}` needs a machine, as in `{name} 2`");
        let need = |word: Option<_>| word.ok_or_else(missing);
        let verb = match (name, first, second) {
            ("kill", one, None) => Verb::Kill(number(need(one)?)?),
            ("freeze", one, None) => Verb::Freeze(number(need(one)?)?),
            ("copy", one, None) => Verb::Copy(number(need(one)?)?),
            ("thaw", one, None) => Verb::Thaw(number(need(one)?)?),
            ("rejoin", one, None) => Verb::Rejoin(number(need(one)?)?),
            ("power-cut", one, None) => Verb::PowerCut(one.map(number).transpose()?),
            ("partition", one, other) => Verb::Partition(number(need(one)?)?, other.map(number).transpose()?),
            ("oneway", Some(one), Some(other)) => Verb::OneWay(number(one)?, number(other)?),
            ("oneway", _, _) => return Err("`oneway` needs two machines, as in `oneway 1 2`".to_owned()),
            ("delay", one, time) => Verb::Delay(number(need(one)?)?, milliseconds(time.unwrap_or_default())?),
            ("loss", one, share) => Verb::Loss(number(need(one)?)?, per_mille(share.unwrap_or_default())?),
            ("heal", None, None) => Verb::Heal,
            ("join", None, None) => Verb::Join,
            ("status", None, None) => Verb::Status,
            ("help", None, None) => Verb::Help,
            ("quit" | "exit", None, None) => Verb::Quit,
            _ => return Err(format!("there is no `{}`; `help` lists what there is", line.trim())),
        };
        Ok(verb)
    }
}

fn milliseconds(word: &str) -> Result<u64, String> {
    const MAX: u64 = 60_000;
    let number = word.strip_suffix("ms").unwrap_or(word).parse().ok().filter(|number| *number <= MAX);
    number.ok_or_else(|| format!("`{word}` is no delay; it is written as 50ms, at most {MAX}ms"))
}

fn per_mille(word: &str) -> Result<u32, String> {
    let percent: Option<f64> = word.strip_suffix('%').unwrap_or(word).parse().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most a thousand, and not below zero"
    )]
    let read = percent.map(|percent| (percent * 10.0).round() as u32);
    read.ok_or_else(|| format!("`{word}` is no share; it is written as 10%"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Killed,
    Frozen,
    Off,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Up => "up",
            State::Killed => "killed",
            State::Frozen => "frozen",
            State::Off => "without power",
        })
    }
}

/// The machines. Dropped, they stop, and their network is gone.
pub struct Machines {
    // Before the network that they are in.
    nodes: Vec<(Node, State)>,
    network: Option<Network>,
    /// Machines listen at every address they have.
    anywhere: bool,
}

impl Machines {
    /// So many machines that know each other. The calling thread stands in their network from then on.
    pub fn start(count: usize) -> Result<Machines, String> {
        let network = match Network::new() {
            Ok(network) => Some(network),
            Err(why) => {
                eprintln!("lab: machines have addresses of loopback, and cannot be cut off from each other: {why}");
                None
            }
        };
        Machines::on(network, count)
    }

    /// The same, in a network of their own or not at all: a test that needs one skips itself.
    pub fn in_network(count: usize) -> Option<Machines> {
        match Network::new() {
            Ok(network) => Some(Machines::on(Some(network), count).expect("machines can be plugged in")),
            Err(why) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    /// The same, of machines that listen at whatever address they have, now and later.
    pub fn anywhere(count: usize) -> Option<Machines> {
        let network = Network::new().map_err(|why| println!("skipped: {why}")).ok()?;
        Some(Machines::among(Some(network), count, true).expect("machines can be plugged in"))
    }

    /// A machine has another address from now on.
    pub fn renumber(&mut self, number: usize, last: u8) -> Result<(), String> {
        let place = self.network(&[number])?.renumber(number, last)?;
        self.nodes[number - 1].0.move_to(place);
        Ok(())
    }

    /// What machines announce to their link is not heard.
    pub fn mute_groups(&mut self) -> Result<(), String> {
        self.network(&[])?.mute_groups()
    }

    /// A machine is started with these arguments too, from its next start on.
    pub fn start_with(&mut self, number: usize, arguments: &[&str]) {
        self.nodes[number - 1].0.start_with(arguments);
    }

    fn on(network: Option<Network>, count: usize) -> Result<Machines, String> {
        Machines::among(network, count, false)
    }

    fn among(network: Option<Network>, count: usize, anywhere: bool) -> Result<Machines, String> {
        if let Some(network) = &network {
            network.enter();
        }
        let mut machines = Machines { nodes: Vec::new(), network, anywhere };
        for _ in 0..count.max(1) {
            machines.join()?;
        }
        let first = machines.node(1);
        wait::until("all machines know all", 60, || {
            let known = first.json(&["node", "ls"]).as_array().map_or(0, Vec::len);
            (known == machines.nodes.len()).then_some(())
        });
        Ok(machines)
    }

    /// One more.
    pub fn join(&mut self) -> Result<usize, String> {
        let up = self.nodes.iter().find(|(_, state)| *state == State::Up).map(|(node, _)| node);
        if up.is_none() && !self.nodes.is_empty() {
            return Err("no machine is up that another could join".to_owned());
        }
        let token = up.map(|node| node.join_token(&[]));
        let place = self.network.as_mut().map(Network::plug).transpose()?;
        let settings = Settings { token, place, anywhere: self.anywhere, ..Settings::default() };
        self.nodes.push((Node::with(settings), State::Up));
        Ok(self.nodes.len())
    }

    /// One more that takes itself for machine `number`, as far as its disk says. It is not started.
    fn copy(&mut self, number: usize) -> Result<usize, String> {
        let states = [State::Up, State::Killed, State::Frozen, State::Off];
        let data = self.of(number, &states)?.data().to_owned();
        let place = self.network.as_mut().map(Network::plug).transpose()?;
        let node = Node::copy_of(&data, place);
        self.nodes.push((node, State::Off));
        Ok(self.nodes.len())
    }

    /// Starts a machine that was killed or without power, and does not wait until it serves.
    pub fn begin(&mut self, number: usize) -> &mut Node {
        self.nodes[number - 1].1 = State::Up;
        let node = &mut self.nodes[number - 1].0;
        node.launch_unready();
        node
    }

    /// Gives a machine its power back: its link, and nothing runs yet.
    pub fn power(&self, number: usize) -> Result<(), String> {
        self.network.as_ref().map_or(Ok(()), |network| network.power(number, true))
    }

    /// Whether the node on a machine has ended by itself.
    pub fn has_ended(&mut self, number: usize) -> bool {
        self.nodes[number - 1].0.ended().is_some()
    }

    /// The node on a machine.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1].0
    }

    /// The number of the machine whose id this is.
    pub fn number(&self, id: &str) -> Option<usize> {
        (1..=self.count()).find(|number| self.node(*number).id() == id)
    }

    /// How many are up, as the first sees it.
    pub fn count_up(&self) -> usize {
        let nodes = self.node(1).json(&["node", "ls"]);
        nodes.as_array().map_or(0, |nodes| nodes.iter().filter(|one| one["presence"] == "up").count())
    }

    /// A place on their network for somebody who is none of them.
    pub fn stranger(&mut self) -> Result<Place, String> {
        self.network(&[])?.plug()
    }

    /// From where they are reached, if they have a network of their own.
    pub fn place(&self) -> Option<Place> {
        self.network.as_ref().map(Network::bridge)
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Makes it happen, and says what there is to say.
    pub fn act(&mut self, verb: Verb) -> Result<String, String> {
        match verb {
            Verb::Kill(number) => {
                self.of(number, &[State::Up])?.kill();
                self.nodes[number - 1].1 = State::Killed;
            }
            Verb::Freeze(number) => {
                signal(self.of(number, &[State::Up])?, Signal::STOP);
                self.nodes[number - 1].1 = State::Frozen;
            }
            Verb::Thaw(number) => {
                signal(self.of(number, &[State::Frozen])?, Signal::CONT);
                self.nodes[number - 1].1 = State::Up;
            }
            Verb::PowerCut(None) => {
                let numbers: Vec<usize> =
                    (1..=self.nodes.len()).filter(|it| self.nodes[it - 1].1 != State::Off).collect();
                self.cut_power(&numbers)?;
            }
            Verb::PowerCut(Some(number)) => {
                self.of(number, &[State::Up, State::Frozen, State::Killed])?;
                self.cut_power(&[number])?;
            }
            Verb::Rejoin(number) => self.rejoin(number)?,
            Verb::Partition(one, Some(other)) => {
                self.network(&[one, other])?.cut(one, other)?;
                self.network(&[one, other])?.cut(other, one)?;
            }
            Verb::Partition(one, None) => self.network(&[one])?.isolate(one)?,
            Verb::OneWay(one, other) => self.network(&[one, other])?.cut(one, other)?,
            Verb::Delay(number, late_ms) => self.network(&[number])?.delay(number, late_ms)?,
            Verb::Loss(number, per_mille) => self.network(&[number])?.lose(number, per_mille)?,
            Verb::Heal => self.network(&[])?.heal()?,
            Verb::Join => return self.join().map(|number| format!("machine {number} has joined")),
            Verb::Copy(number) => return self.copy(number).map(|number| format!("machine {number} is the copy")),
            Verb::Status => return Ok(self.status()),
            Verb::Help => return Ok(HELP.to_owned()),
            Verb::Quit => {}
        }
        Ok(String::new())
    }

    pub fn status(&self) -> String {
        let line = |(at, (node, state)): (usize, &(Node, State))| format!("{}  {}  {state}", at + 1, node.peers.ip());
        self.nodes.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    fn rejoin(&mut self, number: usize) -> Result<(), String> {
        self.of(number, &[State::Killed, State::Off])?;
        self.power(number)?;
        self.nodes[number - 1].0.launch();
        self.nodes[number - 1].1 = State::Up;
        Ok(())
    }

    /// All of them are dark before any is waited for.
    fn cut_power(&mut self, numbers: &[usize]) -> Result<(), String> {
        for number in numbers {
            if let Some(network) = &self.network {
                network.power(*number, false)?;
            }
            for pid in self.node(*number).processes() {
                process::signal(pid, Signal::KILL);
            }
        }
        for number in numbers {
            self.nodes[number - 1].0.cut_power();
            self.nodes[number - 1].1 = State::Off;
        }
        Ok(())
    }

    fn of(&mut self, number: usize, states: &[State]) -> Result<&mut Node, String> {
        let count = self.nodes.len();
        let (node, state) =
            self.nodes.get_mut(number.wrapping_sub(1)).ok_or_else(|| format!("there are machines 1 to {count}"))?;
        if states.contains(state) { Ok(node) } else { Err(format!("machine {number} is {state}")) }
    }

    fn network(&mut self, numbers: &[usize]) -> Result<&mut Network, String> {
        let count = self.nodes.len();
        if numbers.iter().any(|number| !(1..=count).contains(number)) {
            return Err(format!("there are machines 1 to {count}"));
        }
        self.network.as_mut().ok_or_else(|| "machines have no network of their own here: that takes root".to_owned())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // What stands still cannot end in order.
        for (node, _) in self.nodes.iter().filter(|(_, state)| *state == State::Frozen) {
            signal(node, Signal::CONT);
        }
    }
}

/// Sends a signal to everything on a machine, twice: what was started while the first was on its way gets the second.
fn signal(node: &Node, signal: Signal) {
    for _ in 0..2 {
        for pid in node.processes() {
            process::signal(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verb;

    #[test]
    fn verbs_are_read_as_people_write_them() {
        let check = |line: &str, expected: Result<Verb, &str>| match (Verb::read(line), expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{line}"),
            (Err(said), Err(word)) => assert!(said.contains(word), "{line}: {said}"),
            (read, _) => panic!("{line}: {read:?}"),
        };
        check("kill 3", Ok(Verb::Kill(3)));
        check("  partition 1 2 ", Ok(Verb::Partition(1, Some(2))));
        check("partition 4", Ok(Verb::Partition(4, None)));
        check("oneway 1 2", Ok(Verb::OneWay(1, 2)));
        check("delay 2 50ms", Ok(Verb::Delay(2, 50)));
        check("loss 2 10%", Ok(Verb::Loss(2, 100)));
        check("loss 2 0.5%", Ok(Verb::Loss(2, 5)));
        check("power-cut", Ok(Verb::PowerCut(None)));
        check("copy 2", Ok(Verb::Copy(2)));
        check("power-cut 2", Ok(Verb::PowerCut(Some(2))));
        check("kill", Err("`kill 2`"));
        check("kill 0", Err("no number of a machine"));
        check("kill 1 2", Err("no `kill 1 2`"));
        check("loss 2 110%", Err("as 10%"));
        check("delay 2 long", Err("as 50ms"));
        check("oneway 1", Err("two machines"));
        check("dance", Err("help"));
        check("partition 1 2 3", Err("less"));
        check("", Err("help"));
    }
}
