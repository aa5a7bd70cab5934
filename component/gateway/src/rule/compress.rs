//! Whether an answer is coded on its way to the client, and how (RFC 9110, sections 8.4 and 12.5.3).
//!
//! Pure. Owns which types become smaller, and what an answer says about itself once it is coded. What the instance has
//! coded itself is left alone, as is what says that it must not be changed.

use crate::coding;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use wire::spec::Coding;

/// Below this, headers and the packet they travel in weigh more than what is saved (nginx and Traefik: 1024).
const BYTES_MIN: u64 = 1_024;
/// By what they cost us: of those a client likes alike, zstd is the cheapest and gzip wins least.
const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];
/// Types that become smaller besides `text/*`, and those whose name ends with `+json` or `+xml`. Pictures, films, fonts
/// for the web and archives are coded already.
const TYPES: [&str; 13] = [
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
];
/// Events are small and must not wait for each other: they are never coded, whatever a route says.
const EVENTS: &str = "text/event-stream";
/// What holds for the bytes as they were and not as they are sent.
const OF_THE_BYTES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

#[derive(Debug)]
pub(crate) struct Compress {
    codings: Vec<Coding>,
    bytes_min: u64,
    /// Empty for the usual ones.
    types: Vec<String>,
    except: Vec<String>,
}

/// What a client would like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish(Option<Coding>);

impl Compress {
    pub(crate) fn new(wanted: &wire::spec::Compress) -> Compress {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_ascii_lowercase()).collect();
        Compress {
            codings: if wanted.codings.is_empty() { CODINGS.to_vec() } else { wanted.codings.clone() },
            bytes_min: wanted.bytes_min.unwrap_or(BYTES_MIN),
            types: lower(&wanted.types),
            except: lower(&wanted.except),
        }
    }

    /// What the client of a request would like best.
    pub(crate) fn wish(&self, method: &Method, headers: &HeaderMap) -> Wish {
        if *method == Method::HEAD || has_token(headers, &header::CACHE_CONTROL, "no-transform") {
            return Wish(None);
        }
        Wish(best(headers, &self.codings))
    }

    /// How an answer is to be coded. `bytes` is how long it is, where that is known. Says in it that it could have been
    /// coded, which caches need to know.
    pub(crate) fn choose(
        &self,
        wish: Wish,
        status: StatusCode,
        headers: &mut HeaderMap,
        bytes: Option<u64>,
    ) -> Option<Coding> {
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        let partial = status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE);
        let coded = headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        let small = bytes.is_some_and(|bytes| bytes < self.bytes_min);
        if bodiless || partial || coded || small || !self.fits(headers) {
            return None;
        }
        if has_token(headers, &header::CACHE_CONTROL, "no-transform") {
            return None;
        }
        vary(headers);
        wish.0
    }

    fn fits(&self, headers: &HeaderMap) -> bool {
        let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind == EVENTS || names(&self.except, &kind) {
            return false;
        }
        let usual = || {
            kind.starts_with("text/")
                || kind.ends_with("+json")
                || kind.ends_with("+xml")
                || TYPES.contains(&kind.as_str())
        };
        if self.types.is_empty() { usual() } else { names(&self.types, &kind) }
    }
}

/// Whether `list` has `kind`, by itself or as `text/*`.
fn names(list: &[String], kind: &str) -> bool {
    list.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => kind.starts_with(start),
        None => kind == known,
    })
}

/// Makes the headers of an answer those of the coded one.
pub(crate) fn describe(coding: Coding, headers: &mut HeaderMap) {
    for name in &OF_THE_BYTES {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding::name(coding)));
    // Not the same bytes, but the same content: what a weak tag says.
    if let Some(tag) = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) {
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => drop(headers.insert(header::ETAG, weak)),
            Err(_) => drop(headers.remove(header::ETAG)),
        }
    }
}

fn vary(headers: &mut HeaderMap) {
    if !has_token(headers, &header::VARY, "accept-encoding") && !has_token(headers, &header::VARY, "*") {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    values.into_iter().any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Of `codings`, the one the client weighs highest; of equals the first. `None` when it likes the answer as it is better,
/// or says nothing.
fn best(headers: &HeaderMap, codings: &[Coding]) -> Option<Coding> {
    let mut weights: Vec<(&str, u16)> = Vec::new();
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for part in value.to_str().ok()?.split(',') {
            let (name, weight) = part.split_once(';').unwrap_or((part, ""));
            weights.push((name.trim(), permille(weight)?));
        }
    }
    let of = |name: &str| {
        let exact = weights.iter().find(|(known, _)| known.eq_ignore_ascii_case(name) || is_alias(known, name));
        exact.map(|(_, weight)| *weight)
    };
    let any = of("*");
    let as_it_is = of("identity").unwrap_or(0);
    // `max_by_key` keeps the last of equals.
    let liked = codings.iter().rev().filter_map(|coding| Some((*coding, of(coding::name(*coding)).or(any)?)));
    let (coding, weight) = liked.max_by_key(|(_, weight)| *weight)?;
    (weight > 0 && weight >= as_it_is).then_some(coding)
}

/// RFC 9110, section 8.4.1.3.
fn is_alias(known: &str, name: &str) -> bool {
    name == "gzip" && known.eq_ignore_ascii_case("x-gzip")
}

/// A weight such as `q=0.5` in thousandths; none is the highest. `None` when it cannot be read.
fn permille(text: &str) -> Option<u16> {
    let text = text.trim();
    if text.is_empty() {
        return Some(1_000);
    }
    let number = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="))?.trim();
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: u16 = format!("{rest:0<3}").parse().ok()?;
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn the_coding_is_the_one_the_client_likes_best() {
        let check = |accept: &str, expected: Option<Coding>| {
            assert_eq!(best(&headers(&[("accept-encoding", accept)]), &CODINGS), expected, "{accept:?}");
        };
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("gzip, deflate, br", Some(Coding::Br));
        check("gzip", Some(Coding::Gzip));
        check("X-GZIP", Some(Coding::Gzip));
        check("gzip;q=1.0, br;q=0.5", Some(Coding::Gzip));
        check("br; q=0.001, gzip; Q=0", Some(Coding::Br));
        check("*", Some(Coding::Zstd));
        check("*;q=0", None);
        check("zstd;q=0, *", Some(Coding::Br));
        check("identity", None);
        check("identity;q=0.5, gzip;q=0.4", None);
        check("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip));
        check("deflate", None);
        check("", None);
        check("gzip;q=2", None);
        check("gzip;q=0.0001", None);
        check("gzip;level=9", None);
        assert_eq!(best(&HeaderMap::new(), &CODINGS), None);
        let two = headers(&[("accept-encoding", "br;q=0.1"), ("accept-encoding", "gzip")]);
        assert_eq!(best(&two, &CODINGS), Some(Coding::Gzip));
        assert_eq!(
            best(&headers(&[("accept-encoding", "gzip, br, zstd")]), &[Coding::Gzip, Coding::Br]),
            Some(Coding::Gzip)
        );
    }

    fn chosen(rules: &wire::spec::Compress, status: u16, said: &[(&'static str, &str)], bytes: Option<u64>) -> bool {
        let compress = Compress::new(rules);
        let wish = compress.wish(&Method::GET, &headers(&[("accept-encoding", "gzip")]));
        let status = StatusCode::from_u16(status).expect("a status");
        compress.choose(wish, status, &mut headers(said), bytes).is_some()
    }

    #[test]
    fn only_what_becomes_smaller_is_coded() {
        let usual = wire::spec::Compress::default();
        let html = ("content-type", "text/html; charset=utf-8");
        let check = |status, said: &[(&'static str, &str)], bytes, expected| {
            assert_eq!(chosen(&usual, status, said, bytes), expected, "{status} {said:?} {bytes:?}");
        };
        check(200, &[html], None, true);
        check(404, &[html], Some(1_024), true);
        check(200, &[html], Some(1_023), false);
        for kind in ["application/json", "APPLICATION/JSON", "application/problem+json", "image/svg+xml", "text/css"] {
            check(200, &[("content-type", kind)], None, true);
        }
        for kind in ["image/png", "text/event-stream", "application/octet-stream", "application/grpc", "font/woff2", ""]
        {
            check(200, &[("content-type", kind)], None, false);
        }
        check(200, &[], None, false);
        for status in [204, 205, 206, 304] {
            check(status, &[html], None, false);
        }
        check(200, &[html, ("content-encoding", "br")], None, false);
        check(200, &[html, ("content-encoding", "identity")], None, true);
        check(200, &[html, ("content-range", "bytes 0-1/2")], None, false);
        check(200, &[html, ("cache-control", "public, No-Transform")], None, false);
        let own = wire::spec::Compress {
            types: vec!["text/*".to_owned(), "image/x-icon".to_owned()],
            except: vec!["text/Plain".to_owned()],
            bytes_min: Some(0),
            ..usual
        };
        for (kind, expected) in
            [("text/html", true), ("text/plain", false), ("image/x-icon", true), ("font/ttf", false)]
        {
            assert_eq!(chosen(&own, 200, &[("content-type", kind)], Some(1)), expected, "{kind}");
        }
        assert!(!chosen(&own, 200, &[("content-type", "text/event-stream")], None));
    }

    #[test]
    fn a_coded_answer_says_so() {
        let mut said = headers(&[("etag", "\"a\""), ("content-length", "9"), ("vary", "Origin"), ("content-md5", "x")]);
        vary(&mut said);
        vary(&mut said);
        describe(Coding::Br, &mut said);
        let mut lines: Vec<String> = said.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        let expected =
            [r#"content-encoding: "br""#, r#"etag: "W/\"a\"""#, r#"vary: "Origin""#, r#"vary: "accept-encoding""#];
        assert_eq!(lines, expected);
        let mut weak = headers(&[("etag", "W/\"a\""), ("vary", "*")]);
        vary(&mut weak);
        describe(Coding::Gzip, &mut weak);
        assert_eq!((weak["etag"].as_bytes(), weak.get_all("vary").iter().count()), (b"W/\"a\"".as_slice(), 1));
    }

    #[test]
    fn a_head_and_a_request_not_to_change_are_heeded() {
        let compress = Compress::new(&wire::spec::Compress::default());
        let asked = headers(&[("accept-encoding", "gzip")]);
        assert_eq!(compress.wish(&Method::GET, &asked), Wish(Some(Coding::Gzip)));
        assert_eq!(compress.wish(&Method::HEAD, &asked), Wish(None));
        let held = headers(&[("accept-encoding", "gzip"), ("cache-control", "no-transform")]);
        assert_eq!(compress.wish(&Method::GET, &held), Wish(None));
    }

    proptest! {
        #[test]
        fn any_text_may_be_accepted(text in "[ -~]{0,60}") {
            let asked = headers(&[("accept-encoding", &text)]);
            if let Some(coding) = best(&asked, &CODINGS) {
                let lower = text.to_ascii_lowercase();
                prop_assert!(lower.contains(coding::name(coding)) || lower.contains('*'), "{text:?}");
            }
        }

        #[test]
        fn weights_are_kept_in_order(a in 0..=1000_u16, b in 0..=1000_u16) {
            let q = |weight: u16| format!("{}.{:03}", weight / 1000, weight % 1000);
            let asked = headers(&[("accept-encoding", &format!("gzip;q={}, br;q={}", q(a), q(b)))]);
            let expected = match (a, b) {
                (0, 0) => None,
                _ if a > b => Some(Coding::Gzip),
                _ => Some(Coding::Br),
            };
            prop_assert_eq!(best(&asked, &CODINGS), expected);
        }
    }
}
