//! What is to be written down of runs, until the machine's node has written it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use wire::run::RunRecord;

/// What a node that is being replaced leaves unwritten at most; after that the oldest is lost, and the log says so.
const WAITING_MAX: usize = 10_000;
/// How long the record of a beginning waits for that of its end, which says all of it: most programs end within this. The node
/// knows of it meanwhile, since it gave the order.
const TOGETHER: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct Records {
    waiting: Mutex<Waiting>,
    pub(super) more: Notify,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<(u64, RunRecord)>,
    last: u64,
    /// Beginnings, with when each is to be told of.
    begun: VecDeque<(Instant, RunRecord)>,
}

impl Waiting {
    fn number(&mut self, record: RunRecord) {
        self.last += 1;
        self.records.push_back((self.last, record));
        if self.records.len() > WAITING_MAX
            && let Some((_, lost)) = self.records.pop_front()
        {
            tracing::warn!(run = lost.id, "what became of a run could not be recorded: no node took it");
        }
    }
}

impl Records {
    pub(super) fn begun(&self, record: RunRecord) {
        self.waiting().begun.push_back((world::clock::monotonic() + TOGETHER, record));
        self.more.notify_one();
    }

    pub(super) fn ended(&self, record: RunRecord) {
        let mut waiting = self.waiting();
        waiting.begun.retain(|(_, begun)| begun.id != record.id);
        waiting.number(record);
        drop(waiting);
        self.more.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next beginning is to be told of.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting().begun.front().map(|(due, _)| *due)
    }

    pub(super) fn kept(&self, number: u64) {
        let mut waiting = self.waiting();
        while waiting.records.front().is_some_and(|(first, _)| *first <= number) {
            waiting.records.pop_front();
        }
    }

    /// The first after `number`.
    pub(super) fn after(&self, number: u64) -> Option<(u64, RunRecord)> {
        let mut waiting = self.waiting();
        let now = world::clock::monotonic();
        while waiting.begun.front().is_some_and(|(due, _)| *due <= now) {
            let due = waiting.begun.pop_front();
            due.into_iter().for_each(|(_, record)| waiting.number(record));
        }
        let index = waiting.records.partition_point(|(known, _)| *known <= number);
        waiting.records.get(index).cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting();
        waiting.records.is_empty() && waiting.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> RunRecord {
        RunRecord { id: id.to_owned(), ..RunRecord::default() }
    }

    fn told(records: &Records, after: u64) -> Vec<(u64, String)> {
        let all = std::iter::successors(records.after(after), |(last, _)| records.after(*last));
        all.map(|(number, record)| (number, record.id)).collect()
    }

    #[test]
    fn what_ends_at_once_is_told_of_once() {
        let records = Records::default();
        records.begun(record("short"));
        records.begun(record("long"));
        records.ended(record("short"));
        assert_eq!(told(&records, 0), [(1, "short".to_owned())]);
        let due = records.due().expect("a beginning that waits");
        std::thread::sleep(due.saturating_duration_since(world::clock::monotonic()));
        assert_eq!(told(&records, 1), [(2, "long".to_owned())]);
        assert!(records.due().is_none());
        records.ended(record("long"));
        records.kept(2);
        assert_eq!(told(&records, 0), [(3, "long".to_owned())]);
        records.kept(3);
        assert!(records.is_empty());
    }
}
