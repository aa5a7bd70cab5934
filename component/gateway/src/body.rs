//! The body of an answer on its way to the client, and what happens when it is through.
//!
//! Owns the end of a request: the connection goes back to the unused ones if it is fit, the endpoint learns how
//! it did, the request is counted. Holds at most one frame: a slow client slows the instance down.

use crate::cache::KeptBody;
use crate::http1::LineError;
use crate::link::Link;
use crate::metrics::Failure;
use crate::pulse::Pulse;
use crate::reshape::Reshaped;
use crate::seen::Record;
use crate::streams::Place;
use crate::upstream::Lease;
use balancer::Outcome;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// What is to be settled when an answer is through.
pub(crate) struct Ending {
    /// Taken at the end.
    parts: Option<(Lease, Link)>,
    /// How the instance broke off, kept back until the client has what came before.
    broken: Option<LineError>,
    outcome: Outcome,
    record: Box<Record>,
    pulse: Arc<Pulse>,
}

impl Ending {
    pub(crate) fn new(lease: Lease, link: Link, status: u16, mut record: Box<Record>, pulse: Arc<Pulse>) -> Ending {
        // Neither the wait for an endpoint nor the tries of others are this one's doing.
        let begun = record.started.max(lease.begun);
        let now = world::clock::monotonic();
        let took = now.saturating_duration_since(begun);
        record.answered(status, now);
        let outcome = match status {
            500.. => Outcome::ServerError,
            _ => Outcome::Ok { latency_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) },
        };
        Ending { parts: Some((lease, link)), broken: None, outcome, record, pulse }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LineError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some((_, link)) = &mut self.parts else { return Poll::Ready(None) };
        match ready!(link.poll_frame(cx)) {
            Some(Err(error)) => {
                self.cut();
                // Told at once, a server of HTTP/2 would drop what it has not written yet; a pause lets it.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) => {
                self.record.sent(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.parts.as_ref().is_none_or(|(_, link)| link.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.parts.as_ref().map_or(SizeHint::with_exact(0), |(_, link)| link.size_hint())
    }

    /// The answer is complete.
    fn complete(&mut self) {
        if let Some((lease, mut link)) = self.parts.take() {
            if !link.private && link.is_free() {
                lease.end_with(self.outcome, link);
            } else {
                lease.end(self.outcome);
            }
        }
    }

    /// What is left of the answer is of no use to anybody.
    fn forgo(&mut self) {
        if let Some((lease, _)) = self.parts.take() {
            lease.end(self.outcome);
        }
    }

    /// The instance broke off.
    fn cut(&mut self) {
        if let Some((lease, _)) = self.parts.take() {
            self.record.meters.failure(Failure::Cut);
            self.record.cut();
            lease.end(Outcome::ServerError);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.parts.is_some() {
            // Neither complete nor cut: the client left in the middle.
            self.record.left();
        }
        self.pulse.request_ends();
    }
}

/// A body of the gateway's own, or one that an instance sends.
pub(crate) enum AnswerBody {
    Own(Bytes, Option<Place>),
    Instance {
        ending: Ending,
        place: Option<Place>,
    },
    /// An instance's, changed on the way.
    Reshaped(Box<Reshaped>),
    /// From the cache.
    Kept {
        body: KeptBody,
        record: Box<Record>,
        pulse: Arc<Pulse>,
        place: Option<Place>,
    },
}

impl AnswerBody {
    pub(crate) fn own(bytes: Bytes) -> AnswerBody {
        AnswerBody::Own(bytes, None)
    }

    pub(crate) fn from_instance(ending: Ending) -> AnswerBody {
        AnswerBody::Instance { ending, place: None }
    }

    pub(crate) fn from_cache(body: KeptBody, record: Box<Record>, pulse: Arc<Pulse>) -> AnswerBody {
        AnswerBody::Kept { body, record, pulse, place: None }
    }

    /// Nothing more is to come from the instance: its connection is for others.
    pub(crate) fn complete(&mut self) {
        if let AnswerBody::Instance { ending, .. } = self {
            ending.complete();
        }
    }

    /// Holds the stream's place until it is through.
    pub(crate) fn holding(mut self, taken: Place) -> AnswerBody {
        match &mut self {
            AnswerBody::Own(_, place) | AnswerBody::Instance { place, .. } | AnswerBody::Kept { place, .. } => {
                *place = Some(taken);
            }
            AnswerBody::Reshaped(reshaped) => reshaped.place = Some(taken),
        }
        self
    }

    /// Gives up what has not come yet: it is replaced.
    pub(crate) fn forgo(&mut self) {
        match self {
            AnswerBody::Instance { ending, .. } => ending.forgo(),
            AnswerBody::Kept { body, .. } => *body = KeptBody::Whole(Bytes::new()),
            AnswerBody::Own(..) | AnswerBody::Reshaped(_) => {}
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = LineError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LineError>>> {
        match &mut *self {
            AnswerBody::Reshaped(reshaped) => Pin::new(&mut **reshaped).poll_frame(cx),
            AnswerBody::Own(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            AnswerBody::Own(bytes, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            AnswerBody::Instance { ending, .. } => ending.poll_frame(cx),
            AnswerBody::Kept { body, record, .. } => {
                let frame = ready!(body.poll_frame(cx));
                if let Some(Ok(frame)) = &frame {
                    record.sent(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own(bytes, _) => bytes.is_empty(),
            AnswerBody::Instance { ending, .. } => ending.is_end_stream(),
            AnswerBody::Reshaped(reshaped) => reshaped.is_end_stream(),
            AnswerBody::Kept { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own(bytes, _) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            AnswerBody::Instance { ending, .. } => ending.size_hint(),
            AnswerBody::Reshaped(reshaped) => reshaped.size_hint(),
            AnswerBody::Kept { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // The server asks no further once a body of known length is through.
        match self {
            AnswerBody::Instance { ending, .. } if ending.is_end_stream() => ending.complete(),
            AnswerBody::Kept { body, record, pulse, .. } => {
                if !body.is_end_stream() {
                    record.left();
                }
                pulse.request_ends();
            }
            AnswerBody::Instance { .. } | AnswerBody::Own(..) | AnswerBody::Reshaped(_) => {}
        }
    }
}
