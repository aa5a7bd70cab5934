//! Where a head ends.
//!
//! Owns the look at line ends, once over each byte however slowly they come. A line that ends without a carriage return
//! is an end to some readers and not to others, and is refused. Pure.

use super::head::Bad;

/// Empty lines before a request are to be ignored (RFC 9112, section 2.2): some clients send one after a body.
const EMPTY_LINES_MAX: usize = 4;

/// How far a head has been looked through.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Scan {
    /// Where the next byte to look at is.
    at: usize,
    /// Where the current line began.
    line: usize,
    empty_lines: usize,
    /// There was a line that is not empty.
    begun: bool,
}

impl Scan {
    /// The length of the head at the beginning of `bytes`, with the empty line that ends it. `None` while it is not
    /// complete; to be called again on the same bytes and more.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Bad> {
        while let Some(found) = bytes.get(self.at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let end = self.at + found;
            let line = bytes.get(self.line..end).unwrap_or_default();
            if line.last() != Some(&b'\r') {
                return Err(Bad::Malformed("a line that ends without a carriage return"));
            }
            self.at = end + 1;
            self.line = self.at;
            if line.len() > 1 {
                self.begun = true;
            } else if self.begun {
                return Ok(Some(self.at));
            } else {
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES_MAX {
                    return Err(Bad::Malformed("nothing but empty lines"));
                }
            }
        }
        self.at = bytes.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::Scan;

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let head = b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let bytes = [&head[..], b"body"].concat();
        for step in 1..bytes.len() {
            let mut scan = Scan::default();
            let mut seen = 0;
            let found = loop {
                seen = (seen + step).min(bytes.len());
                if let Some(found) = scan.end(&bytes[..seen]).unwrap() {
                    break found;
                }
            };
            assert_eq!(found, head.len(), "{step} at a time");
        }
    }

    #[test]
    fn bare_line_feeds_and_endless_nothing_are_refused() {
        for bad in ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nx: y\n\r\n", "\r\n\r\n\r\n\r\n\r\n\r\n", "\n"] {
            assert!(Scan::default().end(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(Scan::default().end(b"\r\n\r\nGET /").unwrap(), None);
    }
}
