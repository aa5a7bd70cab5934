//! One line as a shim writes it. Pure: bytes in, words out; whatever the bytes are.

use wire::api::LogLine;

/// Longest line shown. Shims split what programs write at 16 KiB, so more than this was not written by one.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// A line taken apart, text still as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// `None` when the line does not begin as one of ours: a torn write, or a file somebody else made.
    pub(super) time_ms: Option<u64>,
    pub(super) stream: Stream,
    pub(super) text: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
    Bramble,
}

impl Stream {
    pub(super) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Bramble => "bramble",
        }
    }

    pub(super) fn line(self, instance: &str, time_ms: u64, text: String) -> LogLine {
        LogLine { time_ms, instance: instance.to_owned(), stream: self.name().to_owned(), line: text }
    }
}

impl<'a> Line<'a> {
    /// `bytes` is what stands between two line feeds.
    pub(super) fn parse(bytes: &'a [u8]) -> Line<'a> {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        head(bytes).unwrap_or(Line { time_ms: None, stream: Stream::Stdout, text: bytes })
    }

    /// The text as a person may see it: what is no UTF-8, and NUL, which ends strings in half of all
    /// programs, become the replacement character. Other control characters are left for colours.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(self.text);
        if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.into_owned() }
    }
}

fn head(bytes: &[u8]) -> Option<Line<'_>> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let time_ms = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    let rest = bytes[digits..].strip_prefix(b" ")?;
    let (mark, rest) = rest.split_first()?;
    let stream = match mark {
        b'o' => Stream::Stdout,
        b'e' => Stream::Stderr,
        b'b' => Stream::Bramble,
        _ => return None,
    };
    let text = match rest.split_first() {
        Some((b' ', text)) => text,
        Some(_) => return None,
        // An empty line whose last blank was lost.
        None => rest,
    };
    Some(Line { time_ms: Some(time_ms), stream, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], time_ms: Option<u64>, stream: &str, text: &str) {
        let line = Line::parse(bytes);
        assert_eq!((line.time_ms, line.stream.name(), line.text().as_str()), (time_ms, stream, text), "{bytes:?}");
    }

    #[test]
    fn lines_are_taken_apart() {
        check(b"12 o hello world", Some(12), "stdout", "hello world");
        check(b"12 e  two blanks", Some(12), "stderr", " two blanks");
        check(b"12 b started\r", Some(12), "bramble", "started");
        check(b"12 o ", Some(12), "stdout", "");
        check(b"12 o", Some(12), "stdout", "");
    }

    #[test]
    fn what_is_not_ours_is_text() {
        check(b"", None, "stdout", "");
        check(b"hello", None, "stdout", "hello");
        check(b"12 x hello", None, "stdout", "12 x hello");
        check(b"12 ohello", None, "stdout", "12 ohello");
        check(b"99999999999999999999 o a", None, "stdout", "99999999999999999999 o a");
        check(b"1 o a\0b\xff", Some(1), "stdout", "a\u{fffd}b\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = Line::parse(&bytes).text();
            prop_assert!(!text.contains('\0'));
        }
    }
}
