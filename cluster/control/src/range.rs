//! Ranges of keys, and reading them as they are or as they were.
//!
//! The past is put together from the history that is kept: what a key was before its oldest change there is not known, and
//! said to be gone.

use crate::state::State;
use crate::{Entry, Event};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// The keys from `start` on, up to `end` and without it. An `end` at or before `start` holds none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub start: String,
    pub end: String,
}

impl Range {
    /// One key. Nothing is between a key and the same with a zero after it.
    pub fn key(key: impl Into<String>) -> Range {
        let start = key.into();
        let end = format!("{start}\0");
        Range { start, end }
    }

    pub fn contains(&self, key: &str) -> bool {
        self.start.as_str() <= key && key < self.end.as_str()
    }

    /// What every key of the range begins with.
    pub fn prefix(&self) -> &str {
        let same = self.start.bytes().zip(self.end.bytes()).take_while(|(one, other)| one == other).count();
        // The end of one key is a name longer than it.
        let whole = (0..=same).rev().find(|&at| self.start.is_char_boundary(at)).unwrap_or(0);
        &self.start[..whole]
    }

    pub(crate) fn bounds(&self) -> (Bound<&str>, Bound<&str>) {
        // A map refuses a range that ends before it begins.
        let end = self.end.as_str().max(self.start.as_str());
        (Bound::Included(self.start.as_str()), Bound::Excluded(end))
    }
}

/// What a range holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranged {
    /// The latest revision there was when this was read.
    pub revision: u64,
    pub entries: Vec<Entry>,
    /// How many keys the range has, also where fewer entries were wanted.
    pub count: u64,
}

/// Why a range cannot be read as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("what was there at the revision is gone")]
    Compacted,
    #[error("the revision has not been yet")]
    Future,
    #[error("the answer is larger than {max} bytes")]
    TooLarge { max: usize },
}

impl State {
    /// What `range` holds, at most `limit` entries of it and no more than `bytes_max`.
    pub(crate) fn range(&self, range: &Range, limit: usize, bytes_max: usize) -> Result<Ranged, RangeError> {
        let mut ranged = Ranged { revision: self.revision, entries: Vec::new(), count: 0 };
        let mut bytes = 0;
        for (key, stored) in self.live.range::<str, _>(range.bounds()) {
            ranged.count += 1;
            if ranged.entries.len() < limit {
                bytes += key.len() + stored.value.len();
                if bytes > bytes_max {
                    return Err(RangeError::TooLarge { max: bytes_max });
                }
                ranged.entries.push(stored.entry(key));
            }
        }
        Ok(ranged)
    }

    /// As [`State::range`], as it was right after `revision`.
    pub(crate) fn range_at(
        &self,
        range: &Range,
        revision: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Ranged, RangeError> {
        if revision > self.revision {
            return Err(RangeError::Future);
        }
        if revision == self.revision {
            return self.range(range, limit, bytes_max);
        }
        if revision < self.compacted {
            return Err(RangeError::Compacted);
        }
        let later = self.history.partition_point(|event| event.revision <= revision);
        let changed = self.history.range(later..).filter(|event| range.contains(&event.key));
        let changed: BTreeSet<&str> = changed.map(|event| event.key.as_str()).collect();
        let same = self.live.range::<str, _>(range.bounds()).filter(|(key, _)| !changed.contains(key.as_ref()));
        let mut entries: Vec<Entry> = same.map(|(key, stored)| stored.entry(key)).collect();
        for key in changed {
            entries.extend(self.as_of(key, revision).ok_or(RangeError::Compacted)?);
        }
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        let count = entries.len() as u64;
        entries.truncate(limit);
        if entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>() > bytes_max {
            return Err(RangeError::TooLarge { max: bytes_max });
        }
        Ok(Ranged { revision: self.revision, entries, count })
    }

    /// A key that changed after `revision`, as it was then; `Some(None)` when it was not there, `None` when that is not
    /// known any more.
    #[expect(clippy::option_option, reason = "not there and not known are two answers")]
    pub(crate) fn as_of(&self, key: &str, revision: u64) -> Option<Option<Entry>> {
        let later = self.history.partition_point(|event| event.revision <= revision);
        if let Some(event) = self.history.range(..later).rev().find(|event| event.key == key) {
            return Some(put_by(event));
        }
        match self.history.range(later..).find(|event| event.key == key) {
            Some(event) if event.version == 1 => Some(None),
            Some(_) => None,
            None => Some(self.get(key)),
        }
    }

    /// The latest revision that changed something of Bramble's own; 0 when that is further back than the history.
    pub(crate) fn own_revision(&self) -> u64 {
        let own = self.history.iter().rev().find(|event| !event.key.starts_with(crate::CLIENTS));
        own.map_or(0, |event| event.revision)
    }
}

/// The entry that a change made; `None` for a deletion.
fn put_by(event: &Event) -> Option<Entry> {
    let value = Arc::clone(event.value.as_ref()?);
    Some(Entry {
        key: event.key.clone(),
        value,
        create_revision: event.create_revision,
        mod_revision: event.revision,
        version: event.version,
        lease: event.lease,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_its_keys_and_what_they_begin_with() {
        let range = |start: &str, end: &str| Range { start: start.to_owned(), end: end.to_owned() };
        assert_eq!(Range::key("etcd/a").prefix(), "etcd/a");
        assert_eq!(range("etcd/a", "etcd/b").prefix(), "etcd/");
        assert_eq!(range("é", "è").prefix(), "", "never half a character");
        assert!(Range::key("a").contains("a") && !Range::key("a").contains("a\0") && !Range::key("a").contains("b"));
        assert!(!range("b", "a").contains("b") && !range("b", "a").contains("a"));
    }
}
