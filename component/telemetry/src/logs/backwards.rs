//! A file's lines, last first. Reads blocks from the end; holds one block and one line at most, however long
//! the file or its lines are. Knows nothing of what a line says.

use super::line::LINE_BYTES_MAX;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One read: some hundred lines, and small enough to hold one per instance.
const BLOCK_BYTES: usize = 64 << 10;

/// How far a search may go, over all its files.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) bytes_left: u64,
    /// Set by whoever does not want the answer any more.
    pub(super) given_up: Arc<AtomicBool>,
}

impl Search {
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn may_read(&self) -> bool {
        self.bytes_left > 0 && !self.is_given_up()
    }
}

/// What the file had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Line,
    /// There is nothing before the last line handed out.
    End,
    /// The search may go no further.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Backwards {
    file: File,
    /// How much of the file, from its begin, is not read yet.
    unread: u64,
    /// What is read and not handed out, in the order of the file.
    held: Vec<u8>,
    /// Where in `held` the search for a line feed goes on: what is behind it holds none.
    searched: usize,
    /// The file's end was looked at.
    begun: bool,
    done: bool,
}

impl Backwards {
    /// The lines of the first `length` bytes; what is appended meanwhile is not seen.
    pub(super) fn new(file: File, length: u64) -> Backwards {
        Backwards { file, unread: length, held: Vec::new(), searched: 0, begun: false, done: length == 0 }
    }

    /// The line before the one handed out last, without its line feed; of a line longer than
    /// [`LINE_BYTES_MAX`] the begin. A last line without an end is a line.
    pub(super) fn next(&mut self, line: &mut Vec<u8>, search: &mut Search) -> std::io::Result<Next> {
        line.clear();
        if self.done {
            return Ok(Next::End);
        }
        loop {
            if let Some(at) = self.held[..self.searched].iter().rposition(|byte| *byte == b'\n') {
                line.extend_from_slice(&self.held[at + 1..]);
                self.held.truncate(at);
                self.searched = at;
                break;
            }
            self.searched = 0;
            if self.unread == 0 {
                line.append(&mut self.held);
                self.done = true;
                break;
            }
            if !search.may_read() {
                return Ok(Next::Stopped);
            }
            let size = self.read_block()?;
            search.bytes_left = search.bytes_left.saturating_sub(size);
        }
        line.truncate(LINE_BYTES_MAX);
        Ok(Next::Line)
    }

    fn read_block(&mut self) -> std::io::Result<u64> {
        let size = usize::try_from(self.unread).map_or(BLOCK_BYTES, |unread| unread.min(BLOCK_BYTES));
        let from = self.unread - size as u64;
        let mut block = vec![0; size];
        self.file.read_exact_at(&mut block, from)?;
        self.unread = from;
        self.searched = size;
        if !self.begun {
            self.begun = true;
            if block.last() == Some(&b'\n') {
                block.pop();
                self.searched -= 1;
            }
        }
        // Of a long line only the begin is wanted, so its end need not be carried along.
        self.held.truncate(LINE_BYTES_MAX);
        block.append(&mut self.held);
        self.held = block;
        Ok(size as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn search(bytes_left: u64) -> Search {
        Search { bytes_left, given_up: Arc::default() }
    }

    fn lines(content: &[u8]) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().expect("makes a file");
        file.write_all(content).expect("writes");
        let mut reader = Backwards::new(file, content.len() as u64);
        let (mut found, mut line) = (Vec::new(), Vec::new());
        let mut search = search(u64::MAX);
        while reader.next(&mut line, &mut search).expect("reads") == Next::Line {
            found.push(line.clone());
        }
        found.reverse();
        found
    }

    fn expected(content: &[u8]) -> Vec<Vec<u8>> {
        if content.is_empty() {
            return Vec::new();
        }
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        content.split(|byte| *byte == b'\n').map(|line| line[..line.len().min(LINE_BYTES_MAX)].to_vec()).collect()
    }

    #[test]
    fn lines_longer_than_blocks_are_cut_and_their_neighbours_whole() {
        let long = [b"head ".to_vec(), vec![b'x'; 3 * BLOCK_BYTES + 7]].concat();
        for (before, after) in [(0, 0), (1, 1), (BLOCK_BYTES - 1, BLOCK_BYTES), (BLOCK_BYTES, BLOCK_BYTES + 1)] {
            let parts = [vec![b'a'; before], long.clone(), vec![b'b'; after], Vec::new()];
            let content = parts.join(&b'\n');
            assert_eq!(lines(&content), expected(&content), "{before} {after}");
        }
    }

    #[test]
    fn the_end_of_a_huge_file_costs_one_block() {
        const HUGE: u64 = 1 << 40;
        let mut file = tempfile::tempfile().expect("makes a file");
        file.set_len(HUGE).expect("makes a hole");
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).expect("seeks");
        file.write_all(b"\nfirst\nlast\n").expect("writes");
        let mut reader = Backwards::new(file, HUGE + 12);
        let mut line = Vec::new();
        let mut search = search(3 * BLOCK_BYTES as u64);
        for expected in ["last", "first"] {
            assert_eq!(reader.next(&mut line, &mut search).expect("reads"), Next::Line);
            assert_eq!(line, expected.as_bytes());
        }
        assert_eq!(reader.unread, HUGE + 12 - BLOCK_BYTES as u64);
        // The hole is one line without an end in sight.
        assert_eq!(reader.next(&mut line, &mut search).expect("reads"), Next::Stopped);
        assert_eq!(reader.unread, HUGE + 12 - 3 * BLOCK_BYTES as u64);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_line_is_found_once(
            sizes in proptest::collection::vec(prop_oneof![0..4_usize, 0..200_usize, 0..90_000_usize], 0..12),
            ended in any::<bool>()
        ) {
            let parts: Vec<Vec<u8>> = sizes.iter().zip(b'a'..).map(|(size, byte)| vec![byte; *size]).collect();
            let mut content = parts.join(&b'\n');
            if ended {
                content.push(b'\n');
            }
            prop_assert_eq!(lines(&content), expected(&content));
        }
    }
}
