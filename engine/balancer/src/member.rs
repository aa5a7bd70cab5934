//! What is known of one endpoint: its load, how fast and how reliably it answered, whether it is left out.
//!
//! Owns the prices and the ejection times. Does not know the other endpoints: shares are the pool's matter.

use std::sync::Arc;

/// What one failure costs: as if an answer had taken this long. Linkerd's default, long enough that an
/// endpoint with a fresh failure loses against any busy but healthy one.
const FAILURE_PENALTY_MS: f64 = 5_000.0;
/// Penalties and latencies are forgotten with this time constant, so that what was slow is tried again.
const FORGET_MS: f64 = 10_000.0;
/// Several failures at once say no more than a few: more would keep an endpoint out long after it is back.
const PENALTY_MS_MAX: f64 = 30_000.0;
/// Times below this count the same: the number in flight tells endpoints that fast apart better, and equal
/// prices spread evenly. Without it the last trace of a penalty would keep an idle endpoint out for ever.
const TIME_MS_FLOOR: f64 = 50.0;
/// How much one answer moves the average: about ten answers are remembered.
const LATENCY_GAIN: f64 = 0.1;
/// Answers that blame the server, in a row, until it is left out (Envoy's default).
const SERVER_ERRORS_MAX: u32 = 5;
/// The first time out: about what a crashed program needs to be started again.
const EJECT_MS_FIRST: u64 = 1_000;
/// While an endpoint is on trial, it is tried again this often: a trial may be a connection that lasts for days.
const TRIAL_MS: u64 = 1_000;
/// Times out double up to this, so that a repaired endpoint is found within half a minute.
const EJECT_MS_MAX: u64 = 30_000;

/// An endpoint as the caller wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: String,
    /// Its share of the picks relative to the others'; 0 gets none.
    pub weight: u32,
    /// Finishes what it has and gets no new picks.
    pub draining: bool,
}

/// How what was picked ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered. For a tunnel, `latency_ms` is how long the connection took to open.
    Ok { latency_ms: u64 },
    /// No connection: nothing was sent.
    ConnectFailed,
    /// Answered with an error of its own, or broke off.
    ServerError,
    /// The client left first: says nothing about the endpoint.
    ClientGone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Draining,
    /// No longer listed; kept until what it has in flight is done.
    Gone,
}

/// One endpoint's state.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) weight: u32,
    pub(crate) standing: Standing,
    pub(crate) in_flight: usize,
    latency: Fading,
    penalty: Fading,
    server_errors_in_row: u32,
    /// Times left out since the last success.
    ejections: u32,
    ejected_until_ms: u64,
    /// The last pick tried the endpoint again after a time out, and has not ended.
    on_trial: bool,
}

/// A value in milliseconds that fades while nothing renews it.
#[derive(Debug, Clone, Copy, Default)]
struct Fading {
    value: f64,
    at_ms: u64,
}

impl Fading {
    fn at(self, now_ms: u64) -> f64 {
        if self.value == 0.0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "ages of milliseconds stay far below 2^52")]
        let age = now_ms.saturating_sub(self.at_ms) as f64;
        self.value * (-age / FORGET_MS).exp()
    }

    fn set(&mut self, value: f64, now_ms: u64) {
        *self = Fading { value, at_ms: now_ms };
    }
}

impl Member {
    pub(crate) fn new(endpoint: Endpoint) -> Member {
        Member {
            id: endpoint.id.into(),
            weight: endpoint.weight,
            standing: if endpoint.draining { Standing::Draining } else { Standing::Active },
            in_flight: 0,
            latency: Fading::default(),
            penalty: Fading::default(),
            server_errors_in_row: 0,
            ejections: 0,
            ejected_until_ms: 0,
            on_trial: false,
        }
    }

    /// The same endpoint as the next list has it. One that had gone was started again: its past says nothing.
    pub(crate) fn listed_as(self, endpoint: Endpoint) -> Member {
        let known = match self.standing {
            Standing::Gone => Member { in_flight: self.in_flight, ..Member::new(endpoint.clone()) },
            Standing::Active | Standing::Draining => self,
        };
        let standing = if endpoint.draining { Standing::Draining } else { Standing::Active };
        Member { weight: endpoint.weight, standing, ..known }
    }

    /// May get picks at all.
    pub(crate) fn listed(&self) -> bool {
        self.standing == Standing::Active && self.weight > 0
    }

    /// Left out for now: waits for its time, or for how its trial goes.
    pub(crate) fn ejected(&self, now_ms: u64) -> bool {
        self.ejections > 0 && now_ms < self.ejected_until_ms
    }

    /// The time a newcomer is expected to wait here, per unit of weight.
    pub(crate) fn price(&self, now_ms: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "requests in flight stay far below 2^52")]
        let queue = (self.in_flight + 1) as f64 / f64::from(self.weight.max(1));
        let penalty = self.penalty.at(now_ms);
        let penalty = if penalty < TIME_MS_FLOOR { 0.0 } else { penalty };
        queue * self.latency.at(now_ms).max(TIME_MS_FLOOR) + penalty
    }

    pub(crate) fn picked(&mut self, now_ms: u64) {
        self.in_flight += 1;
        if self.ejections > 0 && now_ms >= self.ejected_until_ms {
            self.on_trial = true;
            self.ejected_until_ms = now_ms.saturating_add(TRIAL_MS);
        }
    }

    /// It works, though what was picked is still in flight.
    pub(crate) fn answered(&mut self, now_ms: u64, latency_ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 ms")]
        let sample = latency_ms as f64;
        let known = self.latency.at(now_ms);
        self.latency.set(known + LATENCY_GAIN * (sample - known), now_ms);
        self.server_errors_in_row = 0;
        self.ejections = 0;
        self.ejected_until_ms = 0;
        self.on_trial = false;
    }

    /// Takes in how a pick ended. `may_eject` says whether the pool can spare it for its server errors.
    pub(crate) fn done(&mut self, now_ms: u64, outcome: Outcome, may_eject: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Ok { latency_ms } => self.answered(now_ms, latency_ms),
            Outcome::ConnectFailed => {
                self.charge(now_ms);
                self.eject(now_ms);
            }
            Outcome::ServerError => {
                self.charge(now_ms);
                self.server_errors_in_row = self.server_errors_in_row.saturating_add(1);
                if may_eject && self.server_errors_in_row >= SERVER_ERRORS_MAX {
                    self.server_errors_in_row = 0;
                    self.eject(now_ms);
                }
            }
            Outcome::ClientGone => self.on_trial = false,
        }
    }

    fn charge(&mut self, now_ms: u64) {
        self.penalty.set((self.penalty.at(now_ms) + FAILURE_PENALTY_MS).min(PENALTY_MS_MAX), now_ms);
    }

    fn eject(&mut self, now_ms: u64) {
        let tried_again = std::mem::take(&mut self.on_trial);
        // The failures of what was in flight when it went down are one event: they do not lengthen the time.
        if self.ejected(now_ms) && !tried_again {
            return;
        }
        let time_ms = EJECT_MS_FIRST.saturating_mul(1 << self.ejections.min(16)).min(EJECT_MS_MAX);
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until_ms = now_ms.saturating_add(time_ms);
    }
}
