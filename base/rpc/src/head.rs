//! What stands around the bytes of a call: method, shape, deadline and trace on the way there, code and message on the
//! way back. Written as HTTP/2 headers. Pure; whatever a peer writes is read without harm.

use crate::failure::{Code, Failure};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const DEADLINE: HeaderName = HeaderName::from_static("bramble-deadline-ms");
const SHAPE: HeaderName = HeaderName::from_static("bramble-shape");
const CODE: HeaderName = HeaderName::from_static("bramble-code");
const MESSAGE: HeaderName = HeaderName::from_static("bramble-message");
const HINT: HeaderName = HeaderName::from_static("bramble-hint");
const VERSIONS: HeaderName = HeaderName::from_static("bramble-versions");
const TIME: HeaderName = HeaderName::from_static("bramble-time-ms");
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// Longer ones are no names of methods.
const METHOD_BYTES_MAX: usize = 64;
/// W3C's has 55; later versions of it may be longer.
const TRACE_BYTES_MAX: usize = 256;
/// A person reads no more of an error; and two of them fit well into what a peer takes of headers.
const TEXT_BYTES_MAX: usize = 1_024;
const OK: &str = "ok";

/// What is called: bytes for bytes, bytes for messages without end, or bytes both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Call,
    Watch,
    Tunnel,
}

/// Where a call belongs, as W3C's `traceparent` has it; carried, not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace(String);

/// The oldest and newest version of what peers say that a program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub min: u32,
    pub max: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) shape: Shape,
    pub(crate) deadline: Option<Duration>,
    pub(crate) trace: Option<Trace>,
}

/// What a peer says of itself first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) versions: Versions,
    pub(crate) now_ms: u64,
}

impl Shape {
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Call => "call",
            Shape::Watch => "watch",
            Shape::Tunnel => "tunnel",
        }
    }

    fn read(text: &str) -> Option<Shape> {
        [Shape::Call, Shape::Watch, Shape::Tunnel].into_iter().find(|shape| shape.as_str() == text)
    }
}

impl Trace {
    /// `None` for what no header may hold.
    pub fn new(text: impl Into<String>) -> Option<Trace> {
        let text = text.into();
        let fits =
            !text.is_empty() && text.len() <= TRACE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then_some(Trace(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn read(headers: &HeaderMap) -> Option<Trace> {
        Trace::new(headers.get(TRACE)?.to_str().ok()?)
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        put(headers, TRACE, &self.0);
    }
}

impl Versions {
    /// What this program speaks.
    pub const OURS: Versions = Versions { min: 1, max: 1 };

    /// The newest both know.
    pub(crate) fn shared(self, other: Versions) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    fn read(headers: &HeaderMap) -> Option<Versions> {
        let (min, max) = headers.get(VERSIONS)?.to_str().ok()?.split_once('-')?;
        let versions = Versions { min: min.parse().ok()?, max: max.parse().ok()? };
        (versions.min <= versions.max).then_some(versions)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max { write!(out, "{}", self.max) } else { write!(out, "{} to {}", self.min, self.max) }
    }
}

impl Greeting {
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        put(headers, VERSIONS, &format!("{}-{}", self.versions.min, self.versions.max));
        put(headers, TIME, &self.now_ms.to_string());
    }

    pub(crate) fn read(headers: &HeaderMap) -> Option<Greeting> {
        let now_ms = headers.get(TIME)?.to_str().ok()?.parse().ok()?;
        Some(Greeting { versions: Versions::read(headers)?, now_ms })
    }
}

impl Asked {
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        put(headers, SHAPE, self.shape.as_str());
        if let Some(deadline) = self.deadline {
            // What is left of a millisecond is still a millisecond: nothing at all would be no time.
            put(headers, DEADLINE, &deadline.as_millis().max(1).to_string());
        }
        if let Some(trace) = &self.trace {
            trace.write(headers);
        }
    }

    pub(crate) fn read(path: &str, headers: &HeaderMap) -> Result<Asked, Failure> {
        let wrong = |what: &str| Failure::new(Code::InvalidArgument, format!("the call's {what} cannot be read"));
        let method = path.strip_prefix('/').filter(|name| is_method(name)).ok_or_else(|| wrong("method"))?;
        let shape = headers.get(SHAPE).and_then(|value| Shape::read(value.to_str().ok()?));
        let deadline = match headers.get(DEADLINE) {
            None => None,
            Some(value) => {
                let left_ms =
                    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| wrong("deadline"))?;
                Some(Duration::from_millis(left_ms))
            }
        };
        Ok(Asked {
            method: method.to_owned(),
            shape: shape.ok_or_else(|| wrong("shape"))?,
            deadline,
            // A trace nobody can read is not worth a call.
            trace: Trace::read(headers),
        })
    }
}

/// Says how something ended.
pub(crate) fn write_end(headers: &mut HeaderMap, ended: Result<(), &Failure>) {
    match ended {
        Ok(()) => put(headers, CODE, OK),
        Err(failure) => {
            put(headers, CODE, failure.code.as_str());
            put(headers, MESSAGE, &escaped(&failure.message));
            if !failure.hint.is_empty() {
                put(headers, HINT, &escaped(&failure.hint));
            }
        }
    }
}

/// `None` when it does not say.
pub(crate) fn read_end(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let code = headers.get(CODE)?.to_str().ok()?;
    if code == OK {
        return Some(Ok(()));
    }
    let text = |name| headers.get(name).map_or_else(String::new, |value| unescaped(value.as_bytes()));
    Some(Err(Failure { code: Code::read(code), message: text(MESSAGE), hint: text(HINT) }))
}

/// Whether a method may be called so.
pub(crate) fn is_method(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    !name.is_empty() && name.len() <= METHOD_BYTES_MAX && name.bytes().all(plain)
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// Text as printable ASCII: other bytes, and `%`, as `%` and two digits.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        let length = if is_plain(letter) { 1 } else { 3 * letter.len_utf8() };
        if out.len() + length > TEXT_BYTES_MAX {
            break;
        }
        if is_plain(letter) {
            out.push(letter);
        } else {
            let mut bytes = [0; 4];
            letter.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        }
    }
    out
}

fn unescaped(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    while let Some((first, more)) = rest.split_first() {
        let digits = more.split_first_chunk::<2>().and_then(|(digits, after)| {
            let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            Some((byte, after))
        });
        match digits.filter(|_| *first == b'%') {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_plain(letter: char) -> bool {
    (letter == ' ' || letter.is_ascii_graphic()) && letter != '%'
}

#[cfg(test)]
mod tests {
    use super::{Asked, Code, Failure, Greeting, Shape, Trace, Versions, read_end, write_end};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn versions_meet_where_they_overlap() {
        let check = |ours: (u32, u32), theirs: (u32, u32), expected: Option<u32>| {
            let (ours, theirs) = (Versions { min: ours.0, max: ours.1 }, Versions { min: theirs.0, max: theirs.1 });
            assert_eq!(ours.shared(theirs), expected, "{ours} {theirs}");
            assert_eq!(theirs.shared(ours), expected, "{ours} {theirs}");
        };
        check((1, 1), (1, 1), Some(1));
        check((1, 3), (2, 5), Some(3));
        check((1, 1), (2, 3), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let refused = |path: &str, headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            Asked::read(path, &headers).unwrap_err().message
        };
        assert_eq!(refused("no-slash", &[]), "the call's method cannot be read");
        assert_eq!(refused("/Upper", &[]), "the call's method cannot be read");
        assert_eq!(refused("/a/b", &[]), "the call's shape cannot be read");
        assert_eq!(refused("/a", &[("bramble-shape", "sphere")]), "the call's shape cannot be read");
        let soon = [("bramble-shape", "call"), ("bramble-deadline-ms", "soon")];
        assert_eq!(refused("/a", &soon), "the call's deadline cannot be read");
    }

    proptest! {
        #[test]
        fn a_failure_arrives_as_it_was(code in 0_usize..11, message in ".{0,100}", hint in ".{0,100}") {
            let failure = Failure { code: Code::ALL[code], message, hint };
            let mut headers = HeaderMap::new();
            write_end(&mut headers, Err(&failure));
            prop_assert_eq!(read_end(&headers), Some(Err(failure)));
        }

        #[test]
        fn long_messages_are_cut_between_letters(letters in "[a%ü漢]{0,2000}") {
            let mut headers = HeaderMap::new();
            write_end(&mut headers, Err(&Failure::new(Code::Internal, letters.clone())));
            let Some(Err(read)) = read_end(&headers) else { panic!("a failure was written") };
            prop_assert!(letters.starts_with(&read.message));
        }

        #[test]
        fn any_header_may_come(
            path in "[ -~]{0,80}",
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 8),
        ) {
            let names = ["bramble-deadline-ms", "bramble-shape", "bramble-code", "bramble-message", "bramble-hint",
                "bramble-versions", "bramble-time-ms", "traceparent"];
            let headers: HeaderMap = names.into_iter().zip(values).filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
            }).collect();
            let _ = (Asked::read(&path, &headers), read_end(&headers), Greeting::read(&headers), Trace::read(&headers));
        }

        #[test]
        fn a_call_arrives_as_it_was(
            method in "[a-z0-9./_-]{1,64}",
            left_ms in proptest::option::of(1_u64..10_000_000),
            trace in proptest::option::of("[!-~]{1,100}"),
        ) {
            let asked = Asked {
                method: method.clone(),
                shape: Shape::Watch,
                deadline: left_ms.map(Duration::from_millis),
                trace: trace.and_then(Trace::new),
            };
            let mut headers = HeaderMap::new();
            asked.write(&mut headers);
            prop_assert_eq!(Asked::read(&format!("/{method}"), &headers).unwrap(), asked);
        }
    }
}
