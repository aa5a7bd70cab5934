//! Looking at what a client said without taking it: whoever serves the connection reads it again.

use rustix::net::RecvFlags;
use std::io;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Waits until more than `known` bytes are there, and gives how many: they are in `seen`, as far as there is room.
///
/// # Errors
/// That of the socket; [`io::ErrorKind::UnexpectedEof`] when nothing more will come. May be dropped.
pub(crate) async fn more(stream: &TcpStream, known: usize, seen: &mut [u8]) -> io::Result<usize> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Within `try_io`, so that news that come between looking and waiting are not lost.
        let looked = stream.try_io(Interest::READABLE, || {
            let (length, _) = rustix::net::recv(stream, &mut *seen, RecvFlags::PEEK)?;
            if length > known { Ok(length) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match looked {
            Ok(length) => return Ok(length),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if ready.is_read_closed() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => {}
        }
    }
}
