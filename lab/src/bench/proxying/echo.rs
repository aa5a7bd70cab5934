//! WebSocket messages there and back: over each connection the next one once the one before is back.
//!
//! What answers is [`lab::program`], which gives back the bytes it gets: a proxy sees the same either way.

use super::wrk::Counted;
use lab::program::WEBSOCKET_KEY;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where the backend takes upgrades.
pub(super) const PATH: &str = "/tunnel";
/// A final binary frame as clients send it, with a mask of zeros and 32 bytes.
const FRAME: [u8; 38] = {
    let mut frame = [b'x'; 38];
    [frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]] = [0x82, 0x80 | 32, 0, 0, 0, 0];
    frame
};
const HEAD_BYTES_MAX: usize = 4 << 10;
/// After the end, for what is under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// With `connections` at once for some seconds. A message counts when it is back.
pub(super) fn run(to: SocketAddr, path: &str, connections: usize, seconds: u32) -> Counted {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let (messages, seconds) = runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(upgraded(to, path).await.expect("the proxy passes an upgrade on"));
        }
        let began = world::clock::monotonic();
        let end = began + Duration::from_secs(u64::from(seconds));
        let echoing: Vec<_> = open.into_iter().map(|stream| world::task::spawn("echo", echo(stream, end))).collect();
        let mut messages = 0;
        for echoing in echoing {
            let counted = tokio::time::timeout_at((end + PATIENCE).into(), echoing.join()).await;
            messages += counted.expect("echoes come back").expect("an echo does not panic").expect("tunnels stay open");
        }
        (messages, world::clock::monotonic().duration_since(began).as_secs_f64())
    });
    // All took part alike: a mean is enough here, their spread is measured with requests.
    Counted { requests: f64::from(messages), bytes: f64::NAN, seconds, p50_ms: f64::NAN, p99_ms: f64::NAN }
}

async fn upgraded(to: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        // Byte by byte, so that nothing of what follows is taken.
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        return Err(Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&head).into_owned()));
    }
    Ok(stream)
}

async fn echo(mut stream: TcpStream, end: Instant) -> Result<u32> {
    let (mut messages, mut back) = (0, FRAME);
    while world::clock::monotonic() < end {
        stream.write_all(&FRAME).await?;
        stream.read_exact(&mut back).await?;
        if back != FRAME {
            return Err(Error::new(ErrorKind::InvalidData, "another message came back"));
        }
        messages += 1;
    }
    Ok(messages)
}
