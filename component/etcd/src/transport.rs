//! Messages on the line: framed as gRPC has them, or as JSON one after the other.
//!
//! Promises that no message is longer than [`MESSAGE_BYTES_MAX`] in memory, and that what a client sends is looked at once.

use crate::codec::Message;
use crate::desk::Desk;
use crate::room::{Room, SMALL_BYTES};
use crate::status::{self, Code, Status};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// etcd takes 1.5 MiB, and half of one for what is around it.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same as base64.
const JSON_BYTES_MAX: usize = 3 * 1024 * 1024;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Grpc,
    Json,
}

/// What a client sends, message by message.
pub(crate) struct Inflow {
    format: Format,
    body: Incoming,
    buffer: BytesMut,
    json: Scan,
    desk: Arc<Desk>,
    /// What a message may have in memory.
    bytes_max: usize,
    /// Held from when a message turns out to be large.
    room: Room,
}

impl Inflow {
    pub(crate) fn new(desk: Arc<Desk>, format: Format, body: Incoming) -> Inflow {
        let bytes_max = if format == Format::Grpc { MESSAGE_BYTES_MAX } else { JSON_BYTES_MAX };
        let (buffer, json, room) = (BytesMut::new(), Scan::default(), Room::default());
        Inflow { format, body, buffer, json, desk, bytes_max, room }
    }

    /// Takes small messages only: those of a stream, which lasts as long as its client likes, and so would their room.
    pub(crate) fn small(self) -> Inflow {
        Inflow { bytes_max: SMALL_BYTES, ..self }
    }

    /// The next message; `None` when there are no more. May be dropped while it waits without losing anything.
    pub(crate) async fn next<M: Message>(&mut self) -> Result<Option<M>, Status> {
        loop {
            let whole = match self.format {
                Format::Grpc => grpc_length(&self.buffer)?,
                Format::Json => self.json.end(&self.buffer),
            };
            if let Some(length) = whole {
                let message = self.buffer.split_to(length);
                self.json = Scan::default();
                return self.read(&message).map(Some);
            }
            if self.buffer.len() > self.bytes_max {
                return Err(status::too_large());
            }
            if self.buffer.len() > SMALL_BYTES && !self.room.is_taken() {
                self.room = self.desk.rooms.request(self.bytes_max).await;
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Err(Status::new(Code::Cancelled, "context canceled")),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Err(Status::new(Code::InvalidArgument, "unexpected EOF")),
            }
        }
    }

    fn read<M: Message>(&self, message: &[u8]) -> Result<M, Status> {
        let invalid = |text: String| Status::new(Code::InvalidArgument, text);
        match self.format {
            Format::Grpc => M::decode(message.get(5..).unwrap_or_default()).map_err(|error| invalid(error.to_string())),
            Format::Json => {
                let value: Value = serde_json::from_slice(message).map_err(|error| invalid(error.to_string()))?;
                M::from_json(value).map_err(|error| invalid(error.to_string()))
            }
        }
    }
}

/// How long the first message with its frame is; `None` while it is not whole.
fn grpc_length(buffer: &[u8]) -> Result<Option<usize>, Status> {
    let Some((head, rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let [compressed, length @ ..] = head;
    if *compressed != 0 {
        return Err(Status::new(Code::Unimplemented, "grpc: compressed messages are not taken"));
    }
    let length = u32::from_be_bytes(*length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(status::too_large());
    }
    Ok((rest.len() >= length).then_some(5 + length))
}

/// Where an object ends, without reading anything twice.
#[derive(Debug, Default)]
struct Scan {
    at: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    fn end(&mut self, buffer: &[u8]) -> Option<usize> {
        while let Some(byte) = buffer.get(self.at) {
            self.at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                // Gateways put commas and line ends between messages; anything else is not an object.
                _ if self.depth > 0 || byte.is_ascii_whitespace() => {}
                _ => return Some(self.at),
            }
            if self.depth == 0 && !self.in_text && matches!(byte, b'}' | b']') {
                return Some(self.at);
            }
        }
        None
    }
}

impl Format {
    /// One message, as an answer of its own; `hold` keeps its bytes.
    pub(crate) fn whole<M: Message>(self, ended: &Result<M, Status>, hold: impl FnOnce(Vec<u8>) -> Bytes) -> Answer {
        match (self, ended) {
            (Format::Grpc, Ok(message)) => {
                let frames = [Frame::data(hold(framed(message))), Frame::trailers(trailers(None))];
                let frames = frames.into_iter().map(Ok::<_, Infallible>);
                grpc_answer(BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames))))
            }
            (Format::Grpc, Err(status)) => {
                let mut answer = grpc_answer(nothing());
                answer.headers_mut().extend(trailers(Some(status)));
                answer
            }
            (Format::Json, Ok(message)) => json_held(200, hold(message.to_json().to_string().into_bytes())),
            (Format::Json, Err(status)) => {
                let Status { code, message } = status;
                json_answer(code.http(), &json!({"error": message, "message": message, "code": *code as u32}))
            }
        }
    }

    /// Messages as they come.
    pub(crate) fn stream<M: Message + Send + Sync + 'static>(self, from: mpsc::Receiver<Result<M, Status>>) -> Answer {
        let frames = futures::stream::unfold(Some(from), move |from| async move {
            let mut from = from?;
            let (frame, rest) = match (self, from.recv().await) {
                (Format::Grpc, Some(Ok(message))) => (Frame::data(Bytes::from(framed(&message))), Some(from)),
                (Format::Json, Some(Ok(message))) => {
                    (Frame::data(line(&json!({"result": message.to_json()}))), Some(from))
                }
                (Format::Grpc, Some(Err(status))) => (Frame::trailers(trailers(Some(&status))), None),
                (Format::Grpc, None) => (Frame::trailers(trailers(None)), None),
                (Format::Json, Some(Err(Status { code, message }))) => {
                    let http_status = StatusCode::from_u16(code.http()).ok().and_then(|code| code.canonical_reason());
                    let error = json!({"grpc_code": code as u32, "http_code": code.http(), "message": message,
                        "http_status": http_status});
                    (Frame::data(line(&json!({"error": error}))), None)
                }
                (Format::Json, None) => return None,
            };
            Some((Ok::<_, Infallible>(frame), rest))
        });
        let body = BodyExt::boxed_unsync(StreamBody::new(frames));
        match self {
            Format::Grpc => grpc_answer(body),
            Format::Json => {
                let mut answer = Response::new(body);
                answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                answer
            }
        }
    }
}

fn nothing() -> UnsyncBoxBody<Bytes, Infallible> {
    BodyExt::boxed_unsync(Full::new(Bytes::new()))
}

fn grpc_answer(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

pub(crate) fn json_answer(code: u16, value: &Value) -> Answer {
    json_held(code, Bytes::from(value.to_string()))
}

fn json_held(code: u16, bytes: Bytes) -> Answer {
    let mut answer = Response::new(BodyExt::boxed_unsync(Full::new(bytes)));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(crate) fn text_answer(code: u16, text: &'static str) -> Answer {
    let mut answer = Response::new(BodyExt::boxed_unsync(Full::new(Bytes::from_static(text.as_bytes()))));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

fn framed<M: Message>(message: &M) -> Vec<u8> {
    let mut out = vec![0; 5];
    message.write(&mut out);
    let length = u32::try_from(out.len() - 5).expect("answers are bounded far below 4 GiB");
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}

fn trailers(status: Option<&Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let code = status.map_or(0, |status| status.code as u32);
    trailers.insert("grpc-status", HeaderValue::from(code));
    if let Some(status) = status {
        let message = percent(&status.message);
        trailers.insert("grpc-message", HeaderValue::from_str(&message).expect("percent encoding is visible ASCII"));
    }
    trailers
}

/// As gRPC has its messages in a header.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where objects end, fed in pieces.
    fn ends(text: &[u8], piece: usize) -> Vec<usize> {
        let (mut scan, mut found, mut start) = (Scan::default(), Vec::new(), 0);
        for end in (piece..text.len() + piece).step_by(piece) {
            while let Some(length) = scan.end(&text[start..end.min(text.len())]) {
                start += length;
                found.push(start);
                scan = Scan::default();
            }
        }
        found
    }

    #[test]
    fn objects_end_where_they_end() {
        let text = br#"{"a":"}\"{"} {"b":[{}]}
{}"#;
        let expected = vec![12, 23, 26];
        for piece in 1..text.len() {
            assert_eq!(ends(text, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_is_taken_whole_and_within_bounds() {
        assert_eq!(grpc_length(&[0, 0, 0, 0, 2, 1]), Ok(None));
        assert_eq!(grpc_length(&[0, 0, 0, 0, 2, 1, 2, 9]), Ok(Some(7)));
        assert_eq!(grpc_length(&[0, 0xff, 0, 0, 0]), Err(status::too_large()));
        assert_eq!(grpc_length(&[1, 0, 0, 0, 0]).map_err(|status| status.code), Err(Code::Unimplemented));
        assert_eq!(percent("é%\n"), "%C3%A9%25%0A");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text: Vec<u8>, piece in 1..9usize) {
            prop_assert_eq!(ends(&text, piece), ends(&text, usize::MAX / 2));
        }

        #[test]
        fn no_frame_is_a_panic(bytes: Vec<u8>) {
            let _ = grpc_length(&bytes);
        }
    }
}
