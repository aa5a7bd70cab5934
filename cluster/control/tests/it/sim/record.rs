//! What is written down of a run: every call and its answer, every change every machine told of, every fault; and all of it once
//! more as one number, which is the same for the same seed.

use crate::sim::linear::{Call, Operation, Outcome};
use control::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// A key and what it was changed to.
pub(crate) type Change = (String, Option<Vec<u8>>);

/// A call as its client made it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) family: usize,
    pub(crate) call: Call,
    /// The revision of a transaction that was acknowledged.
    pub(crate) revision: Option<u64>,
    pub(crate) said: String,
}

/// A lease that was granted or renewed, and when whoever did it began to ask.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    pub(crate) key: String,
    pub(crate) asked_ms: u64,
    pub(crate) ttl_ms: u64,
}

#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) calls: Vec<Told>,
    /// By revision: when it was first heard of, and what changed.
    pub(crate) changes: BTreeMap<u64, (u64, Vec<Change>)>,
    pub(crate) renewals: Vec<Renewal>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<String>,
    pub(crate) skipped: u64,
    pub(crate) trace: u64,
    followed: BTreeMap<u64, u64>,
    order: u64,
    tells: bool,
}

/// Clones are the same record.
#[derive(Clone)]
pub(crate) struct Record {
    started: tokio::time::Instant,
    state: Arc<Mutex<Recorded>>,
}

impl Record {
    /// `tells`: every line is printed as well.
    pub(crate) fn new(tells: bool) -> Self {
        // FNV-1a's beginning.
        let recorded = Recorded { trace: 0xcbf2_9ce4_8422_2325, tells, ..Recorded::default() };
        Self { started: tokio::time::Instant::now(), state: Arc::new(Mutex::new(recorded)) }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn read(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().expect("writing down never panics")
    }

    fn note(&self, recorded: &mut Recorded, line: &str) {
        let line = format!("{:>9} {line}", self.now_ms());
        for byte in line.bytes().chain([b'\n']) {
            recorded.trace = (recorded.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if recorded.tells {
            println!("{line}");
        }
    }

    pub(crate) fn fault(&self, kind: &'static str, detail: &str) {
        let mut recorded = self.read();
        *recorded.faults.entry(kind).or_default() += 1;
        self.note(&mut recorded, &format!("fault {kind} {detail}"));
    }

    pub(crate) fn say(&self, line: &str) {
        let mut recorded = self.read();
        self.note(&mut recorded, line);
    }

    pub(crate) fn violated(&self, what: String) {
        let mut recorded = self.read();
        self.note(&mut recorded, &format!("VIOLATED {what}"));
        recorded.violations.push(what);
    }

    pub(crate) fn is_violated(&self) -> bool {
        !self.read().violations.is_empty()
    }

    /// A call begins; returns its number.
    pub(crate) fn called(&self, client: usize, node: u64, family: usize, operation: Operation) -> usize {
        let mut recorded = self.read();
        recorded.order += 1;
        let (called, number) = (recorded.order, recorded.calls.len());
        let said = format!("call {number} client {client} at {node} family {family} {operation:?}");
        self.note(&mut recorded, &said);
        let call = Call { operation, called, answered: None };
        recorded.calls.push(Told { family, call, revision: None, said });
        number
    }

    /// A call was answered.
    pub(crate) fn answered(&self, number: usize, outcome: Outcome, revision: Option<u64>) {
        let mut recorded = self.read();
        recorded.order += 1;
        let order = recorded.order;
        self.note(&mut recorded, &format!("answer {number} {outcome:?} {revision:?}"));
        let told = &mut recorded.calls[number];
        told.call.answered = Some((order, outcome));
        told.revision = revision;
    }

    /// A call did not happen, or nobody knows whether it did.
    pub(crate) fn failed(&self, number: usize, happened_maybe: bool, why: &str) {
        let mut recorded = self.read();
        self.note(&mut recorded, &format!("failed {number} maybe {happened_maybe} {why}"));
        if !happened_maybe {
            recorded.order += 1;
            // Nothing was done and nothing was read.
            let order = recorded.order;
            recorded.calls[number].call.operation = Operation::default();
            recorded.calls[number].call.answered = Some((order, Outcome { succeeded: true, read: Vec::new() }));
        }
    }

    pub(crate) fn renewed(&self, renewal: Renewal) {
        let mut recorded = self.read();
        self.note(&mut recorded, &format!("renewed {renewal:?}"));
        recorded.renewals.push(renewal);
    }

    /// Up to which revision a machine's watches have told of everything.
    pub(crate) fn followed(&self, node: u64) -> u64 {
        self.read().followed.get(&node).copied().unwrap_or(1)
    }

    /// A watch was told that what it missed is gone.
    pub(crate) fn skipped(&self, node: u64, to: u64) {
        let mut recorded = self.read();
        recorded.skipped += 1;
        self.note(&mut recorded, &format!("watch {node} skips to {to}"));
        recorded.followed.insert(node, to);
    }

    /// A machine's watch told of changes: each revision once, in order, whole, and the same as everywhere.
    pub(crate) fn happened(&self, node: u64, events: Vec<Event>) {
        let now = self.now_ms();
        let mut by_revision = BTreeMap::<u64, Vec<Change>>::new();
        let mut last = self.followed(node);
        for event in events {
            let follows = event.revision == last + 1 || (event.revision == last && by_revision.contains_key(&last));
            if !follows {
                self.violated(format!("the watch at {node} tells of revision {} after {last}", event.revision));
            }
            last = event.revision;
            let change = (event.key, event.value.map(|value| value.to_vec()));
            by_revision.entry(last).or_default().push(change);
        }
        let mut recorded = self.read();
        for (revision, changes) in by_revision {
            self.note(&mut recorded, &format!("watch {node} {revision} {changes:?}"));
            let (_, known) = recorded.changes.entry(revision).or_insert_with(|| (now, changes.clone()));
            if *known != changes {
                let what = format!("revision {revision} is {changes:?} at {node}, was {known:?}");
                recorded.violations.push(what);
            }
        }
        recorded.followed.insert(node, last);
    }
}
