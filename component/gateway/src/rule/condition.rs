//! What a request must have besides host and path.
//!
//! Pure. A condition that cannot be read is never met: a stored spec that is wrong must not open a route.

use super::cors;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Methods and headers of one route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// Empty is every method.
    methods: Vec<Method>,
    /// An empty value asks for presence.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The gateway answers preflights, which name the method and the headers of the request that will follow.
    preflights: bool,
    /// For requests without TLS.
    plain: bool,
    readable: bool,
}

impl Conditions {
    /// `None` when everything is welcome.
    pub(crate) fn new(wanted: &wire::spec::Conditions, preflights: bool) -> Option<Conditions> {
        if wanted.methods.is_empty() && wanted.headers.is_empty() && !wanted.plain {
            return None;
        }
        let methods = wanted.methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok());
        let headers = wanted.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let (methods, headers): (Vec<Method>, Vec<(HeaderName, HeaderValue)>) = (methods.collect(), headers.collect());
        let readable = methods.len() == wanted.methods.len() && headers.len() == wanted.headers.len();
        Some(Conditions { methods, headers, preflights, plain: wanted.plain, readable })
    }

    /// How much is asked for: the route that asks for more goes first.
    pub(crate) fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + usize::from(self.plain)
    }

    /// `secure` says that the request came with TLS.
    pub(crate) fn met(&self, method: &Method, headers: &HeaderMap, secure: bool) -> bool {
        if !self.readable || (self.plain && secure) {
            return false;
        }
        match cors::preflight(method, headers).filter(|_| self.preflights) {
            Some(asked) => {
                let methods_fit = self.methods.iter().any(|method| method.as_str().as_bytes() == asked.as_bytes());
                (self.methods.is_empty() || methods_fit)
                    && self.headers.iter().all(|(name, _)| announces(headers, name))
            }
            None => {
                (self.methods.is_empty() || self.methods.contains(method))
                    && self.headers.iter().all(|(name, wanted)| has(headers, name, wanted))
            }
        }
    }
}

fn has(headers: &HeaderMap, name: &HeaderName, wanted: &HeaderValue) -> bool {
    headers.get_all(name).into_iter().any(|value| wanted.is_empty() || value == wanted)
}

/// Whether a preflight says that the request will have this header.
fn announces(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lists = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
    lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn conditions(methods: &[&str], wanted: &[(&str, &str)], preflights: bool) -> Conditions {
        let wanted = wire::spec::Conditions {
            methods: methods.iter().map(ToString::to_string).collect(),
            headers: wanted.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            ..wire::spec::Conditions::default()
        };
        Conditions::new(&wanted, preflights).expect("there are conditions")
    }

    #[test]
    fn methods_and_headers_are_asked_for() {
        let both = conditions(&["GET", "HEAD"], &[("x-version", "2"), ("x-any", "")], false);
        let full = [("x-version", "2"), ("x-any", "whatever")];
        assert!(both.met(&Method::GET, &headers(&full), false));
        assert!(both.met(&Method::HEAD, &headers(&[("x-version", "1"), ("x-version", "2"), ("x-any", "")]), false));
        assert!(!both.met(&Method::POST, &headers(&full), false));
        assert!(!both.met(&Method::GET, &headers(&[("x-version", "2")]), false));
        assert!(!both.met(&Method::GET, &headers(&[("x-version", "20"), ("x-any", "")]), false));
        assert_eq!(both.count(), 3);
    }

    #[test]
    fn a_preflight_is_judged_by_what_it_announces() {
        let preflight = headers(&[
            ("origin", "https://a.test"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "content-type, X-Version"),
        ]);
        let put = |preflights| conditions(&["PUT"], &[("x-version", "2")], preflights);
        assert!(put(true).met(&Method::OPTIONS, &preflight, false));
        assert!(!put(false).met(&Method::OPTIONS, &preflight, false), "nobody answers it here");
        assert!(!conditions(&["GET"], &[], true).met(&Method::OPTIONS, &preflight, false));
    }

    #[test]
    fn a_route_may_be_for_requests_without_tls() {
        let wanted = wire::spec::Conditions { plain: true, ..wire::spec::Conditions::default() };
        let plain = Conditions::new(&wanted, false).expect("there is a condition");
        assert!(plain.met(&Method::GET, &HeaderMap::new(), false));
        assert!(!plain.met(&Method::GET, &HeaderMap::new(), true));
        assert_eq!(plain.count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_never_met() {
        let broken = conditions(&[], &[("not a name", "")], false);
        assert!(!broken.met(&Method::GET, &HeaderMap::new(), false));
    }
}
