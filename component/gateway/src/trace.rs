//! The identity of a request: W3C `traceparent`, and `x-request-id` for people.
//!
//! Owns the rule of who decides: a client's well-formed ids are passed on, others are replaced. Pure; random
//! bits are arguments.

use http::HeaderValue;
use std::ops::Range;

/// Longer ids are not ids.
const REQUEST_ID_BYTES_MAX: usize = 128;
const TRACEPARENT_BYTES: usize = 55;
const HEX: &[u8; 16] = b"0123456789abcdef";
const TRACE: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;

/// A request's place in a trace.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// As the instance gets it.
    pub(crate) traceparent: Option<HeaderValue>,
    /// As it came, where it came.
    pub(crate) came: Option<HeaderValue>,
    /// Where the request has one of its own.
    pub(crate) request_id: Option<HeaderValue>,
    /// The one who sent it wants it to be told of.
    pub(crate) asked: bool,
    /// It is to be told of, and so are its parts further on.
    pub(crate) sampled: bool,
}

impl Identity {
    pub(crate) fn trace(&self) -> Option<&str> {
        part(self.traceparent.as_ref(), TRACE)
    }

    /// The gateway's own part of the trace, if that has a name.
    pub(crate) fn span(&self) -> Option<&str> {
        part(self.traceparent.as_ref().filter(|made| Some(*made) != self.came.as_ref()), SPAN)
    }

    pub(crate) fn parent(&self) -> Option<&str> {
        part(self.came.as_ref(), SPAN)
    }
}

fn part(traceparent: Option<&HeaderValue>, range: Range<usize>) -> Option<&str> {
    traceparent?.to_str().ok()?.get(range)
}

/// Whether a well-formed `traceparent` says that its sender tells of the request.
pub(crate) fn is_sampled(traceparent: &[u8]) -> bool {
    traceparent.last().is_some_and(|digit| matches!(digit, b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'))
}

/// The same trace and flags, with a part of it that is the gateway's.
pub(crate) fn next_hop(traceparent: &HeaderValue, random: u64) -> HeaderValue {
    let mut text = traceparent.as_bytes().to_vec();
    if let Some(span) = text.get_mut(SPAN) {
        write_hex(span, random | 1);
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| traceparent.clone())
}

/// Whether `value` is a version 00 `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>` with non-zero ids.
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value.get(range).is_some_and(|digits| digits.iter().all(|digit| HEX.contains(digit)))
    };
    let zero =
        |range: std::ops::Range<usize>| value.get(range).is_none_or(|digits| digits.iter().all(|digit| *digit == b'0'));
    value.len() == TRACEPARENT_BYTES
        && value.starts_with(b"00-")
        && value.get(35) == Some(&b'-')
        && value.get(52) == Some(&b'-')
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && !zero(3..35)
        && !zero(36..52)
}

/// Whether `value` may stand in logs and headers as a request's id.
pub(crate) fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// A new `traceparent`. Zero ids are not valid, so one bit of each is always set.
pub(crate) fn traceparent(random: [u64; 3], sampled: bool) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[TRACEPARENT_BYTES - 1] = b'0' + u8::from(sampled);
    write_hex(&mut text[3..19], random[0]);
    write_hex(&mut text[19..35], random[1] | 1);
    write_hex(&mut text[36..52], random[2] | 1);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
}

/// The trace id of a well-formed `traceparent`, which serves as request id.
pub(crate) fn trace_id(traceparent: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(traceparent.as_bytes().get(3..35)?).ok()
}

fn write_hex(out: &mut [u8], number: u64) {
    let nibbles = (0..16).rev().map(|place| (number >> (place * 4)) & 0xf);
    for (digit, nibble) in out.iter_mut().zip(nibbles) {
        *digit = usize::try_from(nibble).ok().and_then(|nibble| HEX.get(nibble)).copied().unwrap_or(b'0');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_ids_are_passed_on() {
        let check = |value: &str, expected| assert_eq!(is_traceparent(value.as_bytes()), expected, "{value}");
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false);
        check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", false);
        check("", false);
    }

    #[test]
    fn made_ids_are_well_formed() {
        for random in [[0, 0, 0], [u64::MAX, 1, 0xdead_beef]] {
            let made = traceparent(random, true);
            assert!(is_traceparent(made.as_bytes()) && is_sampled(made.as_bytes()), "{made:?}");
            assert!(!is_sampled(traceparent(random, false).as_bytes()));
            let next = next_hop(&made, 7);
            assert!(is_traceparent(next.as_bytes()) && is_sampled(next.as_bytes()), "{next:?}");
            assert_eq!(next.as_bytes()[..SPAN.start], made.as_bytes()[..SPAN.start]);
            assert_ne!(next, made);
            assert!(is_request_id(trace_id(&made).unwrap().as_bytes()));
        }
    }

    #[test]
    fn request_ids_are_short_and_visible() {
        assert!(is_request_id(b"a-1"));
        assert!(!is_request_id(b""));
        assert!(!is_request_id(b"a b"));
        assert!(!is_request_id(&[b'a'; 129]));
    }
}
