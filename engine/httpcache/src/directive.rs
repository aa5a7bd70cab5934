//! What `cache-control` says, in an answer or in a request (RFC 9111, section 5.2; RFC 5861).

use crate::dictionary::{self, Item};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// More is as good as for ever (RFC 9111, section 1.2.2).
pub(crate) const SECONDS_MAX: u64 = 1 << 31;
/// What a cache is told apart from everybody else, the one meant for more caches first (RFC 9213).
const TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("cdn-cache-control"), HeaderName::from_static("surrogate-control")];

/// The directives this cache knows; all others mean nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub only_if_cached: bool,
    pub max_age_s: Option<u64>,
    pub s_maxage_s: Option<u64>,
    pub min_fresh_s: Option<u64>,
    pub max_stale_s: Option<u64>,
    pub stale_while_revalidate_s: Option<u64>,
    pub stale_if_error_s: Option<u64>,
    /// Headers that `no-cache` or `private` keeps out of a shared cache, the rest of the answer being free of it.
    pub withheld: Vec<HeaderName>,
    /// They were meant for caches like this one only.
    pub targeted: bool,
}

impl Directives {
    /// Of an answer: what is said to this kind of cache, or else to all.
    pub fn of_answer(headers: &HeaderMap) -> Directives {
        TARGETED.iter().find_map(|name| targeted(headers, name)).unwrap_or_else(|| Directives::of_all(headers))
    }

    /// Of a request.
    pub fn of_request(headers: &HeaderMap) -> Directives {
        let mut directives = Directives::of_all(headers);
        if !headers.contains_key(header::CACHE_CONTROL) && says_no_cache(headers) {
            directives.no_cache = true;
        }
        directives
    }

    fn of_all(headers: &HeaderMap) -> Directives {
        let mut directives = Directives::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for member in members(line.as_bytes()) {
                let (name, value) = match member.iter().position(|byte| *byte == b'=') {
                    Some(at) => (member.get(..at).unwrap_or_default(), member.get(at + 1..)),
                    None => (member, None),
                };
                directives.take(&name.to_ascii_lowercase(), value);
            }
        }
        directives
    }

    fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        // What cannot be read as a time is none (RFC 9111, section 4.2.1), and of two the least counts.
        let least = |known: Option<u64>| {
            let seconds = value.and_then(|value| seconds(unquoted(value))).unwrap_or(0);
            Some(known.map_or(seconds, |known| known.min(seconds)))
        };
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" | b"private" => match value {
                Some(value) => self.withheld.extend(names(unquoted(value))),
                None if name == b"private" => self.private = true,
                None => self.no_cache = true,
            },
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => self.max_age_s = least(self.max_age_s),
            b"s-maxage" => self.s_maxage_s = least(self.s_maxage_s),
            b"min-fresh" => self.min_fresh_s = least(self.min_fresh_s),
            b"max-stale" if value.is_none() => self.max_stale_s = Some(SECONDS_MAX),
            b"max-stale" => self.max_stale_s = least(self.max_stale_s),
            b"stale-while-revalidate" => self.stale_while_revalidate_s = least(self.stale_while_revalidate_s),
            b"stale-if-error" => self.stale_if_error_s = least(self.stale_if_error_s),
            _ => {}
        }
    }
}

/// `pragma: no-cache`, which means something in requests only, and beside a last-modified date a warning in answers.
pub(crate) fn says_no_cache(headers: &HeaderMap) -> bool {
    let pragmas = headers.get_all(header::PRAGMA).into_iter().flat_map(|line| members(line.as_bytes()));
    pragmas.into_iter().any(|member| member.eq_ignore_ascii_case(b"no-cache"))
}

/// The directives of a targeted field, a dictionary of structured fields. One that is not, or says nothing known by the
/// right type, is as if it were not there.
fn targeted(headers: &HeaderMap, name: &HeaderName) -> Option<Directives> {
    let lines: Vec<&[u8]> = headers.get_all(name).into_iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let mut directives = Directives { targeted: true, ..Directives::default() };
    for (name, item) in dictionary::parse(&lines.join(&b","[..]))? {
        let seconds = match item {
            Item::True => None,
            Item::Integer(number) => Some(u64::try_from(number).unwrap_or(0).min(SECONDS_MAX).to_string()),
            Item::Other => continue,
        };
        let wants_seconds = name.contains("age") || name.starts_with("stale-");
        if wants_seconds == seconds.is_some() {
            directives.take(name.as_bytes(), seconds.as_ref().map(String::as_bytes));
        }
    }
    (directives != Directives { targeted: true, ..Directives::default() }).then_some(directives)
}

/// The members of a list, split at commas that are in no quotes.
pub(crate) fn members(line: &[u8]) -> Vec<&[u8]> {
    let mut members = Vec::new();
    let (mut quoted, mut escaped, mut begun) = (false, false, 0);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                members.push(line.get(begun..at).unwrap_or_default().trim_ascii());
                begun = at + 1;
            }
            _ => {}
        }
    }
    members.push(line.get(begun..).unwrap_or_default().trim_ascii());
    members.retain(|member| !member.is_empty());
    members
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Whole seconds without a sign; too many are very many.
pub(crate) fn seconds(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(value).ok()?.parse().unwrap_or(u64::MAX);
    Some(number.min(SECONDS_MAX))
}

fn names(list: &[u8]) -> Vec<HeaderName> {
    members(list).into_iter().filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::Directives;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn of(lines: &[(&'static str, &str)]) -> Directives {
        let pairs = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        Directives::of_answer(&headers)
    }

    #[test]
    fn times_are_read_strictly() {
        let check = |value: &str, expected| assert_eq!(of(&[("cache-control", value)]).max_age_s, expected, "{value}");
        check("max-age=3600", Some(3_600));
        check("MaX-AgE=003600", Some(3_600));
        check("max-age=\"3600\"", Some(3_600));
        check("max-age=99999999999999999999999", Some(1 << 31));
        check("max-age=3600, max-age=1", Some(1));
        check("max-age=1, max-age=3600", Some(1));
        for stale in ["max-age=-1", "max-age='3600'", "max-age=3600.0", "max-age=a100", "max-age=100a", "max-age="] {
            check(stale, Some(0));
        }
        check("max-age =3600", None);
        check("extension=\"max-age=3600\"", None);
        check("extension=\"max-age=3600, max-age=10\", max-age=1", Some(1));
        check("extension=\"a\\\", max-age=3600", None);
        check("", None);
    }

    #[test]
    fn words_are_known_in_any_case_and_any_line() {
        let said =
            of(&[("cache-control", "No-StOrE,"), ("cache-control", ", public;x, private=\"Foo, b ar\", no-cache")]);
        assert!(said.no_store && said.no_cache && !said.private && !said.public);
        assert_eq!(said.withheld, [HeaderName::from_static("foo")]);
    }

    #[test]
    fn what_is_said_to_this_cache_replaces_what_is_said_to_all() {
        let all = ("cache-control", "no-store");
        let check = |value: &str, max_age_s, no_store| {
            let said = of(&[("cdn-cache-control", value), all]);
            assert_eq!((said.max_age_s, said.no_store), (max_age_s, no_store), "{value}");
        };
        check("max-age=60", Some(60), false);
        check("max-age=60, ext=1;a=?0, b=\"x\"", Some(60), false);
        check("no-store", None, true);
        check("max-age=-5", Some(0), false);
        for ignored in ["", "max-age=\"60\"", "max-age=60, &&&", "MAX-AGE=60", "max-age =60", "foo", "no-store=1"] {
            check(ignored, None, true);
        }
        let first = of(&[("surrogate-control", "max-age=1"), ("cdn-cache-control", "max-age=2")]);
        assert_eq!((first.max_age_s, first.targeted), (Some(2), true));
    }

    #[test]
    fn a_pragma_counts_in_requests_that_say_nothing_else() {
        let asked = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append("pragma", HeaderValue::from_static("No-Cache"));
            headers.append(name, HeaderValue::from_static(value));
            Directives::of_request(&headers).no_cache
        };
        assert!(asked("x", "y"));
        assert!(!asked("cache-control", "max-stale"));
    }

    proptest! {
        #[test]
        fn nothing_panics(cache_control in "[\\x20-\\x7e\\xa0-\\xff]{0,60}", targeted in "[\\x20-\\x7e]{0,60}") {
            let _ = of(&[("cache-control", &cache_control), ("cdn-cache-control", &targeted)]);
        }
    }
}
