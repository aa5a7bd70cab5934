//! Paths: the form they are compared in, and the one the instance sees.
//!
//! Pure. Promises that a path is compared as the program behind may understand it: `/%61dmin`, `//admin` and
//! `/x/../admin` find the route of `/admin` with its guards, whatever other route the letters would fit.

use http::uri::{PathAndQuery, Uri};
use std::borrow::Cow;

/// What becomes of a path after a prefix was cut off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Without a slash at its end.
    Add(String),
    Replace(String),
}

/// What asks about a host as a whole (RFC 9110, section 9.3.7), and is no path.
const WHOLE_HOST: &str = "*";

/// `path` decoded, without empty segments and those of dots. For a host as a whole answers what answers at its root.
pub(crate) fn plain(path: &str) -> Cow<'_, str> {
    if path == WHOLE_HOST {
        return Cow::Borrowed("/");
    }
    let mut before = 0;
    let is_odd = path.bytes().any(|byte| {
        let odd = byte == b'%' || (before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        odd
    });
    if !is_odd || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut is_folder = true;
    for segment in decoded.split('/') {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let end = if is_folder && !segments.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", segments.join("/")))
}

/// Path and query only, without `prefix`, changed as the route wants it. `plain` is the path as it was compared.
pub(crate) fn origin_form(uri: Uri, plain: &str, prefix: Option<&str>, change: Option<&Change>) -> Uri {
    let is_whole_host = uri.path() == WHOLE_HOST;
    if is_whole_host || (prefix.is_none() && change.is_none() && uri.authority().is_none()) {
        return uri;
    }
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (path, query) = whole.split_at(whole.find('?').unwrap_or(whole.len()));
    let rest = match prefix {
        Some(prefix) => cut(path, prefix).unwrap_or_else(|| Cow::Owned(encoded(cut_plain(plain, prefix)))),
        None => Cow::Borrowed(path),
    };
    let rest: &str = if rest.starts_with('/') { &rest } else { &format!("/{rest}") };
    let text = match change {
        None => format!("{rest}{query}"),
        Some(Change::Add(prefix)) => format!("{prefix}{rest}{query}"),
        Some(Change::Replace(path)) => format!("{path}{query}"),
    };
    Uri::try_from(text).unwrap_or(uri)
}

/// The path as it came without the prefix; `None` where the letters differ, or dots may lead out of what remains.
fn cut<'p>(path: &'p str, prefix: &str) -> Option<Cow<'p, str>> {
    let has_dots = path.contains("/.") || path.contains("%2e") || path.contains("%2E");
    let rest = path.strip_prefix(prefix).filter(|rest| !has_dots && (rest.is_empty() || rest.starts_with('/')))?;
    Some(Cow::Borrowed(rest))
}

fn cut_plain<'p>(plain: &'p str, prefix: &str) -> &'p str {
    plain.strip_prefix(prefix).unwrap_or(plain)
}

fn decoded(path: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        out.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A plain path as it stands in a request line.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_compared_as_programs_understand_them() {
        let check = |path: &str, expected: &str| assert_eq!(plain(path), expected, "{path}");
        check("/admin", "/admin");
        check("/%61dmin", "/admin");
        check("//admin", "/admin");
        check("/x/../admin", "/admin");
        check("/x/%2e%2E/admin/", "/admin/");
        check("/admin%2Fusers", "/admin/users");
        check("/a/./b/.", "/a/b/");
        check("/../..", "/");
        check("/.well-known/x", "/.well-known/x");
        check("/a%20b", "/a b");
        check("/100%", "/100%");
        check("/%zz", "/%zz");
        check("/%ff", "/\u{fffd}");
        check("*", "/");
        check("", "");
    }

    #[test]
    fn instances_see_the_path_they_know() {
        let check = |target: &str, prefix: Option<&str>, change: Option<Change>, expected: &str| {
            let uri: Uri = target.parse().expect("a target");
            let path = plain(uri.path()).into_owned();
            assert_eq!(origin_form(uri, &path, prefix, change.as_ref()), expected, "{target}");
        };
        let add = || Some(Change::Add("/v1".to_owned()));
        let replace = || Some(Change::Replace("/all".to_owned()));
        check("/api/x?y=/api", None, None, "/api/x?y=/api");
        check("http://a.test/api?q", None, None, "/api?q");
        check("/api/x?y", Some("/api"), None, "/x?y");
        check("/api", Some("/api"), None, "/");
        check("/api?y", Some("/api"), None, "/?y");
        check("/api/a%2Fb", Some("/api"), None, "/a%2Fb");
        check("/%61pi/a%20b?q", Some("/api"), None, "/a%20b?q");
        check("/api/../api/x", Some("/api"), None, "/x");
        check("/x?y", None, add(), "/v1/x?y");
        check("/api/x", Some("/api"), add(), "/v1/x");
        check("/api", Some("/api"), add(), "/v1/");
        check("/x/y?z", None, replace(), "/all?z");
        check("*", None, None, "*");
        check("*", None, add(), "*");
    }

    proptest! {
        #[test]
        fn a_plain_path_stays_as_it_is(path in "[/.%a2eE]{0,12}") {
            let once = plain(&path).into_owned();
            if once.starts_with('/') && !once.contains('%') {
                prop_assert_eq!(plain(&once), once.as_str());
            }
        }

        #[test]
        fn any_path_makes_a_target(path in "/.{0,20}") {
            prop_assert!(Uri::try_from(encoded(&path)).is_ok());
        }
    }
}
