//! The versioned key space as a pure machine: keys now, the history of changes, leases. A command in, a reply
//! out; no clock, no IO, the same on every member.
//!
//! The model is etcd's: each transaction that changes something is one revision, the first is 2 (an empty space
//! is at 1), and the history is kept from some revision on. Here it is compacted by itself, by count and bytes.

use crate::command::{Command, Refusal, Reply};
use crate::txn::{Compare, Leasing, Nested, Operation, Outcome, Relation, Target};
use crate::watch::Keys;
use crate::{CLIENTS, Committed, Entry, Event, Listing, Range};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// How much a space may hold. The same on every member of a group, since it decides what is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) live_bytes: usize,
    /// Of them under [`crate::CLIENTS`].
    pub(crate) clients_bytes: usize,
    pub(crate) leases: usize,
    /// What a transaction may read of ranges.
    pub(crate) answer_bytes: usize,
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

/// A change as the history keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) event: Event,
    /// Which change of the key came before; 0 where there was none or it is not known.
    pub(crate) prior_revision: u64,
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
    pub(crate) history: VecDeque<Recorded>,
    pub(crate) leases: BTreeMap<u64, Lease>,
    pub(crate) dirty: Dirty,
    live_bytes: usize,
    clients_bytes: usize,
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
            clients_bytes: 0,
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
            state.take_room(&key, cost(&key, &entry.value));
            let Entry { value, create_revision, mod_revision, version, lease, .. } = entry;
            state.live.insert(key, Stored { value, create_revision, mod_revision, version, lease });
        }
        let mut latest = HashMap::new();
        for event in history {
            state.history_bytes += event_cost(&event);
            let prior_revision = latest.insert(event.key.clone(), event.revision).unwrap_or(0);
            state.history.push_back(Recorded { event, prior_revision });
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

    /// Everything but what is kept for others.
    pub(crate) fn list_own(&self) -> Listing {
        let after = CLIENTS.replace('/', "0");
        let before = self.live.range::<str, _>((Bound::Unbounded, Bound::Excluded(CLIENTS)));
        let own = before.chain(self.live.range::<str, _>((Bound::Included(after.as_str()), Bound::Unbounded)));
        Listing { revision: self.revision, entries: own.map(|(key, stored)| stored.entry(key)).collect() }
    }

    /// At most about `events_max` events of `keys` from revision `from` on, whole revisions only, and the
    /// revision to continue from. `Err` holds the oldest revision that can be asked for.
    pub(crate) fn events(&self, keys: &Keys, from: u64, events_max: usize) -> Result<(Vec<&Recorded>, u64), u64> {
        if from <= self.compacted {
            return Err(self.compacted + 1);
        }
        let start = self.history.partition_point(|recorded| recorded.event.revision < from);
        let mut found = Vec::new();
        let mut last = None;
        for recorded in self.history.range(start..) {
            let Event { key, revision, .. } = &recorded.event;
            if found.len() >= events_max && last != Some(*revision) {
                return Ok((found, *revision));
            }
            last = Some(*revision);
            if keys.has(key) {
                found.push(recorded);
            }
        }
        Ok((found, from.max(self.revision + 1)))
    }

    /// What the keys and the history take in memory, roughly.
    pub(crate) fn sizes_bytes(&self) -> (usize, usize) {
        (self.live_bytes, self.history_bytes)
    }

    pub(crate) fn clients_bytes(&self) -> usize {
        self.clients_bytes
    }

    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::Commit { compares, success, failure } => self.commit(&compares, success, failure),
            Command::Grant { id, ttl_ms } => {
                if id == 0 || self.leases.contains_key(&id) {
                    return Reply::Refused(Refusal::LeaseExists { id });
                }
                if self.leases.len() >= self.limits.leases {
                    return Reply::Refused(Refusal::SpaceFull);
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
        let decided = self.decide(compares, success, failure);
        if let Some(refusal) = self.refuses(&decided) {
            return Reply::Refused(refusal);
        }
        let committed = self.perform(decided, self.revision + 1);
        self.compact();
        Reply::Committed(committed)
    }

    /// Which branches are taken, of all that is nested too: decided before the first change, as etcd does.
    fn decide(&self, compares: &[Compare], success: Vec<Operation>, failure: Vec<Operation>) -> Decided {
        let succeeded = compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { success } else { failure };
        let steps = branch.into_iter().map(|operation| match operation {
            Operation::Nested(nested) => {
                let Nested { compares, success, failure } = *nested;
                Step::Nested(self.decide(&compares, success, failure))
            }
            operation @ (Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::DeletePrefix { .. }
            | Operation::Get { .. }
            | Operation::List { .. }
            | Operation::Range { .. }
            | Operation::DeleteRange { .. }
            | Operation::Replace { .. }) => Step::Do(operation),
        });
        Decided { succeeded, steps: steps.collect() }
    }

    fn perform(&mut self, decided: Decided, revision: u64) -> Committed {
        let (mut replies, mut outcomes) = (Vec::new(), Vec::new());
        for step in decided.steps {
            let operation = match step {
                Step::Nested(nested) => {
                    outcomes.push(Outcome::Nested(self.perform(nested, revision)));
                    continue;
                }
                Step::Do(operation) => operation,
            };
            match operation {
                Operation::Put { key, value, lease } => self.put(key.into(), value, lease, revision),
                Operation::Delete { key } => self.delete(&key, revision),
                Operation::DeletePrefix { prefix } => {
                    let keys = self.under(&prefix).map(|(key, _)| Arc::clone(key)).collect::<Vec<_>>();
                    keys.iter().for_each(|key| self.delete(key, revision));
                }
                Operation::Get { key } => replies.push(self.get(&key).into_iter().collect()),
                Operation::List { prefix } => replies.push(self.list(&prefix).entries),
                Operation::Range { range, limit } => outcomes.push(self.ranged(&range, limit)),
                Operation::DeleteRange { range, tell } => {
                    let keys = self.live.range::<str, _>(range.bounds()).map(|(key, _)| Arc::clone(key));
                    let keys = keys.collect::<Vec<_>>();
                    let before = keys.iter().filter(|_| tell).filter_map(|key| self.get(key)).collect();
                    keys.iter().for_each(|key| self.delete(key, revision));
                    outcomes.push(Outcome::Changed { count: keys.len() as u64, before });
                }
                Operation::Replace { key, value, lease, tell } => {
                    outcomes.push(self.replace(key, value, lease, tell, revision));
                }
                // Decided above.
                Operation::Nested(_) => {}
            }
        }
        Committed { succeeded: decided.succeeded, revision: self.revision, replies, outcomes }
    }

    /// What a transaction that changes nothing would answer now.
    pub(crate) fn look(
        &self,
        compares: &[Compare],
        success: Vec<Operation>,
        failure: Vec<Operation>,
    ) -> Result<Committed, Refusal> {
        let decided = self.decide(compares, success, failure);
        self.refuses(&decided).map_or(Ok(()), Err)?;
        self.read(decided)
    }

    fn read(&self, decided: Decided) -> Result<Committed, Refusal> {
        let (mut replies, mut outcomes) = (Vec::new(), Vec::new());
        for step in decided.steps {
            match step {
                Step::Nested(nested) => outcomes.push(Outcome::Nested(self.read(nested)?)),
                Step::Do(Operation::Get { key }) => replies.push(self.get(&key).into_iter().collect()),
                Step::Do(Operation::List { prefix }) => replies.push(self.list(&prefix).entries),
                Step::Do(Operation::Range { range, limit }) => outcomes.push(self.ranged(&range, limit)),
                Step::Do(
                    Operation::Put { .. }
                    | Operation::Delete { .. }
                    | Operation::DeletePrefix { .. }
                    | Operation::DeleteRange { .. }
                    | Operation::Replace { .. }
                    | Operation::Nested(_),
                ) => return Err(Refusal::Malformed),
            }
        }
        Ok(Committed { succeeded: decided.succeeded, revision: self.revision, replies, outcomes })
    }

    fn ranged(&self, range: &Range, limit: usize) -> Outcome {
        let all = self.live.range::<str, _>(range.bounds());
        let entries = all.clone().take(limit).map(|(key, stored)| stored.entry(key)).collect();
        Outcome::Ranged { entries, count: all.count() as u64 }
    }

    fn replace(&mut self, key: String, value: Option<Arc<[u8]>>, lease: Leasing, tell: bool, revision: u64) -> Outcome {
        let before = self.get(&key);
        let value = value.or_else(|| before.as_ref().map(|before| Arc::clone(&before.value)));
        let lease = match lease {
            Leasing::Set(lease) => lease,
            Leasing::Keep => before.as_ref().and_then(|before| before.lease),
        };
        self.put(key.into(), value.unwrap_or_default(), lease, revision);
        Outcome::Changed { count: u64::from(before.is_some()), before: before.into_iter().filter(|_| tell).collect() }
    }

    /// Whether a branch cannot happen: decided before its first change, since it happens whole or not at all.
    fn refuses(&self, decided: &Decided) -> Option<Refusal> {
        let mut grows = Growth::default();
        if let Some(refusal) = self.refuses_one(decided, &mut grows) {
            return Some(refusal);
        }
        let is_full = grows.bytes > 0 && self.live_bytes + grows.bytes > self.limits.live_bytes;
        let is_clients_full =
            grows.clients_bytes > 0 && self.clients_bytes + grows.clients_bytes > self.limits.clients_bytes;
        if is_full || is_clients_full {
            return Some(Refusal::SpaceFull);
        }
        (grows.answer_bytes > self.limits.answer_bytes).then_some(Refusal::AnswerTooLarge)
    }

    fn refuses_one(&self, decided: &Decided, grows: &mut Growth) -> Option<Refusal> {
        for step in &decided.steps {
            let operation = match step {
                Step::Nested(nested) => match self.refuses_one(nested, grows) {
                    None => continue,
                    refusal => return refusal,
                },
                Step::Do(operation) => operation,
            };
            match operation {
                Operation::Put { key, value, lease } => {
                    if let Some(id) = lease.filter(|id| !self.leases.contains_key(id)) {
                        return Some(Refusal::LeaseNotFound { id });
                    }
                    grows.put(key, value);
                }
                Operation::Replace { key, value, lease, tell } => {
                    let stored = self.live.get(key.as_str());
                    if stored.is_none() && (value.is_none() || *lease == Leasing::Keep) {
                        return Some(Refusal::KeyNotFound);
                    }
                    if let Leasing::Set(Some(id)) = lease
                        && !self.leases.contains_key(id)
                    {
                        return Some(Refusal::LeaseNotFound { id: *id });
                    }
                    grows.put(key, value.as_deref().unwrap_or_default());
                    grows.answer_bytes += stored.filter(|_| *tell).map_or(0, |stored| cost(key, &stored.value));
                }
                Operation::Range { range, limit } => self.tells(range, *limit, grows),
                Operation::DeleteRange { range, tell: true } => self.tells(range, usize::MAX, grows),
                Operation::DeleteRange { tell: false, .. }
                | Operation::Delete { .. }
                | Operation::DeletePrefix { .. }
                | Operation::Get { .. }
                | Operation::List { .. }
                | Operation::Nested(_) => {}
            }
        }
        None
    }

    /// Adds what is told of a range. Past the bound it is refused, however much more there is.
    fn tells(&self, range: &Range, limit: usize, grows: &mut Growth) {
        for (key, stored) in self.live.range::<str, _>(range.bounds()).take(limit) {
            if grows.answer_bytes > self.limits.answer_bytes {
                return;
            }
            grows.answer_bytes += cost(key, &stored.value);
        }
    }

    /// Whether so many entries of each range come to more than `bytes_max` together.
    pub(crate) fn has_more_bytes(&self, told: &[(Range, usize)], bytes_max: usize) -> bool {
        let mut bytes = 0;
        let mut all = told.iter().flat_map(|(range, limit)| self.live.range::<str, _>(range.bounds()).take(*limit));
        all.any(|(key, stored)| {
            bytes += cost(key, &stored.value);
            bytes > bytes_max
        })
    }

    /// Whether ranges hold more than `max` keys together, a key counted as often as it is in one.
    pub(crate) fn has_more(&self, ranges: &[Range], max: usize) -> bool {
        ranges.iter().flat_map(|range| self.live.range::<str, _>(range.bounds())).nth(max).is_some()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let Some(end) = &compare.end else {
            return holds(compare, self.live.get(compare.key.as_str()));
        };
        let range = Range { start: compare.key.clone(), end: end.clone() };
        let mut all = self.live.range::<str, _>(range.bounds()).map(|(_, stored)| stored).peekable();
        if all.peek().is_none() { holds(compare, None) } else { all.all(|stored| holds(compare, Some(stored))) }
    }

    fn put(&mut self, key: Arc<str>, value: Arc<[u8]>, lease: Option<u64>, revision: u64) {
        let before = self.live.get(&key);
        let create_revision = before.map_or(revision, |stored| stored.create_revision);
        let version = before.map_or(1, |stored| stored.version + 1);
        let (before_lease, before_bytes) = before.map_or((None, 0), |stored| (stored.lease, cost(&key, &stored.value)));
        let prior_revision = before.map_or(0, |stored| stored.mod_revision);
        if before_lease != lease {
            self.unbind(&key, before_lease);
            if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
                lease.keys.insert(Arc::clone(&key));
            }
        }
        self.give_room(&key, before_bytes);
        self.take_room(&key, cost(&key, &value));
        let event = Event {
            key: key.as_ref().to_owned(),
            value: Some(Arc::clone(&value)),
            revision,
            create_revision,
            version,
            lease,
        };
        self.record(&key, Recorded { event, prior_revision });
        self.live.insert(key, Stored { value, create_revision, mod_revision: revision, version, lease });
    }

    fn delete(&mut self, key: &str, revision: u64) {
        let Some((key, stored)) = self.live.remove_entry(key) else { return };
        self.give_room(&key, cost(&key, &stored.value));
        self.unbind(&key, stored.lease);
        let event =
            Event { key: key.as_ref().to_owned(), value: None, revision, create_revision: 0, version: 0, lease: None };
        self.record(&key, Recorded { event, prior_revision: stored.mod_revision });
    }

    fn take_room(&mut self, key: &str, bytes: usize) {
        self.live_bytes += bytes;
        if key.starts_with(CLIENTS) {
            self.clients_bytes += bytes;
        }
    }

    fn give_room(&mut self, key: &str, bytes: usize) {
        self.live_bytes -= bytes;
        if key.starts_with(CLIENTS) {
            self.clients_bytes -= bytes;
        }
    }

    fn unbind(&mut self, key: &str, lease: Option<u64>) {
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    fn record(&mut self, key: &Arc<str>, recorded: Recorded) {
        self.revision = recorded.event.revision;
        self.dirty.keys.insert(Arc::clone(key));
        self.history_bytes += event_cost(&recorded.event);
        self.history.push_back(recorded);
    }

    /// Forgets the oldest revisions, each whole, until the history keeps its bounds.
    fn compact(&mut self) {
        while self.history.len() > self.limits.history_events || self.history_bytes > self.limits.history_bytes {
            let Some(oldest) = self.history.front().map(|recorded| recorded.event.revision) else { return };
            self.compacted = oldest;
            while let Some(recorded) = self.history.pop_front_if(|recorded| recorded.event.revision == oldest) {
                self.history_bytes -= event_cost(&recorded.event);
            }
        }
    }

    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Stored)> {
        self.live
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

fn holds(compare: &Compare, stored: Option<&Stored>) -> bool {
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

/// A transaction whose branches are chosen.
struct Decided {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Do(Operation),
    Nested(Decided),
}

/// What a transaction takes at most.
#[derive(Default)]
struct Growth {
    bytes: usize,
    clients_bytes: usize,
    answer_bytes: usize,
}

impl Growth {
    fn put(&mut self, key: &str, value: &[u8]) {
        self.bytes += cost(key, value);
        if key.starts_with(CLIENTS) {
            self.clients_bytes += cost(key, value);
        }
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD_BYTES
}

fn event_cost(event: &Event) -> usize {
    cost(&event.key, event.value.as_deref().unwrap_or_default())
}
