//! What is to be written: a head, a piece of a body, and what stands around it.
//!
//! Owns the order of the bytes and how chunks are framed. A head and the first piece of its body leave in one system
//! call; pieces are never copied. Holds one piece at most: who cannot write does not read. Pure.

use super::head;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use std::io::IoSlice;

/// A buffer that grew beyond this is not kept between messages.
const KEPT_BYTES_MAX: usize = 8 << 10;

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
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.front.len() && self.data.is_empty() && self.back.is_empty()
    }

    /// Whether the next piece can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.data.is_empty() && self.back.is_empty()
    }

    /// For heads. Only before the data that belongs to them.
    pub(super) fn front(&mut self) -> &mut Vec<u8> {
        if self.at == self.front.len() {
            self.front.clear();
            self.at = 0;
        }
        &mut self.front
    }

    /// A piece of a body. Only when there is no other.
    pub(super) fn push(&mut self, data: Bytes, framed: Framed) {
        if data.is_empty() {
            // As a chunk, it would be the end.
            return;
        }
        if framed == Framed::Chunks {
            let mut digits = [0; 18];
            let digits = hexadecimal(data.len(), &mut digits);
            self.front().extend_from_slice(digits);
            self.back = b"\r\n";
        }
        self.data = data;
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

    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        let front = self.front.get(self.at..).unwrap_or_default();
        [IoSlice::new(front), IoSlice::new(&self.data), IoSlice::new(self.back)]
    }

    /// The slice for those that write one only.
    pub(super) fn first(&self) -> &[u8] {
        let front = self.front.get(self.at..).unwrap_or_default();
        if !front.is_empty() {
            front
        } else if !self.data.is_empty() {
            &self.data
        } else {
            self.back
        }
    }

    pub(super) fn written(&mut self, length: usize) {
        let front = length.min(self.front.len() - self.at);
        self.at += front;
        let data = (length - front).min(self.data.len());
        self.data.advance(data);
        self.back = self.back.get(length - front - data..).unwrap_or_default();
    }

    /// Nothing is left to write: gives back memory that is more than the next message needs.
    pub(super) fn rest(&mut self) {
        self.data = Bytes::new();
        self.front().shrink_to(KEPT_BYTES_MAX);
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

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let bytes: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.iter().copied()).collect();
            assert!(bytes.starts_with(outbox.first()));
            let length = step.min(bytes.len());
            all.extend_from_slice(&bytes[..length]);
            outbox.written(length);
        }
        all
    }

    #[test]
    fn pieces_keep_their_order_however_they_are_written() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            outbox.front().extend_from_slice(b"head\r\n\r\n");
            outbox.push(Bytes::from_static(b"0123456789abcdefg"), Framed::Chunks);
            let mut all = drain(&mut outbox, step);
            outbox.push(Bytes::new(), Framed::Chunks);
            outbox.push(Bytes::from_static(b"x"), Framed::Chunks);
            outbox.finish(Framed::Chunks);
            all.extend(drain(&mut outbox, step));
            let expected = b"head\r\n\r\n11\r\n0123456789abcdefg\r\n1\r\nx\r\n0\r\n\r\n";
            assert_eq!(all.escape_ascii().to_string(), expected.escape_ascii().to_string());
            outbox.finish(Framed::Chunks);
            assert_eq!(drain(&mut outbox, step), b"0\r\n\r\n");
        }
    }
}
