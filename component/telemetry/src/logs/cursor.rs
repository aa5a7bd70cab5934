//! A reader of one instance's log that goes forward with what is written, through rotations.
//!
//! Holds its file open, so what was in it when the shim turned the files is still read. Promises that no
//! line is shown twice, and that lines it could not show, because the files turned twice while nobody took
//! its lines, are at least mentioned.

use super::line::{LINE_BYTES_MAX, Line, Stream};
use super::merge::{Chain, Inode, Piece};
use super::{CURRENT, PREVIOUS};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use wire::api::LogLine;

/// One read. Many instances may have something to say at once, and all of it is held until it is sent.
const CHUNK_BYTES: usize = 16 << 10;

const LOST: &str = "lines were missed here: they were written faster than they were read, and rotated away";

#[derive(Debug)]
pub(super) struct Cursor {
    instance: String,
    dir: PathBuf,
    file: Option<Open>,
    /// A line whose end is not written yet, at most [`LINE_BYTES_MAX`] of it.
    partial: Vec<u8>,
    /// The line being read is too long: its rest is skipped.
    skipping: bool,
    /// When the newest line was written, for those that do not say and for the order among instances.
    newest_ms: u64,
}

#[derive(Debug)]
struct Open {
    file: std::fs::File,
    inode: Inode,
    offset: u64,
    /// Another file has taken its name: its end is final.
    turned: bool,
}

/// What one turn found.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Lines with what they are ordered by.
    pub(super) lines: Vec<(u64, LogLine)>,
    /// There is more to read at once.
    pub(super) more: bool,
    /// The instance's folder is gone.
    pub(super) gone: bool,
}

impl Cursor {
    /// Reads an instance that is new: from its first line.
    pub(super) fn new(service_dir: &Path, instance: &str, now_ms: u64) -> Cursor {
        Cursor {
            instance: instance.to_owned(),
            dir: service_dir.join(instance),
            file: None,
            partial: Vec::new(),
            skipping: false,
            newest_ms: now_ms,
        }
    }

    /// Goes on where `chain` ends: behind its last whole line, to which `chain` is cut.
    pub(super) fn behind(dir: &Path, chain: &mut Chain, now_ms: u64) -> std::io::Result<Cursor> {
        let mut cursor = Cursor::new(dir, &chain.instance, now_ms);
        if let Some(piece) = chain.files.first_mut() {
            piece.length = whole_lines(piece)?;
            let file = piece.file.try_clone()?;
            cursor.file = Some(Open { file, inode: piece.inode, offset: piece.length, turned: false });
        }
        Ok(cursor)
    }

    pub(super) fn turn(&mut self) -> std::io::Result<Turn> {
        let mut turn = Turn::default();
        if self.file.is_none() {
            self.file = self.first()?;
        }
        let Some(open) = &mut self.file else {
            turn.gone = !self.dir.try_exists()?;
            return Ok(turn);
        };
        if open.file.metadata()?.len() < open.offset {
            // Somebody cut it: what stands there now was not read.
            open.offset = 0;
            self.partial.clear();
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let size = open.file.read_at(&mut chunk, open.offset)?;
        open.offset += size as u64;
        if size > 0 {
            self.split(&chunk[..size], &mut turn);
            turn.more = true;
            return Ok(turn);
        }
        self.at_end(&mut turn)?;
        Ok(turn)
    }

    /// Everything of the file is read: goes on to the next one, if there is one.
    fn at_end(&mut self, turn: &mut Turn) -> std::io::Result<()> {
        let Some(open) = &mut self.file else { return Ok(()) };
        let Some(current) = Piece::open(&self.dir.join(CURRENT))? else {
            turn.gone = !self.dir.try_exists()?;
            return Ok(());
        };
        if current.inode == open.inode {
            return Ok(());
        }
        if !open.turned {
            // The last lines may have come between the read and the look: once more.
            open.turned = true;
            turn.more = true;
            return Ok(());
        }
        let ours = open.inode;
        self.end_line(turn);
        let next = match Piece::open(&self.dir.join(PREVIOUS))? {
            Some(previous) if previous.inode == current.inode => {
                // They turned again between the two looks; the next look sees both in place.
                turn.more = true;
                return Ok(());
            }
            Some(previous) if previous.inode != ours => {
                self.push(None, Stream::Bramble, LOST.to_owned(), turn);
                previous
            }
            Some(_) | None => current,
        };
        self.file = Some(Open { file: next.file, inode: next.inode, offset: 0, turned: false });
        turn.more = true;
        Ok(())
    }

    fn first(&self) -> std::io::Result<Option<Open>> {
        for file in [PREVIOUS, CURRENT] {
            if let Some(piece) = Piece::open(&self.dir.join(file))? {
                return Ok(Some(Open { file: piece.file, inode: piece.inode, offset: 0, turned: false }));
            }
        }
        Ok(None)
    }

    fn split(&mut self, bytes: &[u8], turn: &mut Turn) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.extend(part);
            self.skipping = false;
            let line = std::mem::take(&mut self.partial);
            self.push_bytes(&line, turn);
        }
        self.extend(last);
    }

    fn extend(&mut self, part: &[u8]) {
        let room = LINE_BYTES_MAX - self.partial.len();
        if !self.skipping {
            self.partial.extend_from_slice(&part[..part.len().min(room)]);
            self.skipping = part.len() > room;
        }
    }

    /// The file ends within a line: that is all there will be of it.
    fn end_line(&mut self, turn: &mut Turn) {
        self.skipping = false;
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            self.push_bytes(&line, turn);
        }
    }

    fn push_bytes(&mut self, bytes: &[u8], turn: &mut Turn) {
        let line = Line::parse(bytes);
        self.push(line.time_ms, line.stream, line.text(), turn);
    }

    fn push(&mut self, time_ms: Option<u64>, stream: Stream, text: String, turn: &mut Turn) {
        let time_ms = time_ms.unwrap_or(self.newest_ms);
        self.newest_ms = self.newest_ms.max(time_ms);
        turn.lines.push((self.newest_ms, stream.line(&self.instance, time_ms, text)));
    }
}

/// Where the last whole line of a file ends. A line without an end in sight is taken as whole.
fn whole_lines(piece: &Piece) -> std::io::Result<u64> {
    let size = usize::try_from(piece.length).map_or(LINE_BYTES_MAX, |length| length.min(LINE_BYTES_MAX));
    let from = piece.length - size as u64;
    let mut tail = vec![0; size];
    piece.file.read_exact_at(&mut tail, from)?;
    Ok(match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => from + at as u64 + 1,
        None if from == 0 => 0,
        None => piece.length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    #[derive(Debug, Clone)]
    enum Step {
        Append(Vec<u8>),
        Rotate,
        Turn,
    }

    fn step() -> impl Strategy<Value = Step> {
        let text = proptest::collection::vec(prop_oneof![Just(b'\n'), b'a'..b'd'], 0..12);
        let long = (0..70_000_usize).prop_map(|size| vec![b'x'; size]);
        prop_oneof![
            8 => text.prop_map(Step::Append),
            1 => long.prop_map(Step::Append),
            1 => Just(Step::Rotate),
            4 => Just(Step::Turn),
        ]
    }

    fn read_all(cursor: &mut Cursor, found: &mut Vec<String>) {
        loop {
            let turn = cursor.turn().expect("reads");
            found.extend(turn.lines.into_iter().map(|(_, line)| line.line));
            if !turn.more {
                return;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn whatever_is_written_is_read_once_and_in_order(steps in proptest::collection::vec(step(), 0..40)) {
            let dir = tempfile::tempdir().expect("makes a folder");
            let instance = dir.path().join("i");
            fs::create_dir(&instance).expect("makes a folder");
            let mut cursor = Cursor::new(dir.path(), "i", 0);
            let (mut found, mut written) = (Vec::new(), vec![Vec::new()]);
            let append = |bytes: &[u8]| {
                let mut file =
                    OpenOptions::new().append(true).create(true).open(instance.join(CURRENT)).expect("opens");
                file.write_all(bytes).expect("writes");
            };
            for step in steps {
                match step {
                    Step::Append(bytes) => {
                        append(&bytes);
                        written.last_mut().expect("never empty").extend_from_slice(&bytes);
                    }
                    Step::Rotate if instance.join(CURRENT).exists() => {
                        // Files that turn twice unread are lost, which another test shows.
                        read_all(&mut cursor, &mut found);
                        fs::rename(instance.join(CURRENT), instance.join(PREVIOUS)).expect("renames");
                        append(b"");
                        written.push(Vec::new());
                    }
                    Step::Rotate => {}
                    Step::Turn => {
                        found.extend(cursor.turn().expect("reads").lines.into_iter().map(|(_, line)| line.line));
                    }
                }
            }
            append(b"\n");
            written.last_mut().expect("never empty").push(b'\n');
            read_all(&mut cursor, &mut found);
            let cut = |line: &[u8]| String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]).into_owned();
            let mut expected = Vec::new();
            for file in written.iter().filter(|file| !file.is_empty()) {
                expected.extend(file.strip_suffix(b"\n").unwrap_or(file).split(|byte| *byte == b'\n').map(cut));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
