//! On which terms an answer is kept: worked out once, when it comes, so that using it needs no reading of headers.

/// How long an answer may be used, and how. Times are wall clock: they outlive the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// When its head came.
    pub received_ms: u64,
    /// How old it was then (RFC 9111, section 4.2.3).
    pub age_ms: u64,
    /// From when it was made. Older, it is stale.
    pub fresh_ms: u64,
    /// How long after that it may be used while it is asked for anew.
    pub stale_while_revalidate_ms: u64,
    /// The same while the service answers with errors.
    pub stale_if_error_ms: u64,
    /// The same while the service cannot be reached.
    pub stale_if_disconnected_ms: u64,
    /// Never used without asking whether it is still so.
    pub always_validate: bool,
}

impl Terms {
    /// How old the answer is. A clock that was set back makes nothing younger than it came.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.age_ms.saturating_add(now_ms.saturating_sub(self.received_ms))
    }

    /// How long it has been stale; `None` while it is fresh.
    pub fn stale_ms(&self, now_ms: u64) -> Option<u64> {
        let age_ms = self.age_ms(now_ms);
        (age_ms >= self.fresh_ms).then(|| age_ms - self.fresh_ms)
    }

    /// How long it is still fresh; less than nothing when it is not.
    pub fn ttl_ms(&self, now_ms: u64) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(self.fresh_ms).saturating_sub(signed(self.age_ms(now_ms)))
    }
}
