//! The rules of a choice that someone may want otherwise, each with its default and where that comes from.
//!
//! Owns the numbers; what they do is in `member` (one endpoint) and `draw` (all of them).

use std::sync::Arc;

/// How a pool chooses and when it leaves an endpoint out. The defaults are what is meant to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Latencies, and what is counted for the success rate, are forgotten with this time constant. 10 s, as in
    /// linkerd2-proxy (`decay`) and finagle (`PeakEwma`).
    pub forget_ms: u64,
    /// What an endpoint whose every answer is a failure costs on top: as if answers took this long. 5 s, Linkerd's
    /// penalty: more than any queue worth waiting in.
    pub failure_penalty_ms: u64,
    /// Server errors in a row until an endpoint is left out. 5, Envoy's `consecutive_5xx`.
    pub server_errors_max: u32,
    /// Refused connections in a row until an endpoint is left out. 1: nothing was sent, so asking another one costs
    /// little, and here a refusal nearly always means a program that is not there. Envoy waits for 5.
    pub connect_failures_max: u32,
    /// How many percent points an endpoint's success rate may lie below the others' mean. 20: with Envoy's factor of
    /// 1.9 standard deviations a pool of few endpoints never finds one.
    pub success_gap_percent: u32,
    /// Answers within about [`Settings::forget_ms`] from which on a success rate says something. 50; Envoy takes
    /// 100 in 10 s, which small services never reach.
    pub success_volume: u32,
    /// The first time out. 1 s, about what a crashed program needs to be started again; Envoy's 30 s suits a fleet
    /// that can spare a machine.
    pub eject_ms_first: u64,
    /// Times out double up to this. 10 s: a repaired endpoint is found soon after. Envoy's 300 s would save trials that
    /// [`Settings::trial_one_in`] bounds here.
    pub eject_ms_max: u64,
    /// Errors leave out no more than this share of the endpoints: when more answer with errors, the program or what
    /// it depends on is broken, and fewer endpoints would only be busier. 50; Envoy's default of 10 leaves small
    /// pools without ejection.
    pub ejected_percent_max: u32,
    /// When fewer than this share are healthy, those left out for errors take part again: they would not carry the
    /// load of all the others. 50, Envoy's `healthy_panic_threshold`. Those that refuse connections carry nothing
    /// and stay out while any other is there.
    pub panic_percent: u32,
    /// The pause between two trials of a doubtful endpoint; it halves with each success. 1 s.
    pub trial_ms: u64,
    /// Trials without a success before them take at most one in so many picks, so that still-failing endpoints are
    /// seen by less than 0.5 % of requests however many there are. 256.
    pub trial_one_in: u32,
    /// An endpoint that has not been tried for so long is tried all the same. 30 s, for services asked little.
    pub trial_wait_ms: u64,
    /// Successes in a row that make a doubtful endpoint a full member. 5: one that fails every other time passes
    /// once in 32 attempts.
    pub trial_successes: u32,
    /// How long the share of a new endpoint grows, from a tenth to the whole. 10 s, 0 is off; Envoy's and HAProxy's
    /// slow start, whose caches and compilers are warm after some such time.
    pub slow_start_ms: u64,
    /// How much may be in flight at one endpoint; a full one is not picked. 0, the default, is no bound (HAProxy's
    /// `maxconn` of a server).
    pub in_flight_max: usize,
    /// With [`crate::Choice::Hash`], no endpoint has more in flight than this share of the mean. 125, from "Consistent
    /// Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam) and HAProxy's `hash-balance-factor`.
    pub hash_load_percent: u32,
    /// The zone picks are made from. Without one, zones mean nothing.
    pub zone: Option<Arc<str>>,
    /// How much more an endpoint of the own zone may have in flight than one elsewhere before picks spill over. 8:
    /// some queue at home is cheaper than the way, a long one is not.
    pub zone_spill: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            forget_ms: 10_000,
            failure_penalty_ms: 5_000,
            server_errors_max: 5,
            connect_failures_max: 1,
            success_gap_percent: 20,
            success_volume: 50,
            eject_ms_first: 1_000,
            eject_ms_max: 10_000,
            ejected_percent_max: 50,
            panic_percent: 50,
            trial_ms: 1_000,
            trial_one_in: 256,
            trial_wait_ms: 30_000,
            trial_successes: 5,
            slow_start_ms: 10_000,
            in_flight_max: 0,
            hash_load_percent: 125,
            zone: None,
            zone_spill: 8,
        }
    }
}
