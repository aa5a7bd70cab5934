//! Tunnels through the gateway: open as long as their two ends like, closed when one is gone.

use bytes::Bytes;
use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use world::tunnel::Moved;

/// Of a client that closed altogether, which looks like one that closed a half, nothing stays for ever.
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
    world::tunnel::run(client, instance, early, Moved::or_over_after(HALF_CLOSED_IDLE)).await
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
