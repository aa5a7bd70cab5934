//! Bytes both ways between two machines, as over a connection of TCP: each half ends by itself, a break is seen by both,
//! and who writes waits for who reads.

use crate::inflow::{Inflow, InflowError};
use crate::pipe::PipeWriter;
use bytes::{Buf, Bytes};
use meter::Held;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use world::tunnel::{Broken, LAST_WORDS_DEADLINE, Moved};

/// Of somebody who goes on sending, though nobody hears it any more: many times what is under way at once.
const HEAR_OUT_BYTES_MAX: usize = 16 << 20;

/// A client's place on the connection, counted as under way.
type Place = (OwnedSemaphorePermit, Held);

/// A tunnel. Dropped before both halves have ended, it resets the other end.
pub struct Tunnel {
    reader: TunnelReader,
    writer: TunnelWriter,
}

/// The half that comes. Ends with zero bytes; a break is an error.
pub struct TunnelReader {
    inflow: Inflow,
    current: Bytes,
    _place: Option<Arc<Place>>,
}

/// The half that goes. `shutdown` ends it; dropped before that it resets the other end.
pub struct TunnelWriter {
    pipe: PipeWriter,
    _place: Option<Arc<Place>>,
}

impl Tunnel {
    pub(crate) fn new(inflow: Inflow, pipe: PipeWriter, place: Option<Place>) -> Tunnel {
        let place = place.map(Arc::new);
        Tunnel {
            reader: TunnelReader { inflow, current: Bytes::new(), _place: place.clone() },
            writer: TunnelWriter { pipe, _place: place },
        }
    }

    /// The halves, each on its own.
    pub fn into_split(self) -> (TunnelReader, TunnelWriter) {
        (self.reader, self.writer)
    }

    /// Carries a connection through the tunnel until both halves of both have ended. A break on either side is one on
    /// the other, behind what was said last: a reset of TCP where it can be one. May be dropped, which is such a break,
    /// at once.
    ///
    /// # Errors
    /// What broke.
    pub async fn carry(self, connection: TcpStream) -> io::Result<()> {
        let (mut reader, mut writer) = self.into_split();
        let mut abrupt = Abrupt(Some(connection));
        let Some(connection) = abrupt.0.as_mut() else { return Ok(()) };
        let (from, mut to) = connection.split();
        let moved = Moved::default();
        let out = world::tunnel::copy(from, &mut writer, &moved);
        let back = async {
            while let Some(bytes) = reader.chunk().await.map_err(Broken::Reading)? {
                to.write_all(&bytes).await.map_err(Broken::Writing)?;
            }
            world::tunnel::end(to, &moved).await
        };
        let carried = world::tunnel::both(out, back, &moved).await;
        let connection = abrupt.0.take();
        if let Err(broken) = carried {
            writer.pipe.break_off();
            let reset = async {
                if let Some(connection) = connection {
                    world::net::reset(connection, LAST_WORDS_DEADLINE).await;
                }
            };
            tokio::join!(reset, hear_out(&mut reader));
            return Err(broken.into());
        }
        Ok(())
    }
}

/// Whoever stops reading stops the other machine, which may be about to hand on what it was sent last.
async fn hear_out(reader: &mut TunnelReader) {
    let mut left = HEAR_OUT_BYTES_MAX;
    let rest = async {
        while let Ok(Some(bytes)) = reader.chunk().await
            && bytes.len() < left
        {
            left -= bytes.len();
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS_DEADLINE, rest).await;
}

impl TunnelReader {
    /// The next bytes as they came, without copying them. `None` at the end.
    ///
    /// # Errors
    /// When the tunnel broke.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        match self.inflow.bytes().await {
            Some(bytes) => Ok(Some(bytes?)),
            None => ended(&mut self.inflow).map(|()| None),
        }
    }
}

impl TunnelWriter {
    /// Waits until the other end reads no more. Pending for ever while it does.
    pub async fn closed(&self) {
        std::future::poll_fn(|cx| self.pipe.poll_unread(cx)).await;
    }
}

fn ended(inflow: &mut Inflow) -> io::Result<()> {
    inflow.end().map_err(io::Error::other)
}

/// A connection that is reset, not closed, when it is dropped.
struct Abrupt(Option<TcpStream>);

impl Drop for Abrupt {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            world::net::reset_when_dropped(connection);
        }
    }
}

impl AsyncRead for TunnelReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.current.is_empty() {
            match ready!(this.inflow.poll_bytes(cx)) {
                Some(bytes) => this.current = bytes.map_err(|error: InflowError| io::Error::from(error))?,
                None => return Poll::Ready(ended(&mut this.inflow)),
            }
        }
        let count = out.remaining().min(this.current.len());
        out.put_slice(&this.current[..count]);
        this.current.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, out)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl fmt::Debug for TunnelReader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TunnelReader").finish_non_exhaustive()
    }
}

impl fmt::Debug for TunnelWriter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TunnelWriter").finish_non_exhaustive()
    }
}
