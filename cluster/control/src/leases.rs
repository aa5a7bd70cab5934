//! When leases end: a pure machine in the leader's memory. It is told of grants, renewals and time, and says which
//! leases are over. Knows no clock: `now` is handed in.
//!
//! Renewals never reach the disk. What that costs: a new leader, or the same one after a restart, does not know
//! when a lease was last renewed, and gives each its full time again. A lease may so live longer than its time,
//! never shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// The leadership these deadlines belong to.
    term: Option<u64>,
    ends: BTreeMap<u64, Instant>,
    order: BTreeSet<(Instant, u64)>,
    /// Leases whose revocation is on its way, where nobody can call it back.
    ending: BTreeSet<u64>,
}

impl Deadlines {
    /// Takes up a leadership, or the lack of one: in a new term every lease starts anew.
    pub(crate) fn lead(&mut self, term: Option<u64>, leases: impl IntoIterator<Item = (u64, u64)>, now: Instant) {
        if self.term == term {
            return;
        }
        self.term = term;
        self.ends.clear();
        self.order.clear();
        self.ending.clear();
        for (id, ttl_ms) in leases {
            self.renew(id, ttl_ms, now);
        }
    }

    /// Sets the end of a lease, known or not, to `ttl_ms` from `now`; false when it is being ended.
    pub(crate) fn renew(&mut self, id: u64, ttl_ms: u64, now: Instant) -> bool {
        if self.ending.contains(&id) {
            return false;
        }
        self.forget(id);
        let end = now + Duration::from_millis(ttl_ms);
        self.ends.insert(id, end);
        self.order.insert((end, id));
        true
    }

    /// Takes it down that a lease is being ended, if it is still over; from then on it cannot be renewed.
    pub(crate) fn end(&mut self, id: u64, now: Instant) -> bool {
        let is_over = self.ends.get(&id).is_some_and(|end| *end <= now);
        if is_over {
            self.ending.insert(id);
        }
        is_over
    }

    pub(crate) fn forget(&mut self, id: u64) {
        self.ending.remove(&id);
        if let Some(end) = self.ends.remove(&id) {
            self.order.remove(&(end, id));
        }
    }

    /// The leases whose end has come. They stay due until forgotten, so that a failed revocation is repeated.
    pub(crate) fn due(&self, now: Instant) -> Vec<u64> {
        self.order.iter().take_while(|(end, _)| *end <= now).map(|(_, id)| *id).collect()
    }

    /// How long a lease has left; nothing when it is not known, as on a member that does not lead.
    pub(crate) fn left(&self, id: u64, now: Instant) -> Option<Duration> {
        self.ends.get(&id).map(|end| end.saturating_duration_since(now))
    }

    /// When the next lease ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(end, _)| *end)
    }
}
