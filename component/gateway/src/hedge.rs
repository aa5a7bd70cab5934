//! When a request is sent to a second instance because the first lets it wait ("The Tail at Scale", Dean and Barroso).
//!
//! Owns the wait. Where it is to be longer than all but one in twenty requests, that time is learned from those that
//! were answered. What it costs is bounded by the budget of retries.

use crate::asking::RequestBody;
use crate::connecting::Connecting;
use crate::exchange;
use crate::http1::{AnswerHead, LineError};
use crate::link::Link;
use crate::session::Session;
use crate::upstream::Lease;
use balancer::Outcome;
use http::request::Parts;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wire::spec::Hedge;

/// Until something is known: longer than most services take.
const FIRST_GUESS_US: f64 = 100_000.0;
/// Shorter waits would make two requests of one whenever a scheduler looks elsewhere.
const WAIT_US_MIN: f64 = 1_000.0;
/// One answer moves the guess by so much of itself.
const STEP: f64 = 0.05;
/// The share of answers that are to come within the wait.
const WITHIN: f64 = 0.95;

/// The hedging of one route.
#[derive(Debug)]
pub(crate) struct Hedging {
    after: Hedge,
    /// In microseconds.
    guess: AtomicU64,
}

impl Hedging {
    pub(crate) fn new(after: Hedge) -> Hedging {
        Hedging { after, guess: AtomicU64::new(FIRST_GUESS_US.to_bits()) }
    }

    /// How long the first instance may take.
    pub(crate) fn wait(&self) -> Duration {
        match self.after {
            Hedge::AfterMs(ms) => Duration::from_millis(ms),
            Hedge::P95 => Duration::from_secs_f64(self.guess_us() / 1e6),
        }
    }

    /// An answer came after so long: the guess goes up for a late one, and down by a nineteenth of that for others, so
    /// that it rests where they balance (stochastic approximation, Robbins and Monro).
    pub(crate) fn note(&self, took: Duration) {
        if self.after != Hedge::P95 {
            return;
        }
        let guess_us = self.guess_us();
        let late = took.as_secs_f64() * 1e6 > guess_us;
        let factor = if late { 1.0 + STEP * WITHIN } else { 1.0 - STEP * (1.0 - WITHIN) };
        // Two at once: one of them is lost, and there will be others.
        self.guess.store((guess_us * factor).max(WAIT_US_MIN).to_bits(), Ordering::Relaxed);
    }

    fn guess_us(&self) -> f64 {
        f64::from_bits(self.guess.load(Ordering::Relaxed))
    }
}

/// How a try ended, with what it was made by. Without an answer, it took too long.
pub(crate) type Tried = (Lease, Link, Option<Result<AnswerHead, LineError>>);

/// Sends a request that may be sent twice, and after a while to a second instance: whoever answers first is taken. What
/// the other has taken by then counts as how slow it is. May be dropped: both end with it.
pub(crate) async fn race(
    session: &Session,
    connecting: &mut Connecting<'_>,
    (lease, mut link): (Lease, Link),
    head: &Parts,
    patience: Option<Duration>,
    hedging: &Hedging,
) -> Tried {
    let begun = world::clock::monotonic();
    let took = || world::clock::monotonic().saturating_duration_since(begun);
    let (mut body, mut body_beside) = (RequestBody::Empty, RequestBody::Empty);
    let mut sending = Box::pin(exchange::send(session, &mut link, head, &mut body, patience));
    if let Ok(sent) = tokio::time::timeout(hedging.wait(), sending.as_mut()).await {
        drop(sending);
        hedging.note(took());
        return (lease, link, sent);
    }
    let Some((other, mut other_link)) = connecting.beside(&lease).await else {
        let sent = sending.as_mut().await;
        drop(sending);
        hedging.note(took());
        return (lease, link, sent);
    };
    let mut sending_beside = Box::pin(exchange::send(session, &mut other_link, head, &mut body_beside, patience));
    let (mut sent, mut won_beside) = tokio::select! {
        sent = sending.as_mut() => (sent, false),
        sent = sending_beside.as_mut() => (sent, true),
    };
    let failed = !matches!(sent, Some(Ok(_)));
    if failed {
        // It leaves the other the time that one needs, which is looked at as before.
        session.pulse.asks();
        sent = if won_beside { sending.as_mut().await } else { sending_beside.as_mut().await };
        won_beside = !won_beside;
    }
    drop((sending, sending_beside));
    hedging.note(took());
    let so_long = u64::try_from(took().as_micros()).unwrap_or(u64::MAX);
    let outcome = if failed { Outcome::ServerError } else { Outcome::Ok { latency_us: so_long } };
    if won_beside {
        lease.end(outcome);
        connecting.steps.won(&other, &other_link);
        (other, other_link, sent)
    } else {
        other.end(outcome);
        (lease, link, sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_learned() {
        let hedging = Hedging::new(Hedge::P95);
        // From 1 to 100 ms, each as often: in an order that mixes them.
        for step in 0..20_000_u64 {
            hedging.note(Duration::from_millis(step * 37 % 100 + 1));
        }
        let wait = hedging.wait();
        assert!((85..=105).contains(&wait.as_millis()), "{wait:?}");
        for _ in 0..20_000 {
            hedging.note(Duration::ZERO);
        }
        assert_eq!(hedging.wait(), Duration::from_millis(1));
        let fixed = Hedging::new(Hedge::AfterMs(50));
        fixed.note(Duration::from_secs(9));
        assert_eq!(fixed.wait(), Duration::from_millis(50));
    }
}
