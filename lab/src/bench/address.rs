//! How soon a client is answered again through a floating address after something happened to the machine that had it: ours
//! beside keepalived, each on two machines of a network of their own, with a client on a third that asks every 5 ms.
//!
//! Ours is told what to do by this program, through pipes: what control and the gossip need on top is not in it. It is leased
//! for 2.1 s and renewed ten times a second; who has not answered for half a second is taken over from when nobody on the link
//! answers for the address, or when its lease is surely over.

use super::figures::{median, milliseconds};
use super::report::{Goal, Row};
use super::{Measured, Options};
use address::{Event, Floating, Holder, Take};
use lab::network::{Network, Place};
use lab::{process, wait};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// This program, started again on a machine: answers there, holds the address there.
pub const SERVED_THERE: &str = "address-served";
pub const HELD_THERE: &str = "address-held";

const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 200);
const PORT: u16 = 8080;
const TIMES: usize = 5;
const ASK_EVERY: Duration = Duration::from_millis(5);
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Before something happens everything is calm; after it, it is looked for so long.
const CALM: Duration = Duration::from_millis(1_500);
const LOOK: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(500);
const LEASE: Duration = Duration::from_millis(2_100);
const LINES_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PowerCut,
    ProgramKilled,
    Frozen,
    HandedOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Ours,
    Keepalived { advert_ms: u32 },
}

impl System {
    fn name(self) -> String {
        match self {
            System::Ours => "ours".to_owned(),
            System::Keepalived { advert_ms } => format!("keepalived, adverts every {advert_ms} ms"),
        }
    }
}

/// What one fault came to.
struct Outcome {
    answered_again: Duration,
    failed: usize,
    /// Both machines had the address at the end.
    on_both: bool,
}

pub(super) fn run(_options: &Options) -> Measured {
    let mut systems = vec![System::Ours];
    match Command::new("keepalived").arg("--version").output() {
        Ok(_) => systems.extend([1_000, 100].map(|advert_ms| System::Keepalived { advert_ms })),
        Err(error) => println!("keepalived is left out: {error} (apt-get install keepalived)"),
    }
    let mut rows = Vec::new();
    for (fault, what, goal_ms) in [
        (Fault::PowerCut, "its machine lost power", 1_000.0),
        (Fault::ProgramKilled, "its program was killed", 2_500.0),
        (Fault::Frozen, "its machine was frozen", 2_500.0),
        (Fault::HandedOver, "handed over", 50.0),
    ] {
        let mut outcomes: Vec<Vec<Outcome>> = systems.iter().map(|_| Vec::new()).collect();
        for _ in 0..TIMES {
            for (system, outcomes) in systems.iter().zip(&mut outcomes) {
                outcomes.push(one(*system, fault));
            }
        }
        for (system, outcomes) in systems.iter().zip(&outcomes) {
            let ours = *system == System::Ours;
            let goal = |goal| if ours { goal } else { Goal::None };
            let times: Vec<f64> = outcomes.iter().map(|one| milliseconds(one.answered_again)).collect();
            let longest = times.iter().copied().fold(0.0, f64::max);
            let failed: usize = outcomes.iter().map(|one| one.failed).sum();
            let both = outcomes.iter().filter(|one| one.on_both).count();
            let name = format!("{what}, {}", system.name());
            rows.push(Row::new(
                format!("{name}: answered again, median"),
                "ms",
                median(&times),
                goal(Goal::Below(goal_ms)),
            ));
            rows.push(Row::new(format!("{name}: longest"), "ms", longest, goal(Goal::Below(goal_ms))));
            let none = if fault == Fault::HandedOver { Goal::Below(0.5) } else { Goal::None };
            rows.push(Row::new(format!("{name}: requests that failed"), "requests", failed as f64, goal(none)));
            rows.push(Row::new(format!("{name}: on both in the end"), "times", both as f64, goal(Goal::Below(0.5))));
        }
    }
    Measured::Rows(rows)
}

/// Two machines and a client; the first machine has the address until `fault`.
fn one(system: System, fault: Fault) -> Outcome {
    let mut network = Network::new().expect("root, and `ip`");
    let places: Vec<Place> = (0..3).map(|_| network.plug().expect("there is room")).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut children: Vec<Child> = Vec::new();
    for (at, place) in places[..2].iter().enumerate() {
        let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
        command.args([SERVED_THERE, &at.to_string()]);
        children.push(place.inside(|| command.spawn().expect("this program starts")));
    }
    let mut held = match system {
        System::Ours => Held::Ours(Lessor::start(&places)),
        System::Keepalived { advert_ms } => {
            let start = |at: usize| {
                let path = folder.path().join(format!("keepalived-{at}.conf"));
                std::fs::write(&path, keepalived(at, advert_ms)).expect("a file can be written");
                let pid = |what: &str| folder.path().join(format!("{what}-{at}.pid"));
                let mut command = Command::new("keepalived");
                command.args(["-n", "-P", "-f"]).arg(path).arg("-p").arg(pid("all")).arg("-r").arg(pid("vrrp"));
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let child = places[at].inside(|| command.spawn().expect("keepalived starts"));
                wait::until("keepalived is there", 10, || pid("vrrp").exists().then_some(()));
                child
            };
            // Who is first has the address: neither takes it from the other.
            let first = start(0);
            wait::until("the first machine has the address", 15, || has(&places[0]).then_some(()));
            Held::Keepalived([first, start(1)])
        }
    };
    let mut client = None;
    let mut began = None;
    let start = world::clock::monotonic();
    loop {
        let now = world::clock::monotonic();
        if let Held::Ours(lessor) = &mut held {
            lessor.go_on(now);
        }
        if client.is_none() && has(&places[0]) {
            client = Some((Client::start(&places[2], ask), now));
        }
        if began.is_none() && client.as_ref().is_some_and(|(_, since)| now - *since > CALM) {
            befall(&network, &places[0], &mut held, fault);
            began = Some(world::clock::monotonic());
        }
        if began.is_some_and(|began| now.saturating_duration_since(began) > LOOK) {
            break;
        }
        assert!(now - start < LOOK * 4, "the first machine never had the address");
        std::thread::sleep(Duration::from_millis(2));
    }
    let began = began.expect("it happened");
    let on_both = has(&places[0]) && has(&places[1]);
    let (asked, _) = client.expect("it was started");
    let requests = asked.stop();
    held.end();
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome(&requests, began, on_both)
}

fn outcome(requests: &[Request], began: Instant, on_both: bool) -> Outcome {
    let again = requests.iter().filter(|one| one.by == Some(1) && one.ended > began).map(|one| one.ended).min();
    // What was asked too late to be answered is not counted.
    let last = requests.iter().map(|one| one.ended).max().unwrap_or(began);
    let judged = requests.iter().filter(|one| one.began + ANSWER_MAX < last);
    Outcome {
        answered_again: again.map_or(LOOK, |at| at - began),
        failed: judged.filter(|one| one.by.is_none()).count(),
        on_both,
    }
}

fn befall(network: &Network, place: &Place, held: &mut Held, fault: Fault) {
    let all = |signal| place.processes().into_iter().for_each(|pid| process::signal(pid, signal));
    match (fault, held) {
        (Fault::PowerCut, _) => {
            network.power(1, false).expect("a link can be taken down");
            all(Signal::KILL);
        }
        (Fault::Frozen, _) => all(Signal::STOP),
        (Fault::ProgramKilled, Held::Ours(lessor)) => process::signal(lessor.machines[0].child.id(), Signal::KILL),
        (Fault::ProgramKilled, Held::Keepalived([first, _])) => {
            process::with_children(&[first.id()]).into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
        }
        (Fault::HandedOver, Held::Ours(lessor)) => lessor.hand_over(),
        (Fault::HandedOver, Held::Keepalived([first, _])) => process::signal(first.id(), Signal::TERM),
    }
}

/// A machine has an address if a program there can listen at it.
fn has(place: &Place) -> bool {
    place.inside(|| std::net::UdpSocket::bind((FLOATING, 0)).is_ok())
}

enum Held {
    Ours(Lessor),
    Keepalived([Child; 2]),
}

impl Held {
    fn end(self) {
        match self {
            Held::Ours(lessor) => lessor.machines.into_iter().for_each(|mut machine| end(&mut machine.child)),
            Held::Keepalived(children) => children.into_iter().for_each(|mut child| end(&mut child)),
        }
    }
}

fn end(child: &mut Child) {
    for pid in process::with_children(&[child.id()]) {
        process::signal(pid, Signal::KILL);
    }
    let _ = child.wait();
}

fn keepalived(at: usize, advert_ms: u32) -> String {
    let priority = 100 - at;
    let advert = f64::from(advert_ms) / 1_000.0;
    format!(
        "global_defs {{\n vrrp_version 3\n}}\nvrrp_instance measured {{\n state BACKUP\n nopreempt\n interface v0\n \
         virtual_router_id 51\n priority {priority}\n advert_int {advert}\n virtual_ipaddress {{\n {FLOATING}/32 dev v0\n }}\n}}\n"
    )
}

/// Leases the address to one of two programs.
struct Lessor {
    machines: Vec<Machine>,
    to: usize,
    renewed: Instant,
    /// When the holder said something last.
    heard: Instant,
    /// When the lease before is surely over.
    gone_at: Instant,
    handing_over: bool,
}

struct Machine {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Lessor {
    fn start(places: &[Place]) -> Lessor {
        let machines = places[..2].iter().map(|place| {
            let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
            command.args([HELD_THERE, &FLOATING.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = place.inside(|| command.spawn().expect("this program starts"));
            let input = child.stdin.take().expect("it is piped");
            let output = child.stdout.take().expect("it is piped");
            let (tell, lines) = sync_channel(LINES_MAX);
            std::thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
            });
            Machine { child, input, lines }
        });
        let now = world::clock::monotonic();
        let machines = machines.collect();
        Lessor { machines, to: 0, renewed: now - LEASE, heard: now, gone_at: now, handing_over: false }
    }

    fn go_on(&mut self, now: Instant) {
        let mut released = false;
        while let Ok(line) = self.machines[self.to].lines.try_recv() {
            self.heard = now;
            released |= line == "gone";
        }
        let lost = self.to == 0 && now.saturating_duration_since(self.heard) > SILENCE;
        if self.to == 0 && (released || lost) {
            let late = Duration::from_millis(address::KERNEL_LATE_MS);
            self.gone_at = if released { now } else { self.renewed + LEASE + late };
            (self.to, self.heard, self.renewed, self.handing_over) = (1, now, now - LEASE, false);
        }
        if !self.handing_over && now.saturating_duration_since(self.renewed) > RENEW_EVERY {
            self.renewed = now;
            let gone_in = self.gone_at.saturating_duration_since(now).as_millis();
            // A program that is gone does not listen, which is found out by its silence.
            let _ = writeln!(self.machines[self.to].input, "{} {gone_in}", LEASE.as_millis());
        }
    }

    fn hand_over(&mut self) {
        self.handing_over = true;
        let _ = writeln!(self.machines[self.to].input, "release");
    }
}

/// On a machine: holds the address for as long as each line says, in milliseconds; the second number is when the one before
/// is surely gone.
pub fn hold(address: Option<String>) -> ExitCode {
    let ip: Option<IpAddr> = address.and_then(|text| text.parse().ok());
    let Some(Ok(floating)) = ip.map(|ip| Floating::new(ip, None)) else { return ExitCode::from(2) };
    let holder = match Holder::start(floating, None, &meter::Meter::new(), |_event: Event| {}) {
        Ok(holder) => holder,
        Err(error) => {
            eprintln!("lab: {error}");
            return ExitCode::FAILURE;
        }
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok()).map(Duration::from_millis);
        let now = world::clock::monotonic();
        match (numbers.next(), numbers.next()) {
            (Some(lease), Some(gone_in)) => {
                let take = if gone_in.is_zero() { Take::AtOnce } else { Take::WhenQuiet { gone_at: now + gone_in } };
                holder.hold_until(now + lease, take);
                println!("ok");
            }
            _ => match holder.release() {
                Ok(()) => println!("gone"),
                Err(error) => eprintln!("lab: {error}"),
            },
        }
    }
    ExitCode::SUCCESS
}

/// On a machine: answers every connection with which machine it is.
pub fn serve(name: Option<String>) -> ExitCode {
    let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) else { return ExitCode::FAILURE };
    let name = name.unwrap_or_default();
    for mut stream in listener.incoming().map_while(Result::ok) {
        let _ = stream.set_read_timeout(Some(ANSWER_MAX));
        if matches!(stream.read(&mut [0; 1]), Ok(1)) {
            let _ = stream.write_all(name.as_bytes());
        }
    }
    ExitCode::SUCCESS
}

pub(super) struct Request {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// Who answered, if anybody did.
    pub(super) by: Option<usize>,
}

/// Asks every few milliseconds, whether it was answered or not.
pub(super) struct Client {
    ends: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: JoinHandle<()>,
}

impl Client {
    pub(super) fn start(place: &Place, ask: fn() -> Option<usize>) -> Client {
        let (ends, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (own_ends, own_requests, place) = (Arc::clone(&ends), Arc::clone(&requests), place.clone());
        let thread = std::thread::spawn(move || {
            place.inside(|| {
                std::thread::scope(|scope| {
                    while !own_ends.load(Ordering::Relaxed) {
                        // Each on a thread of its own: those that are not answered do not keep the next from being asked.
                        scope.spawn(|| {
                            let began = world::clock::monotonic();
                            let by = ask();
                            let ended = world::clock::monotonic();
                            let mut all = own_requests.lock().unwrap_or_else(PoisonError::into_inner);
                            all.push(Request { began, ended, by });
                        });
                        std::thread::sleep(ASK_EVERY);
                    }
                });
            });
        });
        Client { ends, requests, thread }
    }

    pub(super) fn stop(self) -> Vec<Request> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only asks");
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One request on a connection of its own; which machine answered.
fn ask() -> Option<usize> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((FLOATING, PORT)), ANSWER_MAX).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    stream.write_all(b"?").ok()?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer).ok()?.parse().ok()
}
