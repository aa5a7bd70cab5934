//! The platform's own lines in an instance's log. One write per note, so that notes and the shim's lines
//! never mix within a line.

use super::CURRENT;
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest note kept; what is behind it is cut. It is for people, not for dumps.
pub const NOTE_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("the instance's name is not one logs are kept under")]
    Name,
    #[error("noting in {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

pub(super) fn append(dir: &Path, now_ms: u64, text: &str) -> Result<(), NoteError> {
    let path = dir.join(CURRENT);
    let write = || {
        // Programs print secrets: logs are for their owner.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(&path)?;
        let torn = match file.metadata()?.len().checked_sub(1) {
            Some(last) => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, last)?;
                byte != *b"\n"
            }
            None => false,
        };
        file.write_all(format_note(now_ms, text, torn).as_bytes())
    };
    write().map_err(|source| NoteError::Write { path: path.clone(), source })
}

/// A note of several lines is as many lines of the log. `torn`: the log ends within a line.
fn format_note(now_ms: u64, text: &str, torn: bool) -> String {
    let text = &text[..text.floor_char_boundary(NOTE_BYTES_MAX)];
    let mut out = String::from(if torn { "\n" } else { "" });
    for line in text.split('\n') {
        out.push_str(&format!("{now_ms} b {}\n", line.trim_end_matches('\r')));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_whole_lines() {
        assert_eq!(format_note(7, "started", false), "7 b started\n");
        assert_eq!(format_note(7, "a\r\nb", true), "\n7 b a\n7 b b\n");
        assert_eq!(format_note(7, &"ä".repeat(4_000), false).len(), NOTE_BYTES_MAX + 5);
    }
}
