//! A client's connection: requests come in, answers go out.
//!
//! Owns the connection's buffers and how far the current message has come each way. It is shared between whoever serves
//! the connection and the body of the request under way, and locked for no await. An idle connection holds no buffer.

use super::body::{Reading, Taken};
use super::head::{self, Bad, RequestHead};
use super::outbox::{Framed, Outbox};
use super::scan::Scan;
use crate::header::to_client;
use crate::pulse::{ClientStream, Pulse};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use hyper::body::{Body, Frame, SizeHint};
use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};

/// What a client may send ahead of the answer it waits for.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is still read of a body that nobody wants, so that the connection can go on.
const UNWANTED_BYTES_MAX: usize = 64 << 10;

/// A client's connection that speaks HTTP/1.
pub(crate) struct Wire {
    stream: ClientStream,
    pulse: Arc<Pulse>,
    buffer: BytesMut,
    scan: Scan,
    reading: Reading,
    /// The client sends the body of its request when it is told to go on.
    owes_continue: bool,
    /// It understands answers before the answer.
    takes_interim: bool,
    outbox: Outbox,
    /// Which request this is: the body of one before reads nothing any more.
    turn: u64,
}

/// A request as it was received, but for its body.
pub(crate) struct Received {
    pub(crate) parts: Parts,
    pub(crate) body: Upload,
    pub(crate) manner: Manner,
}

/// What the answer's framing depends on.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Manner {
    keep_alive: bool,
    http_10: bool,
    /// It asked for the head alone.
    pub(crate) head: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client has closed the connection.
    Gone,
    Bad(Bad),
}

/// The connection, held by those who need it.
#[derive(Clone)]
pub(crate) struct SharedWire(Arc<Mutex<Wire>>);

impl SharedWire {
    pub(crate) fn new(stream: ClientStream, pulse: Arc<Pulse>) -> SharedWire {
        SharedWire(Arc::new(Mutex::new(Wire {
            stream,
            pulse,
            buffer: BytesMut::new(),
            scan: Scan::default(),
            reading: Reading::Through,
            owes_continue: false,
            takes_interim: false,
            outbox: Outbox::default(),
            turn: 0,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Wire> {
        // Nobody panics between two steps that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request. `Pending` costs nothing but the wait; may be given up and asked again.
    pub(crate) fn poll_request(&self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Result<Received, Broken>> {
        let mut wire = self.lock();
        let read = ready!(wire.poll_head(cx, bytes_max))?;
        wire.turn += 1;
        let RequestHead { parts, length, keep_alive, expects_continue } = read;
        wire.reading = Reading::new(length);
        wire.owes_continue = expects_continue && !wire.reading.is_through();
        wire.takes_interim = parts.version == Version::HTTP_11;
        let manner =
            Manner { keep_alive, http_10: parts.version == Version::HTTP_10, head: parts.method == Method::HEAD };
        let size = wire.reading.size_hint();
        let empty = wire.reading.is_through();
        let body = Upload { wire: (!empty).then(|| self.clone()), turn: wire.turn, size };
        Poll::Ready(Ok(Received { parts, body, manner }))
    }

    /// The way to the client for what comes before its answer.
    pub(crate) fn foreword(&self) -> Foreword {
        Foreword(Arc::downgrade(&self.0))
    }

    /// Nothing is under way, and nobody else holds the connection.
    pub(crate) fn is_at_rest(&self) -> bool {
        let wire = self.lock();
        let is_through = wire.buffer.is_empty() && wire.outbox.is_empty() && wire.reading.is_through();
        is_through && Arc::strong_count(&self.0) == 1
    }

    /// Takes the connection apart: the stream, to be read from where HTTP ends. The other holders see it closed.
    pub(crate) fn into_stream(self) -> Option<ClientStream> {
        let wire = Arc::into_inner(self.0)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Wire { mut stream, buffer, .. } = wire;
        stream.unread(buffer.freeze());
        Some(stream)
    }
}

/// The way to a client for answers before its answer (RFC 9110, section 15.2). Does not keep the connection.
pub(crate) struct Foreword(Weak<Mutex<Wire>>);

impl Foreword {
    /// Passes an interim answer on.
    pub(super) fn tell(&self, cx: &mut Context<'_>, status: StatusCode, mut headers: HeaderMap) {
        let Some(wire) = self.0.upgrade() else { return };
        to_client(&mut headers);
        SharedWire(wire).lock().put_interim(cx, status, &headers);
        head::recycle(headers);
    }
}

impl Wire {
    /// Waits, without a buffer, for the client to say something. `false` when it has left.
    pub(crate) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.buffer.is_empty() {
            return Poll::Ready(true);
        }
        self.poll_fill(cx).map(|read| read.is_ok_and(|length| length > 0))
    }

    /// Whether what has been read so far is how HTTP/2 begins.
    pub(crate) fn may_be_http_2(&self) -> bool {
        let length = self.buffer.len().min(HTTP_2_PREFACE.len());
        self.buffer.get(..length) == HTTP_2_PREFACE.get(..length)
    }

    /// Reads until that is known. What was read is kept.
    pub(crate) fn poll_http_2(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.may_be_http_2() {
            if self.buffer.len() >= HTTP_2_PREFACE.len() {
                return Poll::Ready(true);
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Poll::Ready(false)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Result<RequestHead, Broken>> {
        loop {
            match self.scan.end(&self.buffer).map_err(Broken::Bad)? {
                Some(length) if length <= bytes_max => {
                    self.scan = Scan::default();
                    let head = head::split(&mut self.buffer, length);
                    return Poll::Ready(head::request(&head).map_err(Broken::Bad));
                }
                None if self.buffer.len() <= bytes_max => {}
                Some(_) | None => return Poll::Ready(Err(Broken::Bad(Bad::TooLong))),
            }
            if !self.buffer.is_empty() {
                self.pulse.head_begins();
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Gone)),
                Ok(_) => {}
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() && self.reading.is_through() {
            // What is left of the message before would keep all of it.
            self.buffer = BytesMut::new();
            return self.stream.poll_receive(cx, &mut self.buffer);
        }
        self.reading.make_room(&mut self.buffer);
        pin!(self.stream.read_buf(&mut self.buffer)).poll(cx)
    }

    /// Ends when the client has left, while it waits for its answer. What it sends meanwhile is kept, up to a bound.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.outbox.is_empty() {
            // An interim answer that the client did not take at once. If it fails, so does reading.
            drop(self.poll_write(cx));
        }
        // Until the body is through, whoever reads it sees that first.
        while self.reading.is_through() && self.buffer.len() < AHEAD_BYTES_MAX {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.reading.take(&mut self.buffer) {
                Ok(Taken::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(bad) => return Poll::Ready(Some(Err(BodyError::Bad(bad)))),
            }
            if std::mem::take(&mut self.owes_continue) && self.buffer.is_empty() {
                self.outbox.front().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // What does not go now goes before the answer.
                let sent = self.poll_write(cx);
                if let Poll::Ready(Err(error)) = sent {
                    return Poll::Ready(Some(Err(BodyError::Io(error))));
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    if self.reading.ended().is_err() {
                        return Poll::Ready(Some(Err(BodyError::Early)));
                    }
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }

    /// Writes an interim answer, if the client knows what that is. One that has not taken the last gets no more: they are
    /// hints, and nothing is kept for them.
    fn put_interim(&mut self, cx: &mut Context<'_>, status: StatusCode, headers: &HeaderMap) {
        // Who expects to be told to go on is told once, by us if not by the instance; nobody else is.
        let unwanted =
            status == StatusCode::CONTINUE && (self.reading.is_through() || !std::mem::take(&mut self.owes_continue));
        if unwanted || !self.takes_interim || !self.outbox.is_empty() {
            return;
        }
        let out = self.outbox.front();
        head::write_response(out, status, headers);
        out.extend_from_slice(b"\r\n");
        // What does not go now goes before the answer; if it fails, so does that.
        drop(self.poll_write(cx));
    }

    /// Whether the request is through, so that another may follow. Reads what little may be left of an unwanted body,
    /// without waiting for it.
    pub(crate) fn is_through(&mut self, cx: &mut Context<'_>) -> bool {
        let mut unwanted = 0;
        while !self.reading.is_through() {
            if self.owes_continue || unwanted > UNWANTED_BYTES_MAX {
                return false;
            }
            match self.poll_body(cx) {
                Poll::Ready(Some(Ok(frame))) => unwanted += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(None) => return self.reading.is_through(),
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
        true
    }

    /// Puts the head of an answer before what is to be written. Says how its body is framed, if there may be one, and
    /// whether the connection may go on after it.
    pub(crate) fn put_head<B>(
        &mut self,
        response: &mut Response<B>,
        exact: Option<u64>,
        manner: Manner,
        last: bool,
    ) -> (Option<Framed>, bool) {
        let status = response.status();
        let out = self.outbox.front();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            head::write_response(out, status, response.headers());
            out.extend_from_slice(b"\r\n");
            return (None, false);
        }
        let headers = response.headers_mut();
        let mut goes_on = manner.keep_alive && !last && !head::says(headers, b"close");
        headers.remove(header::CONNECTION);
        let bodiless = status == StatusCode::NO_CONTENT || status.is_informational();
        if bodiless {
            headers.remove(header::CONTENT_LENGTH);
        }
        head::write_response(out, status, headers);
        if !headers.contains_key(header::DATE) {
            write_date(out);
        }
        let bodiless = bodiless || status == StatusCode::NOT_MODIFIED;
        let framed = if bodiless || headers.contains_key(header::CONTENT_LENGTH) {
            Framed::Plain
        } else if let Some(exact) = exact {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(exact.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
            Framed::Plain
        } else if manner.http_10 {
            goes_on = false;
            Framed::Plain
        } else {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framed::Chunks
        };
        if !goes_on {
            out.extend_from_slice(b"connection: close\r\n");
        } else if manner.http_10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        head::recycle(std::mem::take(headers));
        // Whatever the head says of a body.
        let framed = Some(framed).filter(|_| !bodiless && !manner.head);
        (framed, goes_on)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    pub(crate) fn put_data(&mut self, data: Bytes, framed: Framed) {
        self.outbox.push(data, framed);
    }

    pub(crate) fn put_end(&mut self, framed: Framed) {
        self.outbox.finish(framed);
    }

    pub(crate) fn put_trailers(&mut self, trailers: &HeaderMap) {
        self.outbox.finish_with(trailers);
    }

    /// Writes all there is.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outbox.poll_write(cx, &mut self.stream))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Whether the connection can just be dropped: there is nothing unread that the kernel would answer with a reset, and
    /// no TLS to say that this is the end.
    pub(crate) fn closes_cleanly(&self) -> bool {
        self.stream.is_plain() && self.reading.is_through() && self.buffer.is_empty() && self.outbox.is_empty()
    }

    /// Says that nothing more will come.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Reads on without looking, so that the kernel does not answer with a reset, which would take the last answer from
    /// a client that is still sending. Ends when the client has.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        loop {
            self.buffer.clear();
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(length) if length > *left => return Poll::Ready(()),
                Ok(length) => *left -= length,
            }
        }
    }
}

/// The body of a request.
pub(crate) struct Upload {
    /// `None` when there is none.
    wire: Option<SharedWire>,
    turn: u64,
    size: SizeHint,
}

/// Why the body of a request is not whole.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the client broke the connection off")]
    Io(#[source] io::Error),
    #[error("the body is malformed: {0}")]
    Bad(#[source] Bad),
    #[error("the body ended early")]
    Early,
    #[error("the request is over")]
    Over,
}

impl Upload {
    /// Whether the client sends it only when it is told to, which reading it does.
    pub(crate) fn is_withheld(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.lock().owes_continue)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(shared) = &self.wire else { return Poll::Ready(None) };
        let (polled, through) = {
            let mut wire = shared.lock();
            if wire.turn != self.turn {
                return Poll::Ready(Some(Err(BodyError::Over.into())));
            }
            (ready!(wire.poll_body(cx)), wire.reading.is_through())
        };
        if through {
            self.wire = None;
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.wire.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

/// A `date` header, written out once a second.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now_s = world::clock::coarse_unix_s();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now_s {
            let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now_s);
            *text = format!("date: {}\r\n", httpdate::fmt_http_date(now));
            *second = now_s;
        }
        out.extend_from_slice(text.as_bytes());
    });
}
