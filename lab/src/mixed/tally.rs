//! What became of requests, and which failures a killed instance excuses.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From the moment an instance is killed until what was at it has ended: its sockets close with its last process.
const DYING: Duration = Duration::from_millis(500);
/// Kept with their causes; a drill with more has told enough.
const FAILURES_MAX: usize = 1_000;

/// What a request is, for the count and for what may excuse its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub name: &'static str,
    /// It is sent again by the gateway when an instance breaks off before its answer, so nothing excuses it.
    pub repeatable: bool,
}

struct Failure {
    kind: Kind,
    began: Instant,
    ended: Instant,
    cause: String,
}

#[derive(Default)]
struct Counts {
    well: BTreeMap<Kind, u64>,
    failures: Vec<Failure>,
    kills: Vec<Instant>,
}

/// Of all clients.
pub struct Tally {
    began: Instant,
    counts: Mutex<Counts>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new()
    }
}

impl Tally {
    pub fn new() -> Tally {
        Tally { began: world::clock::monotonic(), counts: Mutex::default() }
    }

    /// Takes in how a request that began then has ended now.
    pub fn ended(&self, kind: Kind, began: Instant, how: Result<(), String>) {
        let mut counts = self.lock();
        match how {
            Ok(()) => *counts.well.entry(kind).or_default() += 1,
            Err(cause) if counts.failures.len() < FAILURES_MAX => {
                counts.failures.push(Failure { kind, began, ended: world::clock::monotonic(), cause });
            }
            Err(_) => {}
        }
    }

    /// An instance is being killed now.
    pub fn kills(&self) {
        self.lock().kills.push(world::clock::monotonic());
    }

    pub fn requests(&self) -> u64 {
        let counts = self.lock();
        counts.well.values().sum::<u64>() + counts.failures.len() as u64
    }

    /// How many of each kind went well.
    pub fn well(&self, name: &str) -> u64 {
        self.lock().well.iter().filter(|(kind, _)| kind.name == name).map(|(_, count)| *count).sum()
    }

    /// Those that nothing excuses, and those that were at an instance when it was killed.
    pub fn failures(&self) -> (Vec<String>, Vec<String>) {
        let counts = self.lock();
        let (mut failures, mut excused) = (Vec::new(), Vec::new());
        for failure in &counts.failures {
            let Failure { kind, began, ended, cause } = failure;
            let was_there = counts.kills.iter().any(|kill| *began <= *kill + DYING && *kill <= *ended);
            let at = began.saturating_duration_since(self.began).as_secs_f64();
            let took = ended.saturating_duration_since(*began).as_secs_f64();
            let line = format!("{} begun at {at:.3} s, after {took:.3} s: {cause}", kind.name);
            if was_there && !kind.repeatable {
                excused.push(line);
            } else {
                failures.push(line);
            }
        }
        (failures, excused)
    }

    /// A line for each kind.
    pub fn lines(&self) -> Vec<String> {
        let (failures, excused) = self.failures();
        let mut lines: Vec<String> =
            self.lock().well.iter().map(|(kind, count)| format!("{:14} {count:9} well", kind.name)).collect();
        lines.push(format!("{:14} {:9}", "failed", failures.len()));
        lines.push(format!("{:14} {:9} that were at an instance when it was killed", "excused", excused.len()));
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
