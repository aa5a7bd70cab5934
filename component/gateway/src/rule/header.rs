//! Headers that a route sets and removes.
//!
//! Pure. Never those that frame a message, even if a stored spec says so.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use wire::spec::FRAMING_HEADERS;

/// Each header with its value, or `None` to remove it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changes(Vec<(HeaderName, Option<HeaderValue>)>);

impl Changes {
    pub(crate) fn new(wanted: &BTreeMap<String, String>) -> Changes {
        let changes = wanted.iter().filter(|(name, _)| !FRAMING_HEADERS.contains(&name.to_ascii_lowercase().as_str()));
        let changes = changes.filter_map(|(name, value)| {
            let value = if value.is_empty() { None } else { Some(value.parse().ok()?) };
            Some((name.parse().ok()?, value))
        });
        Changes(changes.collect())
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            match value {
                Some(value) => drop(headers.insert(name, value.clone())),
                None => drop(headers.remove(name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_are_set_and_removed_but_never_those_that_frame() {
        let wanted = [("x-a", "1"), ("x-b", ""), ("Content-Length", "5"), ("transfer-encoding", ""), ("host", "b")];
        let changes = Changes::new(&wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-a", "0"), ("x-a", "00"), ("x-b", "b"), ("transfer-encoding", "chunked"), ("host", "a")]
        {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        changes.apply(&mut headers);
        let mut left: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        left.sort();
        assert_eq!(left, [r#"host: "a""#, r#"transfer-encoding: "chunked""#, r#"x-a: "1""#]);
    }

    proptest! {
        #[test]
        fn whatever_a_route_says_the_framing_stays(
            wanted in prop::collection::btree_map("[ -~]{0,12}|[Tt]ransfer-[Ee]ncoding|[Cc]ontent-[Ll]ength|[Hh]ost|TE", ".{0,12}", 0..8),
            sent in prop::collection::vec((prop::sample::select(FRAMING_HEADERS.to_vec()), "[!-~]{1,8}"), 0..6),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &sent {
                headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("visible letters"));
            }
            let before = headers.clone();
            Changes::new(&wanted).apply(&mut headers);
            for name in FRAMING_HEADERS {
                let of = |headers: &HeaderMap| headers.get_all(name).into_iter().cloned().collect::<Vec<_>>();
                prop_assert_eq!(of(&before), of(&headers), "{}", name);
            }
        }
    }
}
