//! The bytes of one connection, beneath HTTP/2.
//!
//! Owns what the layers above lose: the TLS error or alert that ended the connection, and the means to end it at once,
//! with all its streams, from outside. Counts what passes.

use futures::task::AtomicWaker;
use meter::Counter;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose end can be seen and brought about through its [`Ending`].
pub(crate) struct Line<S> {
    stream: S,
    ending: Arc<Ending>,
    traffic: Traffic,
}

/// Bytes of all connections of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

/// How a connection ended, or has to.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    is_cut: AtomicBool,
    reader: AtomicWaker,
    tls: OnceLock<rustls::Error>,
}

impl Ending {
    /// The connection ends now, whatever goes through it.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.reader.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// What TLS had against it.
    pub(crate) fn tls(&self) -> Option<&rustls::Error> {
        self.tls.get()
    }

    fn note(&self, error: &io::Error) {
        if let Some(tls) = tls_error(error) {
            // Only the first is the cause.
            let _ = self.tls.set(tls.clone());
        }
    }
}

impl<S> Line<S> {
    pub(crate) fn new(stream: S, ending: Arc<Ending>, traffic: Traffic) -> Line<S> {
        Line { stream, ending, traffic }
    }
}

/// What TLS says in an error of a socket.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ending.reader.register(cx.waker());
        if self.ending.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = out.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        match &read {
            Poll::Ready(Ok(())) => self.traffic.received.add((out.filled().len() - before) as u64),
            Poll::Ready(Err(error)) => self.ending.note(error),
            Poll::Pending => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> Line<S> {
    fn account(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => self.traffic.sent.add(*count as u64),
            Poll::Ready(Err(error)) => self.ending.note(error),
            Poll::Pending => {}
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.account(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.account(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
