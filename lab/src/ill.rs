//! The drill of ill instances: one that is slow, one that fails and one that flaps among ten, real processes behind a
//! real node. Tells for each second after the onset which share of requests saw an error, or took more than twice the
//! median of before. `lab ill`.

use crate::node::{self, Node};
use crate::{http, program, wait};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const INSTANCES: usize = 10;
const CLIENTS: usize = 24;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);
/// Looked at before the onset.
const BEFORE: Duration = Duration::from_secs(5);
/// Times the median from which on an answer is late.
const LATE: u32 = 2;

/// One request.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    took: Duration,
    well: bool,
}

/// What a second after the onset came to.
#[derive(Debug, Clone, Copy)]
pub struct Second {
    pub requests: usize,
    pub errors: usize,
    /// Those that were well but late.
    pub late: usize,
}

impl Second {
    pub fn share(&self) -> f64 {
        (self.errors + self.late) as f64 / self.requests.max(1) as f64
    }
}

/// Runs it for so many seconds after the onset; a line for each is told.
pub fn run(seconds: usize, mut tell: impl FnMut(&str)) -> Vec<Second> {
    let moods = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start();
    let port = node::free_port();
    let service = program::service(&format!(
        "ports: ['127.0.0.1:{port}:8000']\ndeploy: {{replicas: {INSTANCES}, update_config: {{monitor: 100ms}}}}"
    ));
    let service =
        service.replace(":/app:ro']", &format!(":/app:ro', '{}:{}:ro']", moods.path().display(), program::MOODS));
    node.deployed("ill", &format!("services:\n  web:\n{service}"));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait::until("it answers", 10, || http::get(to, "/").ok().filter(|answer| answer.status == 200));
    let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            std::thread::spawn(move || client(to, &asked, &stop))
        })
        .collect();
    std::thread::sleep(BEFORE);
    let onset = world::clock::monotonic();
    for (slot, mood) in [("2", "slow"), ("5", "failing"), ("8", "flapping")] {
        std::fs::write(moods.path().join(slot), mood).expect("our own folder takes a file");
    }
    std::thread::sleep(Duration::from_secs(seconds as u64));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().is_ok(), "clients do not panic");
    }
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    judged(&asked, onset, seconds, &mut tell)
}

fn judged(asked: &[Asked], onset: Instant, seconds: usize, tell: &mut impl FnMut(&str)) -> Vec<Second> {
    let mut before: Vec<Duration> = asked.iter().filter(|one| one.at < onset).map(|one| one.took).collect();
    before.sort_unstable();
    let median = before.get(before.len() / 2).copied().unwrap_or_default();
    let late_before = before.iter().filter(|took| **took > median * LATE).count() as f64 / before.len().max(1) as f64;
    tell(&format!(
        "before: {} requests, median {:.2} ms, {:.2} % of them late",
        before.len(),
        median.as_secs_f64() * 1_000.0,
        late_before * 100.0
    ));
    let second = |number: usize| {
        let of_it: Vec<&Asked> =
            asked.iter().filter(|one| one.at >= onset && (one.at - onset).as_secs() == number as u64).collect();
        let errors = of_it.iter().filter(|one| !one.well).count();
        let late = of_it.iter().filter(|one| one.well && one.took > median * LATE).count();
        Second { requests: of_it.len(), errors, late }
    };
    let all: Vec<Second> = (0..seconds).map(second).collect();
    for (number, one) in all.iter().enumerate() {
        tell(&format!(
            "second {:2}: {:6} requests, {:4} errors, {:4} late: {:.2} %",
            number + 1,
            one.requests,
            one.errors,
            one.late,
            one.share() * 100.0
        ));
    }
    all
}

/// Asks again and again over one connection, for as long as that lives.
fn client(to: SocketAddr, asked: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let at = world::clock::monotonic();
        let answer = ask(to, &mut kept);
        let took = at.elapsed();
        if answer.is_err() {
            kept = None;
        }
        let well = answer.is_ok_and(|status| status == 200);
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { at, took, well });
        std::thread::sleep(PAUSE);
    }
}

/// The status of one answer; all of them are short and have a length.
fn ask(to: SocketAddr, kept: &mut Option<TcpStream>) -> std::io::Result<u16> {
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(TcpStream::connect(to)?),
    };
    stream.set_nodelay(true)?;
    stream.write_all(b"GET /paced HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1_024]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if length.is_some_and(|length| body.len() >= length) {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            return status.ok_or_else(|| std::io::ErrorKind::InvalidData.into());
        }
    }
}
