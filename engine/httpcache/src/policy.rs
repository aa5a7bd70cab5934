//! What is said about a cache from outside of the answers it keeps.

/// How long a service that cannot be reached is answered for, unless a policy says: long enough for a night's sleep to
/// be interrupted and the fault found, short enough that nobody reads yesterday's news.
const STALE_IF_DISCONNECTED_MS: u64 = 3_600_000;

/// What whoever runs the cache wants, where answers leave it open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long an answer is fresh that does not say.
    pub default_ttl_ms: Option<u64>,
    /// How long it may be used after that while it is asked for anew, if it does not say.
    pub stale_while_revalidate_ms: Option<u64>,
    /// The same while the service fails; where it cannot be reached at all, an hour without this.
    pub stale_if_error_ms: Option<u64>,
    /// Keep answers that set cookies, cookies and all.
    pub keep_cookies: bool,
    /// Do as `cache-control` of requests says.
    pub obey_clients: bool,
}

impl Policy {
    pub(crate) fn stale_if_disconnected_ms(&self) -> u64 {
        self.stale_if_error_ms.unwrap_or(STALE_IF_DISCONNECTED_MS)
    }
}
