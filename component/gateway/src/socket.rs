//! A socket without detours: small messages by bare system calls.
//!
//! Promises what [`TcpStream`] does. The C library's `recv` and `send` are points where a thread may be cancelled, and
//! pay for that on each call; nobody cancels threads here, and most messages are one call each.

use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

/// Most messages fit.
const MESSAGE_BYTES: usize = 4 << 10;

/// Reads a message's beginning behind what `buffer` has, of which nobody knows how much comes.
pub(crate) fn poll_receive(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut room = [MaybeUninit::uninit(); MESSAGE_BYTES];
        let mut received = None;
        let tried = stream.try_io(Interest::READABLE, || {
            let ((read, rest), _) = rustix::net::recv(stream, &mut room[..], RecvFlags::empty())?;
            received = Some(read.len());
            buffer.extend_from_slice(read);
            waits_if(!rest.is_empty() && !read.is_empty())
        });
        if let Some(length) = received {
            return Poll::Ready(Ok(length));
        }
        again(tried)?;
    }
}

/// Writes what the socket takes.
pub(crate) fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let mut sent = None;
        let tried = stream.try_io(Interest::WRITABLE, || {
            let length = rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?;
            sent = Some(length);
            waits_if(length < bytes.len())
        });
        if let Some(length) = sent {
            return Poll::Ready(Ok(length));
        }
        again(tried)?;
    }
}

/// Whoever was given less than asked for has it all: the next call would only say that one has to wait. Said here, the
/// runtime waits without that call.
fn waits_if(through: bool) -> io::Result<()> {
    if through { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}

fn again(tried: io::Result<()>) -> io::Result<()> {
    match tried {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
        other => other,
    }
}

/// A socket to write to.
pub(crate) struct Sender<'s>(pub(crate) &'s mut TcpStream);

impl AsyncWrite for Sender<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_send(self.0, cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
