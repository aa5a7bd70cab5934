//! One connection to an instance: HTTP/1.1, or a share in one of HTTP/2.
//!
//! Owns the connection's state machine. With HTTP/1.1 it runs inside whatever task uses it: nothing is spawned, so a
//! request costs no wake-up of another task, and a client that leaves takes the upstream request with it. With HTTP/2 it
//! is a task that ends with the last share.
//! Promises to say whether a request that failed had been sent. Does not know services or retries.

use crate::pulse::Pulse;
use crate::rule::Bounded;
use crate::streams::Tasks;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
use world::task::Task;

/// What one connection buffers at most in each direction: enough for the largest head, and for full segments.
pub(crate) const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What an instance may send of one answer, and of all, before it is asked for: it is near, and clients are not.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// An instance that is silent while it owes an answer is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(15);
const PONG_WITHIN: Duration = Duration::from_secs(10);

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection, between requests or in one.
pub(crate) struct Link {
    sender: Sender,
    driver: Driver,
    /// Carried a request before: its other end may have closed it without our knowing.
    pub(crate) reused: bool,
    /// Made for one client: not for others to use.
    pub(crate) private: bool,
    pub(crate) idle_since_ms: u64,
}

enum Sender {
    One(http1::SendRequest<RequestBody>),
    Many(http2::SendRequest<RequestBody>),
}

/// A connection that carries many requests at once. Clones are shares in it; it ends with the last.
#[derive(Clone)]
pub(crate) struct Shared {
    sender: http2::SendRequest<RequestBody>,
    task: Arc<Task>,
}

/// Who moves the connection's bytes.
enum Driver {
    /// Whoever polls the link.
    Inline(Connection),
    /// A task, dropped with the link: the answer came before the request's body was through, and both must
    /// be able to go on without each other.
    Apart {
        _task: Task,
    },
    /// The task of all that share the connection.
    Together {
        _task: Arc<Task>,
    },
    Ended,
}

/// How sending a request ended.
pub(crate) enum Sent {
    Answer(Response<Incoming>),
    /// The connection was closed before anything was sent: the request as it was.
    Unsent(Request<RequestBody>),
    /// Sent, at least in part, and then the connection broke.
    Broken(hyper::Error),
}

impl Link {
    /// Speaks HTTP/1.1 over a fresh connection.
    pub(crate) async fn open(stream: TcpStream) -> hyper::Result<Link> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
        let driver = Driver::Inline(Box::pin(connection.with_upgrades()));
        Ok(Link { sender: Sender::One(sender), driver, reused: false, private: false, idle_since_ms: 0 })
    }

    /// Sends `request` and waits for the head of the answer. May be dropped: the connection ends with it.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        let Link { sender, driver, .. } = self;
        let sent = match sender {
            Sender::One(sender) => {
                let mut answer = pin!(sender.try_send_request(request));
                poll_fn(|cx| {
                    driver.drive(cx);
                    answer.as_mut().poll(cx)
                })
                .await
            }
            Sender::Many(sender) => sender.try_send_request(request).await,
        };
        match sent {
            Ok(response) => Sent::Answer(response),
            Err(mut failure) => match failure.take_message() {
                Some(request) => Sent::Unsent(request),
                None => Sent::Broken(failure.into_error()),
            },
        }
    }

    /// Moves what can be moved.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        self.driver.drive(cx);
    }

    /// Lets a task of its own move the bytes from here on.
    pub(crate) fn drive_apart(&mut self) {
        if let Driver::Inline(connection) = std::mem::replace(&mut self.driver, Driver::Ended) {
            let task = world::task::spawn("gateway upstream connection", async move {
                // Its failure reaches whoever reads the answer's body.
                drop(connection.await);
            });
            self.driver = Driver::Apart { _task: task };
        }
    }

    /// Whether another request may be sent: the last one is through both ways and the other end has not closed.
    pub(crate) fn is_free(&mut self) -> bool {
        let Sender::One(sender) = &self.sender else { return false };
        if !matches!(self.driver, Driver::Inline(_)) {
            return false;
        }
        self.driver.drive(&mut Context::from_waker(Waker::noop()));
        matches!(self.driver, Driver::Inline(_)) && sender.is_ready()
    }

    /// After a 101: the bare connection and what was read of it already. `None` when it broke.
    pub(crate) async fn into_upgraded(mut self, answer: &mut Response<Incoming>) -> Option<(TcpStream, Bytes)> {
        let upgrade = hyper::upgrade::on(answer);
        if let Driver::Inline(connection) = &mut self.driver {
            connection.as_mut().await.ok()?;
            self.driver = Driver::Ended;
        }
        let parts = upgrade.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
        Some((parts.io.into_inner(), parts.read_buf))
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
        Ok(Shared { sender, task: Arc::new(task) })
    }

    /// For one more request.
    pub(crate) fn link(&self, reused: bool) -> Link {
        let driver = Driver::Together { _task: Arc::clone(&self.task) };
        Link { sender: Sender::Many(self.sender.clone()), driver, reused, private: false, idle_since_ms: 0 }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sender.is_ready()
    }

    /// Nobody else has a share.
    pub(crate) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.task) == 1
    }
}

impl Driver {
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Driver::Inline(connection) = self
            && connection.as_mut().poll(cx).is_ready()
        {
            // An error reaches the request or the body under way.
            *self = Driver::Ended;
        }
    }
}

/// The body of a request on its way from the client to an instance.
pub(crate) enum RequestBody {
    Empty,
    Stream { body: Bounded, pulse: Arc<Pulse> },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Stream { body, pulse } => {
                let polled = Pin::new(&mut *body).poll_frame(cx);
                if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
                    pulse.uploaded();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Stream { body, .. } => body.size_hint(),
        }
    }
}
