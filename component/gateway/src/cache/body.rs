//! The body of an answer that the cache gives.

use super::fill::Reader;
use crate::http1::LineError;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::task::{Context, Poll};

/// All of it at once, or as it comes.
pub(crate) enum KeptBody {
    Whole(Bytes),
    Coming(Reader),
}

impl KeptBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LineError>>> {
        match self {
            KeptBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            KeptBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            KeptBody::Coming(reader) => reader.poll(cx).map(|data| data.map(|data| data.map(Frame::data))),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            KeptBody::Whole(bytes) => bytes.is_empty(),
            KeptBody::Coming(reader) => reader.is_through(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            KeptBody::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            KeptBody::Coming(reader) => reader.left_bytes().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
