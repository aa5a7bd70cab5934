//! The durable space's state machine: what a replicated group drives, and what [`crate::Space`] reads.
//!
//! Owns the state in memory and its checkpoints. Promises that the state is the same on every member after
//! the same commands. Knows neither how commands are agreed on nor when a lease is over.

use crate::board::Board;
use crate::command::{Answer, Command, Question, Refusal, Reply};
use crate::leases::Deadlines;
use crate::state::Limits;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use storage::replicated::{Checkpoint, Machine, MachineError};
use tokio::sync::Notify;

/// The state lives in memory: this bounds it well below what an orchestrator may use.
pub(crate) const LIVE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Ten thousand changes are hours of a busy cluster's rollouts; a watcher that missed more lists again.
const HISTORY_EVENTS_MAX: usize = 10_000;
const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) const LIMITS: Limits =
    Limits { live_bytes: LIVE_BYTES_MAX, history_events: HISTORY_EVENTS_MAX, history_bytes: HISTORY_BYTES_MAX };

/// The state machine behind a [`crate::Space`].
#[derive(Debug)]
pub struct Keyspace {
    board: Arc<Board>,
    deadlines: Mutex<Deadlines>,
    /// Rung when a deadline was set or removed.
    leases_changed: Notify,
}

impl Keyspace {
    /// A key space that forgets everything when it is dropped.
    pub fn ephemeral() -> Arc<Self> {
        Arc::new(Self {
            board: Arc::new(Board::new(LIMITS)),
            deadlines: Mutex::default(),
            leases_changed: Notify::new(),
        })
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().expect("changing deadlines never panics")
    }

    pub(crate) fn leases_changed(&self) -> &Notify {
        &self.leases_changed
    }

    /// Takes up the leadership of `term`, or the lack of one.
    pub(crate) fn lead(&self, term: Option<u64>, now: Instant) {
        let state = self.board.read();
        let leases = state.leases.iter().map(|(id, lease)| (*id, lease.ttl_ms));
        self.deadlines().lead(term, leases, now);
    }
}

impl Machine for Keyspace {
    fn apply(&self, _index: u64, command: &[u8]) -> Vec<u8> {
        let Ok(command) = Command::decode(command) else {
            return Reply::Refused(Refusal::Malformed).encode();
        };
        let lease = match &command {
            Command::Grant { id, .. } | Command::Revoke { id } => Some(*id),
            Command::Commit { .. } => None,
        };
        let reply = self.board.change(|state| state.apply(command));
        if let Some(id) = lease {
            let ttl_ms = self.board.read().leases.get(&id).map(|lease| lease.ttl_ms);
            match ttl_ms {
                Some(ttl_ms) => self.deadlines().renew(id, ttl_ms, world::clock::monotonic()),
                None => self.deadlines().forget(id),
            }
            self.leases_changed.notify_one();
        }
        reply.encode()
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let answer = match Question::decode(question) {
            Err(_) => Answer::Malformed,
            Ok(Question::Renew { id }) => {
                let ttl_ms = self.board.read().leases.get(&id).map(|lease| lease.ttl_ms);
                match ttl_ms {
                    None => Answer::LeaseNotFound { id },
                    Some(ttl_ms) => {
                        self.deadlines().renew(id, ttl_ms, world::clock::monotonic());
                        self.leases_changed.notify_one();
                        Answer::Renewed { ttl_ms }
                    }
                }
            }
        };
        answer.encode()
    }

    fn saved(&self) -> Option<Vec<u8>> {
        None
    }

    fn checkpoint(&self) -> Box<dyn Checkpoint> {
        Box::new(Forgotten)
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&self, _mark: &[u8], _snapshot: &[u8]) -> Result<(), MachineError> {
        Ok(())
    }
}

/// The checkpoint of a space that keeps nothing.
struct Forgotten;

impl Checkpoint for Forgotten {
    fn write(self: Box<Self>, _mark: &[u8]) -> Result<(), MachineError> {
        Ok(())
    }
}
