//! The page, embedded: every file a browser needs to see and steer the cluster, inside the binary.
//!
//! It owns the page's sources in `web/` and promises that a file is served exactly as it was built, with a tag that
//! changes whenever its bytes do. The page speaks only the public API under `/v1`, and this crate knows neither that API
//! nor HTTP: which path falls back to the page, and how it is sent, is the app's to decide.

use std::borrow::Cow;

/// The page itself. What is to be shown lives behind the `#` of its address, so no other path needs to lead here.
pub const INDEX: &str = "index.html";

/// What the page may load: only what comes from its own address, nothing inline. Send it as `Content-Security-Policy`
/// with every file; the browser tests serve the page with this very line.
pub const CONTENT_SECURITY_POLICY: &str = include_str!("../web/content-security-policy.txt").trim_ascii();

/// Vite puts what it names by content here, so that such a file never changes under its name.
const NAMED_BY_CONTENT: &str = "assets/";

/// One file of the page, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    pub bytes: Cow<'static, [u8]>,
    pub content_type: &'static str,
    /// Quoted, as the `ETag` header wants it.
    pub etag: String,
    /// The name changes with the content: `Cache-Control: public, max-age=31536000, immutable`. Otherwise `no-cache`.
    pub immutable: bool,
}

struct File {
    path: &'static str,
    etag: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The file at `path`, with or without a leading `/`; the empty path is [`INDEX`].
#[must_use]
pub fn asset(path: &str) -> Option<Asset> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = if path.is_empty() { INDEX } else { path };
    let at = FILES.binary_search_by(|file| file.path.cmp(path)).ok()?;
    let file = &FILES[at];
    Some(Asset {
        bytes: Cow::Borrowed(file.bytes),
        content_type: content_type(file.path),
        etag: file.etag.to_owned(),
        immutable: file.path.starts_with(NAMED_BY_CONTENT),
    })
}

/// What the built page consists of; anything else is offered as a download rather than guessed at.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::{FILES, content_type};

    #[test]
    fn files_can_be_searched_by_halves() {
        assert!(FILES.is_sorted_by(|a, b| a.path < b.path));
    }

    #[test]
    fn every_embedded_file_has_a_type_browsers_accept_under_nosniff() {
        for file in FILES {
            assert_ne!(content_type(file.path), "application/octet-stream", "{}", file.path);
        }
    }
}
