//! Calls, watches and tunnels, from the client's side.

use crate::connection::Connection;
use crate::error::CallError;
use crate::failure::Code;
use crate::handler::Answer;
use crate::head::{Asked, Shape, Trace, is_method, read_end};
use crate::inflow::{Inflow, InflowError, framed, whole};
use crate::meters::Outcome;
use crate::outflow::Outflow;
use crate::peers::{Peers, Use};
use crate::pipe::{PipeWriter, pipe};
use crate::settings::{CALL_DEADLINE_MAX, MESSAGE_BYTES_MAX, OPENING_BYTES_MAX};
use crate::tunnel::Tunnel;
use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use meter::Held;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use wire::identity::NodeId;

/// How long a call may take, and what it belongs to.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Of a call, all of it; of a watch or tunnel, until it is opened.
    pub deadline: Duration,
    pub trace: Option<Trace>,
}

/// Messages from a peer, for as long as it is held.
pub struct Watch {
    node: NodeId,
    method: &'static str,
    inflow: Inflow,
    _place: OwnedSemaphorePermit,
    _open: Held,
}

/// Something said to a peer that may have to be said again.
struct Saying<'a> {
    peers: &'a Peers,
    node: NodeId,
    method: &'static str,
    shape: Shape,
    terms: &'a Terms,
    began: Instant,
    was_sent: AtomicBool,
}

impl Terms {
    pub fn within(deadline: Duration) -> Terms {
        Terms { deadline, trace: None }
    }
}

impl Peers {
    /// Calls `method` of `node`. Dropped while it waits, the method is dropped too.
    ///
    /// # Errors
    /// [`CallError`]; at the latest when the deadline passes.
    pub async fn call(
        &self,
        node: NodeId,
        method: &'static str,
        request: impl Into<Bytes>,
        terms: Terms,
    ) -> Result<Answer, CallError> {
        let request = request.into();
        check(method, "the request", request.len(), MESSAGE_BYTES_MAX)?;
        let saying = Saying::new(self, node, method, Shape::Call, &terms);
        let (mut outcome, _open) = saying.counted();
        let answered = saying
            .in_time(async {
                let body = |_: &mut Option<PipeWriter>| Outflow::Whole(request.clone());
                let (response, _place, _) = saying.say(Use::Words, body).await?;
                answered(node, method, response).await
            })
            .await;
        outcome.set(answered.as_ref().map(|_| ()).map_err(CallError::code));
        answered
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// [`CallError`], when it does not begin. What goes wrong later is [`Watch::next`]'s to say.
    pub async fn watch(
        &self,
        node: NodeId,
        method: &'static str,
        request: impl Into<Bytes>,
        terms: Terms,
    ) -> Result<Watch, CallError> {
        let request = request.into();
        check(method, "the request", request.len(), MESSAGE_BYTES_MAX)?;
        let saying = Saying::new(self, node, method, Shape::Watch, &terms);
        let (mut outcome, open) = saying.counted();
        let opened = saying
            .in_time(async {
                let body = |_: &mut Option<PipeWriter>| Outflow::Whole(request.clone());
                let (response, place, _) = saying.say(Use::Words, body).await?;
                Ok((accepted(node, method, response)?.into_body(), place))
            })
            .await;
        outcome.set(opened.as_ref().map(|_| ()).map_err(CallError::code));
        let (body, place) = opened?;
        Ok(Watch { node, method, inflow: Inflow::new(body), _place: place, _open: open })
    }

    /// Opens a tunnel; `opening` says whereto, in at most [`OPENING_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`CallError`], when the other side does not accept it.
    pub async fn tunnel(
        &self,
        node: NodeId,
        method: &'static str,
        opening: impl Into<Bytes>,
        terms: Terms,
    ) -> Result<Tunnel, CallError> {
        let opening = opening.into();
        check(method, "what opens a tunnel", opening.len(), OPENING_BYTES_MAX)?;
        let (opening, _) = framed(opening);
        let saying = Saying::new(self, node, method, Shape::Tunnel, &terms);
        let (mut outcome, open) = saying.counted();
        let opened = saying
            .in_time(async {
                let body = |writer: &mut Option<PipeWriter>| {
                    let (fresh, reader) = pipe();
                    *writer = Some(fresh);
                    Outflow::Piped { opening: opening.clone(), pipe: reader, task: None }
                };
                let (response, place, writer) = saying.say(Use::Bulk, body).await?;
                let body = accepted(node, method, response)?.into_body();
                let writer = writer.ok_or(CallError::Nonsense { node, method })?;
                Ok(Tunnel::new(Inflow::new(body), writer, Some((place, open))))
            })
            .await;
        outcome.set(opened.as_ref().map(|_| ()).map_err(CallError::code));
        opened
    }
}

impl Watch {
    /// The next message; `None` when the method has nothing more to say. May be dropped: nothing is lost.
    ///
    /// # Errors
    /// [`CallError`] when the method failed or the connection broke. There is nothing more after that.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let (node, method) = (self.node, self.method);
        match self.inflow.message(MESSAGE_BYTES_MAX).await {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => match self.inflow.end() {
                Ok(()) => Ok(None),
                Err(failure) => Err(CallError::Failed { failure }),
            },
            Err(error) => Err(unread(node, method, "a message", error)),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watch").field("node", &self.node).field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> Saying<'a> {
    fn new(peers: &'a Peers, node: NodeId, method: &'static str, shape: Shape, terms: &'a Terms) -> Saying<'a> {
        let (began, was_sent) = (world::clock::monotonic(), AtomicBool::new(false));
        Saying { peers, node, method, shape, terms, began, was_sent }
    }

    /// Counted from here on: as under way, and as ended.
    fn counted(&self) -> (Outcome, Held) {
        let meters = &self.peers.inner.meters;
        let method = meters.method(self.method);
        let open = Held::new(&method.open);
        (Outcome::new(meters, method, self.began), open)
    }

    fn limit(&self) -> Duration {
        self.terms.deadline.min(CALL_DEADLINE_MAX)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let (node, method, limit) = (self.node, self.method, self.limit());
        let late = |_| {
            let was_sent = self.was_sent.load(Ordering::Relaxed);
            Err(CallError::Late { node, method, limit, was_sent })
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(late)
    }

    /// Sends the request that `body` makes, with what it leaves for its sender. What certainly did not arrive, since its
    /// connection was ending, is sent once more over another.
    async fn say(
        &self,
        purpose: Use,
        body: impl Fn(&mut Option<PipeWriter>) -> Outflow,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit, Option<PipeWriter>), CallError> {
        let mut is_again = false;
        loop {
            let (connection, place) = self.peers.inner.place(self.node, purpose).await?;
            let mut left = None;
            let deadline = match self.shape {
                Shape::Call | Shape::Tunnel => Some(self.limit().saturating_sub(self.began.elapsed())),
                Shape::Watch => None,
            };
            let request = request(self.method, self.shape, deadline, self.terms.trace.clone(), body(&mut left));
            self.was_sent.store(true, Ordering::Relaxed);
            match send(&connection, request).await {
                Ok(response) => return Ok((response, place, left)),
                Err(Unsent::Certainly) if !is_again => {
                    self.was_sent.store(false, Ordering::Relaxed);
                    is_again = true;
                }
                Err(Unsent::Certainly) => {
                    return Err(CallError::Lost { node: self.node, method: self.method, source: None });
                }
                Err(Unsent::Perhaps(error)) => {
                    let source = Some(Arc::new(error));
                    return Err(CallError::Lost { node: self.node, method: self.method, source });
                }
            }
        }
    }
}

/// Why there is no response.
pub(crate) enum Unsent {
    Certainly,
    Perhaps(hyper::Error),
}

pub(crate) async fn send(connection: &Connection, request: Request<Outflow>) -> Result<Response<Incoming>, Unsent> {
    let mut sender = connection.sender.clone();
    sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
        Some(_) => Unsent::Certainly,
        None => Unsent::Perhaps(error.into_error()),
    })
}

pub(crate) fn request(
    method: &'static str,
    shape: Shape,
    deadline: Option<Duration>,
    trace: Option<Trace>,
    body: Outflow,
) -> Request<Outflow> {
    debug_assert!(is_method(method), "methods have names that can be sent");
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    // Scheme and host are what HTTP/2 wants to see; peers are known otherwise.
    *request.uri_mut() = Uri::try_from(format!("http://peer/{method}")).unwrap_or_default();
    Asked { method: method.to_owned(), shape, deadline, trace }.write(request.headers_mut());
    request
}

/// The whole answer to a call.
pub(crate) async fn answered(
    node: NodeId,
    method: &'static str,
    response: Response<Incoming>,
) -> Result<Answer, CallError> {
    let response = accepted(node, method, response)?;
    let trace = Trace::read(response.headers());
    let bytes = whole(response.into_body()).await.map_err(|error| unread(node, method, "the answer", error))?;
    Ok(Answer { bytes, trace })
}

fn accepted(node: NodeId, method: &'static str, response: Response<Incoming>) -> Result<Response<Incoming>, CallError> {
    match read_end(response.headers()) {
        Some(Ok(())) => Ok(response),
        Some(Err(failure)) => Err(CallError::Failed { failure }),
        None => Err(CallError::Nonsense { node, method }),
    }
}

fn unread(node: NodeId, method: &'static str, what: &'static str, error: InflowError) -> CallError {
    match error {
        InflowError::Cut { source } => CallError::Lost { node, method, source: source.map(Arc::new) },
        InflowError::TooLarge { max, .. } => CallError::TooLarge { method, what, max },
        InflowError::Torn => CallError::Nonsense { node, method },
    }
}

fn check(method: &'static str, what: &'static str, bytes: usize, max: usize) -> Result<(), CallError> {
    if bytes > max { Err(CallError::TooLarge { method, what, max }) } else { Ok(()) }
}

/// For those that have a connection and no pool: machines that join.
pub(crate) async fn call_over(
    connection: &Connection,
    node: NodeId,
    method: &'static str,
    bytes: Bytes,
    deadline: Duration,
) -> Result<Answer, CallError> {
    check(method, "the request", bytes.len(), MESSAGE_BYTES_MAX)?;
    let work = async {
        let request = request(method, Shape::Call, Some(deadline), None, Outflow::Whole(bytes));
        let lost = |source| CallError::Lost { node, method, source };
        let response = send(connection, request).await.map_err(|error| match error {
            Unsent::Certainly => lost(None),
            Unsent::Perhaps(error) => lost(Some(Arc::new(error))),
        })?;
        answered(node, method, response).await
    };
    let late = |_| Err(CallError::Late { node, method, limit: deadline, was_sent: true });
    tokio::time::timeout(deadline, work).await.unwrap_or_else(late)
}

impl From<CallError> for Code {
    fn from(error: CallError) -> Code {
        error.code()
    }
}
