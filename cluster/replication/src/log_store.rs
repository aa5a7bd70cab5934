//! openraft's log, over the storage crate's [`Log`](storage::log::Log): entries, the vote, and how far is purged.
//!
//! openraft counts entries from 0, the log from 1. Vote and purged id are the log's note, so that they share its
//! syncs and its checks.
//!
//! A member that leads sends its entries to the others while they are still being written here: two syncs at once instead of one
//! after the other (Ongaro's dissertation, 10.2.1). openraft 0.9 waits for its own disk first, so it is told that an entry is
//! written when its write has begun, and nothing of it is said or done that others could hold on to before it is: it is applied,
//! and others hear that it is committed, once [`LogStore::written_to`] says so. Entries of another leader are written before they
//! are answered for. Who ceases to lead writes a vote first, and with it all that came before.

#![expect(clippy::result_large_err, reason = "openraft's errors are as large as they are")]

use crate::entry;
use crate::lane::Lane;
use crate::types::{Entry, LogId, StorageError, StorageIoError, Types, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, EntryPayload, LogState, OptionalSend, RaftLogReader};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use storage::log::{Batch, Reader};
use world::bell::Bell;

/// Entries kept in memory after they are written: applying them follows at once and need not read the disk.
const RECENT_ENTRIES: usize = 256;
/// And never more than this many bytes of them.
const RECENT_BYTES: usize = 4 * 1024 * 1024;

/// What the group keeps beside the entries. Version 1, the first; there is no predecessor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) version: u32,
    /// Whose log this is.
    pub(crate) node: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
}

pub(crate) const NOTE_VERSION: u32 = 1;

#[derive(Debug, Default)]
struct Memory {
    note: Note,
    last: Option<LogId>,
    recent: VecDeque<(Entry, usize)>,
    recent_bytes: usize,
}

impl Memory {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.recent.push_back((entry, bytes));
        self.recent_bytes += bytes;
    }

    /// Forgets what is written and beyond the bounds; the newest stays, it may be about to be applied.
    fn shrink(&mut self, durable: Option<LogId>) {
        let is_written = |(entry, _): &mut (Entry, usize)| Some(entry.log_id) <= durable;
        while self.recent.len() > 1 && (self.recent.len() > RECENT_ENTRIES || self.recent_bytes > RECENT_BYTES) {
            let Some((_, bytes)) = self.recent.pop_front_if(is_written) else { return };
            self.recent_bytes -= bytes;
        }
    }

    fn recent(&self, index: u64) -> Option<Entry> {
        let first = self.recent.front()?.0.log_id.index;
        let position = usize::try_from(index.checked_sub(first)?).ok()?;
        self.recent.get(position).map(|(entry, _)| entry.clone())
    }

    fn forget_from(&mut self, index: u64) {
        while let Some((_, bytes)) = self.recent.pop_back_if(|(entry, _)| entry.log_id.index >= index) {
            self.recent_bytes -= bytes;
        }
    }
}

/// Clones are the same log.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    lane: Arc<Lane>,
    reader: Reader,
    memory: Arc<Mutex<Memory>>,
    durable: Arc<Bell<Durable>>,
}

/// How far the log is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Durable {
    last: Option<LogId>,
    /// Nothing more will be.
    is_broken: bool,
}

impl LogStore {
    /// Over an open log whose note has been read.
    pub(crate) fn new(lane: Arc<Lane>, reader: Reader, note: Note) -> Result<Self, StorageError> {
        let memory = Arc::new(Mutex::new(Memory { note, ..Memory::default() }));
        let durable = Arc::new(Bell::new(Durable { last: None, is_broken: false }));
        let store = Self { lane, reader, memory, durable };
        let next = store.reader.next();
        let last = if next > store.reader.first() { Some(store.read(next - 2)?.log_id) } else { None };
        let purged = store.memory().note.purged;
        store.memory().last = last.or(purged);
        store.is_written_to(last.or(purged));
        Ok(store)
    }

    fn is_written_to(&self, last: Option<LogId>) {
        self.durable.change(|durable| {
            durable.last = last;
            true
        });
    }

    /// Up to where the log is on the disk.
    pub(crate) fn written(&self) -> Option<LogId> {
        self.durable.listen().value().last
    }

    /// Waits until the entry is on the disk, and all before it.
    pub(crate) async fn written_to(&self, log_id: Option<LogId>) -> Result<(), StorageError> {
        let durable = self.durable.listen().until(|durable| durable.is_broken || durable.last >= log_id).await;
        if durable.last >= log_id {
            return Ok(());
        }
        Err(StorageIoError::write_logs(AnyError::error("the log cannot be written any more")).into())
    }

    /// Whether an entry is this member's own, as who leads now: it has voted for nobody since it was elected.
    fn is_own(&self, log_id: &LogId) -> bool {
        let note = &self.memory().note;
        let elected = note.vote.as_ref().map(|vote| vote.leader_id());
        log_id.leader_id.node_id == note.node
            && elected.is_some_and(|vote| vote.term == log_id.leader_id.term && vote.voted_for() == Some(note.node))
    }

    /// The last entry, written or being written.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.memory().last
    }

    /// The last entry that need not be kept for members that are behind, if the last `bytes` are.
    pub(crate) fn last_before(&self, bytes: u64) -> Option<u64> {
        // openraft counts from 0.
        self.reader.first_of_last(bytes).checked_sub(2)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("keeping the log's memory never panics")
    }

    /// The entry with openraft's `index`.
    fn read(&self, index: u64) -> Result<Entry, StorageError> {
        if let Some(entry) = self.memory().recent(index) {
            return Ok(entry);
        }
        let failed = |error: AnyError| StorageError::from(StorageIoError::read_log_at_index(index, error));
        let bytes = self.reader.read(index + 1).map_err(|error| failed(AnyError::new(&error)))?;
        let entry = entry::decode(&bytes).filter(|entry| entry.log_id.index == index);
        entry.ok_or_else(|| failed(AnyError::error("the entry is of no known format")))
    }

    async fn write_note(&self, note: &Note, mut batch: Batch) -> Result<(), storage::log::LogError> {
        batch.note = Some(serde_json::to_vec(note).expect("numbers are always writable as json"));
        self.lane.written(batch).await
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        // Written and not yet written alike: openraft reads back what it has just handed over.
        let (from, to) = {
            let memory = self.memory();
            (memory.note.purged.map_or(0, |purged| purged.index + 1), memory.last.map_or(0, |last| last.index + 1))
        };
        (first.max(from)..end.min(to)).map(|index| self.read(index)).collect()
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.note.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let note = Note { vote: Some(*vote), ..self.memory().note.clone() };
        let written = self.write_note(&note, Batch::default()).await;
        written.map_err(|error| StorageIoError::write_vote(AnyError::new(&error)))?;
        self.memory().note = note;
        Ok(())
    }

    /// Asked once, at the start. openraft takes a member up as the leader that it was, as far as its checkpoint goes: what it had
    /// acknowledged after that it would not read until something new is written. So a lead ends with the process: to its voter it
    /// is a vote it gave, and it has to be elected again, in a new term, whose first entry commits all before.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let memory = self.memory();
        let own = |vote: &Vote| vote.leader_id().voted_for() == Some(memory.note.node);
        let given = |vote: Vote| if own(&vote) { Vote::new(vote.leader_id().term, memory.note.node) } else { vote };
        Ok(memory.note.vote.map(given))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut batch, mut last) = (Batch::default(), None);
        {
            let mut memory = self.memory();
            for entry in entries {
                let bytes = entry::encode(&entry);
                if let EntryPayload::Normal(commands) = &entry.payload {
                    commands.1.set();
                }
                last = Some(entry.log_id);
                memory.push(entry, bytes.len());
                batch.entries.push(bytes);
            }
        }
        let mut callback = Some(callback);
        if last.as_ref().is_some_and(|last| self.is_own(last))
            && let Some(callback) = callback.take()
        {
            callback.log_io_completed(Ok(()));
        }
        let store = self.clone();
        let done = move |result: Result<(), storage::log::LogError>| {
            match &result {
                Ok(()) => {
                    store.is_written_to(last);
                    store.memory().shrink(last);
                }
                Err(_) => store.durable.change(|durable| {
                    durable.is_broken = true;
                    true
                }),
            }
            if let Some(callback) = callback {
                callback.log_io_completed(result.map_err(io::Error::other));
            }
        };
        self.lane.write(batch, Box::new(done));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let batch = Batch { cut_from: Some(log_id.index + 1), ..Batch::default() };
        self.memory().forget_from(log_id.index);
        let written = self.lane.written(batch).await;
        written.map_err(|error| StorageIoError::write_logs(AnyError::new(&error)))?;
        let last = match log_id.index.checked_sub(1) {
            Some(before) if before + 1 >= self.reader.first() => Some(self.read(before)?.log_id),
            Some(_) | None => self.memory().note.purged,
        };
        self.memory().last = last;
        self.is_written_to(last);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let note = Note { purged: Some(log_id), ..self.memory().note.clone() };
        let batch = Batch { purge_to: Some(log_id.index + 1), ..Batch::default() };
        let written = self.write_note(&note, batch).await;
        written.map_err(|error| StorageIoError::write_logs(AnyError::new(&error)))?;
        let mut memory = self.memory();
        memory.note = note;
        memory.last = memory.last.max(Some(log_id));
        self.durable.change(|durable| {
            durable.last = durable.last.max(Some(log_id));
            true
        });
        if memory.recent.back().is_some_and(|(entry, _)| entry.log_id.index <= log_id.index) {
            memory.forget_from(0);
        }
        Ok(())
    }
}
