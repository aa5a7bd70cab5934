//! What is counted.

use crate::keys;
use crate::status::Status;
use control::Space;
use meter::{Counter, Gauge, Histogram, LATENCY_SECONDS, Meter, Registration};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(crate) struct Meters {
    meter: Meter,
    of: Mutex<HashMap<&'static str, Of>>,
    pub(crate) connections: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) watches: Gauge,
    pub(crate) refused: Counter,
}

#[derive(Clone)]
struct Of {
    seconds: Histogram,
    done: Counter,
    refused: Counter,
    failed: Counter,
}

impl Meters {
    pub(crate) fn new(meter: &Meter) -> Meters {
        Meters {
            meter: meter.clone(),
            of: Mutex::default(),
            connections: meter.gauge("bramble_etcd_connections", "Connections of etcd's clients.", &[]),
            streams: meter.gauge("bramble_etcd_streams", "Streams of etcd's clients: watches and renewals.", &[]),
            watches: meter.gauge("bramble_etcd_watches", "Watches of etcd's clients.", &[]),
            refused: meter.counter(
                "bramble_etcd_connections_refused_total",
                "Connections of etcd's clients that there was no room for.",
                &[],
            ),
        }
    }

    /// Shows what clients keep, for as long as the registration is held.
    pub(crate) fn keep(meter: &Meter, space: Space) -> Registration {
        meter.collector(move |samples| {
            let (bytes, bytes_max) = space.clients_bytes();
            let leases = space.leases_local().into_iter().filter_map(keys::given_lease).count();
            samples.gauge("bramble_etcd_bytes", "Memory the keys of etcd's clients take, roughly.", &[], bytes as f64);
            samples.gauge("bramble_etcd_bytes_max", "Memory they may take.", &[], bytes_max as f64);
            samples.gauge("bramble_etcd_leases", "Leases of etcd's clients.", &[], leases as f64);
        })
    }

    /// Counts a request. `refused` is its client's mistake, `failed` is not.
    pub(crate) fn count<T>(&self, method: &'static str, took: Duration, ended: &Result<T, Status>) {
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(method).or_insert_with(|| self.of(method)).clone();
        drop(all);
        of.seconds.observe_duration(took);
        match ended {
            Ok(_) => of.done.inc(),
            Err(status) if status.is_failure() => of.failed.inc(),
            Err(_) => of.refused.inc(),
        }
    }

    fn of(&self, method: &'static str) -> Of {
        let count = |result| {
            let labels = [("method", method), ("result", result)];
            self.meter.counter("bramble_etcd_requests_total", "Requests of etcd's clients.", &labels)
        };
        Of {
            seconds: self.meter.histogram(
                "bramble_etcd_request_seconds",
                "Time for a request of etcd's clients.",
                &[("method", method)],
                LATENCY_SECONDS,
            ),
            done: count("done"),
            refused: count("refused"),
            failed: count("failed"),
        }
    }
}
