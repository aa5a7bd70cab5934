//! Bodies that come in chunks (RFC 9112, section 7.1).
//!
//! Owns the decoder: strict about sizes and line ends, with a bound on all that is not data. Data is shared with the
//! buffer it was read into. Pure.

use super::head::{self, Bad};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// Sixteen digits are all that 64 bits hold.
const DIGITS_MAX: usize = 16;
/// What the extensions of one body's chunks may take in all: nobody uses them but to hide or to tire.
const EXTENSION_BYTES_MAX: usize = 16 << 10;
/// What the trailers may take.
const TRAILER_BYTES_MAX: usize = 16 << 10;

const BAD_SIZE: Bad = Bad::Malformed("a chunk's size is not a number");
const BAD_END: Bad = Bad::Malformed("a chunk is not as long as it says");
const TOO_MUCH: Bad = Bad::Malformed("too much beside the data of chunks");

/// A body in chunks, as far as it has been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    state: State,
    extension_bytes: usize,
    /// How much of the trailers has been looked through.
    seen: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    Data(Bytes),
    /// More bytes are needed to go on.
    More,
    End(Option<HeaderMap>),
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { state: State::Size, extension_bytes: 0, seen: 0 }
    }

    /// How much data is known to follow.
    pub(super) fn ahead(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            State::Size | State::DataEnd | State::Trailers => 0,
        }
    }

    /// Takes what can be taken from the front of `buffer`. To be called again after data and with more bytes.
    pub(super) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Bad> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = line(buffer)? else { return Ok(Step::More) };
                    let size = size(&line)?;
                    // A plain size is no extension, however many chunks there are.
                    self.extension_bytes += line.len().saturating_sub(DIGITS_MAX);
                    if self.extension_bytes > EXTENSION_BYTES_MAX {
                        return Err(TOO_MUCH);
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(0) => self.state = State::DataEnd,
                State::Data(_) if buffer.is_empty() => return Ok(Step::More),
                State::Data(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    self.state = State::Data(left - u64::try_from(length).unwrap_or(left));
                    return Ok(Step::Data(buffer.split_to(length).freeze()));
                }
                State::DataEnd => match (buffer.first(), buffer.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        drop(buffer.split_to(2));
                        self.state = State::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Step::More),
                    _ => return Err(BAD_END),
                },
                State::Trailers => return self.trailers(buffer),
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Step, Bad> {
        loop {
            let rest = buffer.get(self.seen..).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', rest) else {
                return if buffer.len() > TRAILER_BYTES_MAX { Err(TOO_MUCH) } else { Ok(Step::More) };
            };
            let Some((b'\r', line)) = rest.get(..found).and_then(<[u8]>::split_last) else {
                return Err(Bad::Malformed("a line that ends without a carriage return"));
            };
            let empty = line.is_empty();
            self.seen += found + 1;
            if self.seen > TRAILER_BYTES_MAX {
                return Err(TOO_MUCH);
            }
            if empty {
                let block = buffer.split_to(self.seen).freeze();
                let trailers = if block.len() > 2 { Some(head::trailers(&block)?) } else { None };
                return Ok(Step::End(trailers));
            }
        }
    }
}

/// The line at the front without its end, taken off.
fn line(buffer: &mut BytesMut) -> Result<Option<Bytes>, Bad> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > EXTENSION_BYTES_MAX { Err(TOO_MUCH) } else { Ok(None) };
    };
    let mut line = buffer.split_to(end + 1).freeze();
    line.truncate(end);
    if line.last() != Some(&b'\r') {
        return Err(Bad::Malformed("a line that ends without a carriage return"));
    }
    line.truncate(end.saturating_sub(1));
    Ok(Some(line))
}

fn size(line: &[u8]) -> Result<u64, Bad> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at_checked(digits).ok_or(BAD_SIZE)?;
    if !(1..=DIGITS_MAX).contains(&digits) {
        return Err(BAD_SIZE);
    }
    let rest = rest.trim_ascii_start();
    // A bare carriage return is an end of line to some.
    if !(rest.is_empty() || rest.starts_with(b";")) || rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(BAD_SIZE);
    }
    let text = std::str::from_utf8(number).map_err(|_| BAD_SIZE)?;
    u64::from_str_radix(text, 16).map_err(|_| BAD_SIZE)
}

#[cfg(test)]
mod tests {
    use super::{Chunks, Step};
    use crate::http1::head::Bad;
    use bytes::{Buf, BytesMut};
    use http::HeaderMap;
    use proptest::prelude::*;

    /// Data, trailers, and how much is left.
    type Read = (Vec<u8>, Option<HeaderMap>, usize);

    /// What a body holds when its bytes come `step` at a time.
    fn read(bytes: &[u8], step: usize) -> Result<Option<Read>, Bad> {
        let (mut chunks, mut buffer, mut data) = (Chunks::new(), BytesMut::new(), Vec::new());
        let mut rest = bytes;
        loop {
            match chunks.step(&mut buffer)? {
                Step::Data(some) => data.extend_from_slice(&some),
                Step::End(trailers) => return Ok(Some((data, trailers, buffer.len() + rest.remaining()))),
                Step::More if rest.is_empty() => return Ok(None),
                Step::More => {
                    let next = rest.len().min(step);
                    buffer.extend_from_slice(&rest[..next]);
                    rest.advance(next);
                }
            }
        }
    }

    #[test]
    fn chunks_are_put_together_however_they_come() {
        let body = b"3\r\nabc\r\n0A ;x=\"y\"\r\n0123456789\r\n000\r\n\r\nGET";
        for step in 1..body.len() {
            let (data, trailers, left) = read(body, step).unwrap().unwrap();
            assert_eq!((data.as_slice(), trailers, left), (&b"abc0123456789"[..], None, 3), "{step}");
        }
        let (_, trailers, _) = read(b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", 2).unwrap().unwrap();
        let trailers = trailers.unwrap();
        assert_eq!((trailers.len(), &trailers["x-sum"]), (2, &"1".parse::<http::HeaderValue>().unwrap()));
        assert!(read(b"3\r\nabc\r\n0\r\n", 1).unwrap().is_none());
    }

    #[test]
    fn lies_are_refused() {
        let long = format!("3;{}\r\nabc\r\n", "x".repeat(20_000));
        let many = format!("1;{}\r\na\r\n", "x".repeat(1_000)).repeat(20);
        let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(4_000));
        for bad in [
            "",
            "zz\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            "0x3\r\nabc\r\n",
            "fffffffffffffffff\r\n",
            "3 x\r\nabc\r\n",
            "\r\n",
            "3\nabc\r\n",
            "3\r\nabcdef\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabcX\n",
            "3;\rx\r\nabc\r\n",
            ";x\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nx y\r\n\r\n",
            &long,
            &many,
            &trailers,
        ]
        .into_iter()
        .skip(1)
        {
            for step in [1, 7, bad.len()] {
                assert!(read(bad.as_bytes(), step).is_err(), "{:?} by {step}", &bad[..bad.len().min(60)]);
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), step in 1..50_usize) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let (data, trailers, left) = read(&body, step).unwrap().unwrap();
            prop_assert_eq!(data, parts.concat());
            prop_assert!(trailers.is_none());
            prop_assert_eq!(left, 0);
        }

        #[test]
        fn any_bytes_may_come(bytes in "[0-9a-f;\r\n :x]{0,80}", step in 1..20_usize) {
            // The same verdict however they come.
            let whole = read(bytes.as_bytes(), bytes.len().max(1));
            let parts = read(bytes.as_bytes(), step);
            prop_assert_eq!(whole.is_err(), parts.is_err());
        }
    }
}
