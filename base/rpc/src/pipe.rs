//! Bytes on their way from a writer to a stream of HTTP/2: a few at a time, so that the writer feels the reader.

use crate::failure::{Code, Failure};
use crate::head::write_end;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::Frame;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::AsyncWrite;

/// What waits for the stream; it holds as much again, and the peer's window lets it have that.
const PIPE_BYTES_MAX: usize = 128 << 10;

/// Dropped before it is shut down, it resets the stream.
#[derive(Debug)]
pub(crate) struct PipeWriter(Arc<Mutex<Pipe>>);

/// What the stream sends.
#[derive(Debug)]
pub(crate) struct PipeReader(Arc<Mutex<Pipe>>);

#[derive(Debug)]
struct Pipe {
    waiting: BytesMut,
    state: State,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The writer has said everything; that is still to be told.
    Ending,
    Ended,
    /// The writer has broken off; what it had written goes first.
    BreakingOff,
    /// The writer has gone without a word.
    Broken,
    /// The stream is over.
    Unread,
}

pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let pipe = Pipe { waiting: BytesMut::new(), state: State::Open, writer: None, reader: None };
    let shared = Arc::new(Mutex::new(pipe));
    (PipeWriter(Arc::clone(&shared)), PipeReader(shared))
}

impl Pipe {
    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl PipeReader {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut pipe = lock(&self.0);
        if !pipe.waiting.is_empty() {
            let bytes = pipe.waiting.split().freeze();
            pipe.wake_writer();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match pipe.state {
            State::Open => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ending | State::BreakingOff => {
                let failure = Failure::new(Code::Cancelled, "the connection broke off here");
                let mut trailers = HeaderMap::new();
                write_end(&mut trailers, if pipe.state == State::Ending { Ok(()) } else { Err(&failure) });
                pipe.state = State::Ended;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            State::Ended => Poll::Ready(None),
            State::Broken | State::Unread => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }

    /// Everything has been said and told.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.0).state == State::Ended
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        if matches!(pipe.state, State::Open | State::Ending | State::BreakingOff) {
            pipe.state = State::Unread;
        }
        pipe.wake_writer();
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        match pipe.state {
            State::Open => {}
            State::Ending | State::BreakingOff | State::Ended => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            State::Broken | State::Unread => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
        let room = PIPE_BYTES_MAX.saturating_sub(pipe.waiting.len());
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        pipe.waiting.extend_from_slice(taken);
        pipe.wake_reader();
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is in the pipe goes by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.0);
        match pipe.state {
            State::Open => {
                pipe.state = State::Ending;
                pipe.wake_reader();
                Poll::Ready(Ok(()))
            }
            State::Ending | State::BreakingOff | State::Ended => Poll::Ready(Ok(())),
            State::Broken | State::Unread => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl PipeWriter {
    /// Says that it breaks here, behind what was written.
    pub(crate) fn break_off(&self) {
        let mut pipe = lock(&self.0);
        if pipe.state == State::Open {
            pipe.state = State::BreakingOff;
            pipe.wake_reader();
        }
    }

    /// Waits until nobody will read any more, which may be never.
    pub(crate) fn poll_unread(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pipe = lock(&self.0);
        if pipe.state == State::Unread {
            return Poll::Ready(());
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        if pipe.state == State::Open {
            // What was written is of no use without the rest.
            pipe.waiting.clear();
            pipe.state = State::Broken;
        }
        pipe.wake_reader();
    }
}

/// Nothing panics while it is held.
fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}
