//! How much of a stream is read at once on its way to `h3`, which keeps every frame but data whole until it has all of it.
//!
//! Owns the look at each frame's head: what it is and how long. Promises that no frame that is kept is longer than the
//! bound, and that a stream which ends within a frame is seen to: `h3` takes some of those for whole, and panics at others.
//! Pure; leaves the bytes as they are.

/// Frames of data are handed on as they come (RFC 9114, section 7.2.1).
const DATA: u64 = 0x00;

/// What no stream may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("a frame of HTTP/3 is too long")]
    TooLong,
    #[error("the stream ended within a frame")]
    Cut,
}

/// What the next byte of a stream belongs to.
enum At {
    /// What kind of stream it is: those of one direction say so first.
    Stream(Number),
    Kind(Number),
    Length(u64, Number),
    Payload(u64),
}

/// A number of variable length, as far as it has come (RFC 9000, section 16).
#[derive(Default)]
struct Number {
    value: u64,
    left: Option<u8>,
}

pub(super) struct Frames {
    at: At,
    bytes_max: u64,
}

impl Frames {
    /// Of a stream that carries a request.
    pub(super) fn of_request(bytes_max: u64) -> Frames {
        Frames { at: At::Kind(Number::default()), bytes_max }
    }

    /// Of a stream in one direction. Those of QPACK have no frames, and are never read: no table is offered.
    pub(super) fn of_control(bytes_max: u64) -> Frames {
        Frames { at: At::Stream(Number::default()), bytes_max }
    }

    /// Takes in that the stream has ended.
    ///
    /// # Errors
    /// When it ended within a frame.
    pub(super) fn end(&self) -> Result<(), Bad> {
        match &self.at {
            At::Kind(Number { left: None, .. }) | At::Stream(Number { left: None, .. }) => Ok(()),
            At::Kind(_) | At::Stream(_) | At::Length(..) | At::Payload(_) => Err(Bad::Cut),
        }
    }

    /// Takes in what is handed on.
    ///
    /// # Errors
    /// When it begins a frame that is too long.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Bad> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Payload(left) => {
                    let length = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= length as u64;
                    bytes = bytes.get(length..).unwrap_or_default();
                    if *left == 0 {
                        self.at = At::Kind(Number::default());
                    }
                    continue;
                }
                At::Stream(number) => {
                    if number.take(*first).is_some() {
                        self.at = At::Kind(Number::default());
                    }
                }
                At::Kind(number) => {
                    if let Some(kind) = number.take(*first) {
                        self.at = At::Length(kind, Number::default());
                    }
                }
                At::Length(kind, number) => {
                    if let Some(length) = number.take(*first) {
                        // `h3` counts data in words of the machine.
                        let most = if *kind == DATA { usize::MAX as u64 } else { self.bytes_max };
                        if length > most {
                            return Err(Bad::TooLong);
                        }
                        self.at = if length == 0 { At::Kind(Number::default()) } else { At::Payload(length) };
                    }
                }
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl Number {
    /// The number, when this was its last byte.
    fn take(&mut self, byte: u8) -> Option<u64> {
        let left = match self.left {
            None => {
                self.value = u64::from(byte & 0x3f);
                (1 << (byte >> 6)) - 1
            }
            Some(left) => {
                self.value = self.value << 8 | u64::from(byte);
                left - 1
            }
        };
        self.left = Some(left);
        (left == 0).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bad, Frames};

    #[test]
    fn only_frames_that_are_kept_have_a_bound() {
        let check = |bytes: &[u8], expected: Result<(), Bad>| {
            let mut whole = Frames::of_request(100);
            assert_eq!(whole.pass(bytes), expected, "{bytes:?}");
            let mut frames = Frames::of_request(100);
            let mut each = bytes.chunks(1).map(|byte| frames.pass(byte));
            assert_eq!(each.find(Result::is_err).unwrap_or(Ok(())), expected, "{bytes:?} byte by byte");
        };
        check(&[], Ok(()));
        check(&[&[0x01, 0x40, 100], &[7; 100][..], &[0x01, 0x00]].concat(), Ok(()));
        check(&[0x01, 0x40, 101], Err(Bad::TooLong));
        // Headers of 2^62 - 1 bytes; data of 2^30 - 1.
        check(&[&[0x01], &[0xff; 8][..]].concat(), Err(Bad::TooLong));
        check(&[0x00, 0xbf, 0xff, 0xff, 0xff, 7, 7], Ok(()));
        // One of no known kind, in four bytes, after some data.
        check(&[0x00, 0x02, 1, 2, 0x80, 0x00, 0x01, 0x21, 0x40, 101], Err(Bad::TooLong));
        check(&[0x00, 0x02, 0x01, 0xff, 0x01, 0x02, 0xff, 0xff], Ok(()));
    }

    #[test]
    fn a_stream_in_one_direction_says_first_what_it_is() {
        let mut frames = Frames::of_control(100);
        assert_eq!(frames.pass(&[0x00, 0x04, 0x02, 0x06, 0x10]), Ok(()));
        assert_eq!(frames.pass(&[0x04, 0x40, 101]), Err(Bad::TooLong));
    }

    #[test]
    fn a_stream_ends_between_frames() {
        let check = |bytes: &[u8], expected: Result<(), Bad>| {
            let mut frames = Frames::of_request(100);
            assert_eq!((frames.pass(bytes), frames.end()), (Ok(()), expected), "{bytes:?}");
        };
        check(&[], Ok(()));
        check(&[0x01, 0x02, 7, 7], Ok(()));
        check(&[0x01, 0x00, 0x00, 0x01, 7], Ok(()));
        check(&[0x01, 0x02, 7], Err(Bad::Cut));
        check(&[0x00, 0x02], Err(Bad::Cut));
        check(&[0x00], Err(Bad::Cut));
        check(&[0x40], Err(Bad::Cut));
    }
}
