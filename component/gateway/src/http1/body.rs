//! The body of a message as it is read.
//!
//! Owns how far a body has come, whichever way its length is told. Pure.

use super::chunks::{Chunks, Step};
use super::head::{Bad, Length};
use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};

/// What is read at once where much is to come. Loopback's full speed is reached at 64 KiB.
const READ_BYTES_MAX: u64 = 64 << 10;
/// What is read where nobody knows: a head, or a small message.
const READ_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    /// Nothing is left.
    Through,
    Known(u64),
    Chunked(Chunks),
    /// Until the connection ends.
    Open,
    /// It broke off: what follows has no meaning.
    Broken,
}

/// What could be taken.
pub(super) enum Taken {
    Frame(Frame<Bytes>),
    /// More bytes are needed.
    More,
    End,
}

/// A body that ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Early;

impl Reading {
    pub(super) fn new(length: Length) -> Reading {
        match length {
            Length::Known(0) => Reading::Through,
            Length::Known(bytes) => Reading::Known(bytes),
            Length::Chunked => Reading::Chunked(Chunks::new()),
            Length::Open => Reading::Open,
        }
    }

    pub(super) fn is_through(&self) -> bool {
        matches!(self, Reading::Through)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Reading::Through => SizeHint::with_exact(0),
            Reading::Known(left) => SizeHint::with_exact(*left),
            Reading::Chunked(_) | Reading::Open | Reading::Broken => SizeHint::default(),
        }
    }

    /// Makes room in `buffer` for the next read. What is left of its room is used up first: the messages before may still
    /// share the rest.
    pub(super) fn make_room(&self, buffer: &mut BytesMut) {
        let wanted = self.room();
        if buffer.capacity() - buffer.len() < wanted / 4 {
            buffer.reserve(wanted);
        }
    }

    fn room(&self) -> usize {
        let ahead = match self {
            Reading::Through | Reading::Broken => 0,
            Reading::Known(left) => *left,
            // What follows a chunk is most likely another of its size.
            Reading::Chunked(chunks) => chunks.ahead(),
            Reading::Open => READ_BYTES_MAX,
        };
        usize::try_from(ahead.min(READ_BYTES_MAX)).unwrap_or(READ_BYTES).max(READ_BYTES)
    }

    /// Takes what has been read of it from the front of `buffer`.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Taken, Bad> {
        match self {
            Reading::Through => Ok(Taken::End),
            Reading::Broken => Err(Bad::Malformed("the body broke off")),
            Reading::Known(_) | Reading::Open if buffer.is_empty() => Ok(Taken::More),
            Reading::Known(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= u64::try_from(length).unwrap_or(*left);
                if *left == 0 {
                    *self = Reading::Through;
                }
                Ok(Taken::Frame(Frame::data(buffer.split_to(length).freeze())))
            }
            Reading::Open => Ok(Taken::Frame(Frame::data(buffer.split().freeze()))),
            Reading::Chunked(chunks) => match chunks.step(buffer) {
                Ok(Step::Data(data)) => Ok(Taken::Frame(Frame::data(data))),
                Ok(Step::More) => Ok(Taken::More),
                Ok(Step::End(trailers)) => {
                    *self = Reading::Through;
                    Ok(trailers.map_or(Taken::End, |trailers| Taken::Frame(Frame::trailers(trailers))))
                }
                Err(bad) => {
                    *self = Reading::Broken;
                    Err(bad)
                }
            },
        }
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self) -> Result<(), Early> {
        let whole = matches!(self, Reading::Through | Reading::Open);
        *self = if whole { Reading::Through } else { Reading::Broken };
        if whole { Ok(()) } else { Err(Early) }
    }
}
