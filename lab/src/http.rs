//! A plain HTTP/1.1 request over a socket of its own, so that a test sees what the wire says and nothing is retried.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);
const QUICK: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// As [`request`], for `/` of a host, by somebody who gives up soon, but not before a lost first packet is sent again.
pub fn quick(to: SocketAddr, host: &str) -> Result<Answer> {
    within(QUICK, to, "GET", "/", &[("Host", host)], b"")
}

/// Sends one request on a fresh connection and reads the answer to its end.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    within(DEADLINE, to, method, path, headers, body)
}

fn within(
    deadline: Duration,
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // Whoever refuses a body need not read it: its answer is there all the same, before the connection's end.
    let written = stream.write_all(body);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        written.and(ended)?;
    }
    parse(&answer).ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("no whole answer: {} bytes", answer.len())))
}

pub fn get(to: SocketAddr, path: &str) -> Result<Answer> {
    request(to, "GET", path, &[], b"")
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let lower = head.to_ascii_lowercase();
    let mut body = answer[end + 4..].to_vec();
    if lower.contains("transfer-encoding: chunked") {
        body = dechunked(&body)?;
    } else if let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length:")) {
        // An answer cut short is an error, not an answer.
        (body.len() == length.trim().parse::<usize>().ok()?).then_some(())?;
    }
    Some(Answer { status, head, body })
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
