//! How our own processes speak of a run: frames of words (JSON) and of blocks, over whatever carries bytes both ways.
//!
//! A frame is four bytes of its length, the least significant first, a byte of its kind, and the rest. Blocks that lie one
//! behind the other are handed on together.

use crate::outgoing::BLOCK;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use world::tunnel::LAST_WORDS_DEADLINE;

/// Words of a run with all its files, in JSON and base 64.
pub const FRAME_BYTES_MAX: usize = 48 << 20;
const WORD: u8 = 0;
/// What one read takes at most: some forty blocks.
const READ_BYTES_MAX: usize = 64 << 10;
/// What it takes for words: thousands of lines have a buffer each.
const READ_BYTES_MIN: usize = 4 << 10;
/// Under way between two ends of one process.
const FRAMES_MAX: usize = 8;

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Word(Bytes),
    /// Frames of blocks, one or more; [`payloads`] takes them apart.
    Blocks(Bytes),
}

impl Frame {
    /// The words as what they should be.
    pub fn word<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The blocks in what [`Frame::Blocks`] holds, each as [`wire::run::Block::parse`] reads it.
pub fn payloads(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = frames.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*head)).ok()?;
        let (frame, rest) = rest.split_at_checked(length)?;
        frames = rest;
        frame.get(1..)
    })
}

/// Words as a frame.
pub fn word(word: &impl Serialize) -> io::Result<Bytes> {
    framed(&serde_json::to_vec(word)?)
}

fn framed(json: &[u8]) -> io::Result<Bytes> {
    let length = u32::try_from(json.len() + 1).ok().filter(|length| *length as usize <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "words too long to send"))?;
    let mut frame = BytesMut::with_capacity(json.len() + 5);
    frame.put_u32_le(length);
    frame.put_u8(WORD);
    frame.put_slice(json);
    Ok(frame.freeze())
}

/// A block, as it came from a client, as a frame.
pub fn block(block: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(block.len() + 5);
    frame.put_u32_le(u32::try_from(block.len() + 1).unwrap_or(u32::MAX));
    frame.put_u8(BLOCK);
    frame.put_slice(block);
    frame.freeze()
}

/// Reads frames.
pub struct Reader(From);

enum From {
    Bytes(Source),
    Frames(mpsc::Receiver<Frame>),
}

struct Source {
    from: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
    /// What the next read takes: more where the last one brought much.
    next_bytes: usize,
}

impl Source {
    /// Reads more behind what is there; false at the end.
    async fn more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(self.next_bytes);
        let read = self.from.read_buf(&mut self.buffer).await?;
        self.next_bytes = (read * 4).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        Ok(read > 0)
    }
}

impl Reader {
    pub fn new(source: impl AsyncRead + Send + Unpin + 'static) -> Reader {
        Reader::after(BytesMut::new(), source)
    }

    /// Reads what has come already, and then the rest.
    pub fn after(come: BytesMut, source: impl AsyncRead + Send + Unpin + 'static) -> Reader {
        Reader(From::Bytes(Source { from: Box::new(source), buffer: come, next_bytes: READ_BYTES_MIN }))
    }

    /// The next frame, or several of blocks; `None` at the end. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        let source = match &mut self.0 {
            From::Bytes(source) => source,
            From::Frames(frames) => return Ok(frames.recv().await),
        };
        loop {
            if let Some(frame) = take(&mut source.buffer)? {
                return Ok(Some(frame));
            }
            if !source.more().await? {
                return if source.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads on, once nothing more is said the other way, until the other side ends too: a line that is left with something
    /// unread is reset, and what was said last with it.
    pub(crate) async fn hear_out(&mut self) {
        let rest = async { while matches!(self.bytes().await, Ok(bytes) if !bytes.is_empty()) {} };
        let _ = tokio::time::timeout(LAST_WORDS_DEADLINE, rest).await;
    }

    /// The next bytes, whatever frames they are of; empty at the end.
    async fn bytes(&mut self) -> io::Result<Bytes> {
        match &mut self.0 {
            From::Bytes(source) => {
                if source.buffer.is_empty() {
                    source.more().await?;
                }
                Ok(source.buffer.split().freeze())
            }
            From::Frames(frames) => match frames.recv().await {
                Some(Frame::Blocks(frames)) => Ok(frames),
                Some(Frame::Word(json)) => framed(&json),
                None => Ok(Bytes::new()),
            },
        }
    }
}

fn take(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let mut whole = 0;
    while let Some(head) = buffer.get(whole..).and_then(|rest| rest.first_chunk::<5>()) {
        let [one, two, three, four, kind] = *head;
        let length = u32::from_le_bytes([one, two, three, four]) as usize;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let end = whole + 4 + length;
        match kind {
            BLOCK if end <= buffer.len() => whole = end,
            WORD if whole == 0 && end <= buffer.len() => {
                let mut frame = buffer.split_to(end);
                frame.advance(5);
                return Ok(Some(Frame::Word(frame.freeze())));
            }
            BLOCK | WORD => break,
            other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {other}"))),
        }
    }
    Ok((whole > 0).then(|| Frame::Blocks(buffer.split_to(whole).freeze())))
}

/// Writes frames.
pub struct Writer(To);

enum To {
    Bytes(Box<dyn AsyncWrite + Send + Unpin>),
    Frames(mpsc::Sender<Frame>),
}

impl Writer {
    pub fn new(sink: impl AsyncWrite + Send + Unpin + 'static) -> Writer {
        Writer(To::Bytes(Box::new(sink)))
    }

    pub async fn word(&mut self, said: &impl Serialize) -> io::Result<()> {
        match &mut self.0 {
            To::Bytes(_) => {
                let frame = word(said)?;
                self.frames(&frame).await
            }
            To::Frames(frames) => send(frames, Frame::Word(serde_json::to_vec(said)?.into())).await,
        }
    }

    /// Whole frames of blocks, or words as [`word`] makes them where both sides are bytes.
    pub async fn frames(&mut self, frames: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            To::Bytes(sink) => {
                sink.write_all(frames).await?;
                sink.flush().await
            }
            To::Frames(to) => send(to, Frame::Blocks(Bytes::copy_from_slice(frames))).await,
        }
    }

    /// What came, as it came.
    pub async fn frame(&mut self, frame: Frame) -> io::Result<()> {
        match (&mut self.0, frame) {
            (To::Bytes(_), Frame::Word(json)) => {
                let frame = framed(&json)?;
                self.frames(&frame).await
            }
            (To::Bytes(_), Frame::Blocks(frames)) => self.frames(&frames).await,
            (To::Frames(to), frame) => send(to, frame).await,
        }
    }

    /// Says that nothing follows: what was written arrives before it.
    pub(crate) async fn end(&mut self) {
        if let To::Bytes(sink) = &mut self.0 {
            // Whoever is gone needs no end.
            let _ = sink.shutdown().await;
        }
    }
}

async fn send(to: &mpsc::Sender<Frame>, frame: Frame) -> io::Result<()> {
    to.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Two ends within this process, each other's counterpart.
pub fn pair() -> ((Reader, Writer), (Reader, Writer)) {
    let ((to_one, from_two), (to_two, from_one)) = (mpsc::channel(FRAMES_MAX), mpsc::channel(FRAMES_MAX));
    let end = |to, from| (Reader(From::Frames(from)), Writer(To::Frames(to)));
    (end(to_one, from_one), end(to_two, from_two))
}

/// Why nothing more is carried one way.
enum Over {
    /// Whoever is read from says no more.
    Said,
    /// Whoever is written to takes no more.
    Unheard,
}

/// Carries what comes from each to the other, until one of them ends or breaks. Of one that takes no more, what it said
/// last is carried still.
pub async fn join((mut one, mut to_one): (Reader, Writer), (mut two, mut to_two): (Reader, Writer)) {
    {
        let mut forth = std::pin::pin!(copy(&mut one, &mut to_two));
        let mut back = std::pin::pin!(copy(&mut two, &mut to_one));
        let (over, other) = tokio::select! {
            over = &mut forth => (over, back),
            over = &mut back => (over, forth),
        };
        match over {
            Over::Said => {}
            Over::Unheard => drop(tokio::time::timeout(LAST_WORDS_DEADLINE, other).await),
        }
    }
    // What one side said last has arrived at the other, and each is told that nothing follows.
    to_one.end().await;
    to_two.end().await;
    tokio::join!(one.hear_out(), two.hear_out());
}

async fn copy(from: &mut Reader, to: &mut Writer) -> Over {
    loop {
        let carried = if let (From::Frames(frames), To::Frames(_)) = (&mut from.0, &to.0) {
            let Some(frame) = frames.recv().await else { return Over::Said };
            to.frame(frame).await
        } else {
            match from.bytes().await {
                Ok(bytes) if !bytes.is_empty() => to.frames(&bytes).await,
                Ok(_) | Err(_) => return Over::Said,
            }
        };
        if carried.is_err() {
            return Over::Unheard;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::run::{Asked, Block, Channel};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    /// Bytes that come so many at a time.
    struct Drip(Bytes, usize);

    impl AsyncRead for Drip {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _context: &mut std::task::Context<'_>,
            into: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let count = self.1.min(self.0.len()).min(into.remaining());
            into.put_slice(&self.0.split_to(count));
            std::task::Poll::Ready(Ok(()))
        }
    }

    /// Takes nothing, and says that it was asked to.
    struct Deaf(mpsc::UnboundedSender<()>);

    impl AsyncWrite for Deaf {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _context: &mut std::task::Context<'_>,
            _bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let _ = self.0.send(());
            std::task::Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn the_last_words_of_who_takes_no_more_are_carried() {
        let (deaf, mut asked) = mpsc::unbounded_channel();
        let (mut says, client) = tokio::io::duplex(64);
        let (worker, mut hears) = tokio::io::duplex(64);
        let output = block(&[&Block::head(1, Channel::Stdout)[..], b"output"].concat());
        let carried = join(
            (Reader::new(client), Writer::new(Deaf(deaf))),
            (Reader::after(BytesMut::from(&output[..]), tokio::io::empty()), Writer::new(worker)),
        );
        let last = word(&Asked::Ack(7)).expect("words");
        let leaves = async {
            asked.recv().await.expect("it was told of the output");
            says.write_all(&last).await.expect("it is taken");
            drop(says);
        };
        let mut heard = Vec::new();
        runtime().block_on(async {
            let (_, _, all) = tokio::join!(carried, leaves, hears.read_to_end(&mut heard));
            all.expect("it ends");
        });
        assert_eq!(heard, last);
    }

    #[test]
    fn frames_arrive_however_they_are_cut() {
        let mut sent = BytesMut::new();
        let one = [&Block::head(1, Channel::Stdout)[..], b"one"].concat();
        let two = [&Block::head(2, Channel::Stderr)[..], b""].concat();
        sent.extend_from_slice(&word(&Asked::Ack(7)).expect("words"));
        sent.extend_from_slice(&block(&one));
        sent.extend_from_slice(&block(&two));
        sent.extend_from_slice(&word(&Asked::Ack(8)).expect("words"));
        for at_a_time in 1..=sent.len() {
            let mut reader = Reader::new(Drip(sent.clone().freeze(), at_a_time));
            let (mut words, mut blocks) = (Vec::new(), Vec::new());
            runtime().block_on(async {
                while let Some(frame) = reader.next().await.expect("frames") {
                    match frame {
                        Frame::Word(bytes) => words.push(Frame::word::<Asked>(&bytes).expect("an ask")),
                        Frame::Blocks(frames) => blocks.extend(payloads(&frames).map(<[u8]>::to_vec)),
                    }
                }
            });
            assert_eq!((words, blocks), (vec![Asked::Ack(7), Asked::Ack(8)], vec![one.clone(), two.clone()]));
        }
    }

    proptest! {
        /// Whatever comes, it is read or refused, and takes no more memory than it has bytes.
        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(Drip(Bytes::from(bytes), 7));
            runtime().block_on(async {
                while let Ok(Some(frame)) = reader.next().await {
                    if let Frame::Blocks(frames) = frame {
                        for block in payloads(&frames) {
                            let _ = Block::parse(block);
                        }
                    }
                }
            });
        }
    }
}
