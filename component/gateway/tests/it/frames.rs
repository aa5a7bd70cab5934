//! Clients of HTTP/2 that mean harm: frames written by hand.

use crate::bed::{Bed, HANG, Instance, in_a_hurry, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection of HTTP/2 without TLS.
struct Frames {
    stream: TcpStream,
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// Its answer began, with the header block as it came.
    Answered(Vec<u8>),
    Reset,
    /// The whole connection ended.
    Closed,
}

impl Frames {
    async fn open(bed: &Bed) -> Frames {
        let mut stream = TcpStream::connect(bed.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut frames = Frames { stream };
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// What cannot be sent any more was too much for the other side.
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        drop(self.stream.write_all(&frame).await);
    }

    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        let read = tokio::time::timeout(HANG, self.stream.read_exact(&mut head));
        read.await.expect("a frame before the hang guard").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        if head[3] == SETTINGS && head[4] & ACK == 0 {
            self.send(SETTINGS, ACK, 0, &[]).await;
        }
        Some((head[3], head[4], stream, payload))
    }

    async fn became(&mut self, stream: u32) -> Became {
        while let Some((kind, _, of, payload)) = self.frame().await {
            match kind {
                HEADERS if of == stream => return Became::Answered(payload),
                RST_STREAM if of == stream => return Became::Reset,
                GOAWAY => return Became::Closed,
                _ => {}
            }
        }
        Became::Closed
    }
}

/// A header block of literals, as HPACK has them without any table.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer ones have another form");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

fn request(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")];
    block(&[&usual, more].concat())
}

/// As HPACK's static table has them.
const STATUS_200: u8 = 0x80 | 8;
const STATUS_400: u8 = 0x80 | 12;

impl Became {
    fn is_ok(&self) -> bool {
        matches!(self, Became::Answered(block) if block.first() == Some(&STATUS_200))
    }

    fn is_refused(&self) -> bool {
        match self {
            Became::Answered(block) => block.first() == Some(&STATUS_400),
            Became::Reset | Became::Closed => true,
        }
    }
}

#[tokio::test]
async fn what_http_1_would_read_differently_is_refused() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    for header in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("te", "gzip"),
        ("Upper", "case"),
        ("x", "a\r\nsmuggled: yes"),
        ("x\r\ny", "a"),
        ("x", "a\0b"),
        ("content-length", "x"),
        ("content-length", "-1"),
        (":path", "/twice"),
        (":status", "200"),
    ] {
        let mut client = Frames::open(&bed).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &request(&[header])).await;
        let became = client.became(1).await;
        assert!(became.is_refused(), "{header:?}: {became:?}");
    }
    for authority in ["", "a b", "u@a", "a/b", "a\"b"] {
        let mut client = Frames::open(&bed).await;
        let head = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", authority)]);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &head).await;
        let became = client.became(1).await;
        assert!(became.is_refused(), "{authority:?}: {became:?}");
    }
    assert_eq!(bed.doors.dials("a"), 0, "nothing of it reached the instance");
}

#[tokio::test]
async fn a_length_that_lies_spoils_its_own_request_only() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    for body in ["abc", "abcdefgh"] {
        let mut client = Frames::open(&bed).await;
        client.send(HEADERS, END_HEADERS, 1, &request(&[("content-length", "5")])).await;
        client.send(DATA, END_STREAM, 1, body.as_bytes()).await;
        let became = client.became(1).await;
        assert!(!became.is_ok(), "{body}: {became:?}");
        until(|| bed.gateway.in_flight("a") == 0).await;
        let answer = bed.client().await.get("/after").await;
        assert!(answer.text().starts_with("GET /after\n"), "{}", answer.text());
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    // A header block that never ends.
    let mut client = Frames::open(&bed).await;
    client.send(HEADERS, 0, 1, &request(&[])).await;
    let filling = "y".repeat(120);
    let more = block(&[("x", filling.as_str()); 100]);
    for _ in 0..200 {
        client.send(CONTINUATION, 0, 1, &more).await;
    }
    let became = client.became(1).await;
    assert!(!became.is_ok(), "{became:?}");
    // One that expands by references to a header said once.
    let mut client = Frames::open(&bed).await;
    let mut bomb = request(&[]);
    bomb.extend([0x40, 1, b'x', 100]);
    bomb.extend([b'y'; 100]);
    bomb.extend([0x80 | 62; 10_000]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
    let became = client.became(1).await;
    assert!(!became.is_ok(), "{became:?}");
    assert_eq!(bed.doors.dials("a"), 0, "nothing of it reached the instance");
    assert_eq!(bed.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn streams_reset_at_once_end_the_connection() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = Frames::open(&bed).await;
    let head = request(&[]);
    for number in 0..2_000_u32 {
        let stream = number * 2 + 1;
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &head).await;
        client.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await;
    }
    let mut closed = false;
    while let Some((kind, ..)) = client.frame().await {
        closed |= kind == GOAWAY;
    }
    assert!(closed, "the client is told to calm down");
    until(|| bed.gateway.in_flight("a") == 0).await;
    assert_eq!(bed.client().await.get("/").await.status, 200, "others are served");
}

#[tokio::test]
async fn an_upload_that_comes_too_slowly_is_ended_alone() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], in_a_hurry()).await;
    let mut frames = Frames::open(&bed).await;
    frames.send(HEADERS, END_HEADERS, 1, &request(&[])).await;
    frames.send(DATA, 0, 1, b"x").await;
    let became = frames.became(1).await;
    assert!(matches!(became, Became::Answered(_)) && !became.is_ok(), "{became:?}");
    until(|| bed.gateway.in_flight("a") == 0).await;
    frames.send(HEADERS, END_HEADERS | END_STREAM, 3, &request(&[])).await;
    assert!(frames.became(3).await.is_ok(), "the others of its connection go on");
}
