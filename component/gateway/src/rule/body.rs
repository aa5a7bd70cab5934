//! A request's body with a bound.
//!
//! Owns the count: a body without a declared length is cut off where it becomes too long, and the instance sees that
//! it was. Makes a copy beside, up to a bound, where somebody else is to have one.

use super::Pass;
use crate::asking::ClientBody;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// What a client sends, at most so much of it.
pub(crate) struct Bounded {
    body: ClientBody,
    left: u64,
    pass: Option<Arc<Pass>>,
    /// How much came, for whoever tells of it.
    counted: Option<Arc<AtomicU64>>,
    copy: Option<Copy>,
}

/// Who is given the whole of a body, or nothing if it is too long.
type Taker = Box<dyn FnOnce(Option<Bytes>) + Send>;

/// What of a body has passed so far.
struct Copy {
    bytes: BytesMut,
    bytes_max: usize,
    taker: Taker,
}

/// The body became longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("the body is too long")]
struct TooLong;

impl Bounded {
    pub(crate) fn new(body: ClientBody, pass: Option<Arc<Pass>>, counted: Option<Arc<AtomicU64>>) -> Bounded {
        let left = pass.as_ref().and_then(|pass| pass.rules.body_bytes_max).unwrap_or(u64::MAX);
        Bounded { body, left, pass, counted, copy: None }
    }

    pub(crate) fn is_withheld(&self) -> bool {
        self.body.is_withheld()
    }

    /// Gives the body to `taker` too, when it is through. Not when it breaks off.
    pub(crate) fn copy_to(&mut self, bytes_max: usize, taker: Taker) {
        let declared = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > bytes_max {
            taker(None);
        } else {
            self.copy = Some(Copy { bytes: BytesMut::new(), bytes_max, taker });
        }
    }

    /// Takes in what passes.
    fn copy(&mut self, data: &[u8]) {
        let Some(copy) = &mut self.copy else { return };
        if copy.bytes.len() + data.len() <= copy.bytes_max {
            copy.bytes.extend_from_slice(data);
        } else if let Some(copy) = self.copy.take() {
            (copy.taker)(None);
        }
    }

    /// The body is through.
    fn copied(&mut self) {
        if let Some(copy) = self.copy.take() {
            (copy.taker)(Some(copy.bytes.freeze()));
        }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
            self.copied();
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Some(left) = self.left.checked_sub(length) else {
                // Noted beside the error, which does not come back from every kind of connection.
                self.pass.iter().for_each(|pass| pass.cut.store(true, Ordering::Relaxed));
                return Poll::Ready(Some(Err(TooLong.into())));
            };
            self.left = left;
            if let Some(counted) = &self.counted {
                counted.fetch_add(length, Ordering::Relaxed);
            }
            self.copy(data);
            // A body of known length is not asked for its end.
            if self.body.is_end_stream() {
                self.copied();
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
