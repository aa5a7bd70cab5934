//! Heads of messages, read and written.
//!
//! Owns the rules of framing (RFC 9112, section 6): how long a body is follows from one header, said once, or the
//! message is refused. The characters of names, values and targets are checked by httparse and by the types of `http`.
//! Header values share the bytes that were read. Pure.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri, Version};
use httparse::{Header, ParserConfig, Status};
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// More header lines than this are refused, as by Apache and HAProxy; browsers send some twenty.
pub(super) const HEADERS_MAX: usize = 100;
/// Room for the headers that the gateway adds to a request.
const HEADERS_ADDED: usize = 8;

/// Tables that are kept by each thread, and their size.
const TABLES_MAX: usize = 64;
const TABLE_ENTRIES_MAX: usize = 48;

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the head is too long")]
    TooLong,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
    /// It ends with the connection.
    Open,
}

pub(super) struct RequestHead {
    pub(super) parts: Parts,
    pub(super) length: Length,
    /// The client will send another request over this connection, or may.
    pub(super) keep_alive: bool,
    /// It sends the body when it is told to go on.
    pub(super) expects_continue: bool,
}

pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) length: Length,
    pub(super) keep_alive: bool,
}

type Slots<'h> = [MaybeUninit<Header<'h>>; HEADERS_MAX];

/// Reads a whole head of a request.
pub(super) fn request(head: &Bytes) -> Result<RequestHead, Bad> {
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(head, &mut slots);
    complete(status)?;
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Bad::Malformed("the request line is not complete"));
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| Bad::Malformed("no such method"))?;
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(path.as_bytes()))
        .map_err(|_| Bad::Malformed("the target is not an address"))?;
    *request.version_mut() = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers(head, parsed.headers)?;
    let (parts, ()) = request.into_parts();
    let coded = coding(&parts.headers)?;
    let length = match (coded, content_length(&parts.headers)?) {
        (true, Some(_)) => return Err(Bad::Malformed("both a content-length and a transfer-encoding")),
        (true, None) if version == 0 => return Err(Bad::Malformed("a transfer-encoding in HTTP/1.0")),
        (true, None) => Length::Chunked,
        (false, length) => Length::Known(length.unwrap_or(0)),
    };
    let keep_alive = keeps_alive(version, &parts.headers);
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let expects_continue = version == 1 && parts.headers.get(header::EXPECT).is_some_and(expects);
    Ok(RequestHead { parts, length, keep_alive, expects_continue })
}

/// Reads a whole head of an answer to a request with `method`.
pub(super) fn response(head: &Bytes, method: &Method) -> Result<ResponseHead, Bad> {
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut slots);
    complete(status)?;
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Bad::Malformed("the status line is not complete"));
    };
    let status = StatusCode::from_u16(code).map_err(|_| Bad::Malformed("no such status"))?;
    let mut headers = headers(head, parsed.headers)?;
    let coded = coding(&headers)?;
    let length = content_length(&headers);
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let mut keep_alive = keeps_alive(version, &headers);
    let length = match (coded, length) {
        _ if bodiless => Length::Known(0),
        (true, length) => {
            if !matches!(length, Ok(None)) {
                // The coding counts (RFC 9112, section 6.3); whoever said both is not to be trusted with more.
                headers.remove(header::CONTENT_LENGTH);
                keep_alive = false;
            }
            Length::Chunked
        }
        (false, length) => length?.map_or(Length::Open, Length::Known),
    };
    keep_alive &= length != Length::Open;
    Ok(ResponseHead { status, headers, length, keep_alive })
}

/// Reads the trailers after the last chunk, with the empty line that ends them.
pub(super) fn trailers(block: &Bytes) -> Result<HeaderMap, Bad> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(block, &mut slots) {
        Ok(Status::Complete((_, parsed))) => headers(block, parsed),
        Ok(Status::Partial) => Err(Bad::Malformed("the trailers are not complete")),
        Err(error) => Err(bad(error)),
    }
}

fn complete(status: httparse::Result<usize>) -> Result<(), Bad> {
    match status {
        Ok(Status::Complete(_)) => Ok(()),
        Ok(Status::Partial) => Err(Bad::Malformed("the head is not complete")),
        Err(error) => Err(bad(error)),
    }
}

fn bad(error: httparse::Error) -> Bad {
    match error {
        httparse::Error::HeaderName => Bad::Malformed("a header's name has a character that names do not have"),
        httparse::Error::HeaderValue => Bad::Malformed("a header's value has a character that values do not have"),
        httparse::Error::NewLine => Bad::Malformed("a line that ends badly"),
        httparse::Error::Status => Bad::Malformed("no such status"),
        httparse::Error::Token => Bad::Malformed("the first line is not one of HTTP/1"),
        httparse::Error::TooManyHeaders => Bad::TooLong,
        httparse::Error::Version => Bad::Malformed("neither HTTP/1.0 nor HTTP/1.1"),
    }
}

thread_local! {
    /// Empty tables of headers, to be used again: each is larger than what allocators are quick with.
    static TABLES: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// Takes a table of headers that nobody needs any more.
pub(crate) fn recycle(mut headers: HeaderMap) {
    if headers.capacity() <= TABLE_ENTRIES_MAX {
        headers.clear();
        TABLES.with_borrow_mut(|tables| {
            if tables.len() < TABLES_MAX {
                tables.push(headers);
            }
        });
    }
}

fn headers(head: &Bytes, parsed: &[Header<'_>]) -> Result<HeaderMap, Bad> {
    let mut headers = TABLES.with_borrow_mut(Vec::pop).unwrap_or_default();
    headers.reserve(parsed.len() + HEADERS_ADDED);
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| Bad::Malformed("a header's name has a character that names do not have"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(header.value))
            .map_err(|_| Bad::Malformed("a header's value has a character that values do not have"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether the body comes in chunks. No other coding is taken, nor one named twice.
fn coding(headers: &HeaderMap) -> Result<bool, Bad> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).into_iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Err(Bad::Malformed("a transfer coding other than chunked"));
    }
    Ok(true)
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Bad> {
    const WRONG: Bad = Bad::Malformed("the content-length is not one number");
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).into_iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.as_bytes();
    if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    length.to_str().ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(WRONG)
}

fn keeps_alive(version: u8, headers: &HeaderMap) -> bool {
    if version == 0 { says(headers, b"keep-alive") } else { !says(headers, b"close") }
}

/// Whether `connection` says `word`.
pub(super) fn says(headers: &HeaderMap, word: &[u8]) -> bool {
    let mut values = headers.get_all(header::CONNECTION).into_iter();
    values.any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|said| said.trim_ascii().eq_ignore_ascii_case(word))
    })
}

/// Writes the head of a request, but for the headers that frame its body and the empty line.
pub(super) fn write_request(out: &mut Vec<u8>, parts: &Parts) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    // `*` is the only one that does not begin with a slash.
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_headers(out, &parts.headers);
}

/// Writes the head of an answer, but for the headers that frame its body and the empty line.
pub(super) fn write_response(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\r\n");
    write_headers(out, headers);
}

pub(super) fn write_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.reserve(name.len() + value.len() + 4);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes a head of `length` bytes from the front, to be shared.
pub(super) fn split(buffer: &mut BytesMut, length: usize) -> Bytes {
    buffer.split_to(length.min(buffer.len())).freeze()
}

#[cfg(test)]
mod tests {
    use super::{Bad, Length, request, response, write_request, write_response};
    use bytes::Bytes;
    use http::{Method, Version};
    use proptest::prelude::*;

    fn asked(headers: &str) -> Result<super::RequestHead, Bad> {
        request(&Bytes::from(format!("POST /a?b HTTP/1.1\r\nhost: a\r\n{headers}\r\n")))
    }

    fn answered(line: &str, headers: &str, method: &Method) -> Result<super::ResponseHead, Bad> {
        response(&Bytes::from(format!("{line}\r\n{headers}\r\n")), method)
    }

    #[test]
    fn the_length_of_a_request_is_said_once() {
        let check = |headers: &str, expected: Option<Length>| {
            assert_eq!(asked(headers).map(|read| read.length).ok(), expected, "{headers:?}");
        };
        check("", Some(Length::Known(0)));
        check("content-length: 12\r\n", Some(Length::Known(12)));
        check("content-length: 18446744073709551615\r\n", Some(Length::Known(u64::MAX)));
        check("content-length: 18446744073709551616\r\n", None);
        check("content-length: 5\r\ncontent-length: 5\r\n", None);
        check("content-length: 5, 5\r\n", None);
        check("content-length: +5\r\n", None);
        check("content-length: \r\n", None);
        check("content-length: 5_0\r\n", None);
        check("transfer-encoding: Chunked\r\n", Some(Length::Chunked));
        check("transfer-encoding: chunked, chunked\r\n", None);
        check("transfer-encoding: identity\r\n", None);
        check("transfer-encoding:\r\n", None);
        check("transfer-encoding: chunked\r\ncontent-length: 5\r\n", None);
        check("content-length: 0\r\ntransfer-encoding: chunked\r\n", None);
        check("content-length : 5\r\n", None);
        check("x: y\r\n content-length: 5\r\n", None);
    }

    #[test]
    fn the_length_of_an_answer_depends_on_the_question() {
        let check = |line: &str, headers: &str, method: &Method, expected: Option<(Length, bool)>| {
            let read = answered(line, headers, method).map(|read| (read.length, read.keep_alive));
            assert_eq!(read.ok(), expected, "{line} {headers:?}");
        };
        let (ok, get) = ("HTTP/1.1 200 OK", &Method::GET);
        check(ok, "content-length: 5\r\n", get, Some((Length::Known(5), true)));
        check(ok, "content-length: 5\r\n", &Method::HEAD, Some((Length::Known(0), true)));
        check("HTTP/1.1 304 Not Modified", "content-length: 5\r\n", get, Some((Length::Known(0), true)));
        check("HTTP/1.1 204 No Content", "", get, Some((Length::Known(0), true)));
        check(ok, "", get, Some((Length::Open, false)));
        check("HTTP/1.0 200 OK", "content-length: 5\r\n", get, Some((Length::Known(5), false)));
        check(
            "HTTP/1.0 200 OK",
            "content-length: 5\r\nconnection: keep-alive\r\n",
            get,
            Some((Length::Known(5), true)),
        );
        check(ok, "connection: x, Close\r\ncontent-length: 5\r\n", get, Some((Length::Known(5), false)));
        check(ok, "transfer-encoding: chunked\r\n", get, Some((Length::Chunked, true)));
        check(ok, "transfer-encoding: chunked\r\ncontent-length: 5\r\n", get, Some((Length::Chunked, false)));
        check(ok, "transfer-encoding: gzip\r\n", get, None);
        check(ok, "content-length: 5\r\ncontent-length: 6\r\n", get, None);
        check("HTTP/1.1 200", "content-length: 5\r\n", get, Some((Length::Known(5), true)));
        check("HTTP/2 200 OK", "", get, None);
        check("HTTP/1.1 99 Low", "", get, None);
        check("ICY 200 OK", "", get, None);
    }

    #[test]
    fn an_old_client_says_when_it_stays() {
        let stays = |version: &str, connection: &str| {
            let head = format!("GET / {version}\r\nhost: a\r\n{connection}\r\n");
            let read = request(&Bytes::from(head)).unwrap_or_else(|bad| panic!("{bad}"));
            (read.keep_alive, read.parts.version)
        };
        assert_eq!(stays("HTTP/1.1", ""), (true, Version::HTTP_11));
        assert_eq!(stays("HTTP/1.1", "connection: close\r\n"), (false, Version::HTTP_11));
        assert_eq!(stays("HTTP/1.0", ""), (false, Version::HTTP_10));
        assert_eq!(stays("HTTP/1.0", "connection: Keep-Alive\r\n"), (true, Version::HTTP_10));
    }

    proptest! {
        #[test]
        fn any_head_is_read_or_refused(head in "(GET|POST|X) ?[ -~\r\n]{0,60} HTTP/1.[01]\r\n([a-zA-Z-]{0,8} ?: ?[ -~\r\n\t]{0,20}\r\n){0,6}\r\n", noise in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
            let mut head = head.into_bytes();
            for (at, byte) in noise {
                let at = at % head.len();
                head[at] = byte;
            }
            let head = Bytes::from(head);
            if let Ok(read) = request(&head) {
                // What is passed on is read as the same.
                let mut written = Vec::new();
                write_request(&mut written, &read.parts);
                written.extend_from_slice(b"\r\n");
                let again = request(&Bytes::from(written)).map_err(|bad| TestCaseError::fail(bad.to_string()))?;
                prop_assert_eq!(again.parts.method, read.parts.method);
                prop_assert_eq!(again.parts.headers, read.parts.headers);
            }
            if let Ok(read) = response(&head, &Method::GET) {
                let mut written = Vec::new();
                write_response(&mut written, read.status, &read.headers);
                written.extend_from_slice(b"\r\n");
                prop_assert!(response(&Bytes::from(written), &Method::GET).is_ok());
            }
        }

        #[test]
        fn any_answer_is_read_or_refused(head in "HTTP/1.[01] [0-9]{3} ?[ -~]{0,10}\r\n([a-zA-Z-]{0,8}: ?[ -~\t]{0,20}\r\n){0,6}\r\n") {
            let _ = response(&Bytes::from(head), &Method::GET);
        }
    }
}
