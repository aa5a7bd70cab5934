//! The body of a request, from the client to an instance.
//!
//! Owns how much of it must be there before an instance is bothered: an instance has few connections and takes its time
//! for each, so that a thousand clients who send a byte now and then would keep it from all others. One client may have
//! some such requests there; more of them wait here until they are nearly whole. Does not know where a body goes.

use crate::crowd::{Load, Part};
use crate::http1::Upload;
use crate::metrics::ServiceMeters;
use crate::pulse::Pulse;
use crate::rule::Bounded;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Who has sent so much goes on sending: forms and calls of an API are smaller, files come at the speed of the network.
const ENOUGH_BYTES: usize = 16 << 10;
/// Requests of one client at instances of which less is there: those of a page, or streams both ways, at once.
const BEGUN_MAX: usize = 16;

type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a request as a client sends it.
pub(crate) enum ClientBody {
    Upload(Upload),
    Stream(Incoming),
    #[cfg(feature = "http3")]
    Inflow(Box<crate::http3::Inflow>),
}

impl ClientBody {
    /// Whether the client sends it only when it is told to, which reading it does.
    pub(crate) fn is_withheld(&self) -> bool {
        match self {
            ClientBody::Upload(body) => body.is_withheld(),
            ClientBody::Stream(_) => false,
            #[cfg(feature = "http3")]
            ClientBody::Inflow(_) => false,
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            ClientBody::Upload(body) => Pin::new(body).poll_frame(cx),
            ClientBody::Stream(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            #[cfg(feature = "http3")]
            ClientBody::Inflow(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Upload(body) => body.is_end_stream(),
            ClientBody::Stream(body) => body.is_end_stream(),
            #[cfg(feature = "http3")]
            ClientBody::Inflow(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Upload(body) => body.size_hint(),
            ClientBody::Stream(body) => body.size_hint(),
            #[cfg(feature = "http3")]
            ClientBody::Inflow(body) => body.size_hint(),
        }
    }
}

/// The body of a request on its way to an instance.
#[derive(Default)]
pub(crate) enum RequestBody {
    #[default]
    Empty,
    /// Of the gateway's own making.
    Whole(Bytes),
    Stream(Box<Streamed>),
}

/// What a client sends of a body.
pub(crate) struct Streamed {
    body: Bounded,
    pulse: Arc<Pulse>,
    /// It must come at a least rate.
    paced: bool,
    /// Read already, to be sent first: in one piece, however small the pieces were that it came in.
    early: BytesMut,
    /// What came behind all data, and so early.
    trailers: Option<Frame<Bytes>>,
    came_bytes: usize,
    /// Its place among those of which little is there.
    begun: Option<Part>,
}

impl Streamed {
    pub(crate) fn new(body: Bounded, pulse: Arc<Pulse>, paced: bool) -> Streamed {
        Streamed { body, pulse, paced, early: BytesMut::new(), trailers: None, came_bytes: 0, begun: None }
    }

    pub(crate) fn body_mut(&mut self) -> &mut Bounded {
        &mut self.body
    }

    /// Reads on until enough of it is there for an instance to be asked, or until `client` has few such requests.
    fn poll_enough(&mut self, cx: &mut Context<'_>, client: &Arc<Load>) -> Poll<Result<(), BoxError>> {
        // Who waits to be told to go on is told when there is an instance, rather than before.
        if self.body.is_withheld() && self.may_begin(client) {
            return Poll::Ready(Ok(()));
        }
        while !self.is_enough() {
            match self.poll_read(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.early.extend_from_slice(&data),
                    Err(trailers) => self.trailers = Some(trailers),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => break,
                Poll::Pending if self.may_begin(client) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_enough(&self) -> bool {
        self.came_bytes >= ENOUGH_BYTES || self.body.is_end_stream()
    }

    /// Takes one of the client's places, if there is one.
    fn may_begin(&mut self, client: &Arc<Load>) -> bool {
        self.begun = client.begin_partly(BEGUN_MAX);
        self.begun.is_some()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => self.pulse.body_waits(self.paced),
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.came_bytes = self.came_bytes.saturating_add(bytes);
                self.pulse.body_came(bytes);
            }
            Poll::Ready(Some(Err(_)) | None) => {}
        }
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.pulse.uploaded();
        }
        if self.begun.is_some() && self.is_enough() {
            self.begun = None;
        }
        polled
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.early.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.early).freeze()))));
        }
        match self.trailers.take() {
            Some(trailers) => Poll::Ready(Some(Ok(trailers))),
            None => self.poll_read(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && self.trailers.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (early, rest) = (u64::try_from(self.early.len()).unwrap_or(u64::MAX), self.body.size_hint());
        let mut all = SizeHint::new();
        all.set_lower(rest.lower().saturating_add(early));
        if let Some(upper) = rest.upper() {
            all.set_upper(upper.saturating_add(early));
        }
        all
    }
}

impl RequestBody {
    /// Waits until enough of it is there for an instance to be asked. Those of whom nobody knows how many clients they
    /// are do not wait, nor do bodies that need not come at a rate.
    pub(crate) async fn enough(
        &mut self,
        client: Option<&Arc<Load>>,
        meters: &Arc<ServiceMeters>,
    ) -> Result<(), BoxError> {
        match (self, client) {
            (RequestBody::Stream(body), Some(client)) if body.paced => {
                // It counts from here on how fast it comes.
                body.pulse.asks();
                let mut waits = None;
                let enough = poll_fn(|cx| {
                    let enough = body.poll_enough(cx, client);
                    if enough.is_pending() {
                        waits.get_or_insert_with(|| meters.gathers());
                    }
                    enough
                })
                .await;
                body.pulse.asks_no_more();
                enough
            }
            _ => Ok(()),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            RequestBody::Stream(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Whole(bytes) => bytes.is_empty(),
            RequestBody::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            RequestBody::Stream(body) => body.size_hint(),
        }
    }
}
