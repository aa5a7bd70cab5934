//! The kernel's clocks, for processes that have no async runtime and no other crate of this house.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970-01-01 UTC; zero for a clock set before that.
pub(crate) fn unix_ms() -> u64 {
    milliseconds(ClockId::Realtime)
}

/// Milliseconds on a clock that only goes forward.
pub(crate) fn monotonic_ms() -> u64 {
    milliseconds(ClockId::Monotonic)
}

/// Milliseconds since the machine started, those included in which it slept.
pub(crate) fn boot_ms() -> u64 {
    milliseconds(ClockId::Boottime)
}

fn milliseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

/// The time to wait until `deadline_ms` of [`monotonic_ms`], as `poll` takes it. Rounded up: a wait that ends before
/// its deadline would be repeated at once.
pub(crate) fn until(deadline_ms: u64) -> rustix::time::Timespec {
    let left = deadline_ms.saturating_sub(monotonic_ms());
    let (seconds, millis) = (left / 1000, left % 1000);
    rustix::time::Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis * 1_000_000).unwrap_or(0),
    }
}
