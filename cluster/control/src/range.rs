//! Ranges of keys, and reading them as they are or as they were.
//!
//! The past is put together from the history that is kept: what a key was before its oldest change there is not known, and
//! said to be gone.

use crate::state::{Recorded, State};
use crate::{Entry, Event};
use std::collections::BTreeMap;
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

/// A range as it is gathered, in the order of its keys.
struct Gathered {
    ranged: Ranged,
    limit: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Gathered {
    /// `entry` is asked for where there is room for it.
    fn add(&mut self, entry: impl FnOnce() -> Result<Entry, RangeError>) -> Result<(), RangeError> {
        self.ranged.count += 1;
        if self.ranged.entries.len() >= self.limit {
            return Ok(());
        }
        let entry = entry()?;
        self.bytes += entry.key.len() + entry.value.len();
        if self.bytes > self.bytes_max {
            return Err(RangeError::TooLarge { max: self.bytes_max });
        }
        self.ranged.entries.push(entry);
        Ok(())
    }
}

impl State {
    /// What `range` holds, at most `limit` entries of it and no more than `bytes_max`.
    pub(crate) fn range(&self, range: &Range, limit: usize, bytes_max: usize) -> Result<Ranged, RangeError> {
        let mut gathered = self.gathered(limit, bytes_max);
        for (key, stored) in self.live.range::<str, _>(range.bounds()) {
            gathered.add(|| Ok(stored.entry(key)))?;
        }
        Ok(gathered.ranged)
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
        let later = self.history.partition_point(|recorded| recorded.event.revision <= revision);
        let mut changed: BTreeMap<&str, &Recorded> = BTreeMap::new();
        for recorded in self.history.range(later..).filter(|recorded| range.contains(&recorded.event.key)) {
            // The first change since says what was there before it.
            changed.entry(&recorded.event.key).or_insert(recorded);
        }
        let mut gathered = self.gathered(limit, bytes_max);
        let was = |gathered: &mut Gathered, first: &Recorded| match first.event.version {
            1 => Ok(()),
            _ => gathered.add(|| self.before(first).ok_or(RangeError::Compacted)),
        };
        let mut changed = changed.into_iter().peekable();
        for (key, stored) in self.live.range::<str, _>(range.bounds()) {
            let mut is_same = true;
            while let Some((other, first)) = changed.next_if(|(other, _)| *other <= key.as_ref()) {
                is_same &= other != key.as_ref();
                was(&mut gathered, first)?;
            }
            if is_same {
                gathered.add(|| Ok(stored.entry(key)))?;
            }
        }
        changed.try_for_each(|(_, first)| was(&mut gathered, first))?;
        Ok(gathered.ranged)
    }

    fn gathered(&self, limit: usize, bytes_max: usize) -> Gathered {
        Gathered {
            ranged: Ranged { revision: self.revision, entries: Vec::new(), count: 0 },
            limit,
            bytes: 0,
            bytes_max,
        }
    }

    /// What a key was before a change of it; `None` where it was not there, and where that is not known any more.
    pub(crate) fn before(&self, recorded: &Recorded) -> Option<Entry> {
        if recorded.event.version == 1 || recorded.prior_revision <= self.compacted {
            return None;
        }
        let of_prior = self.history.partition_point(|other| other.event.revision < recorded.prior_revision);
        let prior = self.history.range(of_prior..).find(|other| other.event.key == recorded.event.key)?;
        put_by(&prior.event)
    }

    /// The latest revision that changed something of Bramble's own; 0 when that is further back than the history.
    pub(crate) fn own_revision(&self) -> u64 {
        let own = self.history.iter().rev().find(|recorded| !recorded.event.key.starts_with(crate::CLIENTS));
        own.map_or(0, |recorded| recorded.event.revision)
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
