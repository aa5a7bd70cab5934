//! Opening a log: read every segment, cut what a power cut tore, refuse what is damaged.
//!
//! The rule that tells the two apart: a frame is only written after the one before it is synced. So a broken frame
//! that another intact one follows, in its segment or a later one, had been acknowledged: damage. A broken frame
//! at the very end had not, and nobody waits for it. The last segment has zeros where its next frames go.

use super::frame::{self, Item};
use super::index::{Index, Place, Segment};
use super::{LogError, Recovery, SPARE};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::disk::{Disk, File};

/// Numbers sort as names.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016x}.log")
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// A segment read into memory, with where its intact part ends.
struct Loaded {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    bytes: Vec<u8>,
    end: usize,
    frames: Vec<usize>,
}

pub(crate) fn recover(disk: &dyn Disk, directory: &Path) -> Result<(Index, Recovery), LogError> {
    let names = disk.list(directory).map_err(LogError::io("list", directory))?;
    let mut numbers = names.iter().filter_map(|name| segment_number(name)).collect::<VecDeque<_>>();
    numbers.make_contiguous().sort_unstable();
    let mut loaded = Vec::new();
    let mut recovery = Recovery::default();
    while let Some(number) = numbers.pop_front() {
        let path = directory.join(segment_name(number));
        if loaded.last().is_some_and(|before: &Loaded| before.number + 1 != number) {
            return Err(LogError::Corrupt { path, offset: 0, what: "the segment before it is missing" });
        }
        let segment = load(disk, path, number)?;
        let last = numbers.is_empty();
        match check(&segment, last)? {
            Verdict::Whole => loaded.push(segment),
            Verdict::Torn => {
                let (offset, length) = (segment.end as u64, segment.bytes.len() as u64);
                recovery.torn = Some((segment.path.clone(), offset, length - offset));
                segment.file.truncate(offset).map_err(LogError::io("cut", &segment.path))?;
                segment.file.sync_data().map_err(LogError::io("sync", &segment.path))?;
                loaded.push(segment);
            }
            Verdict::Unborn => {
                recovery.torn = Some((segment.path.clone(), 0, segment.bytes.len() as u64));
                disk.remove(&segment.path).map_err(LogError::io("delete", &segment.path))?;
                disk.sync_dir(directory).map_err(LogError::io("sync", directory))?;
            }
        }
    }
    if names.iter().any(|name| name == SPARE) {
        let path = directory.join(SPARE);
        disk.remove(&path).map_err(LogError::io("delete", &path))?;
        disk.sync_dir(directory).map_err(LogError::io("sync", directory))?;
    }
    let index = replay(&loaded)?;
    recovery.segments = loaded.len();
    recovery.entries = index.next() - index.purged - 1;
    Ok((index, recovery))
}

fn load(disk: &dyn Disk, path: PathBuf, number: u64) -> Result<Loaded, LogError> {
    let file = disk.open(&path).map_err(LogError::io("open", &path))?;
    let length = file.len().map_err(LogError::io("read", &path))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    match file.read_at(0, &mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bytes.clear(),
        Err(error) => return Err(LogError::io("read", &path)(error)),
    }
    let mut frames = Vec::new();
    let mut end = 0;
    if frame::version(&bytes).is_some() {
        end = frame::HEADER_BYTES;
        while let Some(length) = frame::intact(&bytes, end, number) {
            frames.push(end);
            end += length;
        }
    }
    Ok(Loaded { number, path, file, bytes, end, frames })
}

enum Verdict {
    Whole,
    /// Its last frame was being written when the power went.
    Torn,
    /// Not even its first frame was finished.
    Unborn,
}

fn check(segment: &Loaded, last: bool) -> Result<Verdict, LogError> {
    let damaged = |offset: usize, what| LogError::Corrupt { path: segment.path.clone(), offset: offset as u64, what };
    if let Some(found) = frame::version(&segment.bytes).filter(|found| *found != frame::VERSION) {
        return Err(LogError::Version { path: segment.path.clone(), found, known: frame::VERSION });
    }
    let rest = &segment.bytes[segment.end..];
    if (rest.is_empty() || last && rest.iter().all(|byte| *byte == 0)) && !segment.frames.is_empty() {
        return Ok(Verdict::Whole);
    }
    if !last {
        return Err(damaged(segment.end, "a batch is broken and a later segment exists"));
    }
    if frame::any_after(&segment.bytes, segment.end, segment.number) {
        return Err(damaged(segment.end, "a batch is broken and an intact one follows"));
    }
    Ok(if segment.frames.is_empty() { Verdict::Unborn } else { Verdict::Torn })
}

/// Goes through all batches in order. What is purged is known first, since the segments that held the entries
/// before may be gone.
fn replay(loaded: &[Loaded]) -> Result<Index, LogError> {
    let mut index = Index::default();
    let mut batches = Vec::new();
    for segment in loaded {
        for offset in &segment.frames {
            let items = frame::items(&segment.bytes, *offset).ok_or_else(|| LogError::Corrupt {
                path: segment.path.clone(),
                offset: *offset as u64,
                what: "a batch's checksum is right but its content makes no sense",
            })?;
            batches.push((segment, *offset, items));
        }
    }
    let purges = batches.iter().flat_map(|(_, _, items)| items).filter_map(|item| match item {
        Item::Purged(to) => Some(*to),
        Item::Note(_) | Item::Cut(_) | Item::Entry { .. } => None,
    });
    index.purged = purges.max().unwrap_or(0);
    for segment in loaded {
        let end = segment.end as u64;
        let written = segment.file.len().map_err(LogError::io("read", &segment.path))?;
        let (number, file) = (segment.number, Arc::clone(&segment.file));
        index.segments.push_back(Segment { number, file, end, reserved: written, written, highest: 0 });
    }
    for (segment, offset, items) in batches {
        for item in items {
            match item {
                Item::Note(note) => index.note = note.to_vec(),
                Item::Cut(from) => index.cut(from),
                Item::Purged(_) => {}
                Item::Entry { index: number, offset: at, length, checksum } => {
                    let place = Place { segment: segment.number, offset: at as u64, length, checksum };
                    if !index.push(number, place) {
                        let path = segment.path.clone();
                        return Err(LogError::Corrupt {
                            path,
                            offset: offset as u64,
                            what: "entries are missing before it",
                        });
                    }
                }
            }
        }
    }
    Ok(index)
}
