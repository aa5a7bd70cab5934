//! How many requests may be sent a second time.
//!
//! Owns the retry budget (Finagle's and Linkerd's idea): a share of the recent requests plus a floor, so that
//! retries mend single failures and cannot multiply the load on a service that is failing. Pure.

/// Retries per hundred requests.
const PERCENT: u64 = 20;
/// Retries per second that are always there, for services with few requests.
const FLOOR_PER_SECOND: u64 = 10;
/// What is not used is kept this long: a machine's death breaks everything in flight there at once.
const KEEP_SECONDS: u64 = 10;
/// The most that is kept, in retries: a full second of a busy service.
const KEPT_MAX: u64 = 1_000;
/// One retry, in the unit of account.
const RETRY: u64 = 100;

/// A store of retries.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In hundredths of a retry.
    kept: u64,
    at_ms: u64,
}

impl Budget {
    pub(crate) fn new(now_ms: u64) -> Budget {
        Budget { kept: FLOOR_PER_SECOND * KEEP_SECONDS * RETRY, at_ms: now_ms }
    }

    pub(crate) fn note_request(&mut self, now_ms: u64) {
        self.refill(now_ms);
        self.kept = (self.kept + PERCENT).min(KEPT_MAX * RETRY);
    }

    /// Takes one retry if there is one.
    pub(crate) fn take(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        match self.kept.checked_sub(RETRY) {
            Some(left) => {
                self.kept = left;
                true
            }
            None => false,
        }
    }

    fn refill(&mut self, now_ms: u64) {
        let floor_max = FLOOR_PER_SECOND * KEEP_SECONDS * RETRY;
        let earned = now_ms.saturating_sub(self.at_ms).saturating_mul(FLOOR_PER_SECOND * RETRY) / 1_000;
        // Time that earned nothing yet keeps counting.
        if earned > 0 {
            self.at_ms = now_ms;
            if self.kept < floor_max {
                self.kept = (self.kept + earned).min(floor_max);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    fn take_all(budget: &mut Budget, now_ms: u64) -> usize {
        std::iter::from_fn(|| budget.take(now_ms).then_some(())).take(10_000).count()
    }

    #[test]
    fn a_quiet_service_has_its_floor() {
        let mut budget = Budget::new(0);
        assert_eq!(take_all(&mut budget, 0), 100);
        assert_eq!(take_all(&mut budget, 1_000), 10);
        assert_eq!(take_all(&mut budget, 1_000_000), 100);
    }

    #[test]
    fn requests_earn_a_fifth_up_to_a_bound() {
        let mut budget = Budget::new(0);
        take_all(&mut budget, 0);
        (0..100).for_each(|_| budget.note_request(0));
        assert_eq!(take_all(&mut budget, 0), 20);
        (0..1_000_000).for_each(|_| budget.note_request(0));
        assert_eq!(take_all(&mut budget, 0), 1_000);
    }
}
