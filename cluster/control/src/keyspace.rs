//! The durable space's state machine: what a replicated group drives, and what [`crate::Space`] reads.
//!
//! Owns the state in memory and its checkpoints. Promises that the state is the same on every member after
//! the same commands. Knows neither how commands are agreed on nor when a lease is over.

use crate::board::Board;
use crate::codec::Malformed;
use crate::command::{Answer, Command, Question, Refusal, Reply};
use crate::leases::Deadlines;
use crate::saved::{self, Delta, LoadError};
use crate::space::ANSWER_BYTES_MAX;
use crate::state::Limits;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use storage::kv::Kv;
use storage::replicated::{Checkpoint, Machine, MachineError};
use tokio::sync::Notify;
use world::disk::Disk;

/// The state lives in memory: this bounds it well below what an orchestrator may use.
pub(crate) const LIVE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Others may not take the room that stacks and machines need.
pub(crate) const CLIENTS_BYTES_MAX: usize = LIVE_BYTES_MAX / 2;
/// A lease is some hundred bytes and one look a second.
const LEASES_MAX: usize = 50_000;
/// Ten thousand changes are hours of a busy cluster's rollouts; a watcher that missed more lists again.
const HISTORY_EVENTS_MAX: usize = 10_000;
const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The file in a key space's directory.
const STORE: &str = "space.redb";

pub(crate) const LIMITS: Limits = Limits {
    live_bytes: LIVE_BYTES_MAX,
    clients_bytes: CLIENTS_BYTES_MAX,
    leases: LEASES_MAX,
    answer_bytes: ANSWER_BYTES_MAX,
    history_events: HISTORY_EVENTS_MAX,
    history_bytes: HISTORY_BYTES_MAX,
};

/// The state machine behind a [`crate::Space`].
#[derive(Debug)]
pub struct Keyspace {
    board: Arc<Board>,
    deadlines: Mutex<Deadlines>,
    /// Rung when a deadline was set or removed.
    leases_changed: Notify,
    saved: Option<Arc<Saved>>,
}

/// Where checkpoints go, and what they tell the next one.
#[derive(Debug)]
struct Saved {
    kv: Kv,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    mark: Option<Vec<u8>>,
    /// Counts restored snapshots: a checkpoint taken before one must not be written after it.
    generation: u64,
}

impl Saved {
    /// Held while a checkpoint is written: one at a time.
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().expect("writing a checkpoint never panics")
    }
}

impl Keyspace {
    /// Opens the key space kept in `directory`, making it if there is none: the state as of the last checkpoint. What
    /// came after it the group applies again.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Arc<Self>, LoadError> {
        let kv = Kv::open(disk, &directory.join(STORE))?;
        let (state, mark) = saved::load(&kv, LIMITS)?;
        Ok(Arc::new(Self {
            board: Arc::new(Board::holding(state)),
            deadlines: Mutex::default(),
            leases_changed: Notify::new(),
            saved: Some(Arc::new(Saved { kv, last: Mutex::new(Last { mark, generation: 0 }) })),
        }))
    }

    /// A key space that forgets everything when it is dropped.
    pub fn ephemeral() -> Arc<Self> {
        Arc::new(Self {
            board: Arc::new(Board::new(LIMITS)),
            deadlines: Mutex::default(),
            leases_changed: Notify::new(),
            saved: None,
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
                Some(ttl_ms) => {
                    self.deadlines().renew(id, ttl_ms, world::clock::monotonic());
                }
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
                let renewed = |ttl_ms: &u64| self.deadlines().renew(id, *ttl_ms, world::clock::monotonic());
                match ttl_ms.filter(renewed) {
                    None => Answer::LeaseNotFound { id },
                    Some(ttl_ms) => {
                        self.leases_changed.notify_one();
                        Answer::Renewed { ttl_ms }
                    }
                }
            }
            Ok(Question::TimeLeft { id }) => {
                let ttl_ms = self.board.read().leases.get(&id).map(|lease| lease.ttl_ms);
                match ttl_ms {
                    None => Answer::LeaseNotFound { id },
                    Some(ttl_ms) => {
                        let left = self.deadlines().left(id, world::clock::monotonic());
                        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                        // Who leads since a moment ago has not counted yet: the lease has its whole time.
                        Answer::TimeLeft { ttl_ms, left_ms: left_ms.unwrap_or(ttl_ms) }
                    }
                }
            }
        };
        answer.encode()
    }

    fn saved(&self) -> Option<Vec<u8>> {
        self.saved.as_ref()?.last().mark.clone()
    }

    fn checkpoint(&self) -> Box<dyn Checkpoint> {
        let generation = self.saved.as_ref().map_or(0, |saved| saved.last().generation);
        let delta = self.board.change(Delta::take);
        Box::new(Written { delta, generation, board: Arc::clone(&self.board), saved: self.saved.clone() })
    }

    fn snapshot(&self) -> Vec<u8> {
        Delta::snapshot(&self.board.read())
    }

    fn restore(&self, mark: &[u8], snapshot: &[u8]) -> Result<(), MachineError> {
        let state = saved::restored(LIMITS, snapshot).map_err(|Malformed(what)| MachineError::Malformed(what))?;
        if let Some(saved) = &self.saved {
            saved.last().generation += 1;
        }
        self.board.change(|now| *now = state);
        self.leases_changed.notify_one();
        self.checkpoint().write(mark)
    }
}

/// A checkpoint being written.
struct Written {
    delta: Delta,
    generation: u64,
    board: Arc<Board>,
    saved: Option<Arc<Saved>>,
}

impl Checkpoint for Written {
    fn write(self: Box<Self>, mark: &[u8]) -> Result<(), MachineError> {
        let Some(saved) = &self.saved else { return Ok(()) };
        let mut last = saved.last();
        if last.generation != self.generation {
            return Ok(());
        }
        match self.delta.write(&saved.kv, mark) {
            Ok(()) => {
                last.mark = Some(mark.to_vec());
                Ok(())
            }
            Err(error) => {
                // What this one held is not told apart from what came since: the next writes everything.
                self.board.change(|state| state.dirty.all = true);
                Err(error)
            }
        }
    }
}
