//! Names for a container: answers 127.0.0.53:53 inside its box, over UDP and TCP.
//!
//! Only what a stub resolver asks is answered: one question, addresses. The message format is RFC 1035's.

use super::{Opening, name, route};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// A question is a name (255 bytes) and two numbers; the rest is room for options we ignore.
const QUESTION_BYTES_MAX: usize = 1232;
/// Questions of one instance being answered at a time.
const QUESTIONS_MAX: usize = 64;
/// How long the machine's own resolver may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How long a TCP client may take for a question.
const QUESTION_WAIT: Duration = Duration::from_secs(10);
/// Service addresses never change while the stack exists; short, since a stack may come and go.
const TTL_SECONDS: u32 = 5;
/// Addresses in one answer: fits 512 bytes, which every resolver takes.
const ADDRESSES_MAX: usize = 16;

const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Fine = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    id: u16,
    recursion_desired: bool,
    name: String,
    kind: u16,
    class: u16,
    /// The question's bytes, repeated in the answer.
    raw: Vec<u8>,
}

pub(super) async fn serve(opening: Arc<Opening>, datagrams: OwnedFd, streams: OwnedFd) {
    let datagrams = std::net::UdpSocket::from(datagrams);
    let streams = std::net::TcpListener::from(streams);
    let taken = datagrams
        .set_nonblocking(true)
        .and_then(|()| streams.set_nonblocking(true))
        .and_then(|()| Ok((UdpSocket::from_std(datagrams)?, TcpListener::from_std(streams)?)));
    match taken {
        Ok((datagrams, streams)) => {
            tokio::join!(serve_datagrams(&opening, Arc::new(datagrams)), serve_streams(&opening, streams));
        }
        Err(error) => tracing::error!(instance = opening.instance.id, %error, "cannot take over the name sockets"),
    }
}

async fn serve_datagrams(opening: &Arc<Opening>, socket: Arc<UdpSocket>) {
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (opening, socket, message) = (Arc::clone(opening), Arc::clone(&socket), buffer[..length].to_vec());
        // Ends by itself: every look-up has a deadline.
        world::task::spawn("door-question", async move {
            if let Some(reply) = reply(&opening, &message).await {
                let _ = socket.send_to(&reply, from).await;
            }
            drop(permit);
        })
        .detach();
    }
}

async fn serve_streams(opening: &Arc<Opening>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let opening = Arc::clone(opening);
        // Ends by itself: one question, with a deadline.
        world::task::spawn("door-question", async move {
            let _ = tokio::time::timeout(QUESTION_WAIT, one_stream(&opening, stream)).await;
        })
        .detach();
    }
}

async fn one_stream(opening: &Opening, mut stream: TcpStream) -> std::io::Result<()> {
    let length = usize::from(stream.read_u16().await?).min(QUESTION_BYTES_MAX);
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    if let Some(reply) = reply(opening, &message).await {
        stream.write_u16(u16::try_from(reply.len()).unwrap_or(u16::MAX)).await?;
        stream.write_all(&reply).await?;
    }
    Ok(())
}

/// `None` for what is not a question at all: answering noise would only make more.
async fn reply(opening: &Opening, message: &[u8]) -> Option<Vec<u8>> {
    match parse(message) {
        Parsed::Noise => None,
        Parsed::Bad { id, code } => Some(answer(id, false, code, &[], 0, &[])),
        Parsed::Question(question) => {
            let (code, addresses) = look_up(opening, &question).await;
            Some(answer(question.id, question.recursion_desired, code, &question.raw, 1, &addresses))
        }
    }
}

async fn look_up(opening: &Opening, question: &Question) -> (Code, Vec<Ipv4Addr>) {
    if question.class != CLASS_IN {
        return (Code::NotImplemented, Vec::new());
    }
    let snapshot = opening.shared.view.borrow().clone();
    let wants_address = question.kind == TYPE_A;
    if let Some(address) = name::resolve(&snapshot, &opening.instance, &question.name) {
        return (Code::Fine, if wants_address { vec![address] } else { Vec::new() });
    }
    if question.name.eq_ignore_ascii_case("localhost") {
        return (Code::Fine, if wants_address { vec![Ipv4Addr::LOCALHOST] } else { Vec::new() });
    }
    let egress = &route::spec(&snapshot, &opening.instance).egress;
    if !route::may_look_up(egress, &question.name) {
        // Whoever may not go out at all asks for many things; said once per name it is still a help.
        if wants_address && question.name.contains('.') {
            opening.refused(&format!("name {}", question.name), "not declared under x-bramble.egress");
        }
        return (Code::NoSuchName, Vec::new());
    }
    if !wants_address {
        // Without IPv6 in the box there is nothing to answer; "no such name" would be a lie.
        return (Code::Fine, Vec::new());
    }
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((question.name.as_str(), 0))).await;
    let addresses: Vec<Ipv4Addr> = match found {
        Err(_) => return (Code::ServerFailure, Vec::new()),
        Ok(Err(_)) => return (Code::NoSuchName, Vec::new()),
        Ok(Ok(found)) => found
            .filter_map(|address| match address {
                SocketAddr::V4(address) => Some(*address.ip()),
                SocketAddr::V6(_) => None,
            })
            .take(ADDRESSES_MAX)
            .collect(),
    };
    for address in &addresses {
        opening.remember(*address, &question.name);
    }
    (Code::Fine, addresses)
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Noise,
    Bad { id: u16, code: Code },
    Question(Question),
}

fn parse(message: &[u8]) -> Parsed {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let (Some(id), Some(flags), Some(questions)) = (number(0), number(2), number(4)) else { return Parsed::Noise };
    if flags & 0x8000 != 0 || message.len() < 12 {
        return Parsed::Noise;
    }
    if flags & 0x7800 != 0 {
        return Parsed::Bad { id, code: Code::NotImplemented };
    }
    let malformed = Parsed::Bad { id, code: Code::FormatError };
    if questions != 1 {
        return malformed;
    }
    let mut at = 12;
    let mut labels: Vec<String> = Vec::new();
    loop {
        let Some(length) = message.get(at).copied().map(usize::from) else { return malformed };
        at += 1;
        if length == 0 {
            break;
        }
        // Longer is a pointer, which a question has no reason to hold.
        let Some(label) = message.get(at..at + length).filter(|_| length <= 63) else { return malformed };
        let Ok(label) = std::str::from_utf8(label) else { return malformed };
        labels.push(label.to_ascii_lowercase());
        at += length;
        if at > 12 + 255 {
            return malformed;
        }
    }
    let (Some(kind), Some(class)) = (number(at), number(at + 2)) else { return malformed };
    let raw = message[12..at + 4].to_vec();
    Parsed::Question(Question { id, recursion_desired: flags & 0x0100 != 0, name: labels.join("."), kind, class, raw })
}

fn answer(
    id: u16,
    recursion_desired: bool,
    code: Code,
    question: &[u8],
    questions: u16,
    addresses: &[Ipv4Addr],
) -> Vec<u8> {
    // A reply; recursion is available.
    let flags = 0x8080 | (u16::from(recursion_desired) << 8) | code as u16;
    let count = u16::try_from(addresses.len()).expect("a bounded number of addresses");
    let mut reply = Vec::with_capacity(12 + question.len() + addresses.len() * 16);
    for number in [id, flags, questions, count, 0, 0] {
        reply.extend(number.to_be_bytes());
    }
    reply.extend(question);
    for address in addresses {
        // The name is the one at offset 12, where the question has it.
        reply.extend([0xc0, 0x0c]);
        reply.extend(TYPE_A.to_be_bytes());
        reply.extend(CLASS_IN.to_be_bytes());
        reply.extend(TTL_SECONDS.to_be_bytes());
        reply.extend(4_u16.to_be_bytes());
        reply.extend(address.octets());
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).expect("short"));
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let message = question("DB.stack", TYPE_A);
        let Parsed::Question(parsed) = parse(&message) else { panic!("not a question") };
        assert_eq!((parsed.name.as_str(), parsed.kind, parsed.recursion_desired), ("db.stack", TYPE_A, true));
        let reply = answer(parsed.id, true, Code::Fine, &parsed.raw, 1, &[Ipv4Addr::new(198, 18, 0, 7)]);
        assert_eq!(&reply[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(&reply[reply.len() - 4..], [198, 18, 0, 7]);
    }

    #[test]
    fn hostile_messages_are_refused_or_ignored() {
        assert_eq!(parse(&[]), Parsed::Noise);
        assert_eq!(parse(&[0; 5]), Parsed::Noise);
        let whole = question("a.b", TYPE_A);
        for cut in 12..whole.len() {
            assert_eq!(parse(&whole[..cut]), Parsed::Bad { id: 0x1234, code: Code::FormatError }, "cut at {cut}");
        }
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(parse(&pointer), Parsed::Bad { id: 0x1234, code: Code::FormatError });
        let mut reply = whole;
        reply[2] |= 0x80;
        assert_eq!(parse(&reply), Parsed::Noise);
    }
}
