//! What the cache counts, by service.

use meter::{Counter, Meter};
use std::sync::OnceLock;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered with what was kept, and fresh.
    Hit,
    /// The same, but stale.
    Stale,
    /// Kept, asked for, and still so.
    Revalidated,
    /// Asked for and kept.
    Miss,
    /// Answered with what another request asked for.
    Collapsed,
    /// Asked for and not kept.
    Uncacheable,
    /// Nothing the cache does.
    Bypass,
}

impl Outcome {
    const COUNT: usize = 7;

    fn word(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Stale => "stale",
            Outcome::Revalidated => "revalidated",
            Outcome::Miss => "miss",
            Outcome::Collapsed => "collapsed",
            Outcome::Uncacheable => "uncacheable",
            Outcome::Bypass => "bypass",
        }
    }
}

/// Handles for one service.
pub(crate) struct Meters {
    meter: Meter,
    service: String,
    requests: [OnceLock<Counter>; Outcome::COUNT],
    bytes: OnceLock<Counter>,
}

impl Meters {
    pub(crate) fn new(meter: &Meter, service: &str) -> Meters {
        Meters {
            meter: meter.clone(),
            service: service.to_owned(),
            requests: Default::default(),
            bytes: OnceLock::new(),
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        let help = "Requests of routes with a cache, by what became of them there.";
        let labels = [("service", self.service.as_str()), ("result", outcome.word())];
        self.requests[outcome as usize]
            .get_or_init(|| self.meter.counter("bramble_cache_requests_total", help, &labels))
            .inc();
    }

    /// Counts what was answered without the service.
    pub(crate) fn served(&self, bytes: usize) {
        let help = "Bytes of bodies that the cache answered with instead of services.";
        self.bytes
            .get_or_init(|| self.meter.counter("bramble_cache_bytes_total", help, &[("service", &self.service)]))
            .add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}
