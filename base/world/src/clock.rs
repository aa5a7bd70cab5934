//! Time: wall clock for people, monotonic for measuring. Pure machines take `now` as an argument instead.

use crate::simulated;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// By how much the wall clock of this process is made to be wrong.
static WRONG_MS: AtomicI64 = AtomicI64::new(0);

/// Makes the wall clock of this process wrong by so much, or right again: machines of the lab share the kernel's, and each is
/// to have one of its own.
pub fn be_wrong_by(ms: i64) {
    WRONG_MS.store(ms, Ordering::Relaxed);
}

/// Milliseconds since 1970-01-01 UTC. A clock set before that year reads as zero.
pub fn unix_ms() -> u64 {
    if let Some(host) = simulated::current() {
        return host.unix_ms();
    }
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let now = SystemTime::now();
    let right = now.duration_since(UNIX_EPOCH).map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    right.saturating_add_signed(WRONG_MS.load(Ordering::Relaxed))
}

/// A point in time that never goes back, for measuring durations. On a runtime whose time is paused it is that time.
pub fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since this machine started, those included in which it slept: for what must end although nobody is awake.
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds on a clock that never goes back, a few of them stale: a tenth of the price of [`monotonic`], for marks
/// that are made with every byte that moves.
pub fn coarse_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Seconds since 1970-01-01 UTC, at the same price.
pub fn coarse_unix_s() -> u64 {
    let right = u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec).unwrap_or(0);
    right.saturating_add_signed(WRONG_MS.load(Ordering::Relaxed) / 1_000)
}
