//! Bytes both ways between two connections, until both have ended.
//!
//! Owns half-closing: when one side says it is done, the other is told and may still finish; of one that takes nothing
//! more, what it said last arrives, and no end with it: that it broke is for the caller to tell. Knows no protocol.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Who takes nothing more has said its last already, and the kernel has it.
pub const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);
/// A silent tunnel, as most WebSockets are, holds this much for each direction.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// One that carries much grows to this: full loopback speed is reached at 32 to 64 KiB.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// And gives it back when nothing has come for so long.
const SILENT_AFTER: Duration = Duration::from_millis(100);

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

/// What the two halves know of each other: how much has moved, whether one broke, and how long the one that is left may be
/// silent once the other has ended.
#[derive(Debug, Default)]
pub struct Moved {
    bytes: AtomicU64,
    broke: AtomicBool,
    half_closed_idle: Option<Duration>,
}

impl Moved {
    /// A peer that closed altogether looks like one that closed a half. Where nothing else ends such a tunnel, this does.
    pub fn or_over_after(half_closed_idle: Duration) -> Moved {
        Moved { half_closed_idle: Some(half_closed_idle), ..Moved::default() }
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
        one_write.flush().await.map_err(Broken::Writing)?;
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
            moved.broke.store(true, Ordering::Relaxed);
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
        let read = if buffer.len() == BUFFER_BYTES_FIRST {
            from.read(&mut buffer).await
        } else if let Ok(read) = tokio::time::timeout(SILENT_AFTER, from.read(&mut buffer)).await {
            read
        } else {
            buffer = vec![0; BUFFER_BYTES_FIRST];
            continue;
        };
        let read = read.map_err(Broken::Reading)?;
        if read == 0 {
            return end(to, moved).await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await.map_err(Broken::Writing)?;
        // TLS may have taken what its socket has not, and nothing else would wake it.
        to.flush().await.map_err(Broken::Writing)?;
        moved.add(read);
        if read == buffer.len() && read < BUFFER_BYTES_MAX {
            buffer.resize(read * 2, 0);
        }
    }
}

/// Says that nothing follows, unless the other half broke: what that leaves behind it looks like an end.
///
/// # Errors
/// What broke.
pub async fn end(mut to: impl AsyncWrite + Unpin, moved: &Moved) -> Result<(), Broken> {
    if moved.broke.load(Ordering::Relaxed) {
        return Err(Broken::Reading(io::ErrorKind::ConnectionReset.into()));
    }
    match to.shutdown().await {
        // It may have closed its reading half already, which is an end as good as ours.
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Writing(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{ReadBuf, duplex};
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
    #[tokio::test(start_paused = true)]
    async fn a_half_that_is_left_goes_on_while_bytes_move() {
        let ((mut client, before), (behind, mut instance)) = (duplex(64), duplex(64));
        let (idle, begun) = (Duration::from_secs(60), tokio::time::Instant::now());
        let talk = async {
            client.write_all(b"a question").await.expect("it is taken");
            client.shutdown().await.expect("it is open");
            let mut asked = String::new();
            instance.read_to_string(&mut asked).await.expect("the question ends");
            for word in [", and", " an", " answer"] {
                tokio::time::sleep(idle / 4 * 3).await;
                instance.write_all(word.as_bytes()).await.expect("it is taken");
            }
            let mut heard = vec![0; 20];
            client.read_exact(&mut heard).await.expect("it arrives");
            (asked, String::from_utf8(heard).expect("it is text"))
        };
        let carry = run(before, behind, "early", Moved::or_over_after(idle));
        let (ended, (asked, heard)) = tokio::join!(carry, talk);
        assert_eq!((asked.as_str(), heard.as_str()), ("a question", "early, and an answer"));
        assert_eq!(ended.expect_err("nobody ended it").kind(), io::ErrorKind::TimedOut);
        assert!((idle * 3..idle * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    /// Says a word once it has been written to in vain, and then nothing more, as sockets do whose error was taken.
    #[derive(Default)]
    struct Gone {
        is_found_out: bool,
        said: bool,
        waits: Option<std::task::Waker>,
    }

    impl AsyncRead for Gone {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if !self.is_found_out {
                self.waits = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if !std::mem::replace(&mut self.said, true) {
                out.put_slice(b"bye");
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            self.is_found_out = true;
            self.waits.take().into_iter().for_each(std::task::Waker::wake);
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Notes what is written, and whether that is said to be all.
    #[derive(Default)]
    struct Noted {
        heard: Vec<u8>,
        ended: bool,
    }

    impl AsyncRead for &mut Noted {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            out.put_slice(b"much");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for &mut Noted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.heard.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.ended = true;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_break_is_no_end() {
        let mut noted = Noted::default();
        let ended = run(Gone::default(), &mut noted, [], Moved::default()).await;
        assert_eq!(ended.expect_err("it broke").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!((noted.heard.as_slice(), noted.ended), (b"bye".as_slice(), false));
    }

    /// What TLS does with a socket that is full: it takes more than it has sent.
    #[tokio::test]
    async fn what_was_taken_is_sent_though_nothing_follows() {
        let ((mut client, before), (behind, mut instance)) = (duplex(64), duplex(64));
        let holds_back = tokio::io::BufWriter::new(before);
        let talk = async {
            instance.write_all(b"ask me").await.expect("it is taken");
            let mut heard = [0; 6];
            client.read_exact(&mut heard).await.expect("it arrives");
            heard
        };
        tokio::select! {
            ended = run(holds_back, behind, [], Moved::default()) => panic!("both are there: {ended:?}"),
            heard = talk => assert_eq!(&heard, b"ask me"),
        }
    }

    /// Half a megabyte at a time, with pauses: neither lost nor kept.
    #[tokio::test(start_paused = true)]
    async fn much_after_a_silence_arrives_too() {
        let ((mut client, before), (behind, mut instance)) = (duplex(1 << 20), duplex(1 << 20));
        let sent: Vec<u8> = (0..1_500_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let talk = async {
            for piece in sent.chunks(500_000) {
                instance.write_all(piece).await.expect("it is taken");
                tokio::time::sleep(SILENT_AFTER * 2).await;
            }
            drop(instance);
        };
        let mut heard = Vec::new();
        let listen = async {
            client.read_to_end(&mut heard).await.expect("it ends");
            drop(client);
        };
        let (ended, (), ()) = tokio::join!(run(before, behind, [], Moved::default()), talk, listen);
        ended.expect("both ended");
        assert!(heard == sent, "{} of {} bytes", heard.len(), sent.len());
    }
}
