//! What clients see instead of an answer that tells of a failure.
//!
//! Pure. A page stands for one status, or for all of a class; the status itself stays.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::collections::{BTreeMap, HashMap};

/// What is said about the content that the page takes the place of.
const OF_THE_CONTENT: [HeaderName; 9] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

#[derive(Debug)]
pub(crate) struct Pages {
    /// By the status; by its first digit for a class.
    pages: HashMap<u16, Page>,
}

#[derive(Debug)]
struct Page {
    bytes: Bytes,
    kind: HeaderValue,
}

impl Pages {
    /// `None` when there are none.
    pub(crate) fn new(wanted: &BTreeMap<String, String>) -> Option<Pages> {
        let pages = wanted.iter().filter_map(|(status, text)| {
            let key = status.strip_suffix("xx").unwrap_or(status).parse().ok()?;
            let is_html = text.trim_start().starts_with('<');
            let kind = if is_html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
            Some((key, Page { bytes: Bytes::from(text.clone()), kind: HeaderValue::from_static(kind) }))
        });
        let pages: HashMap<u16, Page> = pages.collect();
        (!pages.is_empty()).then_some(Pages { pages })
    }

    /// The page for an answer of this status, whose headers become the page's. Whoever speaks gRPC has no use for one.
    pub(crate) fn replace(&self, status: StatusCode, headers: &mut HeaderMap) -> Option<Bytes> {
        let number = status.as_u16();
        let page = self.pages.get(&number).or_else(|| self.pages.get(&(number / 100)))?;
        let grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        if headers.get(header::CONTENT_TYPE).is_some_and(grpc) {
            return None;
        }
        for name in &OF_THE_CONTENT {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, page.kind.clone());
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.bytes.len()));
        Some(page.bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_status_goes_before_that_of_its_class() {
        let wanted = [("404", "<h1>Gone</h1>"), ("4xx", "no"), ("503", "soon")];
        let pages =
            Pages::new(&wanted.map(|(status, text)| (status.to_owned(), text.to_owned())).into()).expect("some");
        let check = |status: u16, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ETAG, HeaderValue::from_static("\"a\""));
            let page = pages.replace(StatusCode::from_u16(status).expect("a status"), &mut headers);
            assert_eq!(page.as_deref(), expected.map(str::as_bytes), "{status}");
            assert_eq!(headers.contains_key(header::ETAG), expected.is_none());
            headers
        };
        assert_eq!(check(404, Some("<h1>Gone</h1>"))["content-type"], "text/html; charset=utf-8");
        assert_eq!(check(400, Some("no"))["content-length"], "2");
        check(503, Some("soon"));
        check(500, None);
        check(200, None);
        assert!(Pages::new(&BTreeMap::new()).is_none());
        let mut grpc =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"))]);
        assert_eq!(pages.replace(StatusCode::NOT_FOUND, &mut grpc), None);
    }
}
