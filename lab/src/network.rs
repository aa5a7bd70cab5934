//! A network for machines: each has a namespace with an interface and an address of its own, on a bridge in one more.
//!
//! Nothing of this machine's own network is touched, and nothing outside reaches in. Whoever speaks with the machines stands
//! at the bridge ([`Network::enter`]), and is not cut off when machines are cut off from each other. Promises that what it
//! made is gone when it is dropped; what a process left that was killed, the next one sweeps away ([`sweep`]).

use crate::process;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

/// Every namespace's name begins so; the process that made it comes next.
const MARK: &str = "bramble-lab-";
/// Machines are numbered from 1; the last address is the bridge's.
pub const MACHINES_MAX: usize = 250;
const BRIDGE: [u8; 4] = [10, 77, 1, 254];

pub struct Network {
    mark: String,
    places: usize,
    /// Frames from the one to the other are dropped.
    cuts: BTreeSet<(usize, usize)>,
    /// Of frames from and to a machine, so many of a thousand are dropped.
    losses: BTreeMap<usize, u32>,
    /// Frames to groups are dropped.
    is_mute: bool,
}

/// Where a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    namespace: String,
    pub ip: Ipv4Addr,
}

impl Place {
    /// Does something as if on that machine, as far as its network goes; what it starts stays there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.namespace);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What runs there.
    pub fn processes(&self) -> Vec<u32> {
        let told = said(&["ip", "netns", "pids", &self.namespace]);
        told.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Network {
    /// A bridge with nobody on it, or why there can be none here.
    pub fn new() -> Result<Network, String> {
        if !process::is_root() {
            return Err("only root makes namespaces of the network".to_owned());
        }
        sweep();
        let mark = format!("{MARK}{}-{}", std::process::id(), world::random::word(4));
        let network = Network { mark, places: 0, cuts: BTreeSet::new(), losses: BTreeMap::new(), is_mute: false };
        let hub = network.hub();
        run(&["ip", "netns", "add", &hub])?;
        run(&["ip", "-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        let address = format!("{}/24", Ipv4Addr::from(BRIDGE));
        run(&["ip", "-n", &hub, "addr", "add", &address, "dev", "br0"])?;
        run(&["ip", "-n", &hub, "addr", "add", "fd77:1::fe/64", "dev", "br0", "nodad"])?;
        for link in ["lo", "br0"] {
            run(&["ip", "-n", &hub, "link", "set", link, "up"])?;
        }
        Ok(network)
    }

    /// One more machine's place.
    pub fn plug(&mut self) -> Result<Place, String> {
        let number = self.places + 1;
        let last = u8::try_from(number).ok().filter(|last| usize::from(*last) <= MACHINES_MAX);
        let last = last.ok_or_else(|| format!("a network has room for {MACHINES_MAX} machines"))?;
        let (hub, name, port) = (self.hub(), self.namespace(number), port(number));
        let ip = Ipv4Addr::new(BRIDGE[0], BRIDGE[1], BRIDGE[2], last);
        self.places = number;
        run(&["ip", "netns", "add", &name])?;
        run(&["ip", "link", "add", "v0", "netns", &name, "type", "veth", "peer", "name", &port, "netns", &hub])?;
        run(&["ip", "-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
        for link in ["lo", "v0"] {
            run(&["ip", "-n", &name, "link", "set", link, "up"])?;
        }
        run(&["ip", "-n", &name, "addr", "add", &format!("{ip}/24"), "dev", "v0"])?;
        run(&["ip", "-n", &name, "addr", "add", &format!("fd77:1::{number}/64"), "dev", "v0", "nodad"])?;
        run(&["ip", "-n", &name, "route", "add", "default", "via", &Ipv4Addr::from(BRIDGE).to_string()])?;
        Ok(Place { namespace: name, ip })
    }

    /// A machine has another address from now on, as the last number of it says, and not the one it had.
    pub fn renumber(&self, machine: usize, last: u8) -> Result<Place, String> {
        let name = self.namespace(machine);
        let ip = Ipv4Addr::new(BRIDGE[0], BRIDGE[1], BRIDGE[2], last);
        run(&["ip", "-n", &name, "-4", "addr", "flush", "dev", "v0"])?;
        run(&["ip", "-n", &name, "addr", "add", &format!("{ip}/24"), "dev", "v0"])?;
        run(&["ip", "-n", &name, "route", "replace", "default", "via", &Ipv4Addr::from(BRIDGE).to_string()])?;
        Ok(Place { namespace: name, ip })
    }

    /// Frames to groups are dropped: what is announced to a link is not heard.
    pub fn mute_groups(&mut self) -> Result<(), String> {
        self.is_mute = true;
        self.rule()
    }

    /// Where whoever speaks with the machines stands.
    pub fn bridge(&self) -> Place {
        Place { namespace: self.hub(), ip: Ipv4Addr::from(BRIDGE) }
    }

    /// The calling thread, and whatever it starts, stands at the bridge from now on.
    pub fn enter(&self) {
        enter(&self.hub());
    }

    /// What `from` sends does not reach `to` any more.
    pub fn cut(&mut self, from: usize, to: usize) -> Result<(), String> {
        self.cuts.insert((from, to));
        self.rule()
    }

    /// A machine is cut off from all others, both ways.
    pub fn isolate(&mut self, machine: usize) -> Result<(), String> {
        for other in (1..=self.places).filter(|other| *other != machine) {
            self.cuts.extend([(machine, other), (other, machine)]);
        }
        self.rule()
    }

    /// So many of a thousand frames from and to a machine are lost.
    pub fn lose(&mut self, machine: usize, per_mille: u32) -> Result<(), String> {
        self.losses.insert(machine, per_mille.min(1_000));
        self.rule()
    }

    /// Whatever a machine sends and receives is late by so much, each way.
    pub fn delay(&mut self, machine: usize, milliseconds: u64) -> Result<(), String> {
        let late = format!("{milliseconds}ms");
        for (namespace, link) in [(self.hub(), port(machine)), (self.namespace(machine), "v0".to_owned())] {
            let words = ["tc", "-n", &namespace, "qdisc", "replace", "dev", &link, "root", "netem", "delay", &late];
            run(&words).map_err(|error| {
                if error.contains("qdisc kind is unknown") {
                    "this kernel delays nothing: it has no netem (CONFIG_NET_SCH_NETEM)".to_owned()
                } else {
                    error
                }
            })?;
        }
        Ok(())
    }

    /// The network is as it was at first.
    pub fn heal(&mut self) -> Result<(), String> {
        self.cuts.clear();
        self.losses.clear();
        self.is_mute = false;
        for machine in 1..=self.places {
            // Those that are not delayed have nothing to be taken away.
            for (namespace, link) in [(self.hub(), port(machine)), (self.namespace(machine), "v0".to_owned())] {
                let _ = run(&["tc", "-n", &namespace, "qdisc", "del", "dev", &link, "root"]);
            }
        }
        self.rule()
    }

    /// A machine without power has no link, and its kernel remembers no address but its own when it is back.
    pub fn power(&self, machine: usize, on: bool) -> Result<(), String> {
        let state = if on { "up" } else { "down" };
        run(&["ip", "-n", &self.hub(), "link", "set", &port(machine), state])?;
        if !on {
            let name = self.namespace(machine);
            let told = said(&["ip", "-n", &name, "-o", "addr", "show", "dev", "v0", "dynamic"]);
            let lent = told.lines().filter_map(|line| line.split_whitespace().nth(3));
            for address in lent {
                run(&["ip", "-n", &name, "addr", "del", address, "dev", "v0"])?;
            }
        }
        Ok(())
    }

    /// Makes the bridge do what is wanted now, all of it at once.
    fn rule(&self) -> Result<(), String> {
        let mut rules = String::new();
        for (from, to) in &self.cuts {
            let _ = writeln!(rules, "iifname {} oifname {} drop", port(*from), port(*to));
        }
        for (machine, per_mille) in self.losses.iter().filter(|(_, per_mille)| **per_mille > 0) {
            for direction in ["iifname", "oifname"] {
                let _ = writeln!(rules, "{direction} {} numgen random mod 1000 < {per_mille} drop", port(*machine));
            }
        }
        if self.is_mute {
            rules.push_str("ip daddr 224.0.0.0/4 drop\n");
        }
        let table = format!(
            "table bridge lab {{}}\ndelete table bridge lab\ntable bridge lab {{\nchain forward {{\n\
             type filter hook forward priority 0; policy accept;\n{rules}}}\n}}\n"
        );
        let folder = tempfile::tempdir().map_err(|error| format!("make a temporary folder: {error}"))?;
        let path = folder.path().join("rules");
        std::fs::write(&path, table).map_err(|error| format!("write {}: {error}", path.display()))?;
        run(&["ip", "netns", "exec", &self.hub(), "nft", "-f", &path.to_string_lossy()]).map_err(|error| {
            format!("{error} (machines are cut off with nftables in the bridge: apt-get install nftables)")
        })
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.mark)
    }

    fn namespace(&self, machine: usize) -> String {
        format!("{}-{machine}", self.mark)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (1..=self.places).map(|machine| self.namespace(machine)).chain([self.hub()]) {
            clear(&name);
        }
    }
}

/// Takes away what processes made that are there no more: their namespaces, and what runs in them.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let maker = name.strip_prefix(MARK).and_then(|rest| rest.split('-').next()?.parse().ok());
        if maker.is_some_and(|pid: u32| !process::runs(pid)) {
            clear(&name);
        }
    }
}

/// Ends what runs in a namespace that this lab made, and takes it away.
fn clear(name: &str) {
    // A thread of this program's own stood there at most for as long as something was started.
    let place = Place { namespace: name.to_owned(), ip: Ipv4Addr::UNSPECIFIED };
    for pid in place.processes().into_iter().filter(|pid| *pid != std::process::id()) {
        process::signal(pid, rustix::process::Signal::KILL);
    }
    let _ = run(&["ip", "netns", "del", name]);
}

fn enter(name: &str) {
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("it was made");
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("root may enter it");
}

fn port(machine: usize) -> String {
    format!("p{machine}")
}

fn run(words: &[&str]) -> Result<(), String> {
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let failed = || format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    if output.status.success() { Ok(()) } else { Err(failed()) }
}

fn said(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}
