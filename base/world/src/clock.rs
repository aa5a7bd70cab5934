//! Time: wall clock for people, monotonic for measuring. Pure machines take `now` as an argument instead.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC. A clock set before that year reads as zero.
pub fn unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// A point in time that never goes back, for measuring durations.
pub fn monotonic() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    Instant::now()
}
