//! A part of what is kept whole (RFC 9110, section 14).

use crate::condition::is_strongly;
use crate::date::parse_date;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use std::ops::Range;

/// What of a whole is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// These bytes: 206.
    Bytes(Range<u64>),
    /// There are no such bytes: 416.
    Nothing,
}

/// What of an answer of `length` bytes a request asks for. Who asks for several parts gets the whole.
pub fn part(method: &Method, request: &HeaderMap, status: StatusCode, kept: &HeaderMap, length: u64) -> Part {
    let Some(asked) = request.get(header::RANGE) else { return Part::Whole };
    let is_plain = status == StatusCode::OK && !kept.contains_key(header::CONTENT_RANGE);
    if method != Method::GET || !is_plain || !is_for(request, kept) {
        return Part::Whole;
    }
    let text = asked.to_str().unwrap_or_default();
    let Some((unit, range)) = text.split_once('=') else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Part::Whole;
    }
    let number = |text: &str| -> Option<u64> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.trim().is_empty() => first..length,
        (None, Some(suffix)) if first.trim().is_empty() => length.saturating_sub(suffix)..length,
        _ => return Part::Whole,
    };
    if range.is_empty() { Part::Nothing } else { Part::Bytes(range) }
}

/// Whether the part would be of what the client has the rest of.
fn is_for(request: &HeaderMap, kept: &HeaderMap) -> bool {
    let Some(condition) = request.get(header::IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") || condition.as_bytes().starts_with(b"W/") {
        return kept.get(header::ETAG).is_some_and(|etag| is_strongly(etag, condition));
    }
    let date = |value: Option<&http::HeaderValue>| value.and_then(|value| parse_date(value.as_bytes(), 0));
    let asked = date(Some(condition));
    asked.is_some() && asked == date(kept.get(header::LAST_MODIFIED))
}

#[cfg(test)]
mod tests {
    use super::{Part, part};
    use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
    use proptest::prelude::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        lines.iter().map(pair).collect()
    }

    #[test]
    fn one_range_is_cut_out() {
        let kept = headers(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let check = |range: &str, if_range: Option<&str>, expected: Part| {
            let mut asked = headers(&[("range", range)]);
            if let Some(condition) = if_range {
                asked.insert("if-range", HeaderValue::from_str(condition).unwrap());
            }
            assert_eq!(part(&Method::GET, &asked, StatusCode::OK, &kept, 10), expected, "{range} {if_range:?}");
        };
        check("bytes=0-0", None, Part::Bytes(0..1));
        check("bytes=2-4", None, Part::Bytes(2..5));
        check("Bytes = 2-", None, Part::Bytes(2..10));
        check("bytes=-3", None, Part::Bytes(7..10));
        check("bytes=-30", None, Part::Bytes(0..10));
        check("bytes=8-99999999999999999999999999", None, Part::Bytes(8..10));
        check("bytes=10-", None, Part::Nothing);
        check("bytes=-0", None, Part::Nothing);
        for whole in ["bytes=4-2", "bytes=0-1,3-4", "lines=0-1", "bytes=x-1", "bytes=-", "bytes", "bytes=+1-2"] {
            check(whole, None, Part::Whole);
        }
        check("bytes=2-4", Some("\"a\""), Part::Bytes(2..5));
        check("bytes=2-4", Some("\"b\""), Part::Whole);
        check("bytes=2-4", Some("W/\"a\""), Part::Whole);
        check("bytes=2-4", Some("Sun, 06 Nov 1994 08:49:37 GMT"), Part::Bytes(2..5));
        check("bytes=2-4", Some("Sun, 06 Nov 1994 08:49:38 GMT"), Part::Whole);
        check("bytes=2-4", Some("what"), Part::Whole);
        let asked = headers(&[("range", "bytes=0-1")]);
        assert_eq!(part(&Method::HEAD, &asked, StatusCode::OK, &kept, 10), Part::Whole);
        assert_eq!(part(&Method::GET, &asked, StatusCode::NOT_FOUND, &kept, 10), Part::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_whole(range in "bytes=[0-9, -]{0,12}", length in 0_u64..20) {
            let asked = headers(&[("range", &range)]);
            if let Part::Bytes(bytes) = part(&Method::GET, &asked, StatusCode::OK, &HeaderMap::new(), length) {
                prop_assert!(bytes.start < bytes.end && bytes.end <= length);
            }
        }
    }
}
