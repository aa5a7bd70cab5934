//! Which pages of other origins may read the answers (the Fetch standard, section 3.2).
//!
//! Owns preflights, which never reach the instance, and the headers browsers look for; what the instance says about
//! the same is replaced. Pure.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

const ANSWERED: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];
/// What pages may send without asking, and what an API needs besides.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

#[derive(Debug)]
pub(crate) struct Cors {
    /// `None` is every origin.
    origins: Option<Vec<HeaderValue>>,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

/// The method that a preflight asks for; `None` for any other request.
pub(crate) fn preflight<'h>(method: &Method, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
    let asked = if *method == Method::OPTIONS { headers.get(header::ACCESS_CONTROL_REQUEST_METHOD) } else { None };
    asked.filter(|_| headers.contains_key(header::ORIGIN))
}

impl Cors {
    pub(crate) fn new(wanted: &wire::spec::Cors) -> Cors {
        let joined = |list: &[String]| if list.is_empty() { None } else { HeaderValue::try_from(list.join(", ")).ok() };
        let every = wanted.origins.iter().any(|origin| origin == "*");
        Cors {
            origins: (!every).then(|| wanted.origins.iter().filter_map(|origin| origin.parse().ok()).collect()),
            methods: joined(&wanted.methods).unwrap_or(HeaderValue::from_static(METHODS)),
            headers: joined(&wanted.headers),
            expose: joined(&wanted.expose),
            // Every page of the world acting as whoever is logged in: no browser allows it, nor do we.
            credentials: wanted.credentials && !every,
            max_age: wanted.max_age_s.map(HeaderValue::from),
        }
    }

    /// The answer to a preflight from `origin`; without the headers that allow, a browser goes no further.
    pub(crate) fn answer(&self, origin: Option<&HeaderValue>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if self.allow(origin, headers) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            let others = [
                (header::ACCESS_CONTROL_ALLOW_HEADERS, &self.headers),
                (header::ACCESS_CONTROL_MAX_AGE, &self.max_age),
            ];
            for (name, value) in others {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
        }
        response
    }

    /// Says in an answer whether pages of `origin` may read it.
    pub(crate) fn apply(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        for name in &ANSWERED {
            headers.remove(name);
        }
        if self.allow(origin, headers)
            && let Some(expose) = &self.expose
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        let Some(origins) = &self.origins else {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return true;
        };
        // A cache must not give one origin's answer to another.
        headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
        let Some(origin) = origin.filter(|origin| origins.contains(origin)) else { return false };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        Cors::new(&wire::spec::Cors {
            origins: list(origins),
            methods: list(&["GET", "PUT"]),
            headers: list(&["x-a"]),
            expose: list(&["x-total"]),
            credentials,
            max_age_s: Some(60),
        })
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let short = |name: &HeaderName| name.as_str().replace("access-control-", "");
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{}: {}", short(name), value.to_str().expect("text"))).collect();
        lines.sort();
        lines
    }

    #[test]
    fn preflights_say_what_is_allowed() {
        let origin = |text: &'static str| Some(HeaderValue::from_static(text));
        let named = cors(&["https://a.test"], true);
        assert_eq!(
            shown(named.answer(origin("https://a.test").as_ref()).headers()),
            [
                "allow-credentials: true",
                "allow-headers: x-a",
                "allow-methods: GET, PUT",
                "allow-origin: https://a.test",
                "max-age: 60",
                "vary: origin"
            ]
        );
        assert_eq!(shown(named.answer(origin("https://evil.test").as_ref()).headers()), ["vary: origin"]);
        assert_eq!(shown(named.answer(origin("https://a.test.evil.test").as_ref()).headers()), ["vary: origin"]);
        let every = cors(&["*"], true);
        let answer = every.answer(origin("https://b.test").as_ref());
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn what_the_instance_says_is_replaced() {
        let origin = HeaderValue::from_static("https://b.test");
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        cors(&["https://a.test"], false).apply(Some(&origin), &mut headers);
        assert_eq!(shown(&headers), ["vary: accept", "vary: origin"]);
        cors(&["*"], false).apply(None, &mut headers);
        assert_eq!(shown(&headers), ["allow-origin: *", "expose-headers: x-total", "vary: accept", "vary: origin"]);
    }

    #[test]
    fn only_a_preflight_is_one() {
        let asked = |headers: &[HeaderName]| {
            let headers: HeaderMap =
                headers.iter().map(|name| (name.clone(), HeaderValue::from_static("PUT"))).collect();
            preflight(&Method::OPTIONS, &headers).is_some()
        };
        assert!(asked(&[header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD]));
        assert!(!asked(&[header::ORIGIN]));
        assert!(!asked(&[header::ACCESS_CONTROL_REQUEST_METHOD]));
    }
}
