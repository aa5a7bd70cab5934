//! How long an answer takes: the highest lately, forgotten with time.
//!
//! Peak-EWMA, from finagle by way of linkerd2-proxy: a slow answer counts at once, because waiting for an average
//! to notice costs everybody sent there meanwhile; a fast one moves the average by the time that passed. What is
//! not renewed fades into what the best of the pool takes, so that an endpoint that was slow is asked again, and one
//! that has gone silent does not seem faster than any.

/// An average in microseconds. Does not know a clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    value_us: f64,
    at_ms: u64,
    known: bool,
}

/// What is left of something after `age_ms`, as a share.
pub(crate) fn left_after(age_ms: u64, forget_ms: u64) -> f64 {
    if age_ms == 0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "an age that is not exact to a millisecond fades alike")]
    let (age, forget) = (age_ms as f64, forget_ms.max(1) as f64);
    (-age / forget).exp()
}

impl Latency {
    pub(crate) fn note(&mut self, now_ms: u64, sample_us: u64, forget_ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a latency of centuries may be off by a microsecond")]
        let sample = sample_us as f64;
        let value_us = if !self.known || sample >= self.value_us {
            sample
        } else {
            let left = left_after(now_ms.saturating_sub(self.at_ms), forget_ms);
            self.value_us * left + sample * (1.0 - left)
        };
        *self = Latency { value_us, at_ms: now_ms, known: true };
    }

    /// What is to be expected now, where `best_us` is what the best endpoint takes, and one nothing is known of.
    pub(crate) fn at(&self, now_ms: u64, forget_ms: u64, best_us: f64) -> f64 {
        if !self.known {
            return best_us;
        }
        let left = left_after(now_ms.saturating_sub(self.at_ms), forget_ms);
        best_us + (self.value_us - best_us) * left
    }

    pub(crate) fn known_us(&self) -> Option<f64> {
        self.known.then_some(self.value_us)
    }
}
