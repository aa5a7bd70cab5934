//! Asking whether an answer is still so: of us by clients, and by us of services (RFC 9110, section 13; RFC 9111, 4.3).

use crate::date::parse_date;
use crate::directive::members;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers by which a request asks only if something has changed.
pub const CONDITIONS: [HeaderName; 5] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_RANGE];

/// What tells a kept answer from a newer one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    pub etag: Option<HeaderValue>,
    pub last_modified: Option<HeaderValue>,
}

impl Validators {
    pub fn of(kept: &HeaderMap) -> Validators {
        Validators { etag: kept.get(header::ETAG).cloned(), last_modified: kept.get(header::LAST_MODIFIED).cloned() }
    }

    pub fn is_none(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Makes a request one that asks whether the answer is still so, and nothing else that its client asked.
    pub fn ask(&self, request: &mut HeaderMap) {
        for name in &CONDITIONS {
            request.remove(name);
        }
        if let Some(etag) = &self.etag {
            request.insert(header::IF_NONE_MATCH, etag.clone());
        }
        if let Some(last_modified) = &self.last_modified {
            request.insert(header::IF_MODIFIED_SINCE, last_modified.clone());
        }
    }
}

/// Whether a client that asks so has what is kept already. Only good answers have conditions (RFC 9110, section 13.2.1).
pub fn is_not_modified(request: &HeaderMap, status: StatusCode, kept: &HeaderMap, received_ms: u64) -> bool {
    if status != StatusCode::OK {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let etag = kept.get(header::ETAG).map(|etag| weak(etag.as_bytes()));
        let lines = request.get_all(header::IF_NONE_MATCH).into_iter();
        let mut named = lines.flat_map(|line| members(line.as_bytes()));
        return named.any(|named| named == b"*" || Some(weak(named)) == etag);
    }
    let now_s = received_ms / 1_000;
    let asked = request.get(header::IF_MODIFIED_SINCE).and_then(|date| parse_date(date.as_bytes(), now_s));
    let Some(asked_s) = asked else { return false };
    // Without a date of its own an answer is as new as it can be (RFC 9111, section 4.3.2).
    let dates = [header::LAST_MODIFIED, header::DATE].map(|name| kept.get(name));
    let modified_s = dates.into_iter().flatten().find_map(|date| parse_date(date.as_bytes(), now_s));
    modified_s.unwrap_or(now_s) <= asked_s
}

/// Takes into what is kept what a 304 says about it.
pub fn renew(kept: &mut HeaderMap, by: &HeaderMap) {
    // All but the length, which is of the body that is not there (RFC 9111, section 3.2).
    for name in by.keys().filter(|name| **name != header::CONTENT_LENGTH) {
        kept.remove(name);
        for value in by.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
}

/// Without what says that it is weak: the comparison for `if-none-match` (RFC 9110, section 8.8.3.2).
fn weak(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

/// Whether the two are the same to the byte.
pub(crate) fn is_strongly(one: &HeaderValue, other: &HeaderValue) -> bool {
    one == other && !one.as_bytes().starts_with(b"W/")
}

#[cfg(test)]
mod tests {
    use super::{Validators, is_not_modified, renew};
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        lines.iter().map(pair).collect()
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let kept = [
            ("etag", "\"a\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("date", "Mon, 07 Nov 1994 08:49:37 GMT"),
        ];
        let check = |kept: &[(&str, &str)], asked: &[(&str, &str)], expected| {
            let found = is_not_modified(&headers(asked), StatusCode::OK, &headers(kept), 1_795_000_000_000);
            assert_eq!(found, expected, "{kept:?} {asked:?}");
        };
        check(&kept, &[], false);
        check(&kept, &[("if-none-match", "\"a\"")], true);
        check(&kept, &[("if-none-match", "W/\"a\"")], true);
        check(&kept, &[("if-none-match", "\"x\", \"a\" , \"y\"")], true);
        check(&kept, &[("if-none-match", "*")], true);
        check(&kept, &[("if-none-match", "a")], false);
        check(&kept, &[("if-none-match", "\"x\""), ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], false);
        check(&kept[..1], &[("if-none-match", "w/\"a\"")], false);
        check(&kept, &[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], true);
        check(&kept, &[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], true);
        check(&kept, &[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], false);
        check(&kept, &[("if-modified-since", "yesterday")], false);
        check(&kept[2..], &[("if-modified-since", "Mon, 07 Nov 1994 08:49:37 GMT")], true);
        let gone = is_not_modified(&headers(&[("if-none-match", "*")]), StatusCode::GONE, &headers(&kept), 0);
        assert!(!gone, "only good answers have conditions");
    }

    #[test]
    fn what_a_304_says_replaces_what_is_kept_but_for_the_length() {
        let mut kept = headers(&[("etag", "\"a\""), ("x", "1"), ("content-length", "5"), ("content-type", "a/b")]);
        let by = headers(&[("x", "2"), ("y", "3"), ("content-length", "0"), ("content-type", "c/d")]);
        renew(&mut kept, &by);
        let expected =
            headers(&[("etag", "\"a\""), ("x", "2"), ("y", "3"), ("content-length", "5"), ("content-type", "c/d")]);
        assert_eq!(kept, expected);
    }

    #[test]
    fn asking_anew_replaces_what_the_client_asked() {
        let mut request = headers(&[("if-match", "\"q\""), ("if-none-match", "\"p\""), ("accept", "x")]);
        let validators = Validators::of(&headers(&[("etag", "W/\"a\"")]));
        validators.ask(&mut request);
        assert_eq!(request, headers(&[("if-none-match", "W/\"a\""), ("accept", "x")]));
        assert!(!validators.is_none() && Validators::default().is_none());
    }
}
