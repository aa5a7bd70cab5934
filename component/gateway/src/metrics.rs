//! What the gateway counts about itself.
//!
//! Owns the names of the series and the handles to them, made once per service or listener. A handle that a
//! service never needs (a method nobody uses) is never made, so that the number of series stays small.

use crate::rule::Reason;
use http::Method;
use meter::{Counter, Gauge, Histogram, Meter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wire::spec::PriorityClass;

/// Status classes 1xx to 5xx, and requests whose client left before an answer.
pub(crate) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "gone"];
/// Methods counted apart; all others count as the last.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
const GONE: usize = 5;
/// At most one warning per service and second: a service that fails fails thousands of times.
const WARN_EVERY_MS: u64 = 1_000;

/// Handles for one port of one service, or for requests that found none.
pub(crate) struct ServiceMeters {
    meter: Meter,
    service: String,
    requests: [[OnceLock<Counter>; METHODS.len()]; CLASSES.len()],
    seconds: Histogram,
    retries: OnceLock<Counter>,
    no_endpoint: OnceLock<Counter>,
    tunnels: OnceLock<Counter>,
    dropped: OnceLock<Counter>,
    ejected: OnceLock<Counter>,
    hedged: OnceLock<Counter>,
    shed: [OnceLock<Counter>; PriorityClass::ALL.len()],
    waiting: OnceLock<Gauge>,
    gathering: OnceLock<Gauge>,
    failures: [OnceLock<Counter>; 4],
    refused: [OnceLock<Counter>; Reason::COUNT],
    banned: OnceLock<Counter>,
    mirrored: [OnceLock<Counter>; 3],
    warned_ms: AtomicU64,
}

/// Counts a request for as long as it waits for its body.
pub(crate) struct Gathering(Arc<ServiceMeters>);

impl Drop for Gathering {
    fn drop(&mut self) {
        self.0.gathering.get().into_iter().for_each(|gauge| gauge.add(-1.0));
    }
}

/// What went wrong between the gateway and an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect,
    Broken,
    Late,
    /// The answer's body ended early.
    Cut,
}

impl Failure {
    fn word(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Broken => "broken",
            Failure::Late => "late",
            Failure::Cut => "cut",
        }
    }
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copying {
    Answered,
    Failed,
    /// Too many are under way, or its body is too long.
    Skipped,
}

impl Copying {
    fn word(self) -> &'static str {
        match self {
            Copying::Answered => "answered",
            Copying::Failed => "failed",
            Copying::Skipped => "skipped",
        }
    }
}

impl ServiceMeters {
    pub(crate) fn new(meter: &Meter, service: &str) -> ServiceMeters {
        ServiceMeters {
            meter: meter.clone(),
            service: service.to_owned(),
            requests: Default::default(),
            seconds: meter.histogram(
                "bramble_gateway_request_seconds",
                "Time from a request's head to the end of its answer.",
                &[("service", service)],
                meter::LATENCY_SECONDS,
            ),
            retries: OnceLock::new(),
            no_endpoint: OnceLock::new(),
            tunnels: OnceLock::new(),
            dropped: OnceLock::new(),
            ejected: OnceLock::new(),
            hedged: OnceLock::new(),
            shed: Default::default(),
            waiting: OnceLock::new(),
            gathering: OnceLock::new(),
            failures: Default::default(),
            refused: Default::default(),
            banned: OnceLock::new(),
            mirrored: Default::default(),
            warned_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Counts a request that ended with `status`; 0 when the client left first.
    pub(crate) fn request(&self, method: &Method, status: u16, took: Duration) {
        self.count(class(status), method_index(method));
        self.seconds.observe_duration(took);
    }

    /// Counts what could not be read as a request, and was answered with `status`.
    pub(crate) fn unreadable(&self, status: u16) {
        self.count(class(status), METHODS.len() - 1);
    }

    fn count(&self, class: usize, method: usize) {
        self.requests[class][method]
            .get_or_init(|| {
                self.meter.counter(
                    "bramble_gateway_requests_total",
                    "HTTP requests by how they were answered.",
                    &[("service", &self.service), ("class", CLASSES[class]), ("method", METHODS[method])],
                )
            })
            .inc();
    }

    /// Gives an example of a request that took so long.
    pub(crate) fn exemplify(&self, took: Duration, trace: &str) {
        self.seconds.exemplify(took.as_secs_f64(), trace, world::clock::unix_ms());
    }

    pub(crate) fn retry(&self) {
        let help = "Requests sent a second time, to another connection or instance.";
        self.once(&self.retries, "bramble_gateway_retries_total", help).inc();
    }

    pub(crate) fn hedge(&self) {
        let help = "Requests sent to a second instance because the first let them wait.";
        self.once(&self.hedged, "bramble_gateway_hedges_total", help).inc();
    }

    /// An instance is left out from now on.
    pub(crate) fn ejected(&self) {
        let help = "Times that an instance was left out because it failed.";
        self.once(&self.ejected, "bramble_gateway_ejections_total", help).inc();
    }

    /// One was refused because there was more to do than could be done.
    pub(crate) fn shed(&self, class: PriorityClass) {
        self.shed[class as usize]
            .get_or_init(|| {
                self.meter.counter(
                    "bramble_gateway_shed_total",
                    "Requests refused because there was more to do than could be done.",
                    &[("service", &self.service), ("class", class.word())],
                )
            })
            .inc();
    }

    pub(crate) fn no_endpoint(&self) {
        let help = "Requests and connections refused because no instance was ready.";
        self.once(&self.no_endpoint, "bramble_gateway_no_endpoint_total", help).inc();
    }

    pub(crate) fn tunnel(&self) {
        let help = "Connections carried without looking into them: TCP, WebSocket, UDP flows.";
        self.once(&self.tunnels, "bramble_gateway_tunnels_total", help).inc();
    }

    pub(crate) fn datagram_dropped(&self) {
        let help = "UDP datagrams dropped because a bound was reached.";
        self.once(&self.dropped, "bramble_gateway_datagrams_dropped_total", help).inc();
    }

    /// One more or one less waits for an instance.
    pub(crate) fn waiting(&self, change: f64) {
        let help = "Requests and connections that wait for an instance now.";
        let labels = [("service", self.service.as_str())];
        self.waiting.get_or_init(|| self.meter.gauge("bramble_gateway_waiting", help, &labels)).add(change);
    }

    /// A request waits for its body, until what is returned is dropped.
    pub(crate) fn gathers(self: &Arc<Self>) -> Gathering {
        let help = "Requests that wait for more of their bodies before an instance is asked.";
        let labels = [("service", self.service.as_str())];
        self.gathering.get_or_init(|| self.meter.gauge("bramble_gateway_gathering", help, &labels)).add(1.0);
        Gathering(Arc::clone(self))
    }

    pub(crate) fn failure(&self, kind: Failure) {
        self.failures[kind as usize]
            .get_or_init(|| {
                self.meter.counter(
                    "bramble_gateway_upstream_failures_total",
                    "What went wrong between the gateway and instances.",
                    &[("service", &self.service), ("kind", kind.word())],
                )
            })
            .inc();
    }

    /// Counts a request that the rules of a route kept from the service.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refused[reason as usize]
            .get_or_init(|| {
                self.meter.counter(
                    "bramble_gateway_refused_total",
                    "Requests that the rules of their route refused.",
                    &[("service", &self.service), ("reason", reason.word())],
                )
            })
            .inc();
    }

    /// Counts a client that a route turns away from now on.
    pub(crate) fn banned(&self) {
        let help = "Clients banned for a while, since they were refused too often.";
        self.once(&self.banned, "bramble_gateway_bans_total", help).inc();
    }

    /// Counts a request that was to be copied to another service.
    pub(crate) fn mirrored(&self, outcome: Copying) {
        self.mirrored[outcome as usize]
            .get_or_init(|| {
                self.meter.counter(
                    "bramble_gateway_mirrored_total",
                    "Copies of requests for another service, by what became of them.",
                    &[("service", &self.service), ("outcome", outcome.word())],
                )
            })
            .inc();
    }

    /// Whether a warning about the service is due; the ones in between are only counted.
    pub(crate) fn may_warn(&self, now_ms: u64) -> bool {
        // Shifted by one period, so that the first warning is always due.
        let now_ms = now_ms.saturating_add(WARN_EVERY_MS);
        let last = self.warned_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(last) >= WARN_EVERY_MS
            && self.warned_ms.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn once<'a>(&self, cell: &'a OnceLock<Counter>, name: &'static str, help: &'static str) -> &'a Counter {
        cell.get_or_init(|| self.meter.counter(name, help, &[("service", &self.service)]))
    }
}

/// Which of [`CLASSES`] a status is of; 0 is that the client left first.
pub(crate) fn class(status: u16) -> usize {
    match status {
        0 => GONE,
        _ => usize::from(status / 100).clamp(1, 5) - 1,
    }
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// Handles for all client connections.
#[derive(Clone)]
pub(crate) struct ConnectionMeters {
    pub(crate) open: Gauge,
    pub(crate) resting: Gauge,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    handshakes: [Counter; 3],
    /// Turned away since their client had too many.
    pub(crate) crowded: Counter,
    /// Closed to make room for others.
    pub(crate) shed: Counter,
}

/// How a TLS handshake went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
    Failed,
}

impl ConnectionMeters {
    pub(crate) fn new(meter: &Meter, most: usize) -> ConnectionMeters {
        let help = "Client connections that may be open at once.";
        meter.gauge("bramble_gateway_connections_max", help, &[]).set(most as f64);
        let bytes = |direction| {
            let help = "Bytes received from clients (in) and sent to them (out).";
            meter.counter("bramble_gateway_bytes_total", help, &[("direction", direction)])
        };
        ConnectionMeters {
            open: meter.gauge("bramble_gateway_connections", "Client connections open now.", &[]),
            resting: meter.gauge(
                "bramble_gateway_resting_connections",
                "Client connections on which nobody has said anything for a moment: they cost little.",
                &[],
            ),
            crowded: meter.counter(
                "bramble_gateway_connections_refused_total",
                "Client connections closed at once because their client had as many as one may have, or its part of a full house.",
                &[],
            ),
            shed: meter.counter(
                "bramble_gateway_connections_shed_total",
                "Client connections without a request closed because all that may be open were.",
                &[],
            ),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            handshakes: ["full", "resumed", "failed"].map(|kind| {
                let help = "TLS handshakes with clients.";
                meter.counter("bramble_gateway_tls_handshakes_total", help, &[("kind", kind)])
            }),
        }
    }

    pub(crate) fn handshake(&self, outcome: Handshake) {
        self.handshakes[outcome as usize].inc();
    }
}
