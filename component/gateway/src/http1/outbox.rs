//! What is to be written: a head, a piece of a body, and what stands around it.
//!
//! Owns the order of the bytes and how chunks are framed. A head and the first piece of its body leave in one system
//! call; pieces are never copied. Holds one piece at most: who cannot write does not read. Pure.

use super::head;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A piece up to this is copied behind its head: one buffer costs the kernel less to take than two, and more than the
/// copy costs us.
const COPIED_BYTES_MAX: usize = 2 << 10;
/// Buffers that each thread keeps for the next message, of whichever connection; one that grew beyond this is not.
const KEPT_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 8 << 10;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framed {
    /// By the head: a length, or that there is none.
    Plain,
    Chunks,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Goes first.
    front: Vec<u8>,
    at: usize,
    data: Bytes,
    /// Follows the data.
    back: &'static [u8],
    /// The other end takes nothing just now.
    stuck: bool,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.front.len() && self.data.is_empty() && self.back.is_empty()
    }

    /// Whether the next piece can be taken.
    pub(super) fn has_room(&self) -> bool {
        !self.stuck && self.data.is_empty() && self.back.is_empty()
    }

    /// How many bytes are to be written.
    pub(super) fn left(&self) -> usize {
        self.front.len() - self.at + self.data.len() + self.back.len()
    }

    /// For heads. Only before the data that belongs to them.
    pub(super) fn front(&mut self) -> &mut Vec<u8> {
        if self.front.capacity() == 0 {
            self.front = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        &mut self.front
    }

    /// A piece of a body. Only when there is no other.
    pub(super) fn push(&mut self, data: Bytes, framed: Framed) {
        if data.is_empty() {
            // As a chunk, it would be the end.
            return;
        }
        let copied = data.len() <= COPIED_BYTES_MAX;
        let front = self.front();
        if framed == Framed::Chunks {
            front.extend_from_slice(hexadecimal(data.len(), &mut [0; 18]));
        }
        if copied {
            front.extend_from_slice(&data);
        } else {
            self.data = data;
        }
        match framed {
            Framed::Plain => {}
            Framed::Chunks if copied => self.front().extend_from_slice(b"\r\n"),
            Framed::Chunks => self.back = b"\r\n",
        }
    }

    /// The end of the body.
    pub(super) fn finish(&mut self, framed: Framed) {
        match framed {
            Framed::Plain => {}
            Framed::Chunks if self.data.is_empty() && self.back.is_empty() => {
                self.front().extend_from_slice(b"0\r\n\r\n");
            }
            Framed::Chunks => self.back = b"\r\n0\r\n\r\n",
        }
    }

    /// The end of the body with trailers. Only when nothing else is to be written.
    pub(super) fn finish_with(&mut self, trailers: &HeaderMap) {
        let front = self.front();
        front.extend_from_slice(b"0\r\n");
        head::write_headers(front, trailers);
        front.extend_from_slice(b"\r\n");
    }

    fn slices(&self) -> [IoSlice<'_>; 3] {
        let front = self.front.get(self.at..).unwrap_or_default();
        [IoSlice::new(front), IoSlice::new(&self.data), IoSlice::new(self.back)]
    }

    /// Writes what `stream` takes.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        while !self.is_empty() {
            let front = self.front.get(self.at..).unwrap_or_default();
            let polled = if self.data.is_empty() && self.back.is_empty() {
                stream.as_mut().poll_write(cx, front)
            } else {
                stream.as_mut().poll_write_vectored(cx, &self.slices())
            };
            self.stuck = polled.is_pending();
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        self.rest();
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, length: usize) {
        let front = length.min(self.front.len() - self.at);
        self.at += front;
        let data = (length - front).min(self.data.len());
        self.data.advance(data);
        self.back = self.back.get(length - front - data..).unwrap_or_default();
    }

    /// Nothing is left to write: the memory is for others.
    fn rest(&mut self) {
        self.data = Bytes::new();
        self.at = 0;
        let mut front = std::mem::take(&mut self.front);
        if (1..=KEPT_BYTES_MAX).contains(&front.capacity()) {
            front.clear();
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < KEPT_MAX {
                    kept.push(front);
                }
            });
        }
    }
}

/// A chunk's size and the end of its line.
fn hexadecimal(number: usize, out: &mut [u8; 18]) -> &[u8] {
    let mut at = out.len() - 2;
    out[at] = b'\r';
    out[at + 1] = b'\n';
    let mut left = number;
    loop {
        at -= 1;
        out[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
        if left == 0 {
            return out.get(at..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Framed, Outbox};
    use bytes::Bytes;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use tokio::io::AsyncWrite;

    /// Takes `step` bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let length = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..length]);
            Poll::Ready(Ok(length))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn drain(outbox: &mut Outbox, to: &mut Narrow) {
        assert!(outbox.poll_write(&mut Context::from_waker(Waker::noop()), to).is_ready());
    }

    #[test]
    fn pieces_keep_their_order_however_they_are_written() {
        let long = "x".repeat(3_000);
        for step in [1, 2, 3, 7, 40, 2_999, 10_000] {
            let (mut outbox, mut to) = (Outbox::default(), Narrow(Vec::new(), step));
            outbox.front().extend_from_slice(b"head\r\n\r\n");
            outbox.push(Bytes::from_static(b"0123456789abcdefg"), Framed::Chunks);
            outbox.push(Bytes::from(long.clone()), Framed::Chunks);
            assert!(!outbox.has_room());
            drain(&mut outbox, &mut to);
            outbox.push(Bytes::new(), Framed::Chunks);
            outbox.push(Bytes::from(long.clone()), Framed::Chunks);
            outbox.finish(Framed::Chunks);
            drain(&mut outbox, &mut to);
            outbox.push(Bytes::from_static(b"y"), Framed::Plain);
            outbox.push(Bytes::from(long.clone()), Framed::Plain);
            outbox.finish(Framed::Plain);
            drain(&mut outbox, &mut to);
            outbox.finish(Framed::Chunks);
            drain(&mut outbox, &mut to);
            let expected = format!(
                "head\r\n\r\n11\r\n0123456789abcdefg\r\nbb8\r\n{long}\r\nbb8\r\n{long}\r\n0\r\n\r\ny{long}0\r\n\r\n"
            );
            assert_eq!(String::from_utf8(to.0).unwrap(), expected, "{step} at a time");
        }
    }
}
