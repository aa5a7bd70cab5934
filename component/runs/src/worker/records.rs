//! What is to be written down of runs, until the machine's node has written it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;
use wire::run::RunRecord;

/// What a node that is being replaced leaves unwritten at most; after that the oldest is lost, and the log says so.
const WAITING_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Records {
    waiting: Mutex<Waiting>,
    pub(super) more: Notify,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<(u64, RunRecord)>,
    last: u64,
}

impl Records {
    pub(super) fn add(&self, record: RunRecord) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.last += 1;
        let number = waiting.last;
        waiting.records.push_back((number, record));
        if waiting.records.len() > WAITING_MAX
            && let Some((_, lost)) = waiting.records.pop_front()
        {
            tracing::warn!(run = lost.id, "what became of a run could not be recorded: no node took it");
        }
        drop(waiting);
        self.more.notify_one();
    }

    pub(super) fn kept(&self, number: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.records.front().is_some_and(|(first, _)| *first <= number) {
            waiting.records.pop_front();
        }
    }

    /// The first after `number`.
    pub(super) fn after(&self, number: u64) -> Option<(u64, RunRecord)> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let index = waiting.records.partition_point(|(known, _)| *known <= number);
        waiting.records.get(index).cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).records.is_empty()
    }
}
