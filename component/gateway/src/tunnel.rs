//! Bytes both ways between two connections, until both have ended.
//!
//! Owns half-closing: when one side says it is done, the other is told and may still finish; of one that takes
//! nothing more, what it said last arrives. An open tunnel may be silent for as long as it likes; its sockets ask the kernel to notice a peer that is gone. Knows no protocol.

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
/// Who takes nothing more has said its last already, and the kernel has it.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);
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
        ended = up.as_mut() => other_half(ended, down, &moved).await,
        ended = down.as_mut() => other_half(ended, up, &moved).await,
    }
}

/// Where a half broke.
enum Broken {
    /// Whoever is read from says nothing more.
    Reading(io::Error),
    /// Whoever is written to takes nothing more.
    Writing(io::Error),
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> io::Error {
        let (Broken::Reading(error) | Broken::Writing(error)) = broken;
        error
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

/// Goes on with the half that is left, when the first has come to this: while bytes move, or for the last words of
/// somebody who takes nothing more.
async fn other_half(
    first: Result<(), Broken>,
    mut half: impl Future<Output = Result<(), Broken>> + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    match first {
        Ok(()) => {}
        Err(Broken::Reading(error)) => return Err(error),
        Err(Broken::Writing(error)) => {
            let _ = tokio::time::timeout(LAST_WORDS_DEADLINE, half).await;
            return Err(error);
        }
    }
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(HALF_CLOSED_IDLE, &mut half).await {
            Ok(ended) => return ended.map_err(io::Error::from),
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
) -> Result<(), Broken> {
    to.write_all(&early).await.map_err(Broken::Writing)?;
    drop(early);
    let mut buffer = vec![0; BUFFER_BYTES_FIRST];
    loop {
        let read = from.read(&mut buffer).await.map_err(Broken::Reading)?;
        if read == 0 {
            // The other side may have closed its reading half already, which is an end as good as ours.
            return match to.shutdown().await {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Writing(error)),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await.map_err(Broken::Writing)?;
        moved.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        if read == buffer.len() && read < BUFFER_BYTES_MAX {
            buffer.resize(read * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("it connects"), far.expect("it is accepted").0)
    }

    /// The client's connection is reset behind its last word, and found to be broken by writing to it.
    #[tokio::test]
    async fn the_last_words_of_who_takes_nothing_more_arrive() {
        for _ in 0..20 {
            let ((mut client, before), (behind, instance)) = (pair().await, pair().await);
            let (mut hears, mut floods) = instance.into_split();
            let flood = async move { while floods.write_all(&[b'x'; 1 << 16]).await.is_ok() {} };
            let leaves = async move {
                client.read_exact(&mut [0; 1 << 16]).await.expect("the flood arrives");
                client.write_all(b"that is all").await.expect("it is taken");
            };
            let mut heard = Vec::new();
            // What it ends with is the flood's own matter: the words come before.
            let listens = async { while matches!(hears.read_buf(&mut heard).await, Ok(1..)) {} };
            let (ended, (), (), ()) = tokio::join!(run(before, behind, Bytes::new()), flood, leaves, listens);
            assert!(ended.is_err());
            assert_eq!(String::from_utf8_lossy(&heard), "that is all");
        }
    }
}
