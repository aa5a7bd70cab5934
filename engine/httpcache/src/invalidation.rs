//! What a request that changes something makes wrong (RFC 9111, section 4.4).

use http::header::HeaderValue;
use http::{Method, StatusCode, Uri};

/// Whether what is kept for a request's address is wrong afterwards.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !method.is_safe() && (status.is_success() || status.is_redirection())
}

/// The address that `location` or `content-location` of an answer names, as path and query, if it is of the same host:
/// nobody invalidates for others.
pub fn same_origin(value: &HeaderValue, scheme: &str, authority: &str, path: &str) -> Option<String> {
    let text = value.to_str().ok()?;
    if text.is_empty() || text.contains(' ') || text.starts_with("//") {
        return None;
    }
    if text.starts_with('/') {
        return Some(text.to_owned());
    }
    if text.contains("://") {
        let uri: Uri = text.parse().ok()?;
        let same = uri.authority()?.as_str().eq_ignore_ascii_case(authority) && uri.scheme_str() == Some(scheme);
        return same.then(|| uri.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    }
    // Relative to the folder of what was asked.
    let (folder, _) = path.rsplit_once('/')?;
    Some(format!("{folder}/{text}"))
}

#[cfg(test)]
mod tests {
    use super::{invalidates, same_origin};
    use http::{HeaderValue, Method, StatusCode};

    #[test]
    fn only_what_went_well_changes_something() {
        let search = Method::from_bytes(b"M-SEARCH").unwrap();
        assert!(invalidates(&Method::POST, StatusCode::OK) && invalidates(&search, StatusCode::NO_CONTENT));
        assert!(invalidates(&Method::DELETE, StatusCode::SEE_OTHER));
        assert!(!invalidates(&Method::PUT, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(!invalidates(&Method::GET, StatusCode::OK) && !invalidates(&Method::OPTIONS, StatusCode::OK));
    }

    #[test]
    fn other_addresses_are_of_the_same_host() {
        let check = |value: &str, expected: Option<&str>| {
            let value = HeaderValue::from_str(value).unwrap();
            let found = same_origin(&value, "http", "shop.test:80", "/a/b");
            assert_eq!(found.as_deref(), expected, "{value:?}");
        };
        check("/x?y", Some("/x?y"));
        check("http://Shop.test:80/x", Some("/x"));
        check("https://shop.test:80/x", None);
        check("http://other.test/x", None);
        check("//other.test/x", None);
        check("c", Some("/a/c"));
        check("", None);
    }
}
