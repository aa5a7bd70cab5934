//! When a peer that could not be reached is tried again. Pure: is given the time and the dice.

use crate::settings::{BACKOFF_MAX, BACKOFF_MIN};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Twice as long as after the failure before, up to a bound; between half of that and all of it, so that machines
    /// that lost a peer together do not come back together.
    pub(crate) fn failed(&mut self, now: Instant, roll: u64) {
        let whole = BACKOFF_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(BACKOFF_MAX);
        let half_us = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX).max(1);
        self.failures = self.failures.saturating_add(1);
        self.until = now.checked_add(Duration::from_micros(half_us + roll % half_us));
    }

    pub(crate) fn forget(&mut self) {
        *self = Backoff::default();
    }

    /// `None` when it may be tried.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::settings::{BACKOFF_MAX, BACKOFF_MIN};

    #[test]
    fn it_waits_longer_each_time_up_to_a_bound() {
        let now = world::clock::monotonic();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.left(now), None);
        let mut whole = BACKOFF_MIN;
        for roll in [0, u64::MAX, 7, 1 << 40, 3, 5, 8, 13, 21, 34] {
            backoff.failed(now, roll);
            let left = backoff.left(now).unwrap();
            assert!(left >= whole / 2 && left <= whole, "{left:?} {whole:?}");
            assert_eq!(backoff.left(now + left), None);
            whole = (whole * 2).min(BACKOFF_MAX);
        }
        for _ in 0..100 {
            backoff.failed(now, 1);
        }
        assert!(backoff.left(now).unwrap() <= BACKOFF_MAX);
        backoff.forget();
        assert_eq!(backoff.left(now), None);
    }
}
