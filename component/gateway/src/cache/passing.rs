//! Addresses whose answers were found not to be for keeping: nobody waits for those, for a while.
//!
//! Varnish calls it hit-for-miss. Without it, requests for an answer that may not be kept would wait for each other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// As long as nobody can say when an answer becomes one for keeping, this is short.
const PASS_MS: u64 = 30_000;
/// More are forgotten, and found out again.
const KNOWN_MAX: usize = 16_384;

/// The addresses, as numbers: one that is taken for another waits for nobody.
#[derive(Default)]
pub(crate) struct Passing {
    hasher: RandomState,
    until_ms: Mutex<HashMap<u64, u64>>,
}

impl Passing {
    pub(crate) fn note(&self, key: &str, now_ms: u64) {
        let mut known = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, until_ms| *until_ms > now_ms);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(self.hasher.hash_one(key), now_ms.saturating_add(PASS_MS));
    }

    pub(crate) fn passes(&self, key: &str, now_ms: u64) -> bool {
        let known = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&self.hasher.hash_one(key)).is_some_and(|until_ms| *until_ms > now_ms)
    }

    /// It turned out to be one for keeping.
    pub(crate) fn forget(&self, key: &str) {
        self.until_ms.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hasher.hash_one(key));
    }
}

#[cfg(test)]
mod tests {
    use super::{KNOWN_MAX, PASS_MS, Passing};

    #[test]
    fn an_address_passes_for_a_while() {
        let passing = Passing::default();
        passing.note("a", 1_000);
        assert!(passing.passes("a", 1_000 + PASS_MS - 1) && !passing.passes("a", 1_000 + PASS_MS));
        assert!(!passing.passes("b", 1_000));
        passing.forget("a");
        assert!(!passing.passes("a", 1_000));
        for number in 0..KNOWN_MAX * 2 {
            passing.note(&number.to_string(), 1_000);
        }
        assert!(passing.until_ms.lock().unwrap().len() <= KNOWN_MAX);
    }
}
