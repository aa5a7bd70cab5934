//! When an instance that stops by itself is sure to have stopped, on a machine that nobody hears any more.
//!
//! A machine has a lease on such instances from who leads (Gray and Cheriton, SOSP 1989): each stops so long after the machine last
//! asked and was answered, by the machine's own clock. Who leads counts the same from when a majority had answered that it still
//! leads, which is later, and longer by what two clocks may differ and by what killing takes. Nothing of the count is written
//! down: who leads newly counts a whole lease first, since whoever led before may have given one. Each side uses its own clock, and
//! the two are never compared.

use std::collections::{BTreeMap, BTreeSet};

/// What killing a box takes at the most: its shim needs the processor, or the kernel does it after 400 ms.
const KILLED_WITHIN_MS: u64 = 1_000;
/// Two clocks that are slewed run apart by a thousandth at the most (`adjtimex(2)`: 500 ppm each).
const DRIFT_PER_MILLE: u64 = 1;

/// What who leads counts longer than the holder.
pub fn margin_ms(stop_after_ms: u64) -> u64 {
    // One more, as both sides count in whole ones.
    KILLED_WITHIN_MS + stop_after_ms / 1_000 * DRIFT_PER_MILLE + 1
}

/// Until when a machine that asked at `asked_ms` of its clock may go on, given that it was answered.
pub fn held_until_ms(asked_ms: u64, stop_after_ms: u64) -> u64 {
    asked_ms.saturating_add(stop_after_ms)
}

/// The count of who leads, in one term. Instances are known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    began_ms: u64,
    /// Until when each may be running by what was answered here.
    given: BTreeMap<String, u64>,
    /// Those that get none any more.
    closed: BTreeSet<String>,
}

impl Count {
    /// Of one that leads since now.
    pub fn new(now_ms: u64) -> Count {
        Count { began_ms: now_ms, given: BTreeMap::new(), closed: BTreeSet::new() }
    }

    /// Gives it for an instance that is not closed. `now_ms` is after a majority had answered.
    pub fn give(&mut self, now_ms: u64, instance: &str, stop_after_ms: u64) -> bool {
        if self.closed.contains(instance) {
            return false;
        }
        // What is over says nothing that `began_ms` does not.
        self.given.retain(|_, until_ms| *until_ms > now_ms);
        let until_ms = now_ms.saturating_add(stop_after_ms).saturating_add(margin_ms(stop_after_ms));
        let given = self.given.entry(instance.to_owned()).or_default();
        *given = until_ms.max(*given);
        true
    }

    /// Gives none for it from now on; says from when it is sure to have stopped.
    pub fn close(&mut self, instance: &str, stop_after_ms: u64) -> u64 {
        self.closed.insert(instance.to_owned());
        let of_others = self.began_ms.saturating_add(stop_after_ms).saturating_add(margin_ms(stop_after_ms));
        self.given.get(instance).map_or(of_others, |given| of_others.max(*given))
    }

    /// Opens all but these again.
    pub fn keep_closed(&mut self, is_closed: impl Fn(&str) -> bool) {
        self.closed.retain(|instance| is_closed(instance));
    }
}
