//! The log of a service: lines `<unix ms> <o|e> <text>` in `current`, turned over to `previous` at half the bound.
//!
//! Promises: never more than the bound on disk; a disk that refuses costs lines, which are counted and told of once
//! it accepts again, but never makes the program wait.

use crate::clock;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A longer line is split: a reader holds whole lines in memory.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Half of it takes the longest line with its time, and some.
const SIZE_BYTES_MIN: u64 = 4 * LINE_BYTES_MAX as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

pub(super) struct Log {
    folder: PathBuf,
    current: Option<File>,
    size_bytes: u64,
    size_bytes_max: u64,
    dropped: u64,
    /// Lines that have no end yet.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Log {
    pub(super) fn open(folder: &Path, size_bytes_max: u64) -> io::Result<Log> {
        fs::create_dir_all(folder)?;
        let mut log = Log {
            folder: folder.to_path_buf(),
            current: None,
            size_bytes: 0,
            size_bytes_max: size_bytes_max.max(SIZE_BYTES_MIN),
            dropped: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).open(self.folder.join("current"))?;
        self.size_bytes = file.metadata()?.len();
        self.current = Some(file);
        Ok(())
    }

    /// Takes what a stream said. Whole lines are written at once, in one write.
    pub(super) fn take(&mut self, stream: Stream, mut bytes: &[u8]) {
        let now = clock::unix_ms();
        // Small enough to keep the bound, large enough to cost few writes.
        let mut batches = Vec::new();
        let mut lines = Vec::new();
        let mut count = 0;
        let partial = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - partial.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let (taken, skipped) = match end {
                Some(end) => (end, 1),
                None => (room.min(bytes.len()), 0),
            };
            partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + skipped..];
            if end.is_some() || partial.len() == LINE_BYTES_MAX {
                push_line(&mut lines, now, stream, partial);
                partial.clear();
                count += 1;
            }
            if lines.len() >= LINE_BYTES_MAX {
                batches.push((std::mem::take(&mut lines), std::mem::take(&mut count)));
            }
        }
        batches.push((lines, count));
        for (lines, count) in batches {
            self.write(&lines, count);
        }
    }

    /// Writes what has no line end yet: nothing follows.
    pub(super) fn finish(&mut self) {
        for (stream, partial) in
            [(Stream::Stdout, std::mem::take(&mut self.stdout)), (Stream::Stderr, std::mem::take(&mut self.stderr))]
        {
            if !partial.is_empty() {
                let mut line = Vec::new();
                push_line(&mut line, clock::unix_ms(), stream, &partial);
                self.write(&line, 1);
            }
        }
        self.write(&[], 0);
    }

    fn write(&mut self, lines: &[u8], count: u64) {
        let mut all = Vec::new();
        if self.dropped > 0 {
            let told = format!("({} lines were lost: the log could not be written)", self.dropped);
            push_line(&mut all, clock::unix_ms(), Stream::Stderr, told.as_bytes());
        }
        all.extend_from_slice(lines);
        if all.is_empty() {
            return;
        }
        match self.append(&all) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += count,
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if self.size_bytes > 0 && self.size_bytes + length > self.size_bytes_max / 2 {
            fs::rename(self.folder.join("current"), self.folder.join("previous"))?;
            self.current = None;
        }
        if self.current.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(lines) {
            // Half a write must not become half a line. Next time from the start: the file may be gone.
            let _ = file.set_len(self.size_bytes);
            self.current = None;
            return Err(error);
        }
        self.size_bytes += length;
        Ok(())
    }
}

fn push_line(lines: &mut Vec<u8>, now_ms: u64, stream: Stream, text: &[u8]) {
    let letter = match stream {
        Stream::Stdout => 'o',
        Stream::Stderr => 'e',
    };
    lines.extend_from_slice(format!("{now_ms} {letter} ").as_bytes());
    lines.extend_from_slice(text);
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::{Log, Stream};

    fn texts(folder: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join("current")).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_a_full_disk_refuses_are_counted_and_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let current = folder.path().join("current");
        std::os::unix::fs::symlink("/dev/full", &current).unwrap();
        let mut log = Log::open(folder.path(), 1 << 20).unwrap();
        log.take(Stream::Stdout, b"one\ntwo\n");
        log.take(Stream::Stderr, b"three\n");
        std::fs::remove_file(&current).unwrap();
        log.take(Stream::Stdout, b"four\n");
        assert_eq!(texts(folder.path()), ["e (3 lines were lost: the log could not be written)", "o four"]);
    }

    #[test]
    fn streams_do_not_mix_within_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 1 << 20).unwrap();
        log.take(Stream::Stdout, b"half ");
        log.take(Stream::Stderr, b"whole\nrest");
        log.take(Stream::Stdout, b"a line\n\n");
        log.finish();
        assert_eq!(texts(folder.path()), ["e whole", "o half a line", "o ", "e rest"]);
    }
}
