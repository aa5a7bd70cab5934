//! Whether and when an instance that ended starts again. Pure.

use wire::spec::{RestartCondition, RestartPolicy};

/// The longest pause between two starts: long enough to spare the machine, short enough that what was mended comes
/// back without anybody asking (Kubernetes' figure).
pub(crate) const DELAY_MS_MAX: u64 = 300_000;

/// What is remembered between two starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// Failures since the last start that lived.
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start again after this pause.
    Again { after_ms: u64 },
    /// It stays as it is: done, or not to be tried again.
    Stay,
    /// The policy's attempts are used up.
    GaveUp,
}

impl Restarts {
    /// An instance that had lived for `lived_ms` ended with `code`.
    pub(crate) fn ended(&mut self, policy: &RestartPolicy, code: i32, lived_ms: u64) -> Next {
        if lived_ms >= policy.window_ms {
            self.failures = 0;
        }
        match policy.condition {
            RestartCondition::Never => return Next::Stay,
            RestartCondition::OnFailure if code == 0 => return Next::Stay,
            RestartCondition::OnFailure | RestartCondition::Any => {}
        }
        if policy.attempts_max.is_some_and(|most| self.failures >= most) {
            return Next::GaveUp;
        }
        let doubled = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        let after_ms = policy.delay_ms.saturating_mul(doubled).min(DELAY_MS_MAX.max(policy.delay_ms));
        self.failures = self.failures.saturating_add(1);
        Next::Again { after_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(policy: &RestartPolicy, lives_ms: &[u64]) -> Vec<Next> {
        let mut restarts = Restarts::default();
        lives_ms.iter().map(|lived_ms| restarts.ended(policy, 1, *lived_ms)).collect()
    }

    #[test]
    fn pauses_double_and_a_long_life_starts_over() {
        let again = |after_ms| Next::Again { after_ms };
        let policy = RestartPolicy { delay_ms: 100, window_ms: 10_000, ..RestartPolicy::default() };
        assert_eq!(delays(&policy, &[5, 5, 5, 20_000, 5]), [100, 200, 400, 100, 200].map(again));
        let many = delays(&policy, &[0; 100]);
        assert_eq!(many[99], again(DELAY_MS_MAX));
    }

    #[test]
    fn conditions_and_attempts_are_kept() {
        let once = RestartPolicy { condition: RestartCondition::Never, ..RestartPolicy::default() };
        assert_eq!(delays(&once, &[1]), [Next::Stay]);
        let failing = RestartPolicy { condition: RestartCondition::OnFailure, ..RestartPolicy::default() };
        assert_eq!(Restarts::default().ended(&failing, 0, 1), Next::Stay);
        let twice = RestartPolicy { attempts_max: Some(2), ..RestartPolicy::default() };
        assert_eq!(delays(&twice, &[1, 1, 1])[2], Next::GaveUp);
    }
}
