//! The body of a request on a stream of HTTP/3.
//!
//! Promises that a body is as long as its head says, and that no more is taken from the client than is asked for.

use super::transport::Receiving;
use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::RequestStream;
use http::Method;
use hyper::body::{Body, Frame, SizeHint};
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// What comes next of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Ended,
}

pub(crate) struct Inflow {
    stream: RequestStream<Receiving, Bytes>,
    /// What is still to come, where the head says so.
    left: Option<u64>,
    stage: Stage,
    /// Come already.
    early: Option<Polled>,
}

type Polled = Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>;

#[derive(Debug, thiserror::Error)]
#[error("the body is not as long as its head says")]
struct WrongLength;

impl Inflow {
    /// Begins to receive. Whether there is a body at all may only show a moment after the head: that is waited for where
    /// usually there is none.
    pub(super) async fn open(stream: RequestStream<Receiving, Bytes>, method: &Method, length: Option<u64>) -> Inflow {
        let mut inflow = Inflow { stream, left: length, stage: Stage::Data, early: None };
        let waits = length.is_none() && method.is_idempotent() && *method != Method::PUT;
        let first = poll_fn(|cx| match inflow.poll_more(cx) {
            Poll::Ready(polled) => Poll::Ready(Some(polled)),
            Poll::Pending if waits => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        });
        let first = first.await;
        // The end is known by the stage.
        inflow.early = first.filter(Option::is_some);
        inflow
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let polled = ready!(self.poll_message(cx));
        if !matches!(polled, Some(Ok(_))) {
            self.stage = Stage::Ended;
        }
        Poll::Ready(polled)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        while self.stage == Stage::Data {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    if let Some(left) = &mut self.left {
                        match left.checked_sub(data.len() as u64) {
                            Some(less) => *left = less,
                            None => return Poll::Ready(Some(Err(WrongLength.into()))),
                        }
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Ok(None) if self.left.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Some(Err(WrongLength.into())));
                }
                Ok(None) => self.stage = Stage::Trailers,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        if self.stage == Stage::Ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_recv_trailers(cx));
        self.stage = Stage::Ended;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error.into())),
        })
    }
}

impl Body for Inflow {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        match self.early.take() {
            Some(early) => Poll::Ready(early),
            None => self.poll_more(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_none() && (self.stage == Stage::Ended || self.left == Some(0))
    }

    fn size_hint(&self) -> SizeHint {
        let early = match &self.early {
            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Some(Err(_)) | None) | None => 0,
        };
        match self.left {
            Some(left) => SizeHint::with_exact(left.saturating_add(early)),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        // Who has been answered need not send the rest (RFC 9114, section 4.1).
        if self.stage != Stage::Ended {
            self.stream.stop_sending(Code::H3_NO_ERROR);
        }
    }
}
