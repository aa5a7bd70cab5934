//! A request's body with a bound.
//!
//! Owns the count: a body without a declared length is cut off where it becomes too long, and the instance sees that
//! it was.

use super::Pass;
use crate::link::ClientBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

/// What a client sends, at most so much of it.
pub(crate) struct Bounded {
    body: ClientBody,
    left: u64,
    pass: Option<Arc<Pass>>,
}

/// The body became longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("the body is too long")]
struct TooLong;

impl Bounded {
    pub(crate) fn new(body: ClientBody, pass: Option<Arc<Pass>>) -> Bounded {
        let left = pass.as_ref().and_then(|pass| pass.rules.body_bytes_max).unwrap_or(u64::MAX);
        Bounded { body, left, pass }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Some(left) = self.left.checked_sub(length) else {
                // Noted beside the error, which does not come back from every kind of connection.
                self.pass.iter().for_each(|pass| pass.cut.store(true, Ordering::Relaxed));
                return Poll::Ready(Some(Err(TooLong.into())));
            };
            self.left = left;
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
