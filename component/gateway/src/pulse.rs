//! A client's socket with its pulse: when bytes last moved, and who waits for whom.
//!
//! Owns the judgement whether a client is too slow, made from a few marks that cost next to nothing per byte
//! moved, and looked at once in a while. Does not know HTTP: it is told where a request begins and ends.

use crate::metrics::ConnectionMeters;
use crate::pace::Pace;
use crate::settings::Limits;
use crate::socket;
use bytes::{Bytes, BytesMut};
use rustls::{HandshakeKind, ProtocolVersion};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use wire::api::TlsSeen;

/// Between requests.
const IDLE: u8 = 0;
/// Some bytes of a request are there, its head is not complete.
const HEAD: u8 = 1;
/// A request is being answered.
const REQUEST: u8 = 2;
/// Requests are streams within the connection, each with a pulse of its own.
const STREAMS: u8 = 3;

/// What is read of TLS at once where nobody knows what comes: most requests fit.
const FIRST_BYTES: usize = 2 << 10;

/// What is known of a client's pace.
pub(crate) struct Pulse {
    state: AtomicU8,
    /// When the current head began.
    head_ms: AtomicU64,
    /// When a byte last moved either way.
    moved_ms: AtomicU64,
    /// Since when an instance owes an answer; 0 when none does.
    asked_ms: AtomicU64,
    /// It owes it for too long.
    late: AtomicBool,
    /// The client has not sent all of a request's body.
    uploading: AtomicBool,
    pace: Pace,
    /// Streams under way.
    streams: AtomicUsize,
    /// Those of them that carry bytes both ways for as long as they like.
    tunnels: AtomicUsize,
    /// The last read found nothing, the last write found no room.
    read_waits: AtomicBool,
    write_waits: AtomicBool,
    /// Told to make room, and it has not looked yet.
    told: AtomicBool,
    /// Something may have become of the connection, and it has not looked yet.
    due: AtomicBool,
    /// Of whoever attends it.
    waker: Mutex<Option<Waker>>,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse {
            state: AtomicU8::new(IDLE),
            head_ms: AtomicU64::new(0),
            moved_ms: AtomicU64::new(world::clock::coarse_ms()),
            asked_ms: AtomicU64::new(0),
            late: AtomicBool::new(false),
            uploading: AtomicBool::new(false),
            pace: Pace::default(),
            streams: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            read_waits: AtomicBool::new(false),
            write_waits: AtomicBool::new(false),
            told: AtomicBool::new(false),
            due: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    #[cfg(test)]
    pub(crate) fn long_unused() -> Pulse {
        Pulse { moved_ms: AtomicU64::new(now_ms().saturating_sub(60_000)), ..Pulse::new() }
    }

    /// For how long the connection has carried no request: it has none, waits for the rest of a head, or for more of a
    /// body that does not come. `None` while it carries one.
    pub(crate) fn unused(&self) -> Option<Duration> {
        let since = match self.state.load(Ordering::Relaxed) {
            IDLE => &self.moved_ms,
            HEAD => &self.head_ms,
            STREAMS if self.streams.load(Ordering::Relaxed) == 0 => &self.moved_ms,
            REQUEST if self.is_uploading() && self.read_waits.load(Ordering::Relaxed) => &self.moved_ms,
            _ => return None,
        };
        Some(Duration::from_millis(now_ms().saturating_sub(since.load(Ordering::Relaxed))))
    }

    /// From now on requests are streams.
    pub(crate) fn multiplexes(&self) {
        self.state.store(STREAMS, Ordering::Relaxed);
    }

    pub(crate) fn stream_begins(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stream_ends(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.moved_ms.store(now_ms(), Ordering::Relaxed);
    }

    pub(crate) fn tunnel_begins(&self) {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn tunnel_ends(&self) {
        self.tunnels.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn has_tunnels(&self) -> bool {
        self.tunnels.load(Ordering::Relaxed) > 0
    }

    /// Some of a request's head is there.
    pub(crate) fn head_begins(&self) {
        if self.state.load(Ordering::Relaxed) == IDLE {
            self.head_ms.store(now_ms(), Ordering::Relaxed);
            self.state.store(HEAD, Ordering::Relaxed);
        }
    }

    /// A request's head is complete.
    pub(crate) fn request_begins(&self, has_body: bool) {
        self.state.store(REQUEST, Ordering::Relaxed);
        self.uploading.store(has_body, Ordering::Relaxed);
        if has_body {
            self.pace.begin();
        }
    }

    /// More of the request's body is waited for; `paced` when it must come at a least rate.
    pub(crate) fn body_waits(&self, paced: bool) {
        self.read_waits.store(true, Ordering::Relaxed);
        if paced {
            self.pace.waits(now_ms());
        }
    }

    /// Some of the request's body came.
    pub(crate) fn body_came(&self, bytes: usize) {
        let now_ms = now_ms();
        self.pace.came(bytes, now_ms);
        self.moved_ms.store(now_ms, Ordering::Relaxed);
        self.read_waits.store(false, Ordering::Relaxed);
    }

    /// Whether an instance waits for a body that comes too slowly. Once it answers, the two of them may take their time.
    pub(crate) fn is_slow(&self, limits: &Limits) -> bool {
        let is_owed = self.is_uploading() && self.asked_ms.load(Ordering::Relaxed) > 0;
        is_owed && self.pace.is_slow(now_ms(), limits.body_grace, limits.body_bytes_per_s_min)
    }

    /// Nothing has moved for so long, and nothing is under way.
    pub(crate) fn is_resting(&self, after: Duration) -> bool {
        self.is_idle() && self.unused().is_some_and(|unused| unused >= after)
    }

    /// No request is under way, nor has one begun.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.load(Ordering::Relaxed) == IDLE
    }

    /// The request's body is through.
    pub(crate) fn uploaded(&self) {
        if self.uploading.swap(false, Ordering::Relaxed) && self.asked_ms.load(Ordering::Relaxed) > 0 {
            self.asks();
        }
    }

    /// An instance is being sent a request: from now on, or from the end of the request's body, it owes an answer.
    pub(crate) fn asks(&self) {
        self.late.store(false, Ordering::Relaxed);
        self.asked_ms.store(now_ms().max(1), Ordering::Relaxed);
    }

    /// The instance owes nothing any more.
    pub(crate) fn asks_no_more(&self) {
        self.asked_ms.store(0, Ordering::Relaxed);
    }

    /// Whether the instance owes its answer for too long. Turns true in [`Pulse::next_check`].
    pub(crate) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    pub(crate) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed)
    }

    /// Tells it to make room for others.
    pub(crate) fn tell(&self) {
        self.told.store(true, Ordering::Release);
        self.nudge();
    }

    /// Whether it was told to, since this was asked last.
    pub(crate) fn is_told(&self) -> bool {
        self.told.swap(false, Ordering::AcqRel)
    }

    /// Has whoever attends the connection look what has become of it.
    pub(crate) fn nudge(&self) {
        self.due.store(true, Ordering::SeqCst);
        self.lock_waker().iter().for_each(Waker::wake_by_ref);
    }

    /// Waits for the next nudge. One task at a time may.
    pub(crate) fn nudged(&self) -> impl Future<Output = ()> {
        let mut is_known = false;
        poll_fn(move |cx| self.poll_nudged(cx, &mut is_known))
    }

    /// The same; `is_known` tells whether it has been asked by this task before.
    pub(crate) fn poll_nudged(&self, cx: &Context<'_>, is_known: &mut bool) -> Poll<()> {
        if !std::mem::replace(is_known, true) {
            *self.lock_waker() = Some(cx.waker().clone());
        }
        // Most of the time it is only looked at.
        let is_due = self.due.load(Ordering::SeqCst) && self.due.swap(false, Ordering::SeqCst);
        if is_due { Poll::Ready(()) } else { Poll::Pending }
    }

    fn lock_waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer is complete or given up.
    pub(crate) fn request_ends(&self) {
        self.state.store(IDLE, Ordering::Relaxed);
        self.moved_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// How long until the connection should be looked at again; `None` when the client's time is up. Both sides
    /// may take up to one head deadline longer than theirs, because that is how often they are looked at: it
    /// spares every request its own timer.
    pub(crate) fn next_check(&self, limits: &Limits) -> Option<Duration> {
        let now_ms = now_ms();
        let since = |mark: &AtomicU64| Duration::from_millis(now_ms.saturating_sub(mark.load(Ordering::Relaxed)));
        let left = match self.state.load(Ordering::Relaxed) {
            IDLE => limits.idle_deadline.checked_sub(since(&self.moved_ms)),
            HEAD => limits.head_deadline.checked_sub(since(&self.head_ms)),
            STREAMS if self.streams.load(Ordering::Relaxed) == 0 => {
                limits.idle_deadline.checked_sub(since(&self.moved_ms))
            }
            STREAMS if self.write_waits.load(Ordering::Relaxed) => {
                limits.stall_deadline.checked_sub(since(&self.moved_ms))
            }
            STREAMS => Some(limits.head_deadline),
            // REQUEST, the only other value ever stored.
            _ => {
                let read_stalls = self.is_uploading() && self.read_waits.load(Ordering::Relaxed);
                if self.is_slow(limits) {
                    None
                } else if read_stalls || self.write_waits.load(Ordering::Relaxed) {
                    limits.stall_deadline.checked_sub(since(&self.moved_ms))
                } else if self.asked_ms.load(Ordering::Relaxed) > 0 && !self.is_uploading() {
                    let left = limits.answer_deadline.saturating_sub(since(&self.asked_ms));
                    self.late.store(left.is_zero(), Ordering::Relaxed);
                    Some(if left.is_zero() { limits.head_deadline } else { left })
                } else {
                    Some(limits.head_deadline)
                }
            }
        };
        left.filter(|left| !left.is_zero()).map(|left| left.min(limits.head_deadline))
    }

    fn received(&self) {
        self.moved_ms.store(now_ms(), Ordering::Relaxed);
        self.read_waits.store(false, Ordering::Relaxed);
        self.head_begins();
    }

    fn sent(&self) {
        self.moved_ms.store(now_ms(), Ordering::Relaxed);
        self.write_waits.store(false, Ordering::Relaxed);
    }
}

/// A few milliseconds are nothing to the deadlines of clients, and their marks are made with every byte.
fn now_ms() -> u64 {
    world::clock::coarse_ms()
}

/// With or without TLS.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client's socket.
pub(crate) struct ClientStream {
    stream: Transport,
    /// Read already, to be read again first.
    early: Bytes,
    pulse: Arc<Pulse>,
    meters: Open,
}

/// Counts a connection for as long as it is at rest.
pub(crate) struct AtRest(Arc<ConnectionMeters>);

impl Drop for AtRest {
    fn drop(&mut self) {
        self.0.resting.add(-1.0);
    }
}

/// Counts a connection for as long as it is open.
pub(crate) struct Open(Arc<ConnectionMeters>);

impl Open {
    pub(crate) fn count(meters: &Arc<ConnectionMeters>) -> Open {
        meters.open.add(1.0);
        Open(Arc::clone(meters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.add(-1.0);
    }
}

impl ClientStream {
    pub(crate) fn new(stream: Transport, pulse: Arc<Pulse>, meters: &Arc<ConnectionMeters>) -> ClientStream {
        ClientStream { stream, early: Bytes::new(), pulse, meters: Open::count(meters) }
    }

    /// How it is protected.
    pub(crate) fn tls(&self) -> Option<TlsSeen> {
        let Transport::Tls(stream) = &self.stream else { return None };
        let connection = stream.get_ref().1;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(_) | None => "1.3",
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Some(TlsSeen { version: version.to_owned(), resumed })
    }

    /// Puts back bytes that were read, to be read again before all others.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if self.early.is_empty() {
            self.early = bytes;
        } else if !bytes.is_empty() {
            self.early = [bytes.as_ref(), self.early.as_ref()].concat().into();
        }
    }
}

impl ClientStream {
    /// The bare socket, for who has read nothing yet. `None` within TLS.
    pub(crate) fn into_plain(self) -> Option<TcpStream> {
        match self.stream {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(_) => None,
        }
    }

    /// Reads into an empty `buffer` where nobody knows what comes. No more memory is held than what does.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        if let Transport::Plain(stream) = &self.stream
            && self.early.is_empty()
        {
            let polled = socket::poll_receive(stream, cx, buffer);
            self.note_read(&polled);
            return polled;
        }
        let mut room = [MaybeUninit::uninit(); FIRST_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(self).poll_read(cx, &mut read))?;
        *buffer = BytesMut::from(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    pub(crate) fn count_rest(&self) -> AtRest {
        self.meters.0.resting.add(1.0);
        AtRest(Arc::clone(&self.meters.0))
    }

    /// Waits until the client has said something, or has left.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = match &self.stream {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        // Whatever is wrong with it shows when it is read.
        stream.poll_read_ready(cx).map(drop)
    }

    fn note_read(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => self.pulse.read_waits.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(length @ 1..)) => {
                self.pulse.received();
                self.meters.0.bytes_in.add(u64::try_from(*length).unwrap_or(0));
            }
            Poll::Ready(_) => {}
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.stream, Transport::Plain(_))
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Transport::Plain(stream) => stream.as_fd(),
            Transport::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let length = self.early.len().min(out.remaining());
            let early = self.early.split_to(length);
            out.put_slice(&early);
            self.pulse.received();
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        let polled = match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, out),
        };
        let polled = polled.map_ok(|()| out.filled().len() - before);
        self.note_read(&polled);
        polled.map_ok(drop)
    }
}

impl ClientStream {
    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => self.pulse.write_waits.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(length)) => {
                self.pulse.sent();
                self.meters.0.bytes_out.add(u64::try_from(*length).unwrap_or(0));
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Transport::Plain(stream) => socket::poll_send(stream, cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
