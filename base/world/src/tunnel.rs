//! Bytes both ways between two connections, until both have ended.
//!
//! Owns half-closing: when one side says it is done, the other is told and may still finish; of one that takes nothing
//! more, what it said last arrives. Knows no protocol.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Who takes nothing more has said its last already, and the kernel has it.
pub const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);
/// A silent tunnel, as most WebSockets are, holds this much for each direction.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// One that carries much grows to this, and gives it back: full loopback speed is reached at 32 to 64 KiB.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Where a half broke.
#[derive(Debug)]
pub enum Broken {
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

/// How much has moved, and how long the half that is left may be silent once the other has ended.
#[derive(Debug, Default)]
pub struct Moved {
    bytes: AtomicU64,
    half_closed_idle: Option<Duration>,
}

impl Moved {
    /// A peer that closed altogether looks like one that closed a half. Where nothing else ends such a tunnel, this does.
    pub fn or_over_after(half_closed_idle: Duration) -> Moved {
        Moved { bytes: AtomicU64::new(0), half_closed_idle: Some(half_closed_idle) }
    }

    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Copies both ways. Ends well when both sides ended, with an error when one broke. May be dropped: both connections
/// close with it. `early` is what the other one has said already.
///
/// # Errors
/// What broke.
pub async fn run<A, B>(one: A, other: B, early: impl AsRef<[u8]>, moved: Moved) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (one_read, mut one_write) = tokio::io::split(one);
    let (other_read, other_write) = tokio::io::split(other);
    let forth = copy(one_read, other_write, &moved);
    let back = async {
        one_write.write_all(early.as_ref()).await.map_err(Broken::Writing)?;
        // It may hold much more than it shows.
        drop(early);
        copy(other_read, one_write, &moved).await
    };
    Ok(both(forth, back, &moved).await?)
}

/// Has both halves end. When one is at its end the other goes on: while bytes move, or for the last words of somebody who
/// takes nothing more.
///
/// # Errors
/// What broke first.
pub async fn both(
    forth: impl Future<Output = Result<(), Broken>>,
    back: impl Future<Output = Result<(), Broken>>,
    moved: &Moved,
) -> Result<(), Broken> {
    let (mut forth, mut back) = (pin!(forth), pin!(back));
    tokio::select! {
        ended = forth.as_mut() => other_half(ended, back, moved).await,
        ended = back.as_mut() => other_half(ended, forth, moved).await,
    }
}

async fn other_half(
    first: Result<(), Broken>,
    mut half: impl Future<Output = Result<(), Broken>> + Unpin,
    moved: &Moved,
) -> Result<(), Broken> {
    if let Err(broken) = first {
        if let Broken::Writing(_) = &broken {
            let _ = tokio::time::timeout(LAST_WORDS_DEADLINE, half).await;
        }
        return Err(broken);
    }
    let Some(idle) = moved.half_closed_idle else { return half.await };
    loop {
        let before = moved.bytes();
        match tokio::time::timeout(idle, &mut half).await {
            Ok(ended) => return ended,
            Err(_) if moved.bytes() > before => {}
            Err(_) => return Err(Broken::Reading(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// One half: copies until the end, and hands that on.
///
/// # Errors
/// What broke.
pub async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER_BYTES_FIRST];
    loop {
        let read = from.read(&mut buffer).await.map_err(Broken::Reading)?;
        if read == 0 {
            return end(to).await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await.map_err(Broken::Writing)?;
        moved.add(read);
        if read == buffer.len() && read < BUFFER_BYTES_MAX {
            buffer.resize(read * 2, 0);
        } else if read < buffer.len() / 4 && buffer.len() > BUFFER_BYTES_FIRST {
            buffer.truncate(buffer.len() / 2);
            buffer.shrink_to_fit();
        }
    }
}

/// Says that nothing follows.
///
/// # Errors
/// What broke.
pub async fn end(mut to: impl AsyncWrite + Unpin) -> Result<(), Broken> {
    match to.shutdown().await {
        // It may have closed its reading half already, which is an end as good as ours.
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Writing(error)),
        Ok(()) | Err(_) => Ok(()),
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
            let (ended, (), (), ()) = tokio::join!(run(before, behind, [], Moved::default()), flood, leaves, listens);
            assert!(ended.is_err());
            assert_eq!(String::from_utf8_lossy(&heard), "that is all");
        }
    }

    /// The other side says no end: nothing but the bound makes one.
    #[tokio::test]
    async fn a_half_that_is_left_goes_on_while_bytes_move() {
        let ((mut client, before), (behind, mut instance)) = (pair().await, pair().await);
        let talk = async {
            client.write_all(b"a question").await.expect("it is taken");
            client.shutdown().await.expect("it is open");
            let mut asked = String::new();
            instance.read_to_string(&mut asked).await.expect("the question ends");
            instance.write_all(b", and an answer").await.expect("it is taken");
            let mut heard = vec![0; 20];
            client.read_exact(&mut heard).await.expect("it arrives");
            (asked, String::from_utf8(heard).expect("it is text"))
        };
        let carry = run(before, behind, "early", Moved::or_over_after(Duration::from_millis(50)));
        let (ended, (asked, heard)) = tokio::join!(carry, talk);
        assert_eq!((asked.as_str(), heard.as_str()), ("a question", "early, and an answer"));
        assert_eq!(ended.expect_err("nobody ended it").kind(), io::ErrorKind::TimedOut);
    }
}
