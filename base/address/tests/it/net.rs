//! Machines made of namespaces of the network, on a bridge in one more.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Taken away again when it is dropped.
pub struct Net {
    mark: String,
    machines: usize,
}

impl Net {
    /// So many machines, numbered from 0, with addresses that end with their number and one. `None` where it cannot be done.
    pub fn of(machines: usize) -> Option<Net> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root makes namespaces of the network");
            return None;
        }
        let mark = format!("bramble-address-{}-{}", std::process::id(), world::random::word(4));
        let net = Net { mark, machines };
        let hub = net.hub();
        if !run(&["ip", "netns", "add", &hub]) || !run(&["ip", "-n", &hub, "link", "add", "br0", "type", "bridge"]) {
            println!("skipped: no namespaces of the network or no bridge here");
            return None;
        }
        must(&["ip", "-n", &hub, "link", "set", "br0", "up"]);
        for machine in 0..machines {
            let (name, port) = (net.name(machine), port(machine));
            must(&["ip", "netns", "add", &name]);
            must(&["ip", "link", "add", "v0", "netns", &name, "type", "veth", "peer", "name", &port, "netns", &hub]);
            must(&["ip", "-n", &hub, "link", "set", &port, "master", "br0", "up"]);
            for link in ["lo", "v0"] {
                must(&["ip", "-n", &name, "link", "set", link, "up"]);
            }
            must(&["ip", "-n", &name, "addr", "add", &format!("10.77.0.{}/24", machine + 1), "dev", "v0"]);
            must(&["ip", "-n", &name, "addr", "add", &format!("fd77::{}/64", machine + 1), "dev", "v0", "nodad"]);
        }
        Some(net)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.mark)
    }

    pub fn name(&self, machine: usize) -> String {
        format!("{}-{machine}", self.mark)
    }

    /// The machine has no cable any more.
    pub fn cut(&self, machine: usize) {
        must(&["ip", "-n", &self.hub(), "link", "set", &port(machine), "down"]);
    }

    pub fn mend(&self, machine: usize) {
        must(&["ip", "-n", &self.hub(), "link", "set", &port(machine), "up"]);
    }

    pub fn mac(&self, machine: usize) -> String {
        let told = said(&["ip", "-n", &self.name(machine), "link", "show", "v0"]);
        let mut words = told.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
        words.next().expect("an Ethernet has an address").to_owned()
    }

    /// Where the machine believes that the address is.
    pub fn neighbour(&self, machine: usize, address: &str) -> Option<String> {
        let told = said(&["ip", "-n", &self.name(machine), "neigh", "show", "to", address]);
        told.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned)
    }

    /// Has the machine speak to the address, so that it knows where that is.
    pub fn client_meets(&self, machine: usize, address: &str) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        self.until("the client knows where the address is", Duration::from_secs(5), || {
            run(&["ip", "netns", "exec", &self.name(machine), "ping", family, "-c", "1", "-W", "1", address])
                || self.speaks(machine, address)
        });
    }

    /// For where there is no `ping`: nobody listens there, which takes an answer too.
    fn speaks(&self, machine: usize, address: &str) -> bool {
        let name = self.name(machine);
        let to = if address.contains(':') { format!("[{address}]:9") } else { format!("{address}:9") };
        std::thread::spawn(move || {
            enter(&name);
            let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            std::net::UdpSocket::bind(any).is_ok_and(|socket| socket.send_to(b"hello", to).is_ok())
        })
        .join()
        .expect("it speaks")
            && self.neighbour(machine, address).is_some()
    }

    /// Looks until it is so.
    pub fn until(&self, what: &str, within: Duration, look: impl Fn() -> bool) {
        let deadline = world::clock::monotonic() + within;
        while !look() {
            assert!(world::clock::monotonic() < deadline, "after {within:?} still not: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in (0..self.machines).map(|machine| self.name(machine)).chain([self.hub()]) {
            run(&["ip", "netns", "del", &name]);
        }
    }
}

/// The calling thread, and what it starts, is on that machine from now on.
pub fn enter(name: &str) {
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("the namespace is there");
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).expect("root may enter it");
}

/// A program that holds the address on a machine. Dropped, it is killed.
pub struct Holding {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

const LINES_MAX: usize = 1_000;

impl Holding {
    pub fn start(net: &Net, machine: usize, address: &str, lease_ms: u64, quiet: bool) -> Holding {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &net.name(machine)]).arg(program()).arg(address).arg(lease_ms.to_string());
        command.args(quiet.then_some("quiet")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let output = child.stdout.take().expect("it is piped");
        let input = child.stdin.take().expect("it is piped");
        let (tell, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Holding { child, input, lines }
    }

    /// What it says when it cannot hold the address.
    pub fn refused(net: &Net, machine: usize, address: &str, before: &[&str]) -> String {
        Holding::refused_by(net, machine, address, before).expect("`ip` is there")
    }

    /// The same, started by another program; `None` if that is not there.
    pub fn refused_by(net: &Net, machine: usize, address: &str, before: &[&str]) -> Option<String> {
        if let Some(first) = before.first() {
            Command::new(first).arg("--version").output().ok()?;
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &net.name(machine)]).args(before).arg(program()).args([address, "2100"]);
        let output = command.stdin(Stdio::null()).output().expect("the program starts");
        assert!(!output.status.success(), "{address} was held");
        Some(String::from_utf8_lossy(&output.stderr).replace("\\n", "\n"))
    }

    /// Waits for a line that begins so.
    pub fn says(&mut self, begins: &str) -> String {
        let deadline = world::clock::monotonic() + Duration::from_secs(10);
        loop {
            let left = deadline.saturating_duration_since(world::clock::monotonic());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("it never says {begins:?}"));
            if line.starts_with(begins) {
                return line;
            }
        }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it listens");
    }

    pub fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }

    pub fn freeze(&mut self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&mut self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it is our child");
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo puts examples beside the folder of the tests.
fn program() -> PathBuf {
    let mut folder = std::env::current_exe().expect("a running test has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join("examples/hold");
    assert!(path.exists(), "{} is missing: `cargo build -p address --examples` makes it", path.display());
    path
}

fn port(machine: usize) -> String {
    format!("p{machine}")
}

fn run(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn must(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().expect("it runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn said(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
