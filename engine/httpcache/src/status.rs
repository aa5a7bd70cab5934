//! `cache-status`: what became of a request at this cache, for whoever looks (RFC 9211).

use http::HeaderValue;
use std::fmt::Write;

/// What the cache calls itself.
const NAME: &str = "bramble";

/// Why a request was sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing is asked of the cache for such requests: a rule, a range, a condition.
    Bypass,
    /// Its method is not one that is answered from caches.
    Method,
    /// Nothing is kept for it.
    Miss,
    /// What is kept is for requests with other headers.
    VaryMiss,
    /// What is kept is too old.
    Stale,
}

impl Forwarded {
    fn word(self) -> &'static str {
        match self {
            Forwarded::Bypass => "bypass",
            Forwarded::Method => "method",
            Forwarded::Miss => "uri-miss",
            Forwarded::VaryMiss => "vary-miss",
            Forwarded::Stale => "stale",
        }
    }
}

/// The header's member for a request that was sent on, or else was answered from what is kept. `ttl_ms` is how long that is
/// still fresh, less than nothing when it is not.
pub fn cache_status(
    forwarded: Option<Forwarded>,
    fwd_status: Option<u16>,
    ttl_ms: Option<i64>,
    stored: bool,
    collapsed: bool,
    detail: &str,
) -> HeaderValue {
    let mut text = NAME.to_owned();
    match forwarded {
        None => text.push_str("; hit"),
        Some(why) => {
            text.push_str("; fwd=");
            text.push_str(why.word());
        }
    }
    // A String takes whatever is written.
    if let Some(status) = fwd_status {
        let _ = write!(text, "; fwd-status={status}");
    }
    if let Some(ttl_ms) = ttl_ms {
        let _ = write!(text, "; ttl={}", ttl_ms.div_euclid(1_000));
    }
    if stored {
        text.push_str("; stored");
    }
    if collapsed {
        text.push_str("; collapsed");
    }
    if !detail.is_empty() {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(NAME))
}

#[cfg(test)]
mod tests {
    use super::{Forwarded, cache_status};

    #[test]
    fn what_happened_is_said_in_the_words_of_the_rfc() {
        assert_eq!(cache_status(None, None, Some(29_999), false, false, ""), "bramble; hit; ttl=29");
        assert_eq!(cache_status(None, None, Some(-1), false, false, "stale"), "bramble; hit; ttl=-1; detail=stale");
        let stored = cache_status(Some(Forwarded::Miss), Some(200), Some(5_000), true, true, "");
        assert_eq!(stored, "bramble; fwd=uri-miss; fwd-status=200; ttl=5; stored; collapsed");
        assert_eq!(
            cache_status(Some(Forwarded::Miss), Some(200), None, false, false, "no-store"),
            "bramble; fwd=uri-miss; fwd-status=200; detail=no-store"
        );
    }
}
