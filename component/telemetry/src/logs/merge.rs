//! The newest lines of several instances, in time order. Owns the rule of what comes before what.
//!
//! A wall clock may be set back, so the times within one file need not rise. Order within an instance is
//! never touched: going backwards, a line counts as no younger than the one after it.

use super::backwards::{Backwards, Next, Search};
use super::filter::Filter;
use super::line::{Line, Stream};
use super::{ANSWER_BYTES_MAX, CURRENT, PREVIOUS, QueryError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::api::LogLine;

const STOPPED: &str =
    "the search stopped here, there was too much to look through: ask for lines until this time to go on";

/// One instance's files as they were found: bytes behind `length` are not looked at.
pub(super) struct Chain {
    pub(super) instance: String,
    /// The newest first; `current` and `previous`, or what there is of them.
    pub(super) files: Vec<Piece>,
}

pub(super) struct Piece {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) inode: Inode,
    pub(super) length: u64,
    pub(super) written_ms: u64,
}

/// Which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Chain {
    pub(super) fn open(dir: &Path, instance: &str) -> Result<Chain, QueryError> {
        // The current one first: if a shim turns the files between the two, the one opened second is the
        // same file, where the other way round one would be missed.
        let mut files: Vec<Piece> = Vec::new();
        for file in [CURRENT, PREVIOUS] {
            let path = dir.join(instance).join(file);
            let piece = Piece::open(&path).map_err(|source| QueryError::Read { path, source })?;
            if let Some(piece) = piece
                && files.iter().all(|other| other.inode != piece.inode)
            {
                files.push(piece);
            }
        }
        Ok(Chain { instance: instance.to_owned(), files })
    }
}

impl Piece {
    /// `None` when there is no such file.
    pub(super) fn open(path: &Path) -> std::io::Result<Option<Piece>> {
        // No link is followed, and a pipe somebody put there does not hold us up.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) => {
                let nothing =
                    error.kind() == std::io::ErrorKind::NotFound || Errno::from_io_error(&error) == Some(Errno::LOOP);
                return if nothing { Ok(None) } else { Err(error) };
            }
        };
        let data = file.metadata()?;
        if !data.is_file() {
            return Ok(None);
        }
        let written_ms = u64::try_from(data.mtime()).unwrap_or(0).saturating_mul(1_000);
        let inode = Inode { device: data.dev(), number: data.ino() };
        Ok(Some(Piece { path: path.to_owned(), file, inode, length: data.len(), written_ms }))
    }
}

/// The newest lines `filter` wants of all chains, oldest first.
///
/// A search that may go no further ends with a line that says so, in place of what is before it.
pub(super) fn newest(chains: Vec<Chain>, filter: &Filter, mut search: Search) -> Result<Vec<LogLine>, QueryError> {
    let mut sources: Vec<Source> = chains.into_iter().map(Source::new).collect();
    let mut heads = BinaryHeap::new();
    let mut found = VecDeque::new();
    let mut room = ANSWER_BYTES_MAX;
    // Whose next line is not known; at first nobody's is.
    let mut unknown: Vec<usize> = if filter.lines_max > 0 { (0..sources.len()).collect() } else { Vec::new() };
    loop {
        for at in unknown.drain(..) {
            match sources[at].advance(filter, &mut search)? {
                Next::Line => heads.push((sources[at].key, at)),
                Next::End => {}
                Next::Stopped if search.is_given_up() => return Err(QueryError::GivenUp),
                // What the others hold may be older than what this one was not asked for.
                Next::Stopped => {
                    found.push_front(sources[at].stopped());
                    return Ok(found.into());
                }
            }
        }
        if found.len() >= filter.lines_max {
            break;
        }
        let Some((_, at)) = heads.pop() else { break };
        let line = sources[at].take();
        let Some(left) = room.checked_sub(line.line.len() + line.instance.len()) else { break };
        room = left;
        found.push_front(line);
        if found.len() < filter.lines_max {
            unknown.push(at);
        }
    }
    Ok(found.into())
}

/// One instance's files, read from the end.
struct Source {
    instance: String,
    /// Still to read, the newer one last.
    files: Vec<(PathBuf, Backwards)>,
    bytes: Vec<u8>,
    /// Of the line found last: what it is ordered by, what it says.
    key: u64,
    found: Option<(u64, Stream, String)>,
    /// For lines at the end that do not say when they were written.
    written_ms: u64,
}

impl Source {
    fn new(chain: Chain) -> Source {
        let written_ms = chain.files.first().map_or(0, |piece| piece.written_ms);
        let newest_first = chain.files.into_iter();
        let files = newest_first.rev().map(|piece| (piece.path, Backwards::new(piece.file, piece.length))).collect();
        Source { instance: chain.instance, files, bytes: Vec::new(), key: u64::MAX, found: None, written_ms }
    }

    /// Goes back to the next line wanted.
    fn advance(&mut self, filter: &Filter, search: &mut Search) -> Result<Next, QueryError> {
        while let Some((path, file)) = self.files.last_mut() {
            let next = file.next(&mut self.bytes, search);
            match next.map_err(|source| QueryError::Read { path: path.clone(), source })? {
                Next::Line => {}
                Next::Stopped => return Ok(Next::Stopped),
                Next::End => {
                    self.files.pop();
                    continue;
                }
            }
            let line = Line::parse(&self.bytes);
            // A line without a time is as old as its neighbour.
            let time_ms = line.time_ms.unwrap_or(if self.key == u64::MAX { self.written_ms } else { self.key });
            if line.time_ms.is_some() {
                self.key = self.key.min(time_ms);
            }
            if self.key < filter.since_ms {
                self.files.clear();
            } else if filter.covers(time_ms) {
                let text = line.text();
                if filter.wants(&text) {
                    self.found = Some((time_ms, line.stream, text));
                    return Ok(Next::Line);
                }
            }
        }
        Ok(Next::End)
    }

    /// Stands for everything before the place the search got to.
    fn stopped(&self) -> LogLine {
        let time_ms = if self.key == u64::MAX { self.written_ms } else { self.key };
        Stream::Bramble.line(&self.instance, time_ms, STOPPED.to_owned())
    }

    fn take(&mut self) -> LogLine {
        let (time_ms, stream, text) = self.found.take().expect("advance said that there is a line");
        stream.line(&self.instance, time_ms, text)
    }
}
