//! The soft space: what machines report about themselves and their instances. In memory only; whoever restarts
//! reports again. Same reading and watching as the durable space, no transactions, no leases.

use crate::board::Board;
use crate::command::{Command, Refusal, Reply};
use crate::state::Limits;
use crate::txn::{Operation, check_key, check_value};
use crate::watch::Keys;
use crate::{Entry, Listing, SpaceError, Watch};
use serde::Serialize;
use std::sync::Arc;

/// Some ten thousand instances' statuses of a kilobyte or two; beyond it something reports without end.
const LIVE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A watcher that sleeps through this many reports had better list again.
const HISTORY_EVENTS_MAX: usize = 4096;
const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;

const LIMITS: Limits = Limits {
    live_bytes: LIVE_BYTES_MAX,
    clients_bytes: 0,
    leases: 0,
    answer_bytes: 0,
    history_events: HISTORY_EVENTS_MAX,
    history_bytes: HISTORY_BYTES_MAX,
};

/// A versioned map of keys in memory. Clones are the same space. Nothing waits, nothing becomes durable.
#[derive(Debug, Clone)]
pub struct Soft {
    board: Arc<Board>,
}

impl Default for Soft {
    fn default() -> Self {
        Self::new()
    }
}

impl Soft {
    pub fn new() -> Self {
        Self { board: Arc::new(Board::new(LIMITS)) }
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.board.read().get(key)
    }

    pub fn list(&self, prefix: &str) -> Listing {
        self.board.read().list(prefix)
    }

    pub fn revision(&self) -> u64 {
        self.board.read().revision
    }

    /// Puts `key` and returns the revision. Putting what is there already changes nothing and wakes nobody, so
    /// a reporter may simply repeat itself.
    ///
    /// # Errors
    /// A key or value beyond its bound, or [`SpaceError::SpaceFull`].
    pub fn put(&self, key: impl Into<String>, value: impl Into<Arc<[u8]>>) -> Result<u64, SpaceError> {
        let (key, value) = (key.into(), value.into());
        check_key(&key)?;
        check_value(&key, &value)?;
        {
            let state = self.board.read();
            if state.live.get(key.as_str()).is_some_and(|stored| stored.value == value) {
                return Ok(state.revision);
            }
        }
        self.apply(Operation::Put { key, value, lease: None })
    }

    /// Puts `value` as JSON.
    ///
    /// # Errors
    /// As [`Soft::put`], or [`SpaceError::NotWritable`].
    pub fn put_json<T: Serialize + ?Sized>(&self, key: impl Into<String>, value: &T) -> Result<u64, SpaceError> {
        let key = key.into();
        let bytes = serde_json::to_vec(value)
            .map_err(|error| SpaceError::NotWritable { key: key.clone(), source: Arc::new(error) })?;
        self.put(key, bytes)
    }

    /// Deletes `key` if it is there and returns the revision.
    pub fn delete(&self, key: &str) -> u64 {
        self.remove(Operation::Delete { key: key.to_owned() })
    }

    /// Deletes every key under `prefix` at one revision: a machine that is gone, with all it reported.
    pub fn delete_prefix(&self, prefix: &str) -> u64 {
        self.remove(Operation::DeletePrefix { prefix: prefix.to_owned() })
    }

    /// Changes under `prefix` from `from_revision` on; 0: from now on. See [`crate::Space::watch`].
    pub fn watch(&self, prefix: &str, from_revision: u64) -> Watch {
        Watch::new(&self.board, Keys::Under(prefix.to_owned()), from_revision)
    }

    /// Ends every watch with [`crate::WatchError::Closed`].
    pub fn close(&self) {
        self.board.close();
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    fn remove(&self, operation: Operation) -> u64 {
        self.apply(operation).expect("a deletion is never refused")
    }

    fn apply(&self, operation: Operation) -> Result<u64, SpaceError> {
        let command = Command::Commit { compares: Vec::new(), success: vec![operation], failure: Vec::new() };
        let reply = self.board.change(|state| {
            let reply = state.apply(command);
            // Nothing is ever saved, so what changed need not be remembered.
            state.dirty = crate::state::Dirty::default();
            reply
        });
        match reply {
            Reply::Committed(committed) => Ok(committed.revision),
            Reply::Refused(Refusal::SpaceFull) => Err(SpaceError::SpaceFull { max: LIVE_BYTES_MAX }),
            Reply::Leased { .. } | Reply::Refused(_) => Err(SpaceError::Protocol("a reply to something else")),
        }
    }
}
