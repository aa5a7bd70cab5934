//! The network's door to instances: who asks for a connection need not know how a container is reached.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;

/// Between two looks at what is still on its way: the kernel wakes nobody when that has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A connection being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Makes connections to a port of an instance, wherever it runs.
///
/// `client` is the address of whoever is served; an implementation that can makes the instance see it as
/// the peer's address. May be dropped while it waits: the connection attempt ends with it.
pub trait Dialer: Send + Sync {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, client: Option<SocketAddr>) -> Dialing<'a>;
}

/// Has a connection reset when it is dropped: its peer sees a break, and no end. What it has not been sent by then is lost.
pub fn reset_when_dropped(connection: &TcpStream) {
    if let Err(error) = connection.set_zero_linger() {
        tracing::debug!(%error, "a connection is closed where it should be reset");
    }
}

/// Resets a connection whose peer first gets what was written before, for which it has `patience`. Dropped, it does so at once.
pub async fn reset(connection: TcpStream, patience: Duration) {
    reset_when_dropped(&connection);
    let arrived = async {
        // Of one that the peer has reset already nothing arrives any more; it has no peer then.
        while connection.peer_addr().is_ok() && unacknowledged(&connection).is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(patience, arrived).await;
}

/// Bytes written that the peer's machine has not said to have.
#[expect(unsafe_code, reason = "the kernel has no other door to this")]
fn unacknowledged(connection: &TcpStream) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as the connection is borrowed, and `bytes` is what this call writes to.
    let asked = unsafe { libc::ioctl(connection.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// More than the peer's machine takes before somebody reads there.
    #[tokio::test]
    async fn a_connection_is_reset_behind_what_was_written() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it connects");
        let (mut far, _) = listener.accept().await.expect("it is accepted");
        let mut written = 0;
        while let Ok(more) = near.try_write(&[7; 1 << 16]) {
            written += more;
            tokio::task::yield_now().await;
        }
        assert!(unacknowledged(&near).expect("the kernel knows") > 0);
        let listen = async {
            let mut heard = Vec::new();
            let ended = far.read_to_end(&mut heard).await;
            (heard.len(), ended.expect_err("it is no end").kind())
        };
        let ((), heard) = tokio::join!(reset(near, Duration::from_secs(60)), listen);
        assert_eq!(heard, (written, io::ErrorKind::ConnectionReset));
        drop(far.shutdown().await);
    }
}
