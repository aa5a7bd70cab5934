//! Watches: every change under a prefix from a revision on, each once, in order.
//!
//! A watch has no queue of its own. It remembers the revision up to which it has seen everything and reads on
//! in the shared history, so there is nothing to overflow, to lose or to repeat, and ten thousand watches cost
//! ten thousand numbers. A watcher that is slower than the history is long is told so.

use crate::board::{Board, Progress};
use crate::state::{Recorded, State};
use crate::{Entry, Event, WatchError};
use std::sync::Arc;
use world::bell::Listener;

/// One answer of [`Watch::next`] holds about this many events; a transaction's are never parted.
const BATCH_EVENTS: usize = 256;

/// Which changes are told.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    Under(String),
    /// All but those of [`crate::CLIENTS`].
    Own,
}

impl Keys {
    pub(crate) fn has(&self, key: &str) -> bool {
        match self {
            Keys::Under(prefix) => key.starts_with(prefix),
            Keys::Own => !key.starts_with(crate::CLIENTS),
        }
    }
}

/// Follows the changes of keys. Dropping it is all there is to ending it.
#[derive(Debug)]
pub struct Watch {
    board: Arc<Board>,
    progress: Listener<Progress>,
    keys: Keys,
    /// Everything before this revision has been handed out.
    from_revision: u64,
    started: bool,
}

impl Watch {
    /// `from_revision` 0 means: what comes from now on.
    pub(crate) fn new(board: &Arc<Board>, keys: Keys, from_revision: u64) -> Self {
        let from_revision = if from_revision == 0 { board.read().revision + 1 } else { from_revision };
        let progress = board.listen();
        Self { board: Arc::clone(board), progress, keys, from_revision, started: false }
    }

    /// The next changes, at least one, in the order they happened; changes of one transaction come together.
    ///
    /// May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// [`WatchError`]; the watch is then over: list again and watch from there.
    pub async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        self.found(|_, recorded| recorded.event.clone()).await
    }

    /// As [`Watch::next`], each with what the key was before it; `None` where it was not there, and where that is no longer
    /// known.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn next_with_before(&mut self) -> Result<Vec<(Event, Option<Entry>)>, WatchError> {
        self.found(|state, recorded| (recorded.event.clone(), state.before(recorded))).await
    }

    async fn found<T>(&mut self, told: impl Fn(&State, &Recorded) -> T) -> Result<Vec<T>, WatchError> {
        loop {
            let progress = self.progress.value();
            if progress.closed {
                return Err(WatchError::Closed);
            }
            let found = {
                let state = self.board.read();
                let found = state.events(&self.keys, self.from_revision, BATCH_EVENTS);
                found.map(|(events, from)| {
                    (events.into_iter().map(|event| told(&state, event)).collect::<Vec<_>>(), from)
                })
            };
            match found {
                Err(_) if self.started => return Err(WatchError::Lagged),
                Err(at) => return Err(WatchError::Compacted { at }),
                Ok((events, from_revision)) => {
                    self.from_revision = from_revision;
                    self.started = true;
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
            }
            self.progress.until(|now| *now != progress).await;
        }
    }

    /// The revision the watch will continue from: everything before it has been handed out.
    pub fn position(&self) -> u64 {
        self.from_revision
    }
}
