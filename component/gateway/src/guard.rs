//! Sees request heads as they come in, for what the HTTP parser does not tell.
//!
//! Owns one question: does a head hold both a length and a transfer coding? hyper goes by the coding and forgets
//! the length; but whoever sent both may have meant the other, and what one of the two takes for the next request
//! the other takes for a body. Pure. Does not parse: it looks at the beginnings of lines.

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
/// As much of a line as tells the two names.
const START_BYTES: usize = CODING.len();

/// The heads of one connection.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// The beginning of the current line, in lower case.
    start: [u8; START_BYTES],
    start_length: usize,
    /// Whether the request line is through.
    in_headers: bool,
    /// The last byte of the line so far is a carriage return.
    returned: bool,
    /// A line ended without one.
    bare: bool,
    complete: bool,
    has_length: bool,
    has_coding: bool,
    /// This head was not seen from its beginning.
    blind: bool,
    /// Bytes were read that only the parser can tell the meaning of: it alone knows where the next head begins,
    /// and every one after it.
    lost: bool,
}

/// What is known of a head's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// At most one of the two.
    Plain,
    /// Both a length and a transfer coding.
    Double,
    /// A line ends with a line feed alone, which some take for an end and others do not.
    BareLineFeed,
    Unknown,
}

impl Guard {
    /// Takes in bytes read while no request is under way.
    pub(crate) fn scan(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.complete && !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            self.extend(line);
            rest = rest.get(line.len()..).unwrap_or_default();
            if end.is_some() {
                rest = rest.get(1..).unwrap_or_default();
                self.end_line();
            }
        }
        // A body, or the next request.
        self.lost |= !rest.is_empty();
    }

    /// Bytes were read within a request.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }

    /// The head is complete: what is known of it. Begins with the next.
    pub(crate) fn take(&mut self) -> Framing {
        let framing = if !self.complete || self.blind {
            Framing::Unknown
        } else if self.has_length && self.has_coding {
            Framing::Double
        } else if self.bare {
            Framing::BareLineFeed
        } else {
            Framing::Plain
        };
        *self = Guard { lost: self.lost, blind: self.lost, ..Guard::default() };
        framing
    }

    fn extend(&mut self, line: &[u8]) {
        if let Some(last) = line.last() {
            self.returned = *last == b'\r';
        }
        let room = self.start.iter_mut().skip(self.start_length);
        self.start_length += room.zip(line).map(|(slot, byte)| *slot = byte.to_ascii_lowercase()).count();
    }

    fn end_line(&mut self) {
        let start = self.start.get(..self.start_length).unwrap_or_default();
        let empty = start.is_empty() || start == b"\r";
        self.bare |= !std::mem::take(&mut self.returned);
        if self.in_headers {
            self.complete = empty;
            self.has_length |= start.starts_with(LENGTH);
            self.has_coding |= start.starts_with(CODING);
        }
        // Empty lines before a request line are skipped, as the parser does.
        self.in_headers |= !empty;
        self.start_length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Framing, Guard};

    fn judge(head: &str, cut: usize) -> Framing {
        let mut guard = Guard::default();
        let (one, two) = head.as_bytes().split_at(cut.min(head.len()));
        guard.scan(one);
        guard.scan(two);
        guard.take()
    }

    #[test]
    fn both_are_seen_however_the_bytes_are_cut() {
        let check = |headers: &str, expected| {
            let head = format!("POST /transfer-encoding: HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            for cut in 0..head.len() {
                assert_eq!(judge(&head, cut), expected, "{head:?} cut at {cut}");
            }
        };
        check("", Framing::Plain);
        check("Content-Length: 3\r\n", Framing::Plain);
        check("TRANSFER-encoding: chunked\r\n", Framing::Plain);
        check("Content-Length: 3\r\nX: y\r\nTransfer-Encoding: chunked\r\n", Framing::Double);
        check("transfer-encoding:chunked\ncontent-length:3\n", Framing::Double);
        check("X: y\n", Framing::BareLineFeed);
        check("X: y\r\nZ: z\n", Framing::BareLineFeed);
        check("X-Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Framing::Plain);
        check("X: Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Framing::Plain);
    }

    #[test]
    fn what_follows_a_head_is_not_judged() {
        let mut guard = Guard::default();
        guard.scan(b"\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 3\r\n");
        assert_eq!(guard.take(), Framing::Plain);
        guard.scan(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(guard.take(), Framing::Unknown, "it may have begun in what followed");
    }

    #[test]
    fn requests_one_after_another_are_each_seen() {
        let mut guard = Guard::default();
        for _ in 0..3 {
            guard.scan(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(guard.take(), Framing::Plain);
        }
        assert_eq!(guard.take(), Framing::Unknown, "nothing was read for it");
    }
}
