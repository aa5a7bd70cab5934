//! The key space on the disk: what a checkpoint writes into the key-value store and what opening reads back.
//!
//! Tables: `entry` by key, `event` by revision and position, `lease` by id, `meta`. A checkpoint is one write of what
//! changed, with the group's mark, so that state and mark always belong together. Version 1 is the first format;
//! there is no predecessor.

use crate::codec::{Malformed, Reader, Writer};
use crate::command::{read_entry, write_entry};
use crate::state::{Limits, State};
use crate::{Entry, Event};
use std::sync::Arc;
use storage::kv::{Change, Kv, KvError, Sync, Table};
use storage::replicated::MachineError;

const VERSION: u64 = 1;

const ENTRIES: Table = Table("entry");
const EVENTS: Table = Table("event");
const LEASES: Table = Table("lease");
const META: Table = Table("meta");

const FORMAT: &[u8] = b"format";
const REVISIONS: &[u8] = b"revisions";
const MARK: &[u8] = b"mark";

/// Why a stored key space could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("open the key space")]
    Store(#[from] KvError),
    #[error("the key space has format version {found}, this program knows version {known}")]
    Version { found: u64, known: u64 },
    #[error("read the key space: {what} in table {table}")]
    Malformed { table: &'static str, what: &'static str },
}

impl LoadError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Store(error) => error.hint(),
            Self::Version { .. } => "run the version of the program that wrote it, or a newer one",
            Self::Malformed { .. } => "restore this machine's data directory or let it join anew",
        }
    }
}

/// What is written, taken at one moment. Content is shared, not copied.
#[derive(Debug)]
pub(crate) struct Delta {
    /// Everything there was is replaced.
    all: bool,
    revision: u64,
    compacted: u64,
    /// `None`: deleted.
    entries: Vec<(Arc<str>, Option<Entry>)>,
    events: Vec<Event>,
    leases: Vec<(u64, Option<u64>)>,
}

impl Delta {
    /// Takes what changed since the last one; the state counts as saved up to here.
    pub(crate) fn take(state: &mut State) -> Self {
        let dirty = std::mem::take(&mut state.dirty);
        let all = dirty.all;
        let keys = if all { state.live.keys().cloned().collect() } else { dirty.keys };
        let leases = if all { state.leases.keys().copied().collect() } else { dirty.leases };
        let since = if all { 0 } else { dirty.saved_revision };
        state.dirty.saved_revision = state.revision;
        let start = state.history.partition_point(|recorded| recorded.event.revision <= since);
        Self {
            all,
            revision: state.revision,
            compacted: state.compacted,
            entries: keys.into_iter().map(|key| (Arc::clone(&key), state.get(&key))).collect(),
            events: state.history.range(start..).map(|recorded| recorded.event.clone()).collect(),
            leases: leases.into_iter().map(|id| (id, state.leases.get(&id).map(|lease| lease.ttl_ms))).collect(),
        }
    }

    /// Writes it durably, all or nothing. Blocks.
    pub(crate) fn write(&self, kv: &Kv, mark: &[u8]) -> Result<(), MachineError> {
        let mut changes = Vec::new();
        if self.all {
            changes.extend([ENTRIES, EVENTS, LEASES].map(|table| Change::Clear { table }));
        }
        for (key, entry) in &self.entries {
            changes.push(change(ENTRIES, key.as_bytes().to_vec(), entry.as_ref().map(entry_bytes)));
        }
        let mut position = (0, 0);
        for event in &self.events {
            position = if position.0 == event.revision { (position.0, position.1 + 1) } else { (event.revision, 0) };
            changes.push(change(EVENTS, event_key(position.0, position.1), Some(event_bytes(event))));
        }
        changes.push(Change::DeleteBefore { table: EVENTS, end: event_key(self.compacted + 1, 0) });
        for (id, ttl_ms) in &self.leases {
            let value = ttl_ms.map(|ttl_ms| ttl_ms.to_be_bytes().to_vec());
            changes.push(change(LEASES, id.to_be_bytes().to_vec(), value));
        }
        let revisions = [self.revision.to_be_bytes(), self.compacted.to_be_bytes()].concat();
        changes.push(change(META, FORMAT.to_vec(), Some(VERSION.to_be_bytes().to_vec())));
        changes.push(change(META, REVISIONS.to_vec(), Some(revisions)));
        changes.push(change(META, MARK.to_vec(), Some(mark.to_vec())));
        kv.write(&changes, Sync::Now).map_err(|error| match error {
            KvError::DiskFull { .. } => MachineError::DiskFull,
            error
            @ (KvError::Failed { .. } | KvError::Io { .. } | KvError::Corrupt { .. } | KvError::Locked { .. }) => {
                MachineError::Failed(Box::new(error))
            }
        })
    }

    /// The whole state as bytes, for another member.
    pub(crate) fn snapshot(state: &State) -> Vec<u8> {
        let mut out = Writer::default();
        out.number(VERSION);
        out.number(state.revision);
        out.number(state.compacted);
        out.count(state.live.len());
        for key in state.live.keys() {
            let entry = state.get(key).expect("a key of the live map is in it");
            write_entry(&mut out, &entry);
        }
        out.count(state.history.len());
        state.history.iter().for_each(|recorded| write_event(&mut out, &recorded.event));
        out.count(state.leases.len());
        for (id, lease) in &state.leases {
            out.number(*id);
            out.number(lease.ttl_ms);
        }
        out.finish()
    }
}

/// The state a snapshot holds. All of it is to be written at the next checkpoint.
pub(crate) fn restored(limits: Limits, bytes: &[u8]) -> Result<State, Malformed> {
    let mut input = Reader::new(bytes);
    if input.number()? != VERSION {
        return Err(Malformed("unknown snapshot version"));
    }
    let revisions = (input.number()?, input.number()?);
    let entries = (0..input.count()?).map(|_| read_entry(&mut input)).collect::<Result<Vec<_>, _>>()?;
    let events = (0..input.count()?).map(|_| read_event(&mut input)).collect::<Result<Vec<_>, _>>()?;
    let leases =
        (0..input.count()?).map(|_| Ok((input.number()?, input.number()?))).collect::<Result<Vec<_>, Malformed>>()?;
    input.end()?;
    let mut state = State::assembled(limits, revisions, entries, events, leases);
    state.dirty.all = true;
    Ok(state)
}

/// The state as last saved, with the group's mark; a new one if nothing was.
pub(crate) fn load(kv: &Kv, limits: Limits) -> Result<(State, Option<Vec<u8>>), LoadError> {
    let Some(format) = kv.get(META, FORMAT)? else {
        let mut state = State::new(limits);
        state.dirty.all = true;
        return Ok((state, None));
    };
    let malformed = |table: Table| move |Malformed(what): Malformed| LoadError::Malformed { table: table.0, what };
    let short = |table: Table| LoadError::Malformed { table: table.0, what: "a number is of the wrong length" };
    let found = number(&format, 0).ok_or_else(|| short(META))?;
    if found != VERSION {
        return Err(LoadError::Version { found, known: VERSION });
    }
    let revisions = kv.get(META, REVISIONS)?.unwrap_or_default();
    let revisions = number(&revisions, 0).zip(number(&revisions, 8)).ok_or_else(|| short(META))?;
    let mut entries = Vec::new();
    for (_, value) in kv.all(ENTRIES)? {
        entries.push(whole(&value, read_entry).map_err(malformed(ENTRIES))?);
    }
    let mut events = Vec::new();
    for (_, value) in kv.all(EVENTS)? {
        events.push(whole(&value, read_event).map_err(malformed(EVENTS))?);
    }
    let mut leases = Vec::new();
    for (key, value) in kv.all(LEASES)? {
        leases.push(number(&key, 0).zip(number(&value, 0)).ok_or_else(|| short(LEASES))?);
    }
    let mut state = State::assembled(limits, revisions, entries, events, leases);
    state.dirty.saved_revision = state.revision;
    Ok((state, kv.get(META, MARK)?))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_be_bytes(*chunk))
}

fn whole<T>(bytes: &[u8], read: fn(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<T, Malformed> {
    let mut input = Reader::new(bytes);
    let value = read(&mut input)?;
    input.end()?;
    Ok(value)
}

fn change(table: Table, key: Vec<u8>, value: Option<Vec<u8>>) -> Change {
    match value {
        Some(value) => Change::Put { table, key, value },
        None => Change::Delete { table, key },
    }
}

fn entry_bytes(entry: &Entry) -> Vec<u8> {
    let mut out = Writer::default();
    write_entry(&mut out, entry);
    out.finish()
}

/// Big-endian, so that events are in the order they happened.
fn event_key(revision: u64, position: u32) -> Vec<u8> {
    [revision.to_be_bytes().as_slice(), &position.to_be_bytes()].concat()
}

fn event_bytes(event: &Event) -> Vec<u8> {
    let mut out = Writer::default();
    write_event(&mut out, event);
    out.finish()
}

fn write_event(out: &mut Writer, event: &Event) {
    out.text(&event.key);
    out.number(event.revision);
    out.number(event.create_revision);
    out.number(event.version);
    out.lease(event.lease);
    out.byte(u8::from(event.value.is_some()));
    out.blob(event.value.as_deref().unwrap_or_default());
}

fn read_event(input: &mut Reader<'_>) -> Result<Event, Malformed> {
    let key = input.text()?;
    let (revision, create_revision, version) = (input.number()?, input.number()?, input.number()?);
    let lease = input.lease()?;
    let put = input.byte()? == 1;
    let value = input.value()?;
    Ok(Event { key, value: put.then_some(value), revision, create_revision, version, lease })
}
