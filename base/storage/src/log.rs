//! The append log: numbered entries and one small note, in checksummed segments.
//!
//! Promises: when [`Log::write`] returns, its batch is on the disk, at the cost of one sync; a batch is there whole
//! or not at all; opening cuts off a batch that a power cut tore and refuses, with file and offset, a log whose
//! middle is damaged. A full disk is an error that changes nothing. Knows nothing of what the entries mean.
//!
//! Everything blocks: a writer has a thread of its own, readers go through [`Reader`].

mod frame;
mod index;
mod recovery;

pub use frame::Batch;

use frame::Frame;
use index::{Index, Place, Segment};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use world::disk::{Disk, File};

/// Segments are deleted whole: small enough to give room back soon, large enough that making one is rare.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// The share of a segment that is written with zeros ahead of what is appended. Where a file is as long as it will be and its blocks
/// were written once, a sync has no journal of the file system to wait for: a third less time on ext4 for three logs at once.
const AHEAD_SHARE: u64 = 16;
/// An empty file whose room is taken already: the next segment.
const SPARE: &str = "spare";
/// Held by whoever has the log open.
const LOCK: &str = "lock";

/// Sizes of a log. The default is right for everything but tests.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much a segment holds before the next is begun; a larger batch gets a segment of its own.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// Why a log could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {path}: the disk is full")]
    DiskFull { path: PathBuf },
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt { path: PathBuf, offset: u64, what: &'static str },
    #[error("{path} has format version {found}, this program knows version {known}")]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
    #[error("entry {index} is not in the log, which holds {first} to {last}")]
    Absent { index: u64, first: u64, last: u64 },
    #[error("the log is closed after an earlier failure")]
    Broken,
}

impl LogError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the disk and the permissions of the data directory",
            Self::DiskFull { .. } => "free space on this disk; nothing that was acknowledged is lost",
            Self::Corrupt { .. } => {
                "the disk has lost what was written: replace it, and restore this machine's data directory or let it join anew"
            }
            Self::Version { .. } => "run the version of the program that wrote it, or a newer one",
            Self::Locked { .. } => "stop the other process, or use another data directory",
            Self::Absent { .. } => "this is a defect: whoever reads must know what was purged",
            Self::Broken => "see the first failure in the log of this machine, then start it again",
        }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Self::DiskFull { path };
            }
            Self::Io { doing, path, source }
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    pub segments: usize,
    pub entries: u64,
    /// The end of the last segment, which a power cut had torn: file, offset, bytes cut off.
    pub torn: Option<(PathBuf, u64, u64)>,
}

/// The one writer of a log.
pub struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: Options,
    index: Arc<RwLock<Index>>,
    spare: bool,
    /// Set when the disk's content is no longer known; every write then fails.
    broken: bool,
    _lock: Arc<dyn File>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("directory", &self.directory).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in `directory`, making it if there is none, and repairs what a power cut may have torn.
    ///
    /// # Errors
    /// [`LogError`]; nothing was changed if the log is damaged.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path, options: Options) -> Result<(Self, Recovery), LogError> {
        disk.make_dir(directory).map_err(LogError::io("create", directory))?;
        let lock_path = directory.join(LOCK);
        let lock = disk.open(&lock_path).map_err(LogError::io("open", &lock_path))?;
        if !lock.try_lock().map_err(LogError::io("lock", &lock_path))? {
            return Err(LogError::Locked { path: lock_path });
        }
        let (index, recovery) = recovery::recover(disk.as_ref(), directory)?;
        let mut log = Self {
            disk,
            directory: directory.to_owned(),
            options,
            index: Arc::new(RwLock::new(index)),
            spare: false,
            broken: false,
            _lock: lock,
        };
        log.prepare();
        Ok((log, recovery))
    }

    /// A handle for reading, from any thread, while this one writes.
    pub fn reader(&self) -> Reader {
        Reader { directory: self.directory.clone(), index: Arc::clone(&self.index) }
    }

    /// Writes a batch and syncs it: when this returns, it is durable, whole.
    ///
    /// # Errors
    /// After [`LogError::DiskFull`] the log is as it was before and can go on. After any other error it is
    /// [`LogError::Broken`] until it is opened again, which may or may not find the batch.
    pub fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let needed = batch.size_bytes() as u64;
        let fits = self.with_index(|index| {
            index.segments.back().is_some_and(|last| last.end + needed <= last.reserved.max(self.options.segment_bytes))
        });
        if fits { self.append(batch) } else { self.begin_segment(batch) }
    }

    /// What can be done after a write that nobody should wait for: segments of which all is purged are deleted, and room is taken for
    /// the next.
    pub fn tend(&mut self) {
        if let Err(error) = self.delete_purged() {
            tracing::warn!(error = %error, "a segment that is not needed any more stays until the next write");
        }
        if !self.spare {
            self.prepare();
        }
    }

    /// Bytes that can be written without asking the disk for room.
    pub fn room_bytes(&self) -> u64 {
        if self.spare {
            return self.options.segment_bytes - frame::HEADER_BYTES as u64;
        }
        self.with_index(|index| index.segments.back().map_or(0, |last| last.reserved.saturating_sub(last.end)))
    }

    /// Tries to have the next segment's room taken once half of this one's is used. Calling it again after the disk was full finds
    /// out whether it still is.
    pub fn prepare(&mut self) {
        self.reserve_last();
        let half_left = self
            .with_index(|index| index.segments.back().is_some_and(|last| last.end < self.options.segment_bytes / 2));
        if self.spare || half_left || self.broken {
            return;
        }
        let path = self.directory.join(SPARE);
        let made = self.disk.open(&path).and_then(|file| file.reserve(self.options.segment_bytes));
        self.spare = made.is_ok();
        if let Err(error) = made {
            tracing::debug!(%error, path = %path.display(), "no room for the next segment yet");
            // Room that was taken in part helps nobody. If even removing fails, opening again will.
            if let Err(error) = self.disk.remove(&path) {
                tracing::debug!(%error, path = %path.display(), "remove the spare segment");
            }
        }
    }

    /// A segment found by recovery has its room taken again: it may have been copied here without.
    fn reserve_last(&mut self) {
        let wanted = self.options.segment_bytes;
        let mut index = self.index.write().expect("changing the index never panics");
        let last = index.segments.back_mut().filter(|last| last.reserved < wanted);
        if let Some(last) = last
            && last.file.reserve(wanted).is_ok()
        {
            last.reserved = wanted;
        }
    }

    fn with_index<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.index.read().expect("changing the index never panics"))
    }

    fn append(&mut self, batch: &Batch) -> Result<(), LogError> {
        let Segment { number, file, end: start, reserved, written, .. } =
            self.with_index(|index| index.segments.back().cloned()).expect("the caller found room in the last segment");
        let path = self.directory.join(recovery::segment_name(number));
        let (frame, places) = self.frame(Frame::new(), batch);
        let bytes = frame.finish(number);
        let end = start + bytes.len() as u64;
        if let Err(error) = file.write_at(start, &bytes) {
            // Whatever part of the frame is there must be gone before the segment can be sealed or written again.
            self.broken = file.truncate(start).and_then(|()| file.sync_data()).is_err();
            self.last_is_written_to(start);
            return Err(self.failed("write", &path, error));
        }
        let written = if end > written { self.zeros_ahead(&*file, end, reserved) } else { written };
        if let Err(error) = file.sync_data() {
            self.broken = true;
            return Err(self.failed("sync", &path, error));
        }
        self.last_is_written_to(written);
        self.adopt(batch, &places, number, start, end);
        Ok(())
    }

    /// Writes zeros from `end` on, and returns up to where they are. Where there is no room for them it goes without.
    fn zeros_ahead(&self, file: &dyn File, end: u64, reserved: u64) -> u64 {
        let ahead = (self.options.segment_bytes / AHEAD_SHARE).min(reserved.saturating_sub(end));
        let zeros = vec![0; usize::try_from(ahead).expect("a share of a segment fits into memory")];
        match file.write_at(end, &zeros) {
            Ok(()) => end + ahead,
            Err(error) => {
                tracing::debug!(%error, "no room for zeros ahead of the log");
                // Those that stay are cut off before the next segment.
                if file.truncate(end).is_ok() { end } else { end + ahead }
            }
        }
    }

    fn last_is_written_to(&mut self, written: u64) {
        if let Some(last) = self.index.write().expect("changing the index never panics").segments.back_mut() {
            last.written = written;
        }
    }

    /// Has the last segment end where its last frame does, before another follows it: what a later one follows is whole.
    fn seal(&mut self) -> Result<(), LogError> {
        let last = self.with_index(|index| index.segments.back().cloned());
        let Some(last) = last.filter(|last| last.written > last.end) else { return Ok(()) };
        let path = self.directory.join(recovery::segment_name(last.number));
        if let Err(error) = last.file.truncate(last.end).and_then(|()| last.file.sync_data()) {
            self.broken = true;
            return Err(self.failed("seal", &path, error));
        }
        self.last_is_written_to(last.end);
        Ok(())
    }

    /// Writes `batch` as the beginning of a new segment.
    fn begin_segment(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.seal()?;
        let (number, note, purged) = self.with_index(|index| {
            let number = index.segments.back().map_or(1, |last| last.number + 1);
            (number, index.note.clone(), index.purged)
        });
        let path = self.directory.join(recovery::segment_name(number));
        let mut frame = Frame::new();
        frame.purged(purged);
        frame.note(&note);
        let (frame, places) = self.frame(frame, batch);
        let start = frame::HEADER_BYTES as u64;
        let mut bytes = frame::header().to_vec();
        bytes.extend(frame.finish(number));
        let end = bytes.len() as u64;
        let reserved = self.options.segment_bytes.max(end);
        let made = self.make_segment(&path, &bytes, reserved);
        let (file, written) = match made {
            Ok(made) => made,
            Err(error) => {
                // A segment that was not born must not be found half there behind a later one of its number.
                let gone = self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.directory));
                self.broken = gone.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
                return Err(self.failed("begin", &path, error));
            }
        };
        let segment = Segment { number, file, end: 0, reserved, written, highest: 0 };
        self.index.write().expect("changing the index never panics").segments.push_back(segment);
        self.adopt(batch, &places, number, start, end);
        Ok(())
    }

    /// Returns the file and how long it is.
    fn make_segment(&mut self, path: &Path, bytes: &[u8], reserved: u64) -> io::Result<(Arc<dyn File>, u64)> {
        if std::mem::take(&mut self.spare) {
            self.disk.rename(&self.directory.join(SPARE), path)?;
        }
        let file = self.disk.open(path)?;
        file.reserve(reserved)?;
        file.write_at(0, bytes)?;
        let written = self.zeros_ahead(&*file, bytes.len() as u64, reserved);
        file.sync_data()?;
        self.disk.sync_dir(&self.directory)?;
        Ok((file, written))
    }

    /// Adds the batch's items to a frame; the places of its entries are relative to the frame's start.
    fn frame(&self, mut frame: Frame, batch: &Batch) -> (Frame, Vec<(usize, u32)>) {
        let mut next = self.with_index(Index::next);
        if let Some(from) = batch.cut_from {
            frame.cut(from);
            next = next.min(from).max(self.with_index(|index| index.purged + 1));
        }
        if let Some(to) = batch.purge_to {
            frame.purged(to);
            next = next.max(to + 1);
        }
        if let Some(note) = &batch.note {
            frame.note(note);
        }
        let places =
            batch.entries.iter().zip(next..).map(|(entry, index)| frame.entry(index, entry)).collect::<Vec<_>>();
        (frame, places)
    }

    /// Takes a batch that is durable into the index.
    fn adopt(&mut self, batch: &Batch, places: &[(usize, u32)], number: u64, start: u64, end: u64) {
        let mut index = self.index.write().expect("changing the index never panics");
        if let Some(from) = batch.cut_from {
            index.cut(from);
        }
        if let Some(to) = batch.purge_to {
            index.purge(to);
        }
        if let Some(note) = &batch.note {
            index.note.clone_from(note);
        }
        for ((offset, checksum), entry) in places.iter().zip(&batch.entries) {
            let length = u32::try_from(entry.len()).expect("a batch is bounded far below 4 GiB");
            let place = Place { segment: number, offset: start + *offset as u64, length, checksum: *checksum };
            let next = index.next();
            let follows = index.push(next, place);
            debug_assert!(follows, "an entry with the next index follows");
        }
        if let Some(segment) = index.segments.back_mut() {
            segment.end = end;
        }
    }

    /// Deletes the oldest segments while all they hold is purged, each deletion durable before the next, so that
    /// what is left has no gap.
    fn delete_purged(&mut self) -> Result<(), LogError> {
        loop {
            let oldest = self.with_index(|index| {
                let deletable = index.segments.len() > 1;
                index
                    .segments
                    .front()
                    .filter(|first| deletable && first.highest <= index.purged)
                    .map(|first| first.number)
            });
            let Some(number) = oldest else { return Ok(()) };
            let path = self.directory.join(recovery::segment_name(number));
            self.disk.remove(&path).map_err(LogError::io("delete", &path))?;
            self.disk.sync_dir(&self.directory).map_err(LogError::io("sync", &self.directory))?;
            self.index.write().expect("changing the index never panics").segments.pop_front();
        }
    }

    /// The error for a failed write, which breaks the log unless the disk was merely full.
    fn failed(&mut self, doing: &'static str, path: &Path, error: io::Error) -> LogError {
        let error = LogError::io(doing, path)(error);
        self.broken |= !matches!(error, LogError::DiskFull { .. });
        error
    }
}

/// Reads a log while it is written. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Reader {
    directory: PathBuf,
    index: Arc<RwLock<Index>>,
}

impl Reader {
    fn with_index<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.index.read().expect("changing the index never panics"))
    }

    /// The index of the first entry there is, or of the next one to come.
    pub fn first(&self) -> u64 {
        self.with_index(|index| index.purged + 1)
    }

    /// The index the next entry gets.
    pub fn next(&self) -> u64 {
        self.with_index(Index::next)
    }

    /// The first of the last entries that are no more than `bytes` together; the next one to come if none is.
    pub fn first_of_last(&self, bytes: u64) -> u64 {
        self.with_index(|index| index.first_of_last(bytes))
    }

    /// The owner's note as last written; empty when there never was one.
    pub fn note(&self) -> Vec<u8> {
        self.with_index(|index| index.note.clone())
    }

    /// One entry.
    ///
    /// # Errors
    /// [`LogError::Absent`] outside the log, [`LogError::Corrupt`] when the disk returns something else than was
    /// written.
    pub fn read(&self, wanted: u64) -> Result<Vec<u8>, LogError> {
        let found = self.with_index(|index| {
            let place = index.place(wanted)?;
            Some((place, index.file(place.segment)?))
        });
        let Some((place, file)) = found else {
            let last = self.next() - 1;
            return Err(LogError::Absent { index: wanted, first: self.first(), last });
        };
        let path = self.directory.join(recovery::segment_name(place.segment));
        let mut entry = vec![0; place.length as usize];
        file.read_at(place.offset, &mut entry).map_err(LogError::io("read", &path))?;
        if crc32c::crc32c(&entry) != place.checksum {
            return Err(LogError::Corrupt { path, offset: place.offset, what: "an entry's checksum is wrong" });
        }
        Ok(entry)
    }
}
