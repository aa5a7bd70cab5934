//! Where each entry of a log is. In memory only; recovery builds it from the segments. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use world::disk::File;

/// An entry's bytes: which segment, where, and their checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) checksum: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn File>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Room taken on the disk.
    pub(crate) reserved: u64,
    /// How long its file is: zeros from where the next frame goes.
    pub(crate) written: u64,
    /// The highest index that was ever put into it; entries up to it may be looked for here.
    pub(crate) highest: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) segments: VecDeque<Segment>,
    places: VecDeque<Place>,
    /// Entries up to and with this index are gone.
    pub(crate) purged: u64,
    pub(crate) note: Vec<u8>,
}

impl Index {
    /// The index the next entry gets.
    pub(crate) fn next(&self) -> u64 {
        self.purged + self.places.len() as u64 + 1
    }

    pub(crate) fn cut(&mut self, from: u64) {
        let keep = usize::try_from(from.saturating_sub(self.purged + 1)).unwrap_or(usize::MAX);
        self.places.truncate(keep);
    }

    pub(crate) fn purge(&mut self, to: u64) {
        let gone = usize::try_from(to.saturating_sub(self.purged)).unwrap_or(usize::MAX);
        self.places.drain(..gone.min(self.places.len()));
        self.purged = self.purged.max(to);
    }

    /// Adds the entry `index`; false when it is not the next one. One that is purged already is passed over.
    pub(crate) fn push(&mut self, index: u64, place: Place) -> bool {
        if index <= self.purged {
            return true;
        }
        let follows = index == self.next();
        if follows {
            self.places.push_back(place);
            if let Some(segment) = self.segments.iter_mut().rev().find(|segment| segment.number == place.segment) {
                segment.highest = segment.highest.max(index);
            }
        }
        follows
    }

    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        let position = usize::try_from(index.checked_sub(self.purged + 1)?).ok()?;
        self.places.get(position).copied()
    }

    /// The first of the last entries that are no more than `bytes` together; the next one to come if none is.
    pub(crate) fn first_of_last(&self, bytes: u64) -> u64 {
        let mut left = bytes;
        let fits = |place: &&Place| {
            let rest = left.checked_sub(u64::from(place.length));
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        self.next() - self.places.iter().rev().take_while(fits).count() as u64
    }

    pub(crate) fn file(&self, segment: u64) -> Option<Arc<dyn File>> {
        let first = self.segments.front()?.number;
        let position = usize::try_from(segment.checked_sub(first)?).ok()?;
        self.segments.get(position).map(|segment| Arc::clone(&segment.file))
    }
}
