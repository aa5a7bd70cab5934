//! openraft's state machine, over a [`Machine`]: what is applied, checkpoints, snapshots.
//!
//! A checkpoint is the machine's own, written in the background; openraft calls it building a snapshot. The bytes of a
//! snapshot are only made when a member needs them.

use crate::log_store::LogStore;
use crate::types::{Entry, LogId, Replies, StorageError, StorageIoError, StoredMembership, Types};
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard};
use storage::replicated::{Checkpoint, Machine};
use tokio::sync::Notify;
use wire::diagnostic::chain;
use world::bell::{Bell, Listener};

/// Commands after which a checkpoint is due, unless a member is told otherwise: replaying as many takes milliseconds.
pub const CHECKPOINT_COMMANDS: u64 = 10_000;
/// Bytes of commands after which a checkpoint is due: two of the log's segments.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// How far a machine is. Version 1, the first; there is no predecessor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) version: u32,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

pub(crate) const MARK_VERSION: u32 = 1;

impl Mark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and lists are always writable as json")
    }

    fn meta(&self) -> SnapshotMeta<u64, openraft::EmptyNode> {
        let snapshot_id = self.applied.map(|applied| applied.to_string()).unwrap_or_default();
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id }
    }
}

#[derive(Debug)]
struct Position {
    mark: Mark,
    /// The mark of the last checkpoint that reached the disk.
    saved: Mark,
    commands: u64,
    bytes: u64,
}

/// Clones are the same machine.
#[derive(Debug, Clone)]
pub(crate) struct MachineStore {
    machine: Arc<dyn Machine>,
    logs: LogStore,
    position: Arc<Mutex<Position>>,
    /// Rung when a checkpoint is due.
    due: Arc<Notify>,
    /// Rung when one is on the disk.
    saved: Arc<Notify>,
    /// After this many commands one is due.
    due_commands: u64,
    /// The index of the last entry applied.
    applied: Arc<Bell<Option<u64>>>,
}

impl MachineStore {
    pub(crate) fn new(machine: Arc<dyn Machine>, logs: LogStore, saved: Mark, due_commands: u64) -> Self {
        let applied = Arc::new(Bell::new(saved.applied.map(|applied| applied.index)));
        let position = Position { mark: saved.clone(), saved, commands: 0, bytes: 0 };
        Self {
            machine,
            logs,
            position: Arc::new(Mutex::new(position)),
            due: Arc::new(Notify::new()),
            saved: Arc::new(Notify::new()),
            due_commands,
            applied,
        }
    }

    /// Tells of the last entry applied.
    pub(crate) fn applied(&self) -> Listener<Option<u64>> {
        self.applied.listen()
    }

    fn tell_applied(&self) {
        let index = self.position().mark.applied.map(|applied| applied.index);
        self.applied.change(|applied| {
            *applied = index;
            true
        });
    }

    pub(crate) fn due(&self) -> Arc<Notify> {
        Arc::clone(&self.due)
    }

    /// Tells of checkpoints that are on the disk, and up to which entry the last one goes.
    pub(crate) fn saved(&self) -> (Arc<Notify>, Option<LogId>) {
        (Arc::clone(&self.saved), self.position().saved.applied)
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().expect("keeping the position never panics")
    }

    fn checkpoint(&self) -> Builder {
        let mut position = self.position();
        position.commands = 0;
        position.bytes = 0;
        Builder { store: self.clone(), taken: Some((self.machine.checkpoint(), position.mark.clone())) }
    }

    /// Writes a last checkpoint, so that the next start replays nothing. Blocks.
    pub(crate) fn save(&self) {
        let (mark, saved) = {
            let position = self.position();
            (position.mark.clone(), position.saved.clone())
        };
        if mark != saved {
            self.written(self.machine.checkpoint(), &mark);
        }
    }

    /// Blocks. A failure is not the group's: the log stays until a later checkpoint succeeds.
    fn written(&self, checkpoint: Box<dyn Checkpoint>, mark: &Mark) {
        match checkpoint.write(&mark.encode()) {
            Ok(()) => {
                let mut position = self.position();
                // A snapshot may have been restored meanwhile.
                if position.saved.applied < mark.applied {
                    position.saved = mark.clone();
                }
                drop(position);
                self.saved.notify_one();
            }
            Err(error) => tracing::warn!(error = chain(&error), "a checkpoint was not written; the log keeps it all"),
        }
    }
}

impl RaftStateMachine<Types> for MachineStore {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let position = self.position();
        Ok((position.mark.applied, position.mark.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            self.logs.written_to(Some(entry.log_id)).await?;
            let (commands, bytes, answers) = match &entry.payload {
                EntryPayload::Blank | EntryPayload::Membership(_) => (0, 0, Vec::new()),
                EntryPayload::Normal(commands) => {
                    let bytes = commands.0.iter().map(Vec::len).sum::<usize>();
                    let apply = |command: &Vec<u8>| self.machine.apply(entry.log_id.index, command);
                    (commands.0.len(), bytes, commands.0.iter().map(apply).collect())
                }
            };
            replies.push(Replies(answers));
            let mut position = self.position();
            position.mark.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                position.mark.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            position.commands += commands as u64;
            position.bytes += bytes as u64;
            if position.commands >= self.due_commands || position.bytes >= CHECKPOINT_BYTES {
                self.due.notify_one();
            }
        }
        self.tell_applied();
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.checkpoint()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::EmptyNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let mark = Mark { version: MARK_VERSION, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        let (machine, encoded) = (Arc::clone(&self.machine), mark.encode());
        let restored = world::task::blocking(move || machine.restore(&encoded, snapshot.get_ref())).await;
        let failed = |error: AnyError| StorageIoError::write_snapshot(Some(meta.signature()), error);
        match restored {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(failed(AnyError::new(&error)).into()),
            None => return Err(failed(AnyError::error("restoring it panicked")).into()),
        }
        let mut position = self.position();
        *position = Position { mark: mark.clone(), saved: mark, commands: 0, bytes: 0 };
        drop(position);
        self.tell_applied();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        // Called between two commands: machine and mark belong together.
        let mark = self.position().mark.clone();
        if mark.applied.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta: mark.meta(), snapshot: Box::new(Cursor::new(self.machine.snapshot())) }))
    }
}

/// A checkpoint under way.
pub(crate) struct Builder {
    store: MachineStore,
    taken: Option<(Box<dyn Checkpoint>, Mark)>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        if let Some((checkpoint, mark)) = self.taken.take() {
            let store = self.store.clone();
            let written = world::task::blocking(move || store.written(checkpoint, &mark)).await;
            written.ok_or_else(|| StorageIoError::write_state_machine(AnyError::error("the checkpoint panicked")))?;
        }
        // After a failed write this is the checkpoint before, which openraft recognises and purges nothing for.
        let saved = self.store.position().saved.clone();
        Ok(Snapshot { meta: saved.meta(), snapshot: Box::default() })
    }
}
