//! QUIC as `h3` wants it, by quinn.
//!
//! Owns the bounds that `h3` does not keep: how long a frame may be, and how many streams of one direction there are.
//! Promises that an answer which was not said to be complete never looks so.

use super::frames::{Bad, Frames};
use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Streams in one direction that a client may ever open: three that the protocol has, and some that mean nothing.
const CONTROLS_MAX: u32 = 16;

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>;

/// A connection. Its waits are kept: dropped in the middle, they would miss what wakes them.
pub(super) struct Wire {
    quic: quinn::Connection,
    requests: Opening<(quinn::SendStream, quinn::RecvStream)>,
    controls: Opening<quinn::RecvStream>,
    opener: Opener,
    frame_bytes_max: u64,
    controls_left: u32,
}

pub(super) struct Opener {
    quic: quinn::Connection,
    opening: Option<Opening<quinn::SendStream>>,
}

/// One request's stream.
pub(super) struct Both {
    sending: Sending,
    receiving: Receiving,
}

pub(super) struct Sending {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    is_ended: bool,
}

pub(super) struct Receiving {
    stream: quinn::RecvStream,
    frames: Frames,
}

impl Wire {
    pub(super) fn new(quic: quinn::Connection, frame_bytes_max: u64) -> Wire {
        Wire {
            requests: accept_request(&quic),
            controls: accept_control(&quic),
            opener: Opener { quic: quic.clone(), opening: None },
            quic,
            frame_bytes_max,
            controls_left: CONTROLS_MAX,
        }
    }
}

fn accept_request(quic: &quinn::Connection) -> Opening<(quinn::SendStream, quinn::RecvStream)> {
    let quic = quic.clone();
    Box::pin(async move { quic.accept_bi().await })
}

fn accept_control(quic: &quinn::Connection) -> Opening<quinn::RecvStream> {
    let quic = quic.clone();
    Box::pin(async move { quic.accept_uni().await })
}

impl quic::Connection<Bytes> for Wire {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let stream = ready!(self.controls.as_mut().poll(cx)).map_err(lost)?;
        self.controls = accept_control(&self.quic);
        let Some(left) = self.controls_left.checked_sub(1) else {
            return Poll::Ready(Err(ConnectionErrorIncoming::InternalError("too many streams".to_owned())));
        };
        self.controls_left = left;
        Poll::Ready(Ok(Receiving { stream, frames: Frames::of_control(self.frame_bytes_max) }))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let (sending, receiving) = ready!(self.requests.as_mut().poll(cx)).map_err(lost)?;
        self.requests = accept_request(&self.quic);
        let sending = Sending { stream: sending, writing: None, is_ended: false };
        let receiving = Receiving { stream: receiving, frames: Frames::of_request(self.frame_bytes_max) };
        Poll::Ready(Ok(Both { sending, receiving }))
    }

    fn opener(&self) -> Opener {
        Opener { quic: self.quic.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Wire {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        // Servers open none (RFC 9114, section 6.1).
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server opens no request".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opening = self.opening.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let stream =
            opened.map_err(|error| StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) })?;
        Poll::Ready(Ok(Sending { stream, writing: None, is_ended: false }))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(number(code.value()), reason);
    }
}

impl Both {
    /// Ends when the client has all of the answer, wants no more of it, or is gone.
    pub(super) fn through(&self) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + use<> {
        self.sending.stream.stopped()
    }

    /// Sends it back unread: the client may ask elsewhere.
    pub(super) fn reject(mut self) {
        let code = Code::H3_REQUEST_REJECTED.value();
        quic::RecvStream::stop_sending(&mut self, code);
        quic::SendStream::<Bytes>::reset(&mut self, code);
    }
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiving.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receiving.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receiving.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.sending.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // It keeps nothing of its own: what is dropped here misses nothing.
        let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
        let bytes = chunk.map_err(unread)?.map(|chunk| chunk.bytes);
        let passed = match &bytes {
            Some(bytes) => self.frames.pass(bytes),
            None => self.frames.end(),
        };
        let Err(bad) = passed else { return Poll::Ready(Ok(bytes)) };
        let code = match bad {
            Bad::TooLong => Code::H3_EXCESSIVE_LOAD,
            Bad::Cut => Code::H3_FRAME_ERROR,
        };
        self.stop_sending(code.value());
        Poll::Ready(Err(StreamErrorIncoming::Unknown(bad.into())))
    }

    fn stop_sending(&mut self, code: u64) {
        // Closed already, there is nothing to stop.
        drop(self.stream.stop(number(code)));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(unwritten)?;
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.is_ended = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        self.is_ended = true;
        // Closed already, nothing is left to give up.
        drop(self.stream.reset(number(code)));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Quinn would say that this was all.
        if !self.is_ended {
            quic::SendStream::reset(self, Code::H3_INTERNAL_ERROR.value());
        }
    }
}

pub(super) fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("both are stream ids of QUIC")
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(closed) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: closed.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
        }
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            StreamErrorIncoming::Unknown(Box::new(error))
        }
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
        }
        WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
