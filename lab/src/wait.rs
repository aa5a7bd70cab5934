//! Waiting for something to become true, with a bound and a reason.

use std::time::Duration;

/// Between two looks: short beside what is waited for, long beside what a look costs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` finds something.
///
/// # Panics
/// When it has not after `seconds`: the test fails with what was waited for.
pub fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = world::clock::monotonic() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(world::clock::monotonic() < deadline, "after {seconds} s still not: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
