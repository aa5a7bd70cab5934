//! How fast the body of a request comes.
//!
//! Owns the count of what came and of the time it was waited for: whatever else takes its time, an instance that does
//! not read, is not laid to the client. A least rate is kept to from a while on, as Apache (mod_reqtimeout) and Kestrel
//! have it: without one, a byte now and then holds a request, and a connection to an instance, for ever. Pure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What every body is given before its rate counts.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// Bytes in a second: Kestrel's. The slowest phone is faster by far.
pub(crate) const BYTES_PER_S_MIN: u64 = 240;

/// One body's marks. Times are the gateway's milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    bytes: AtomicU64,
    waited_ms: AtomicU64,
    /// Since when more is waited for; 0 while it is not.
    since_ms: AtomicU64,
}

impl Pace {
    /// Another body begins.
    pub(crate) fn begin(&self) {
        for mark in [&self.bytes, &self.waited_ms, &self.since_ms] {
            mark.store(0, Ordering::Relaxed);
        }
    }

    /// There is nothing of it just now.
    pub(crate) fn waits(&self, now_ms: u64) {
        if self.since_ms.load(Ordering::Relaxed) == 0 {
            self.since_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
    }

    /// Some of it came.
    pub(crate) fn came(&self, bytes: usize, now_ms: u64) {
        let since_ms = self.since_ms.swap(0, Ordering::Relaxed);
        if since_ms > 0 {
            self.waited_ms.fetch_add(now_ms.saturating_sub(since_ms), Ordering::Relaxed);
        }
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether less of it came than must have by now.
    pub(crate) fn is_slow(&self, now_ms: u64, grace: Duration, bytes_per_s_min: u64) -> bool {
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        let waits_ms = if since_ms == 0 { 0 } else { now_ms.saturating_sub(since_ms) };
        let waited = Duration::from_millis(self.waited_ms.load(Ordering::Relaxed) + waits_ms);
        let paid_for = Duration::from_secs(self.bytes.load(Ordering::Relaxed) / bytes_per_s_min.max(1));
        waited > grace.saturating_add(paid_for)
    }
}

#[cfg(test)]
mod tests {
    use super::{GRACE, Pace};

    /// Sends `bytes` every `every_ms` for so long, each after `idle_ms` in which nobody asked for it.
    fn sends(bytes: usize, every_ms: u64, idle_ms: u64, for_ms: u64) -> bool {
        let pace = Pace::default();
        let mut now_ms = 1_000;
        while now_ms < 1_000 + for_ms {
            pace.waits(now_ms);
            pace.waits(now_ms + every_ms / 2);
            if pace.is_slow(now_ms + every_ms, GRACE, 240) {
                return true;
            }
            now_ms += every_ms;
            pace.came(bytes, now_ms);
            now_ms += idle_ms;
        }
        false
    }

    #[test]
    fn a_body_keeps_to_the_least_rate_while_it_is_waited_for() {
        const HOUR_MS: u64 = 3_600_000;
        for (bytes, every_ms, idle_ms, for_ms, expected) in [
            (1, 5_000, 0, HOUR_MS, true),
            (1, 5_000, 0, 19_000, false),
            (0, 60_000, 0, HOUR_MS, true),
            (239, 1_000, 0, 2 * HOUR_MS, true),
            (240, 1_000, 0, HOUR_MS, false),
            (10_000, 30_000, 0, HOUR_MS, true),
            (1 << 20, 60_000, 0, HOUR_MS, true),
            (64 << 10, 15_000, 0, HOUR_MS, false),
            (1, 1, 5_000, HOUR_MS, false),
        ] {
            assert_eq!(sends(bytes, every_ms, idle_ms, for_ms), expected, "{bytes} bytes every {every_ms} ms");
        }
        let pace = Pace::default();
        pace.waits(1);
        pace.begin();
        assert!(!pace.is_slow(u64::MAX, GRACE, 240), "what was before does not count");
    }
}
