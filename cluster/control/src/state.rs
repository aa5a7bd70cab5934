//! The versioned key space as a pure machine: keys now, the history of changes, leases. A command in, a reply
//! out; no clock, no IO, the same on every member.
//!
//! The model is etcd's: each transaction that changes something is one revision, the first is 2 (an empty space
//! is at 1), and the history is kept from some revision on. Here it is compacted by itself, by count and bytes.

use crate::command::{Command, Refusal, Reply};
use crate::txn::{Compare, Operation, Relation, Target};
use crate::{Committed, Entry, Event, Listing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// How much a space may hold. The same on every member of a group, since it decides what is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) live_bytes: usize,
    pub(crate) history_events: usize,
    pub(crate) history_bytes: usize,
}

/// What one entry or event costs beyond its key and value, roughly: map node, numbers, pointers.
const OVERHEAD_BYTES: usize = 128;

/// A key's content without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: Arc<[u8]>,
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) version: u64,
    pub(crate) lease: Option<u64>,
}

impl Stored {
    pub(crate) fn entry(&self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: Arc::clone(&self.value),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl_ms: u64,
    pub(crate) keys: BTreeSet<Arc<str>>,
}

/// What changed since the last checkpoint, by name; the content is looked up when the checkpoint is taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dirty {
    /// Everything, because nothing is saved or it is not known what.
    pub(crate) all: bool,
    pub(crate) keys: BTreeSet<Arc<str>>,
    pub(crate) leases: BTreeSet<u64>,
    /// Events up to this revision are in a checkpoint.
    pub(crate) saved_revision: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    limits: Limits,
    pub(crate) revision: u64,
    /// Events at this revision and before are gone.
    pub(crate) compacted: u64,
    pub(crate) live: BTreeMap<Arc<str>, Stored>,
    pub(crate) history: VecDeque<Event>,
    pub(crate) leases: BTreeMap<u64, Lease>,
    pub(crate) dirty: Dirty,
    live_bytes: usize,
    history_bytes: usize,
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            revision: 1,
            compacted: 1,
            live: BTreeMap::new(),
            history: VecDeque::new(),
            leases: BTreeMap::new(),
            dirty: Dirty::default(),
            live_bytes: 0,
            history_bytes: 0,
        }
    }

    /// Puts a state together from what was stored, trusting its content but no sum.
    pub(crate) fn assembled(
        limits: Limits,
        (revision, compacted): (u64, u64),
        entries: impl IntoIterator<Item = Entry>,
        history: impl IntoIterator<Item = Event>,
        leases: impl IntoIterator<Item = (u64, u64)>,
    ) -> Self {
        let mut state = Self { revision, compacted, ..Self::new(limits) };
        state.leases.extend(leases.into_iter().map(|(id, ttl_ms)| (id, Lease { ttl_ms, keys: BTreeSet::new() })));
        for entry in entries {
            let key = Arc::<str>::from(entry.key);
            if let Some(lease) = entry.lease.and_then(|id| state.leases.get_mut(&id)) {
                lease.keys.insert(Arc::clone(&key));
            }
            state.live_bytes += cost(&key, &entry.value);
            let Entry { value, create_revision, mod_revision, version, lease, .. } = entry;
            state.live.insert(key, Stored { value, create_revision, mod_revision, version, lease });
        }
        for event in history {
            state.history_bytes += event_cost(&event);
            state.history.push_back(event);
        }
        state
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.live.get(key).map(|stored| stored.entry(key))
    }

    pub(crate) fn list(&self, prefix: &str) -> Listing {
        let entries = self.under(prefix).map(|(key, stored)| stored.entry(key)).collect();
        Listing { revision: self.revision, entries }
    }

    /// At most about `events_max` events under `prefix` from revision `from` on, whole revisions only, and the
    /// revision to continue from. `Err` holds the oldest revision that can be asked for.
    pub(crate) fn events(&self, prefix: &str, from: u64, events_max: usize) -> Result<(Vec<Event>, u64), u64> {
        if from <= self.compacted {
            return Err(self.compacted + 1);
        }
        let start = self.history.partition_point(|event| event.revision < from);
        let mut found = Vec::new();
        let mut last = None;
        for event in self.history.range(start..) {
            if found.len() >= events_max && last != Some(event.revision) {
                return Ok((found, event.revision));
            }
            last = Some(event.revision);
            if event.key.starts_with(prefix) {
                found.push(event.clone());
            }
        }
        Ok((found, from.max(self.revision + 1)))
    }

    /// What the keys and the history take in memory, roughly.
    pub(crate) fn sizes_bytes(&self) -> (usize, usize) {
        (self.live_bytes, self.history_bytes)
    }

    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::Commit { compares, success, failure } => self.commit(&compares, success, failure),
            Command::Grant { id, ttl_ms } => {
                if id == 0 || self.leases.contains_key(&id) {
                    return Reply::Refused(Refusal::LeaseExists { id });
                }
                self.leases.insert(id, Lease { ttl_ms, keys: BTreeSet::new() });
                self.dirty.leases.insert(id);
                Reply::Leased { revision: self.revision }
            }
            Command::Revoke { id } => self.revoke(id),
        }
    }

    fn revoke(&mut self, id: u64) -> Reply {
        let Some(lease) = self.leases.remove(&id) else {
            return Reply::Refused(Refusal::LeaseNotFound { id });
        };
        self.dirty.leases.insert(id);
        let revision = self.revision + 1;
        for key in lease.keys {
            self.delete(&key, revision);
        }
        self.compact();
        Reply::Leased { revision: self.revision }
    }

    fn commit(&mut self, compares: &[Compare], success: Vec<Operation>, failure: Vec<Operation>) -> Reply {
        let succeeded = compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { success } else { failure };
        if let Some(refusal) = self.refuses(&branch) {
            return Reply::Refused(refusal);
        }
        let revision = self.revision + 1;
        let mut replies = Vec::new();
        for operation in branch {
            match operation {
                Operation::Put { key, value, lease } => self.put(key.into(), value, lease, revision),
                Operation::Delete { key } => self.delete(&key, revision),
                Operation::DeletePrefix { prefix } => {
                    let keys = self.under(&prefix).map(|(key, _)| Arc::clone(key)).collect::<Vec<_>>();
                    keys.iter().for_each(|key| self.delete(key, revision));
                }
                Operation::Get { key } => replies.push(self.get(&key).into_iter().collect()),
                Operation::List { prefix } => replies.push(self.list(&prefix).entries),
            }
        }
        self.compact();
        Reply::Committed(Committed { succeeded, revision: self.revision, replies })
    }

    /// Whether a branch cannot happen: decided before its first change, since it happens whole or not at all.
    fn refuses(&self, branch: &[Operation]) -> Option<Refusal> {
        let mut grows_bytes = 0;
        for operation in branch {
            match operation {
                Operation::Put { key, value, lease } => {
                    if let Some(id) = lease.filter(|id| !self.leases.contains_key(id)) {
                        return Some(Refusal::LeaseNotFound { id });
                    }
                    grows_bytes += cost(key, value);
                }
                Operation::Delete { .. }
                | Operation::DeletePrefix { .. }
                | Operation::Get { .. }
                | Operation::List { .. } => {}
            }
        }
        (grows_bytes > 0 && self.live_bytes + grows_bytes > self.limits.live_bytes).then_some(Refusal::SpaceFull)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let stored = self.live.get(compare.key.as_str());
        let number = |read: fn(&Stored) -> u64| stored.map_or(0, read);
        let ordering = match &compare.target {
            Target::ModRevision(wanted) => number(|stored| stored.mod_revision).cmp(wanted),
            Target::CreateRevision(wanted) => number(|stored| stored.create_revision).cmp(wanted),
            Target::Version(wanted) => number(|stored| stored.version).cmp(wanted),
            Target::Lease(wanted) => number(|stored| stored.lease.unwrap_or(0)).cmp(wanted),
            // As in etcd, a value compare with a key that does not exist never holds.
            Target::Value(wanted) => match stored {
                Some(stored) => stored.value.cmp(wanted),
                None => return false,
            },
        };
        match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Less => ordering.is_lt(),
            Relation::Greater => ordering.is_gt(),
        }
    }

    fn put(&mut self, key: Arc<str>, value: Arc<[u8]>, lease: Option<u64>, revision: u64) {
        let before = self.live.get(&key);
        let create_revision = before.map_or(revision, |stored| stored.create_revision);
        let version = before.map_or(1, |stored| stored.version + 1);
        let (before_lease, before_bytes) = before.map_or((None, 0), |stored| (stored.lease, cost(&key, &stored.value)));
        if before_lease != lease {
            self.unbind(&key, before_lease);
            if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
                lease.keys.insert(Arc::clone(&key));
            }
        }
        self.live_bytes = self.live_bytes + cost(&key, &value) - before_bytes;
        self.record(&key, Some(Arc::clone(&value)), revision, (create_revision, version, lease));
        self.live.insert(key, Stored { value, create_revision, mod_revision: revision, version, lease });
    }

    fn delete(&mut self, key: &str, revision: u64) {
        let Some((key, stored)) = self.live.remove_entry(key) else { return };
        self.live_bytes -= cost(&key, &stored.value);
        self.unbind(&key, stored.lease);
        self.record(&key, None, revision, (0, 0, None));
    }

    fn unbind(&mut self, key: &str, lease: Option<u64>) {
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    fn record(
        &mut self,
        key: &Arc<str>,
        value: Option<Arc<[u8]>>,
        revision: u64,
        (create_revision, version, lease): (u64, u64, Option<u64>),
    ) {
        self.revision = revision;
        self.dirty.keys.insert(Arc::clone(key));
        let event = Event { key: key.as_ref().to_owned(), value, revision, create_revision, version, lease };
        self.history_bytes += event_cost(&event);
        self.history.push_back(event);
    }

    /// Forgets the oldest revisions, each whole, until the history keeps its bounds.
    fn compact(&mut self) {
        while self.history.len() > self.limits.history_events || self.history_bytes > self.limits.history_bytes {
            let Some(oldest) = self.history.front().map(|event| event.revision) else { return };
            self.compacted = oldest;
            while let Some(event) = self.history.pop_front_if(|event| event.revision == oldest) {
                self.history_bytes -= event_cost(&event);
            }
        }
    }

    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Stored)> {
        self.live
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD_BYTES
}

fn event_cost(event: &Event) -> usize {
    cost(&event.key, event.value.as_deref().unwrap_or_default())
}
