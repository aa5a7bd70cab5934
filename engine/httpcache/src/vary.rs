//! Which headers of a request an answer varies by, and when two requests are alike (RFC 9111, section 4.1).

use crate::directive::members;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What an answer varies by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variance {
    /// By these headers, in order, none twice; by none, mostly.
    Names(Vec<HeaderName>),
    /// By more than requests show.
    Any,
}

/// What an answer varies by, and by `besides` whatever it says.
pub fn variance(answer: &HeaderMap, besides: &[HeaderName]) -> Variance {
    let mut names: Vec<HeaderName> = besides.to_vec();
    for member in answer.get_all(header::VARY).into_iter().flat_map(|line| members(line.as_bytes())) {
        // What is no name matches no request.
        match HeaderName::from_bytes(member) {
            Ok(name) if member != b"*" => names.push(name),
            Ok(_) | Err(_) => return Variance::Any,
        }
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Variance::Names(names)
}

/// What `names` are in a request: two with the same text get the same answer. Lists that mean the same are made the same.
pub fn selection(names: &[HeaderName], request: &HeaderMap) -> String {
    let mut text = String::new();
    for name in names {
        text.push_str(name.as_str());
        let lines: Vec<&[u8]> = request.get_all(name).into_iter().map(HeaderValue::as_bytes).collect();
        // Told apart: a header that is not there, and one that is empty.
        text.push(if lines.is_empty() { '-' } else { ':' });
        let line = lines.join(&b","[..]);
        let mut all: Vec<String> = members(&line).into_iter().map(visible).collect();
        if [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, header::ACCEPT].contains(name) {
            all = preferences(all);
        }
        text.push_str(&all.join(","));
        text.push('\n');
    }
    text
}

/// Bytes as text, each other one by its number, so that two texts are equal only where the bytes are.
fn visible(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Preferences are ordered by their weight; those that weigh the same have no order, and the case of none matters.
fn preferences(all: Vec<String>) -> Vec<String> {
    let mut weighed: Vec<(u32, String)> = all
        .into_iter()
        .map(|member| {
            let plain: String = member.to_ascii_lowercase().split_ascii_whitespace().collect();
            let weight = plain.split(';').skip(1).find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            let thousandths = (weight.unwrap_or(1.0).clamp(0.0, 1.0) * 1_000.0).round();
            // Within 0 and 1000: no number is lost.
            (thousandths as u32, plain)
        })
        .collect();
    weighed.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    weighed.into_iter().map(|(_, member)| member).collect()
}

#[cfg(test)]
mod tests {
    use super::{Variance, selection, variance};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_star_anywhere_matches_nothing() {
        for lines in [
            &[("vary", "*")][..],
            &[("vary", "*, *")],
            &[("vary", ", *")],
            &[("vary", "foo, *")],
            &[("vary", "foo"), ("vary", ""), ("vary", "*")],
            &[("vary", "not a name")],
        ] {
            assert_eq!(variance(&headers(lines), &[]), Variance::Any, "{lines:?}");
        }
    }

    #[test]
    fn names_come_in_one_order_and_once() {
        let accept = HeaderName::from_static("accept");
        let said = variance(&headers(&[("vary", "Foo, accept"), ("vary", "bar,foo")]), std::slice::from_ref(&accept));
        let names = [accept, HeaderName::from_static("bar"), HeaderName::from_static("foo")];
        assert_eq!(said, Variance::Names(names.into()));
        assert_eq!(variance(&HeaderMap::new(), &[]), Variance::Names(vec![]));
    }

    #[test]
    fn requests_that_mean_the_same_are_the_same() {
        let same = |name: &str, one: &[&str], other: &[&str], expected: bool| {
            let names = [name.parse::<HeaderName>().unwrap()];
            let of = |values: &[&str]| {
                let lines: Vec<(&str, &str)> = values.iter().map(|value| (name, *value)).collect();
                selection(&names, &headers(&lines))
            };
            assert_eq!(of(one) == of(other), expected, "{name}: {one:?} {other:?}");
        };
        same("foo", &["1, 2"], &["1", "2"], true);
        same("foo", &["1, 2"], &["1,2"], true);
        same("foo", &["1"], &["2"], false);
        same("foo", &["1, 2"], &["2, 1"], false);
        same("foo", &["a"], &["A"], false);
        same("foo", &[""], &[], false);
        same("foo", &["\"1,2\""], &["\"1\",\"2\""], false);
        same("accept-language", &["en, de"], &["de, EN"], true);
        same("accept-language", &["en;q=0.5, de"], &["de;q=1.0,en; q=0.5"], false);
        same("accept-language", &["en;q=0.5, de"], &["de,en; q=0.5"], true);
        same("accept-language", &["en;q=0.5, de"], &["en,de;q=0.5"], false);
        same("accept-encoding", &["gzip, br"], &["br,gzip"], true);
    }

    proptest! {
        #[test]
        fn different_bytes_are_never_one_answer(one in "[ -~\u{80}-\u{ff}]{0,12}", other in "[ -~\u{80}-\u{ff}]{0,12}") {
            let names = [HeaderName::from_static("x")];
            let of = |value: &str| {
                let mut map = HeaderMap::new();
                map.append("x", HeaderValue::from_bytes(value.as_bytes()).unwrap());
                selection(&names, &map)
            };
            // Only spaces and empty members around commas are taken for nothing.
            let plain = |value: &str| value.bytes().filter(|byte| !b" ,".contains(byte)).collect::<Vec<_>>();
            if plain(&one) != plain(&other) {
                prop_assert_ne!(of(&one), of(&other));
            }
        }
    }
}
