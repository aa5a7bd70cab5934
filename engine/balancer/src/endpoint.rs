//! The words spoken with a pool: what it is given, what it is asked, what it answers.
//!
//! Plain data.

use std::sync::Arc;

/// An endpoint as the caller wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    pub id: String,
    /// Its share of the picks relative to the others'; 0 gets none.
    pub weight: u32,
    /// Finishes what it has and gets no new picks.
    pub draining: bool,
    /// Where it is, to prefer what is near ([`crate::Settings::zone`]).
    pub zone: Option<Arc<str>>,
}

/// How what was picked ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, after so long.
    Ok { latency_us: u64 },
    /// No connection: nothing was sent.
    ConnectFailed,
    /// Answered with an error of its own, or broke off.
    ServerError,
    /// The client left first: says nothing about the endpoint.
    ClientGone,
}

/// What is asked of a pick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The cheaper of two drawn at random.
    #[default]
    LeastLoad,
    /// Always the same endpoint for the same number, as far as its load allows: highest random weight, which moves
    /// only the keys of an endpoint that goes (Thaler and Ravishankar). Zones do not count.
    Hash(u64),
    /// This endpoint, if it may be picked; else as [`Choice::LeastLoad`].
    Sticky(&'a str),
}

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPicked {
    /// No endpoint is listed that may get picks.
    Nobody,
    /// All there are have been excepted by the caller.
    Tried,
    /// There are endpoints, and each has as much in flight as it may: wait until one is done.
    Full,
}

/// Whether an endpoint, or a service as a whole, gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breaker {
    /// Requests flow.
    Closed,
    /// Single requests try whether it is back.
    HalfOpen,
    /// Left out.
    Open,
}

/// Why an endpoint is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It answers, with errors.
    Errors,
    /// It refuses connections.
    Unreachable,
}

/// What is known of one endpoint, for people to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen<'a> {
    pub id: &'a Arc<str>,
    pub zone: Option<&'a Arc<str>>,
    pub weight: u32,
    /// How busy its machine is: 0.0 idle, 1.0 saturated.
    pub load: f64,
    pub in_flight: usize,
    /// How long an answer is expected to take. `None` until it has answered.
    pub latency_ms: Option<f64>,
    /// What its failures cost on top.
    pub penalty_ms: f64,
    pub breaker: Breaker,
    /// Since when requests flow, or do not: however often it was tried in vain, it was left out once.
    pub since_ms: u64,
    /// Set unless requests flow.
    pub cause: Option<Cause>,
    /// Set while its breaker is open.
    pub ejected_until_ms: Option<u64>,
    /// Gets no new picks: it drains, or is no longer listed and finishes what it has.
    pub draining: bool,
}
