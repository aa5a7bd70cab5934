//! What is not to be found any more, though it may still lie somewhere: labels, each with when it was forgotten.
//!
//! Time is a count of forgettings, not a clock: a value bears the count from when it was asked for, and is gone if one of
//! its labels was forgotten later. A count that nobody knows here comes from a list that was lost, and is gone too.
//! Owns the file that brings the list over a restart: records with a checksum, appended.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Labels that are remembered; one more, and everything is forgotten instead. A million bytes of file.
pub(crate) const LABELS_MAX: usize = 65_536;
/// Records before the file is written anew: with labels forgotten again and again, it is longer than the list.
const RECORDS_MAX: usize = 2 * LABELS_MAX;
/// A label, a count and a checksum.
const RECORD_BYTES: usize = 8 + 8 + 4;
/// The label that all values have.
const ALL: u64 = 0;

/// The list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forgotten {
    count: u64,
    all: u64,
    labels: HashMap<u64, u64>,
}

impl Forgotten {
    /// How much was forgotten so far: what a value bears that is asked for now.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a value is still to be found.
    pub(crate) fn finds(&self, sequence: u64, labels: &[u64]) -> bool {
        let later = |label: &u64| self.labels.get(label).is_some_and(|forgotten| *forgotten > sequence);
        sequence <= self.count && sequence >= self.all && !labels.iter().any(later)
    }

    /// Forgets what has this label, or everything. Returns what is to be recorded.
    pub(crate) fn forget(&mut self, label: Option<u64>) -> Record {
        self.count += 1;
        let mut record = Record { label: label.unwrap_or(ALL), count: self.count };
        if record.label != ALL && self.labels.len() >= LABELS_MAX && !self.labels.contains_key(&record.label) {
            record.label = ALL;
        }
        self.take(record);
        record
    }

    /// Takes a record in, in whatever order they come.
    pub(crate) fn take(&mut self, record: Record) {
        self.count = self.count.max(record.count);
        if record.label == ALL {
            self.all = self.all.max(record.count);
            let all = self.all;
            self.labels.retain(|_, count| *count > all);
        } else {
            let known = self.labels.entry(record.label).or_default();
            *known = record.count.max(*known);
        }
    }

    /// Forgets everything once more that another list forgot.
    pub(crate) fn forget_as(&mut self, other: &Forgotten) -> Vec<Record> {
        let all = (other.all > 0).then_some(None);
        let labels = other.labels.keys().map(|label| Some(*label));
        all.into_iter().chain(labels).map(|label| self.forget(label)).collect()
    }

    fn records(&self) -> Vec<Record> {
        let all = Record { label: ALL, count: self.all };
        let labels = self.labels.iter().map(|(label, count)| Record { label: *label, count: *count });
        let mut records: Vec<Record> = [all].into_iter().chain(labels).collect();
        // The last tells the count, and the first clears what comes before it.
        records.sort_by_key(|record| record.count);
        records
    }
}

/// One forgetting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    label: u64,
    count: u64,
}

impl Record {
    fn bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.label.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Record> {
        let part = |range: std::ops::Range<usize>| Some(u64::from_le_bytes(bytes.get(range)?.try_into().ok()?));
        let sum = u32::from_le_bytes(bytes.get(16..RECORD_BYTES)?.try_into().ok()?);
        let record = Record { label: part(0..8)?, count: part(8..16)? };
        (crc32c::crc32c(bytes.get(..16)?) == sum).then_some(record)
    }
}

/// The file of the list.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: std::fs::File,
    records: usize,
}

impl Journal {
    /// Reads what is there, up to where it breaks off. A list that is not there is empty.
    pub(crate) fn open(path: &Path) -> io::Result<(Journal, Forgotten)> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut forgotten = Forgotten::default();
        for record in bytes.chunks(RECORD_BYTES).map_while(Record::read) {
            forgotten.take(record);
        }
        let file = write_anew(path, &forgotten)?;
        let records = forgotten.labels.len() + 1;
        Ok((Journal { path: path.to_owned(), file, records }, forgotten))
    }

    pub(crate) fn append(&mut self, record: Record) -> io::Result<()> {
        self.file.write_all(&record.bytes())?;
        self.records += 1;
        Ok(())
    }

    /// What was added survives a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether it is time to write it anew.
    pub(crate) fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX
    }

    pub(crate) fn rewrite(&mut self, list: &Forgotten) -> io::Result<()> {
        self.file = write_anew(&self.path, list)?;
        self.records = list.labels.len() + 1;
        Ok(())
    }
}

fn write_anew(path: &Path, forgotten: &Forgotten) -> io::Result<std::fs::File> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    let bytes: Vec<u8> = forgotten.records().into_iter().flat_map(Record::bytes).collect();
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{Forgotten, Journal, LABELS_MAX};
    use proptest::prelude::*;

    #[test]
    fn what_was_asked_for_before_is_gone_and_after_is_not() {
        let mut forgotten = Forgotten::default();
        let before = forgotten.count();
        assert!(forgotten.finds(before, &[5]));
        forgotten.forget(Some(5));
        assert!(!forgotten.finds(before, &[4, 5]) && forgotten.finds(before, &[4]));
        assert!(forgotten.finds(forgotten.count(), &[5]));
        forgotten.forget(None);
        assert!(!forgotten.finds(before, &[4]) && forgotten.finds(forgotten.count(), &[4, 5]));
        assert!(!forgotten.finds(forgotten.count() + 1, &[]), "it is of a list that was lost");
    }

    #[test]
    fn too_many_labels_are_everything() {
        let mut forgotten = Forgotten::default();
        for label in 1..=LABELS_MAX as u64 {
            forgotten.forget(Some(label));
        }
        assert!(forgotten.finds(0, &[LABELS_MAX as u64 + 9]));
        forgotten.forget(Some(LABELS_MAX as u64 + 1));
        assert!(!forgotten.finds(0, &[LABELS_MAX as u64 + 9]));
        assert!(forgotten.labels.is_empty());
    }

    proptest! {
        #[test]
        fn the_file_says_what_was_forgotten(
            labels in prop::collection::vec(prop::option::weighted(0.9, 1_u64..9), 0..40), reopen in 0_usize..40,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("forgotten");
            let (mut journal, mut forgotten) = Journal::open(&path).unwrap();
            let mut expected = Forgotten::default();
            for (at, label) in labels.iter().enumerate() {
                if at == reopen {
                    drop(journal);
                    (journal, forgotten) = Journal::open(&path).unwrap();
                }
                expected.forget(*label);
                let record = forgotten.forget(*label);
                journal.append(record).unwrap();
                if at % 7 == 6 {
                    journal.rewrite(&forgotten).unwrap();
                }
            }
            drop(journal);
            let (_journal, read) = Journal::open(&path).unwrap();
            prop_assert_eq!((read.count, read.all, &read.labels), (expected.count, expected.all, &expected.labels));
        }

        #[test]
        fn a_torn_file_is_read_up_to_the_tear(cut in 0_usize..60) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("forgotten");
            let (mut journal, mut forgotten) = Journal::open(&path).unwrap();
            for label in [7, 8] {
                let record = forgotten.forget(Some(label));
                journal.append(record).unwrap();
            }
            drop(journal);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..cut.min(bytes.len())]).unwrap();
            let (_journal, read) = Journal::open(&path).unwrap();
            let whole = (cut.min(bytes.len()) / 20).saturating_sub(1);
            prop_assert_eq!(read.labels.len(), whole);
            prop_assert_eq!(read.finds(2, &[]), whole == 2, "what is newer than the list is gone");
        }
    }
}
