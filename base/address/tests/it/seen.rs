//! Who has an address, looked at on each machine some thousand times a second.

use crate::net::{Net, enter};
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From the first look that found it to the last one before it was found gone: the machine had it for all of that time.
type Span = (Instant, Instant);

struct Machine {
    spans: Arc<Mutex<Vec<Span>>>,
    has: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

pub struct Seen {
    machines: Vec<Machine>,
    ends: Arc<AtomicBool>,
}

const LOOK_EVERY: Duration = Duration::from_micros(200);

impl Seen {
    pub fn start(net: &Net, machines: &[usize], address: &str) -> Seen {
        let ends = Arc::new(AtomicBool::new(false));
        let ip: IpAddr = address.parse().expect("an address");
        let machines = machines.iter().map(|machine| {
            let (spans, has) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
            let (ends, name) = (Arc::clone(&ends), net.name(*machine));
            let (own_spans, own_has) = (Arc::clone(&spans), Arc::clone(&has));
            let thread = std::thread::spawn(move || {
                enter(&name);
                let mut since = None;
                while !ends.load(Ordering::Relaxed) {
                    let now = world::clock::monotonic();
                    let is_here = is_here(ip);
                    let mut spans = own_spans.lock().expect("nobody panics with it");
                    match (is_here, since) {
                        (true, None) => {
                            // It was here at some time after `now`: what is certain begins after the look.
                            let began = world::clock::monotonic();
                            spans.push((began, began));
                            since = Some(began);
                        }
                        (true, Some(began)) => *spans.last_mut().expect("it was pushed") = (began, now.max(began)),
                        (false, _) => since = None,
                    }
                    drop(spans);
                    own_has.store(is_here, Ordering::Relaxed);
                    std::thread::sleep(LOOK_EVERY);
                }
            });
            Machine { spans, has, thread }
        });
        Seen { machines: machines.collect(), ends }
    }

    pub fn wait_for(&self, machine: usize, has: bool) {
        let deadline = world::clock::monotonic() + Duration::from_secs(5);
        while self.machines[machine].has.load(Ordering::Relaxed) != has {
            assert!(world::clock::monotonic() < deadline, "machine {machine} never had it: {has}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the looking: no two machines may have had the address at the same time.
    pub fn never_both(self) {
        self.ends.store(true, Ordering::Relaxed);
        let mut spans = Vec::new();
        for machine in self.machines {
            machine.thread.join().expect("it only looks");
            spans.push(std::mem::take(&mut *machine.spans.lock().expect("nobody panics with it")));
        }
        for (at, one) in spans.iter().enumerate() {
            assert!(!one.is_empty(), "machine {at} never had it");
            for other in &spans[at + 1..] {
                for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    let both = a.1.min(b.1).saturating_duration_since(a.0.max(b.0));
                    assert!(both.is_zero(), "two machines had it for {both:?}");
                }
            }
        }
    }
}

/// A program can listen at an address of its machine only.
fn is_here(ip: IpAddr) -> bool {
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => false,
        Err(error) => panic!("bind to {ip}: {error}"),
    }
}
