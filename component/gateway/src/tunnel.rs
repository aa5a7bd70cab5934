//! Bytes both ways between two connections, until both have ended.
//!
//! Owns half-closing: when one side says it is done, the other is told and may still finish. An open tunnel may
//! be silent for as long as it likes; its sockets ask the kernel to notice a peer that is gone. Knows no protocol.

use bytes::Bytes;
use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A silent tunnel, as most WebSockets are, holds this much for each direction.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// One that carries much grows to this: full loopback speed is reached at 32 to 64 KiB.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long one half of a tunnel may be silent once the other has ended. A peer that closed altogether looks
/// like one that closed a half; its tunnel must not stay for ever.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(300);
/// A silent peer is asked whether it is there after this, then every interval, and given up after so many: two
/// minutes in all, as with HTTP connections, and little enough that address translation stays alive.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Copies both ways. Ends well when both sides ended, with an error when one broke. May be dropped: both
/// connections close with it. `early` is what the instance has said already.
pub(crate) async fn run<A, B>(client: A, instance: B, early: Bytes) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (instance_read, instance_write) = tokio::io::split(instance);
    let moved = AtomicU64::new(0);
    let mut up = pin!(copy(client_read, instance_write, Bytes::new(), &moved));
    let mut down = pin!(copy(instance_read, client_write, early, &moved));
    tokio::select! {
        ended = up.as_mut() => {
            ended?;
            last_half(down, &moved).await
        }
        ended = down.as_mut() => {
            ended?;
            last_half(up, &moved).await
        }
    }
}

/// Has the kernel find out that the other end of a silent connection is gone.
pub(crate) fn watch_peer(socket: impl AsFd) {
    let watched = sockopt::set_socket_keepalive(&socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE))
        .and_then(|()| sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES));
    if let Err(error) = watched {
        tracing::debug!(%error, "cannot watch a tunnel's peer");
    }
}

/// Goes on with the half that is left while bytes move.
async fn last_half(mut half: impl Future<Output = io::Result<()>> + Unpin, moved: &AtomicU64) -> io::Result<()> {
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(HALF_CLOSED_IDLE, &mut half).await {
            Ok(ended) => return ended,
            Err(_) if moved.load(Ordering::Relaxed) > before => {}
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Bytes,
    moved: &AtomicU64,
) -> io::Result<()> {
    to.write_all(&early).await?;
    drop(early);
    let mut buffer = vec![0; BUFFER_BYTES_FIRST];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // The other side may have closed its reading half already, which is an end as good as ours.
            return match to.shutdown().await {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        moved.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        if read == buffer.len() && read < BUFFER_BYTES_MAX {
            buffer.resize(read * 2, 0);
        }
    }
}
