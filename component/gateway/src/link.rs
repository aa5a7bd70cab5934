//! One connection to an instance: HTTP/1.1, or a share in one of HTTP/2.
//!
//! Owns what the two have in common. HTTP/1.1 runs inside whatever task uses it (see [`Line`]); HTTP/2 is a task that
//! ends with the last share. Promises to say whether a request that failed had been sent. Does not know services or
//! retries.

use crate::asking::RequestBody;
use crate::http1::{AnswerHead, Foreword, Line, LineError};
use crate::streams::Tasks;
use crate::threads;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use world::task::Task;

/// What a connection of HTTP/2 buffers at most of what it sends.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// What an instance may send of one answer, and of all, before it is asked for: it is near, and clients are not.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// An instance that is silent while it owes an answer is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(15);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// A connection, between requests or in one.
pub(crate) struct Link {
    way: Way,
    /// Carried a request before: its other end may have closed it without our knowing.
    pub(crate) reused: bool,
    /// Made for one client: not for others to use.
    pub(crate) private: bool,
    pub(crate) idle_since_ms: u64,
    /// The thread that is woken for it.
    pub(crate) thread: usize,
}

enum Way {
    /// Apart: it changes hands several times for each request.
    Line(Box<Line>),
    Stream {
        sender: http2::SendRequest<RequestBody>,
        /// The answer, once it has come.
        answer: Option<Incoming>,
        _task: Arc<Task>,
    },
}

/// A connection that carries many requests at once. Clones are shares in it; it ends with the last.
#[derive(Clone)]
pub(crate) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    task: Arc<Task>,
    /// Where it runs.
    pub(crate) thread: usize,
}

impl Link {
    /// Speaks HTTP/1.1 over a fresh connection.
    pub(crate) fn new(stream: TcpStream) -> Link {
        Link {
            way: Way::Line(Box::new(Line::new(stream))),
            reused: false,
            private: false,
            idle_since_ms: 0,
            thread: threads::here(),
        }
    }

    /// Sends a request and waits for the head of the answer; what an instance that speaks HTTP/1 answers before that goes
    /// to `foreword`. May be dropped: the exchange ends with it.
    pub(crate) async fn send(
        &mut self,
        parts: &Parts,
        body: &mut RequestBody,
        foreword: Option<&Foreword>,
    ) -> Result<AnswerHead, LineError> {
        match &mut self.way {
            Way::Line(line) => line.send(parts, body, foreword).await,
            // What only some need would make all requests larger.
            Way::Stream { sender, answer, .. } => Box::pin(send_stream(sender, answer, parts, body)).await,
        }
    }

    /// More of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LineError>>> {
        match &mut self.way {
            Way::Line(line) => line.poll_frame(cx),
            Way::Stream { answer: Some(answer), .. } => {
                Pin::new(answer).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(LineError::Stream)))
            }
            Way::Stream { answer: None, .. } => Poll::Ready(None),
        }
    }

    /// Nothing of the answer's body is left.
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.way {
            Way::Line(line) => line.is_end_stream(),
            Way::Stream { answer, .. } => answer.as_ref().is_none_or(Incoming::is_end_stream),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.way {
            Way::Line(line) => line.size_hint(),
            Way::Stream { answer, .. } => answer.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint),
        }
    }

    /// Whether another request may be sent: the last one is through both ways and the other end has not closed.
    pub(crate) fn is_free(&mut self) -> bool {
        match &mut self.way {
            Way::Line(line) => line.is_free(),
            Way::Stream { .. } => false,
        }
    }

    /// Has the current thread woken for it. `None` when it is of no use then.
    pub(crate) fn move_here(mut self) -> Option<Link> {
        if self.thread != threads::here() {
            let Way::Line(line) = &mut self.way else { return None };
            line.register_anew().ok()?;
            self.thread = threads::here();
        }
        Some(self)
    }

    /// Keeps nothing but the socket, until it is used again.
    pub(crate) fn park(&mut self) {
        if let Way::Line(line) = &mut self.way {
            line.park();
        }
    }

    /// After a 101: the bare connection and what was read of it already. `None` when there is none to have.
    pub(crate) fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        match self.way {
            Way::Line(line) => line.into_stream(),
            Way::Stream { .. } => None,
        }
    }
}

/// Sends a request as a stream of a connection that has others.
async fn send_stream(
    sender: &mut http2::SendRequest<RequestBody>,
    answer: &mut Option<Incoming>,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<AnswerHead, LineError> {
    let mut request = Request::new(std::mem::replace(body, RequestBody::Empty));
    request.method_mut().clone_from(&parts.method);
    request.uri_mut().clone_from(&parts.uri);
    *request.version_mut() = parts.version;
    request.headers_mut().clone_from(&parts.headers);
    match sender.try_send_request(request).await {
        Ok(response) => {
            let (head, incoming): (_, Incoming) = Response::into_parts(response);
            *answer = Some(incoming);
            Ok(AnswerHead { status: head.status, headers: head.headers })
        }
        Err(mut failure) => match failure.take_message() {
            Some(request) => {
                *body = request.into_body();
                Err(LineError::Unsent)
            }
            None => Err(stream_error(failure.into_error())),
        },
    }
}

fn stream_error(error: hyper::Error) -> LineError {
    if error.is_user() {
        // The client's body broke off, not the instance.
        LineError::Body(error.into())
    } else {
        LineError::Stream(error)
    }
}

impl Shared {
    /// Speaks HTTP/2 over a fresh connection, as to a server that is known to (RFC 9113, section 3.3).
    pub(crate) async fn open(stream: TcpStream) -> hyper::Result<Shared> {
        let (sender, connection) = http2::Builder::new(Tasks)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(BUFFER_BYTES_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .handshake(TokioIo::new(stream))
            .await?;
        let task = world::task::spawn("gateway upstream connection", async move {
            // Its failure reaches whoever waits for an answer.
            drop(connection.await);
        });
        Ok(Shared { sender, task: Arc::new(task), thread: threads::here() })
    }

    /// For one more request.
    pub(crate) fn link(&self, reused: bool) -> Link {
        let way = Way::Stream { sender: self.sender.clone(), answer: None, _task: Arc::clone(&self.task) };
        Link { way, reused, private: false, idle_since_ms: 0, thread: threads::here() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sender.is_ready()
    }

    /// Nobody else has a share.
    pub(crate) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.task) == 1
    }
}
