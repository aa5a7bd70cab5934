//! Bytes both ways between two connections, until both have ended.
//!
//! Owns half-closing: when one side says it is done, the other is told and may still finish. Knows no protocol.

use bytes::Bytes;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One read and one write at a time: full loopback speed is reached at 32 to 64 KiB.
const BUFFER_BYTES: usize = 32 << 10;

/// Copies both ways. Ends well when both sides ended, with an error when one broke. May be dropped: both
/// connections close with it. `early` is what the instance has said already.
pub(crate) async fn run<A, B>(client: A, instance: B, early: Bytes) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (instance_read, instance_write) = tokio::io::split(instance);
    tokio::try_join!(copy(client_read, instance_write, Bytes::new()), copy(instance_read, client_write, early))?;
    Ok(())
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, early: Bytes) -> io::Result<()> {
    to.write_all(&early).await?;
    drop(early);
    let mut buffer = vec![0; BUFFER_BYTES];
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
    }
}
