//! What is known of one endpoint: its load, how fast and how reliably it answered, whether it is left out.
//!
//! Owns its circuit (left out, on trial, full member) and its part of the price. Does not know the other
//! endpoints: what they say about this one is an argument.

use crate::endpoint::{Breaker, Cause, Endpoint};
use crate::latency::{Latency, left_after};
use crate::settings::Settings;
use std::sync::Arc;

/// How much one answer moves the share of failures: about ten are remembered.
const FAILING_GAIN: f64 = 0.1;
/// This share of failures above the others' costs nothing: one failure alone says little, and where all fail now
/// and then a price would only send everybody to whoever was lucky last.
const FAILING_ALLOWED: f64 = 0.15;
/// A saturated machine still gets a tenth of its share: what it has must stay known.
const LOAD_COUNTS: f64 = 0.9;
/// One in the fixed-point shares.
const WHOLE: u64 = 1 << 10;
/// The share a new endpoint begins with, of [`WHOLE`]: a tenth, Envoy's `min_weight_percent`.
const START: u64 = WHOLE / 10;
/// So long as a full member, and one time out is forgotten (Envoy's interval).
const FORGIVE_MS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Draining,
    /// No longer listed; kept until what it has in flight is done.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Circuit {
    Closed {
        since_ms: u64,
    },
    /// Left out until then, and on trial from then on.
    Open {
        /// From the first time out, whatever trials came to.
        since_ms: u64,
        until_ms: u64,
        cause: Cause,
    },
}

/// How an endpoint may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// Nothing says that it is back: one of few.
    Blind,
    /// The last trial succeeded.
    Hopeful,
}

/// One endpoint's state.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// Of the id: the same in every process.
    pub(crate) hash: u64,
    pub(crate) weight: u32,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) standing: Standing,
    pub(crate) in_flight: usize,
    pub(crate) load: f64,
    pub(crate) circuit: Circuit,
    pub(crate) latency: Latency,
    /// The share of failures among the last answers.
    pub(crate) failing: f64,
    /// Its weight in the draw under way; 0 takes no part. Kept here so that a draw needs no list of its own.
    pub(crate) draw: u64,
    since_ms: u64,
    /// Answers and failures among them, fading.
    asked: f64,
    failed: f64,
    counted_ms: u64,
    server_errors_in_row: u32,
    connect_failures_in_row: u32,
    successes_in_row: u32,
    /// Times left out, less those forgiven.
    ejections: u32,
    pub(crate) tried_ms: u64,
}

impl Member {
    pub(crate) fn new(now_ms: u64, endpoint: Endpoint) -> Member {
        Member {
            hash: hash(endpoint.id.as_bytes()),
            id: endpoint.id.into(),
            weight: endpoint.weight,
            zone: endpoint.zone,
            standing: if endpoint.draining { Standing::Draining } else { Standing::Active },
            in_flight: 0,
            load: 0.0,
            circuit: Circuit::Closed { since_ms: now_ms },
            latency: Latency::default(),
            failing: 0.0,
            draw: 0,
            since_ms: now_ms,
            asked: 0.0,
            failed: 0.0,
            counted_ms: now_ms,
            server_errors_in_row: 0,
            connect_failures_in_row: 0,
            successes_in_row: 0,
            ejections: 0,
            tried_ms: now_ms,
        }
    }

    /// The same endpoint as the next list has it. One that had gone was started again: its past says nothing.
    pub(crate) fn listed_as(self, now_ms: u64, endpoint: Endpoint) -> Member {
        match self.standing {
            Standing::Gone => Member { in_flight: self.in_flight, load: self.load, ..Member::new(now_ms, endpoint) },
            Standing::Active | Standing::Draining => Member {
                weight: endpoint.weight,
                zone: endpoint.zone,
                standing: if endpoint.draining { Standing::Draining } else { Standing::Active },
                ..self
            },
        }
    }

    /// May get picks at all.
    pub(crate) fn listed(&self) -> bool {
        self.standing == Standing::Active && self.weight > 0
    }

    pub(crate) fn full(&self, settings: &Settings) -> bool {
        settings.in_flight_max > 0 && self.in_flight >= settings.in_flight_max
    }

    pub(crate) fn closed(&self) -> bool {
        matches!(self.circuit, Circuit::Closed { .. })
    }

    pub(crate) fn breaker(&self, now_ms: u64) -> Breaker {
        match self.circuit {
            Circuit::Closed { .. } => Breaker::Closed,
            Circuit::Open { until_ms, .. } if now_ms >= until_ms => Breaker::HalfOpen,
            Circuit::Open { .. } => Breaker::Open,
        }
    }

    /// Its weight with what its machine has to spare, and with how new it is.
    pub(crate) fn share(&self, now_ms: u64, settings: &Settings) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between a tenth of 1024 and 1024: load is kept between 0 and 1"
        )]
        let spare = (WHOLE as f64 * (1.0 - LOAD_COUNTS * self.load)) as u64;
        let age_ms = now_ms.saturating_sub(self.since_ms);
        let grown = if age_ms >= settings.slow_start_ms {
            WHOLE
        } else {
            let part = u128::from(WHOLE) * u128::from(age_ms) / u128::from(settings.slow_start_ms);
            u64::try_from(part).unwrap_or(WHOLE).max(START)
        };
        ((u64::from(self.weight) * spare * grown) >> 10).max(1)
    }

    /// What its failures cost, in microseconds, where `others` is the share of failures of the rest.
    pub(crate) fn penalty_us(&self, others: f64, settings: &Settings) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a penalty of centuries may be off by a microsecond")]
        let whole_us = settings.failure_penalty_ms as f64 * 1_000.0;
        whole_us * (self.failing - others - FAILING_ALLOWED).max(0.0)
    }

    /// Whether it may be worth a look whether this one is to be tried.
    pub(crate) fn doubtful(&self) -> bool {
        !self.closed() || self.failing > FAILING_ALLOWED
    }

    /// Whether it is to be tried now: it is back from its time out, or full member at a price nobody pays.
    pub(crate) fn trial(&self, now_ms: u64, others: f64, settings: &Settings) -> Option<Trial> {
        let waits = match self.circuit {
            Circuit::Closed { .. } => self.penalty_us(others, settings) > 0.0,
            Circuit::Open { until_ms, .. } => now_ms >= until_ms,
        };
        let pause_ms = settings.trial_ms >> self.successes_in_row.min(10);
        if !waits || now_ms.saturating_sub(self.tried_ms) < pause_ms {
            return None;
        }
        Some(if self.successes_in_row == 0 { Trial::Blind } else { Trial::Hopeful })
    }

    pub(crate) fn picked(&mut self, now_ms: u64) {
        self.in_flight += 1;
        self.tried_ms = now_ms;
    }

    /// It works, though what was picked may be still in flight.
    pub(crate) fn answered(&mut self, now_ms: u64, latency_us: Option<u64>, settings: &Settings) {
        self.count(now_ms, false, settings);
        if let Some(latency_us) = latency_us {
            self.latency.note(now_ms, latency_us, settings.forget_ms);
        }
        self.server_errors_in_row = 0;
        self.connect_failures_in_row = 0;
        self.failing *= 1.0 - FAILING_GAIN;
        let enough = match self.circuit {
            Circuit::Closed { .. } => settings.trial_successes,
            // Asked before it was left out: part of what it was left out for.
            Circuit::Open { until_ms, cause: Cause::Errors, .. } if now_ms < until_ms => return,
            Circuit::Open { cause: Cause::Errors, .. } => settings.trial_successes,
            // Whoever answers can be reached: most often a program that was started again.
            Circuit::Open { cause: Cause::Unreachable, .. } => 1,
        };
        self.successes_in_row = self.successes_in_row.saturating_add(1);
        if self.successes_in_row < enough {
            return;
        }
        self.failing = 0.0;
        if !self.closed() {
            self.circuit = Circuit::Closed { since_ms: now_ms };
        }
    }

    /// No connection.
    pub(crate) fn refused(&mut self, now_ms: u64, settings: &Settings) {
        self.charge(now_ms, settings);
        self.connect_failures_in_row = self.connect_failures_in_row.saturating_add(1);
        if !self.closed() || self.connect_failures_in_row >= settings.connect_failures_max {
            self.eject(now_ms, Cause::Unreachable, settings);
        }
    }

    /// An error of its own. `may_eject` says whether the pool can spare it, `others_success` how well the others do.
    pub(crate) fn erred(&mut self, now_ms: u64, may_eject: bool, others_success: Option<f64>, settings: &Settings) {
        self.charge(now_ms, settings);
        self.connect_failures_in_row = 0;
        self.server_errors_in_row = self.server_errors_in_row.saturating_add(1);
        let gap = f64::from(settings.success_gap_percent) / 100.0;
        let behind =
            others_success.zip(self.success_rate(now_ms, settings)).is_some_and(|(others, own)| own < others - gap);
        let enough = self.server_errors_in_row >= settings.server_errors_max || behind;
        if !self.closed() || (enough && may_eject) {
            self.eject(now_ms, Cause::Errors, settings);
        }
    }

    /// The share of answers that were none of its errors, if there were enough of them.
    pub(crate) fn success_rate(&self, now_ms: u64, settings: &Settings) -> Option<f64> {
        let left = left_after(now_ms.saturating_sub(self.counted_ms), settings.forget_ms);
        (self.asked * left >= f64::from(settings.success_volume)).then(|| 1.0 - self.failed / self.asked.max(1.0))
    }

    fn charge(&mut self, now_ms: u64, settings: &Settings) {
        self.count(now_ms, true, settings);
        self.failing += FAILING_GAIN * (1.0 - self.failing);
        self.successes_in_row = 0;
    }

    fn count(&mut self, now_ms: u64, failed: bool, settings: &Settings) {
        let left = left_after(now_ms.saturating_sub(self.counted_ms), settings.forget_ms);
        self.asked = self.asked * left + 1.0;
        self.failed = self.failed * left + f64::from(u8::from(failed));
        self.counted_ms = now_ms;
    }

    fn eject(&mut self, now_ms: u64, cause: Cause, settings: &Settings) {
        let since_ms = match self.circuit {
            // The failures of what was in flight when it went down are one event: they do not lengthen the time.
            Circuit::Open { until_ms, .. } if now_ms < until_ms => return,
            Circuit::Open { since_ms, .. } => since_ms,
            Circuit::Closed { since_ms } => {
                let forgiven = now_ms.saturating_sub(since_ms) / FORGIVE_MS;
                self.ejections = self.ejections.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
                now_ms
            }
        };
        let time_ms = settings.eject_ms_first.saturating_mul(1 << self.ejections.min(16)).min(settings.eject_ms_max);
        self.ejections = self.ejections.saturating_add(1);
        self.circuit = Circuit::Open { since_ms, until_ms: now_ms.saturating_add(time_ms), cause };
        self.server_errors_in_row = 0;
        self.connect_failures_in_row = 0;
        self.asked = 0.0;
        self.failed = 0.0;
    }
}

/// FNV-1a: ids are few, and every gateway must come to the same.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
