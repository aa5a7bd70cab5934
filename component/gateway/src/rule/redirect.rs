//! Where a browser is sent instead.
//!
//! Pure. `{host}` and `{path}` come from the request, whose host holds nothing but the letters of host names.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

#[derive(Debug)]
pub(crate) struct Redirect {
    to: String,
    status: StatusCode,
    plain_only: bool,
}

impl Redirect {
    pub(crate) fn new(wanted: &wire::spec::Redirect) -> Redirect {
        let status = StatusCode::from_u16(wanted.status).ok().filter(StatusCode::is_redirection);
        let status = status.unwrap_or(StatusCode::PERMANENT_REDIRECT);
        Redirect { to: wanted.to.clone(), status, plain_only: wanted.plain_only }
    }

    /// The answer to a request to `target` (path and query) at `host`. `None` where it is already what it should be.
    pub(crate) fn answer(&self, host: &str, target: &str, secure: bool) -> Option<Response<Bytes>> {
        if self.plain_only && secure {
            return None;
        }
        // Two slashes would make the path's first segment a host.
        let target = target.trim_start_matches('/');
        let to = self.to.replace("{host}", host).replace("{path}", &format!("/{target}"));
        let location = HeaderValue::try_from(to).ok()?;
        let mut response = Response::new(Bytes::from_static(b"the page is elsewhere: see the location header\n"));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::LOCATION, location);
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_sent_elsewhere() {
        let check = |to: &str, secure: bool, target: &str, expected: Option<&str>| {
            let redirect = Redirect::new(&wire::spec::Redirect { to: to.to_owned(), status: 302, plain_only: true });
            let answer = redirect.answer("a.test", target, secure);
            let location = answer.as_ref().map(|answer| answer.headers()[header::LOCATION].to_str().expect("text"));
            assert_eq!(location, expected, "{to} {target}");
            assert!(answer.is_none_or(|answer| answer.status() == StatusCode::FOUND));
        };
        check("https://{host}{path}", false, "/x?y=1", Some("https://a.test/x?y=1"));
        check("https://{host}{path}", true, "/x", None);
        check("{path}", false, "//evil.test/x", Some("/evil.test/x"));
        check("https://new.test/", false, "/x", Some("https://new.test/"));
    }
}
