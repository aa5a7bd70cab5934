//! A connection to an instance: a request goes out, its answer comes in.
//!
//! Owns the connection's buffers and how far the current exchange has come. Everything happens inside the task that
//! polls: a request wakes nobody else, and one that is dropped takes the connection with it. Only an answer that comes
//! before its request is through leaves the rest of that to a task of its own.

use super::body::{Reading, Taken};
use super::head::{self, Bad, ResponseHead};
use super::outbox::{Framed, Outbox};
use super::scan::Scan;
use super::wire::Foreword;
use crate::asking::RequestBody;
use crate::socket::{self, Sender};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use world::task::Task;

/// What an answer's head may take: twice a request's, for cookies and policies of many frameworks.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Answers before the answer (RFC 9110, section 15.2).
const INTERIM_MAX: usize = 16;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection that speaks HTTP/1.
pub(crate) struct Line {
    ends: Ends,
    buffer: BytesMut,
    outbox: Outbox,
    scan: Scan,
    reading: Reading,
    /// Another request may follow, once this one is through.
    goes_on: bool,
}

enum Ends {
    Both(TcpStream),
    /// The rest of a request is sent by a task, which ends with the line.
    Apart {
        read: OwnedReadHalf,
        _upload: Task,
    },
    Neither,
}

/// The head of an answer.
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the connection was closed before anything was sent")]
    Unsent,
    #[error("the connection was closed without an answer")]
    Closed,
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("the answer is malformed: {0}")]
    Bad(#[source] Bad),
    #[error("the answer ended early")]
    Early,
    #[error("the request's body broke off")]
    Body(#[source] BoxError),
    #[error("the stream broke")]
    Stream(#[source] hyper::Error),
    #[error("the answer could not be coded")]
    Coding(#[source] io::Error),
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Line {
        Line {
            ends: Ends::Both(stream),
            buffer: BytesMut::new(),
            outbox: Outbox::default(),
            scan: Scan::default(),
            reading: Reading::Through,
            goes_on: true,
        }
    }

    /// Sends a request and waits for the head of the answer; what is answered before that goes to `foreword`. May be
    /// dropped: the line is of no use then.
    pub(crate) async fn send(
        &mut self,
        parts: &Parts,
        body: &mut RequestBody,
        foreword: Option<&Foreword>,
    ) -> Result<AnswerHead, LineError> {
        let framed = self.put_head(parts, body);
        self.goes_on = false;
        let mut sending = Sending { framed, ended: body.is_end_stream(), written: false, failed: None };
        let mut awaited = Awaited { method: &parts.method, foreword, interim: 0 };
        let read = poll_fn(|cx| self.poll_send(cx, &mut awaited, body, &mut sending)).await?;
        let ResponseHead { status, headers, length, keep_alive } = read;
        self.reading = Reading::new(length);
        if sending.ended && sending.failed.is_none() && self.outbox.is_empty() {
            self.goes_on = keep_alive && status != StatusCode::SWITCHING_PROTOCOLS;
        } else if sending.failed.is_none() {
            self.part(std::mem::replace(body, RequestBody::Empty), sending.framed);
        }
        Ok(AnswerHead { status, headers })
    }

    fn put_head(&mut self, parts: &Parts, body: &RequestBody) -> Framed {
        let out = self.outbox.front();
        head::write_request(out, parts);
        let framed = if body.is_end_stream() || parts.headers.contains_key(header::CONTENT_LENGTH) {
            Framed::Plain
        } else if let Some(exact) = body.size_hint().exact() {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(exact.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
            Framed::Plain
        } else {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framed::Chunks
        };
        out.extend_from_slice(b"\r\n");
        framed
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        awaited: &mut Awaited<'_>,
        body: &mut RequestBody,
        sending: &mut Sending,
    ) -> Poll<Result<ResponseHead, LineError>> {
        let Ends::Both(stream) = &mut self.ends else { return Poll::Ready(Err(LineError::Closed)) };
        if let Poll::Ready(Err(error)) = sending.poll(cx, &mut Sender(stream), body, &mut self.outbox) {
            return Poll::Ready(Err(LineError::Body(error)));
        }
        match ready!(self.poll_head(cx, awaited)) {
            // Whoever closed without a word of an answer has not taken what could not be written.
            Err(LineError::Closed) if !sending.written => Poll::Ready(Err(LineError::Unsent)),
            Err(LineError::Closed) => Poll::Ready(Err(sending.failed.take().map_or(LineError::Closed, LineError::Io))),
            other => Poll::Ready(other),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, awaited: &mut Awaited<'_>) -> Poll<Result<ResponseHead, LineError>> {
        loop {
            match self.scan.end(&self.buffer).map_err(LineError::Bad)? {
                Some(length) if length <= HEAD_BYTES_MAX => {
                    self.scan = Scan::default();
                    let head = head::split(&mut self.buffer, length);
                    let head = head::response(&head, awaited.method).map_err(LineError::Bad)?;
                    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Ok(head));
                    }
                    awaited.interim += 1;
                    if awaited.interim > INTERIM_MAX {
                        return Poll::Ready(Err(LineError::Bad(Bad::Malformed("nothing but interim answers"))));
                    }
                    if let Some(foreword) = awaited.foreword {
                        foreword.tell(cx, head.status, head.headers);
                    }
                    continue;
                }
                None if self.buffer.len() <= HEAD_BYTES_MAX => {}
                Some(_) | None => return Poll::Ready(Err(LineError::Bad(Bad::TooLong))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.buffer.is_empty() => return Poll::Ready(Err(LineError::Closed)),
                Ok(0) => return Poll::Ready(Err(LineError::Early)),
                Ok(_) => {}
                Err(error) if self.buffer.is_empty() && is_closed(&error) => {
                    return Poll::Ready(Err(LineError::Closed));
                }
                Err(error) => return Poll::Ready(Err(LineError::Io(error))),
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.reading.make_room(&mut self.buffer);
        let begins = self.reading.is_through();
        match &mut self.ends {
            Ends::Both(stream) if begins => socket::poll_receive(stream, cx, &mut self.buffer),
            Ends::Both(stream) => poll_read(cx, stream, &mut self.buffer),
            Ends::Apart { read, .. } => poll_read(cx, read, &mut self.buffer),
            Ends::Neither => Poll::Ready(Ok(0)),
        }
    }

    /// Lets a task send the rest of a request: the answer is there already, and both must be able to go on.
    fn part(&mut self, mut body: RequestBody, framed: Framed) {
        let Ends::Both(stream) = std::mem::replace(&mut self.ends, Ends::Neither) else { return };
        let (read, mut write) = stream.into_split();
        let mut outbox = std::mem::take(&mut self.outbox);
        let mut sending = Sending { framed, ended: false, written: true, failed: None };
        let upload = async move {
            // The instance that does not want it says so in its answer.
            drop(poll_fn(|cx| sending.poll(cx, &mut write, &mut body, &mut outbox)).await);
            until_dropped(write).await;
        };
        self.ends = Ends::Apart { read, _upload: world::task::spawn("gateway upload", upload) };
    }

    /// More of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LineError>>> {
        loop {
            match self.reading.take(&mut self.buffer) {
                Ok(Taken::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(bad) => return Poll::Ready(Some(Err(LineError::Bad(bad)))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    if self.reading.ended().is_err() {
                        return Poll::Ready(Some(Err(LineError::Early)));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    self.reading = Reading::Broken;
                    return Poll::Ready(Some(Err(LineError::Io(error))));
                }
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.reading.is_through()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.reading.size_hint()
    }

    /// Whether another request may be sent: the last one is through both ways and the other end has not closed. Costs
    /// no system call while nothing has happened.
    pub(crate) fn is_free(&mut self) -> bool {
        let Ends::Both(stream) = &self.ends else { return false };
        let silent = || match stream.try_read(&mut [0]) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        self.goes_on && self.reading.is_through() && self.buffer.is_empty() && silent()
    }

    /// Has the current runtime say when something happens at the socket.
    pub(crate) fn register_anew(&mut self) -> io::Result<()> {
        self.ends = match std::mem::replace(&mut self.ends, Ends::Neither) {
            Ends::Both(stream) => Ends::Both(TcpStream::from_std(stream.into_std()?)?),
            others @ (Ends::Apart { .. } | Ends::Neither) => others,
        };
        Ok(())
    }

    /// Nothing is kept of an unused line but its socket.
    pub(crate) fn park(&mut self) {
        self.buffer = BytesMut::new();
    }

    /// The bare connection and what was read of it already.
    pub(crate) fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        match self.ends {
            Ends::Both(stream) => Some((stream, self.buffer.freeze())),
            Ends::Apart { .. } | Ends::Neither => None,
        }
    }
}

/// The answer that is waited for.
struct Awaited<'r> {
    /// Of the request.
    method: &'r Method,
    foreword: Option<&'r Foreword>,
    /// So many have come before it.
    interim: usize,
}

/// A request on its way out.
struct Sending {
    framed: Framed,
    /// All of the body has been taken.
    ended: bool,
    /// Some of it has left.
    written: bool,
    /// The other end takes no more; it may have said why before.
    failed: Option<io::Error>,
}

impl Sending {
    /// Sends what can be sent. Ends when nothing more can be, and fails when the client's body does.
    fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut W,
        body: &mut RequestBody,
        outbox: &mut Outbox,
    ) -> Poll<Result<(), BoxError>> {
        while self.failed.is_none() {
            // Before the head is written: what is there already leaves with it.
            if !self.ended && outbox.has_room() {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => self.put(frame, body, outbox),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => {
                        self.ended = true;
                        outbox.finish(self.framed);
                    }
                    Poll::Pending if outbox.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if outbox.is_empty() {
                if self.ended {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let before = outbox.left();
            let written = outbox.poll_write(cx, stream);
            self.written |= outbox.left() < before;
            match written {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.failed = Some(error),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, frame: Frame<Bytes>, body: &RequestBody, outbox: &mut Outbox) {
        match frame.into_data() {
            Ok(data) => {
                outbox.push(data, self.framed);
                if body.is_end_stream() {
                    self.ended = true;
                    outbox.finish(self.framed);
                }
            }
            // Trailers of requests are for HTTP/2, where somebody reads them.
            Err(_) => {
                self.ended = true;
                outbox.finish(self.framed);
            }
        }
    }
}

/// Keeps `half` open: to many servers, a client that closes its half has left.
async fn until_dropped(half: OwnedWriteHalf) {
    let _half = half;
    std::future::pending::<()>().await;
}

fn poll_read<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut R,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    pin!(stream.read_buf(buffer)).poll(cx)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}
