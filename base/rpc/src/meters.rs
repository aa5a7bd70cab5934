//! The numbers of calls, streams and connections. Labels are names of methods this program has, and words of this crate:
//! nothing a peer chooses.

use crate::failure::Code;
use crate::line::Traffic;
use crate::mishap::Mishap;
use meter::{Counter, Gauge, Histogram, LATENCY_SECONDS, Meter};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Those of one end.
pub(crate) struct Meters {
    meter: Meter,
    side: &'static str,
    pub(crate) traffic: Traffic,
    pub(crate) connections: Gauge,
    methods: RwLock<HashMap<&'static str, Arc<MethodMeters>>>,
}

/// Those of one method, made when they are first counted.
#[derive(Debug)]
pub(crate) struct MethodMeters {
    method: &'static str,
    seconds: Histogram,
    pub(crate) open: Gauge,
    answered: OnceLock<Counter>,
    failed: [OnceLock<Counter>; Code::ALL.len()],
}

impl Meters {
    pub(crate) fn new(meter: &Meter, side: Side) -> Arc<Meters> {
        let side = match side {
            Side::Client => "client",
            Side::Server => "server",
        };
        let bytes = |direction: &'static str| {
            let labels = [("side", side), ("direction", direction)];
            meter.counter("bramble_rpc_bytes_total", "Bytes between machines, before encryption.", &labels)
        };
        Arc::new(Meters {
            traffic: Traffic { received: bytes("received"), sent: bytes("sent") },
            connections: meter.gauge("bramble_rpc_connections", "Connections with other machines.", &[("side", side)]),
            methods: RwLock::default(),
            meter: meter.clone(),
            side,
        })
    }

    pub(crate) fn method(&self, method: &'static str) -> Arc<MethodMeters> {
        let known = self.methods.read().unwrap_or_else(PoisonError::into_inner).get(method).map(Arc::clone);
        known.unwrap_or_else(|| {
            let labels = [("side", self.side), ("method", method)];
            let seconds = "bramble_rpc_call_seconds";
            let made = Arc::new(MethodMeters {
                method,
                seconds: self.meter.histogram(seconds, "Time until a call was answered.", &labels, LATENCY_SECONDS),
                open: self.meter.gauge("bramble_rpc_open", "Calls, watches and tunnels under way.", &labels),
                answered: OnceLock::new(),
                failed: Default::default(),
            });
            let mut methods = self.methods.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(methods.entry(method).or_insert(made))
        })
    }

    /// Counts a call, or what opened a watch or tunnel.
    pub(crate) fn count(&self, method: &MethodMeters, took: Duration, ended: Result<(), Code>) {
        method.seconds.observe_duration(took);
        let (slot, code) = match ended {
            Ok(()) => (&method.answered, "ok"),
            Err(code) => {
                let at = Code::ALL.iter().position(|known| *known == code).unwrap_or(0);
                (&method.failed[at], code.as_str())
            }
        };
        let labels = [("side", self.side), ("method", method.method), ("code", code)];
        let name = "bramble_rpc_calls_total";
        slot.get_or_init(|| self.meter.counter(name, "Calls by how they ended.", &labels)).inc();
    }

    /// Counts a connection that came to nothing. Rare enough to look the counter up.
    pub(crate) fn fail(&self, mishap: Mishap) {
        let labels = [("side", self.side), ("reason", mishap.as_str())];
        let name = "bramble_rpc_handshakes_failed_total";
        self.meter.counter(name, "Connections between machines that came to nothing.", &labels).inc();
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Meters").field("side", &self.side).finish_non_exhaustive()
    }
}

/// How a call ended, counted when it is over. One dropped before was left by whoever called.
#[derive(Debug)]
pub(crate) struct Outcome {
    meters: Arc<Meters>,
    method: Arc<MethodMeters>,
    began: Instant,
    ended: Result<(), Code>,
}

impl Outcome {
    pub(crate) fn new(meters: &Arc<Meters>, method: Arc<MethodMeters>, began: Instant) -> Outcome {
        Outcome { meters: Arc::clone(meters), method, began, ended: Err(Code::Cancelled) }
    }

    pub(crate) fn set(&mut self, ended: Result<(), Code>) {
        self.ended = ended;
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.meters.count(&self.method, self.began.elapsed(), self.ended);
    }
}
