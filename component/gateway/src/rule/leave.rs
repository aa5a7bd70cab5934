//! Asking another service whether a request may go on: what it is told, and what its answer means.
//!
//! Pure: makes the head of the question and reads the answer; `aside` carries both. What the client says about these
//! headers itself never reaches the route's service.

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use std::time::Duration;
use wire::spec::ForwardAuth;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// What the gateway says of a request, whichever headers are wanted.
const FORWARDED: [HeaderName; 5] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-request-id"),
];
/// What is about the body, which is not sent, about the connection, or would change what the answer means.
const NOT_SENT: [HeaderName; 14] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::HOST,
    header::TE,
    header::UPGRADE,
    header::CONNECTION,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

#[derive(Debug)]
pub(crate) struct Leave {
    target: Uri,
    host: HeaderValue,
    /// Of its answer, for the route's service.
    copied: Vec<HeaderName>,
    /// Of the client's; empty for all.
    shown: Vec<HeaderName>,
    pub(crate) deadline: Duration,
}

impl Leave {
    pub(crate) fn new(wanted: &ForwardAuth) -> Leave {
        let names = |texts: &[String]| texts.iter().filter_map(|name| name.parse().ok()).collect();
        let bare = wanted.to.outside().unwrap_or(wanted.to.service.rsplit('/').next().unwrap_or_default());
        let host = HeaderValue::try_from(format!("{bare}:{}", wanted.to.port));
        Leave {
            target: wanted.path.parse().unwrap_or(Uri::from_static("/")),
            host: host.unwrap_or(HeaderValue::from_static("")),
            copied: names(&wanted.response_headers),
            shown: names(&wanted.request_headers),
            deadline: Duration::from_millis(wanted.deadline_ms),
        }
    }

    /// The question for a request with these headers, as they go to an instance. `asked` is the target as the client
    /// wrote it.
    pub(crate) fn question(&self, headers: &HeaderMap, method: &Method, asked: &HeaderValue) -> Parts {
        let (mut question, ()) = Request::new(()).into_parts();
        question.uri = self.target.clone();
        let said = &mut question.headers;
        for (name, value) in headers {
            let shown = self.shown.is_empty() || self.shown.contains(name) || FORWARDED.contains(name);
            if shown && !NOT_SENT.contains(name) {
                said.append(name, value.clone());
            }
        }
        said.insert(header::HOST, self.host.clone());
        if let Ok(method) = HeaderValue::from_str(method.as_str()) {
            said.insert(X_FORWARDED_METHOD, method);
        }
        said.insert(X_FORWARDED_URI, asked.clone());
        question
    }

    /// What the route's service gets of an answer that lets the request through.
    pub(crate) fn copy(&self, answer: &HeaderMap, request: &mut HeaderMap) {
        for name in &self.copied {
            request.remove(name);
            for value in answer.get_all(name) {
                request.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::spec::Aside;

    fn leave(shown: &[&str]) -> Leave {
        Leave::new(&ForwardAuth {
            to: Aside { service: "shop/auth".to_owned(), port: 9091 },
            path: "/api/verify?rd=x".to_owned(),
            response_headers: vec!["remote-user".to_owned(), "x-groups".to_owned()],
            request_headers: shown.iter().map(ToString::to_string).collect(),
            deadline_ms: 1_000,
        })
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_question_tells_what_was_asked_and_nothing_of_the_body() {
        let said = headers(&[
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("content-length", "5"),
            ("if-none-match", "\"a\""),
            ("host", "shop.test"),
            ("x-forwarded-uri", "/made-up"),
        ]);
        let asked = HeaderValue::from_static("/admin?x=1");
        let question = leave(&[]).question(&said, &Method::POST, &asked);
        assert_eq!((&question.method, question.uri.to_string().as_str()), (&Method::GET, "/api/verify?rd=x"));
        let mut lines: Vec<String> =
            question.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        let expected = [
            r#"cookie: "a=b""#,
            r#"host: "auth:9091""#,
            r#"x-forwarded-for: "10.0.0.1""#,
            r#"x-forwarded-method: "POST""#,
            r#"x-forwarded-uri: "/admin?x=1""#,
        ];
        assert_eq!(lines, expected);
        let few = leave(&["authorization"]).question(&said, &Method::GET, &asked);
        assert!(!few.headers.contains_key("cookie") && few.headers.contains_key("x-forwarded-for"));
    }

    #[test]
    fn what_the_client_claims_is_replaced_by_the_answer() {
        let mut request = headers(&[("remote-user", "root"), ("x-groups", "admins"), ("x-other", "stays")]);
        leave(&[]).copy(&headers(&[("remote-user", "ann"), ("set-cookie", "no")]), &mut request);
        assert_eq!(request, headers(&[("remote-user", "ann"), ("x-other", "stays")]));
    }

    proptest! {
        #[test]
        fn nobody_names_himself(
            sent in prop::collection::vec(("[a-z-]{1,12}|remote-user|x-groups|host|content-length", "[!-~]{1,8}"), 0..10),
            answered in prop::collection::vec(("[a-z-]{1,12}|remote-user|x-groups", "[!-~]{1,8}"), 0..10),
        ) {
            let read = |pairs: &[(String, String)]| -> HeaderMap {
                let pairs = pairs.iter().filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?)));
                pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
                    headers.append(name, value);
                    headers
                })
            };
            let (mut request, answer) = (read(&sent), read(&answered));
            let question = leave(&[]).question(&request, &Method::POST, &HeaderValue::from_static("/"));
            for name in NOT_SENT.iter().filter(|name| **name != header::HOST) {
                prop_assert!(!question.headers.contains_key(name), "{} is not for the service that is asked", name);
            }
            leave(&[]).copy(&answer, &mut request);
            for name in ["remote-user", "x-groups"] {
                let of = |headers: &HeaderMap| headers.get_all(name).into_iter().cloned().collect::<Vec<_>>();
                prop_assert_eq!(of(&request), of(&answer), "what the service said, and nothing else");
            }
        }
    }
}
