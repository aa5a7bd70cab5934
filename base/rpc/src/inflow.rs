//! What a peer sends on one stream: bytes, messages in a row, and how it ended.
//!
//! Owns the difference between an end and a break: a half that was said to the end has a word after it (trailers), and
//! what comes to a stop without it was cut off, however tidily.

use crate::failure::Failure;
use crate::head::read_end;
use crate::settings::MESSAGE_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The length of a message, before it.
const LENGTH_BYTES: usize = 4;
/// Below this a message and its length are copied into one piece.
const SMALL_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Inflow {
    body: Incoming,
    /// What has come and was not asked for yet.
    rest: Bytes,
    /// Part of a message, or of the length before it.
    gathered: BytesMut,
    /// How long the message is, once that has come.
    wanted: Option<usize>,
    /// How it ended, once it has.
    end: Option<Result<(), Failure>>,
}

/// Why no more comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflowError {
    #[error("the stream was cut off")]
    Cut {
        #[source]
        source: Option<hyper::Error>,
    },
    #[error("a message of {bytes} bytes is larger than the {max} that are taken")]
    TooLarge { bytes: usize, max: usize },
    #[error("a message came without its end")]
    Torn,
}

impl Inflow {
    pub(crate) fn new(body: Incoming) -> Inflow {
        Inflow { body, rest: Bytes::new(), gathered: BytesMut::new(), wanted: None, end: None }
    }

    /// More bytes; `None` at the end, which is [`Inflow::end`] then.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, InflowError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        while self.end.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    Err(frame) => self.end = frame.trailers_ref().and_then(read_end),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(InflowError::Cut { source: Some(error) }))),
                None => return Poll::Ready(Some(Err(InflowError::Cut { source: None }))),
            }
        }
        Poll::Ready(None)
    }

    pub(crate) async fn bytes(&mut self) -> Option<Result<Bytes, InflowError>> {
        std::future::poll_fn(|cx| self.poll_bytes(cx)).await
    }

    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.end.take().unwrap_or(Ok(()))
    }

    /// The next message of at most `max` bytes. `None` at the end. Dropped while it waits, it goes on the next time.
    pub(crate) async fn message(&mut self, max: usize) -> Result<Option<Bytes>, InflowError> {
        std::future::poll_fn(|cx| self.poll_message(cx, max)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, InflowError>> {
        loop {
            let wanted = self.wanted.unwrap_or(LENGTH_BYTES);
            if let Some(piece) = self.cut(wanted) {
                if self.wanted.take().is_some() {
                    return Poll::Ready(Ok(Some(piece)));
                }
                let length = piece.first_chunk().map_or(usize::MAX, |bytes| u32::from_be_bytes(*bytes) as usize);
                if length > max {
                    return Poll::Ready(Err(InflowError::TooLarge { bytes: length, max }));
                }
                self.wanted = Some(length);
                continue;
            }
            match ready!(self.poll_bytes(cx)) {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None if self.wanted.is_some() || !self.gathered.is_empty() => {
                    return Poll::Ready(Err(InflowError::Torn));
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// So many bytes of what has come, if they have; what is too few is gathered, as it comes and not as it is announced.
    fn cut(&mut self, length: usize) -> Option<Bytes> {
        if self.gathered.is_empty() && self.rest.len() >= length {
            return Some(self.rest.split_to(length));
        }
        let missing = length.saturating_sub(self.gathered.len()).min(self.rest.len());
        self.gathered.extend_from_slice(&self.rest.split_to(missing));
        (self.gathered.len() >= length).then(|| self.gathered.split().freeze())
    }
}

/// Everything of a body that says how long it is.
pub(crate) async fn whole(mut body: Incoming) -> Result<Bytes, InflowError> {
    let announced = body.size_hint().exact();
    let too_large = |bytes: usize| InflowError::TooLarge { bytes, max: MESSAGE_BYTES_MAX };
    if let Some(bytes) = announced.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
        && bytes > MESSAGE_BYTES_MAX
    {
        return Err(too_large(bytes));
    }
    let mut first = Bytes::new();
    let mut out = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| InflowError::Cut { source: Some(error) })?;
        let Ok(bytes) = frame.into_data() else { continue };
        if first.is_empty() && out.is_empty() {
            // Most are one piece.
            first = bytes;
            continue;
        }
        if out.is_empty() {
            out.extend_from_slice(&std::mem::take(&mut first));
        }
        out.extend_from_slice(&bytes);
        if out.len() > MESSAGE_BYTES_MAX {
            return Err(too_large(out.len()));
        }
    }
    let whole = if out.is_empty() { first } else { out.freeze() };
    if announced.is_some_and(|announced| announced != whole.len() as u64) {
        return Err(InflowError::Cut { source: None });
    }
    Ok(whole)
}

/// A message as it travels: its length, and itself apart unless it is small.
pub(crate) fn framed(message: Bytes) -> (Bytes, Option<Bytes>) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    if message.len() > SMALL_BYTES {
        return (Bytes::copy_from_slice(&length), Some(message));
    }
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + message.len());
    out.extend_from_slice(&length);
    out.extend_from_slice(&message);
    (out.freeze(), None)
}

impl From<InflowError> for io::Error {
    fn from(error: InflowError) -> io::Error {
        let kind = match &error {
            InflowError::Cut { .. } | InflowError::Torn => io::ErrorKind::ConnectionReset,
            InflowError::TooLarge { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
