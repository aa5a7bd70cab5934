//! What is counted for each route and each instance: how many, how they ended, how long they took.
//!
//! Owns the bounds on how many of them have series: what people deploy decides the number otherwise, and what is kept of
//! all series of a machine is bounded.

use crate::affinity::{self, Affinity};
use crate::hedge::Hedging;
use crate::metrics::{CLASSES, class};
use crate::table::Route;
use meter::{Counter, Histogram, Meter};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use wire::spec::{AccessLog, Delivery, PriorityClass};

/// Routes and instances with series of their own, each: some seven series of those that are used.
const COUNTED_MAX: usize = 100;

/// A route as it is told of, and how its requests are carried.
pub(crate) struct RouteSeen {
    /// Its host and path.
    pub(crate) name: String,
    pub(crate) log: Option<AccessLog>,
    pub(crate) class: PriorityClass,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) hedging: Option<Hedging>,
    pub(crate) meters: Meters,
    delivery: Option<Box<Delivery>>,
}

/// An instance as it is told of.
pub(crate) struct InstanceSeen {
    pub(crate) id: Arc<str>,
    /// Where it runs.
    pub(crate) machine: Box<str>,
    /// What stands for it in cookies.
    pub(crate) mark: String,
    pub(crate) meters: Meters,
    /// Instances with series.
    place: Option<Arc<AtomicUsize>>,
}

/// Handles, made when they are first needed.
pub(crate) struct Meters {
    /// `None` for what has no series of its own.
    meter: Option<Meter>,
    names: [&'static str; 2],
    labels: [(&'static str, String); 2],
    requests: [OnceLock<Counter>; CLASSES.len()],
    seconds: OnceLock<Histogram>,
}

impl Meters {
    fn new(meter: Option<Meter>, names: [&'static str; 2], labels: [(&'static str, String); 2]) -> Meters {
        Meters { meter, names, labels, requests: Default::default(), seconds: OnceLock::new() }
    }

    /// Counts a request that ended with `status`; 0 when the client left first.
    pub(crate) fn request(&self, status: u16, took: Duration) {
        let Some(meter) = &self.meter else { return };
        let class = class(status);
        let [(one, its), (other, of_it)] = &self.labels;
        self.requests[class]
            .get_or_init(|| {
                let labels = [(*one, its.as_str()), (*other, of_it.as_str()), ("class", CLASSES[class])];
                meter.counter(self.names[0], "HTTP requests by how they were answered.", &labels)
            })
            .inc();
        self.seconds
            .get_or_init(|| {
                let labels = [(*one, its.as_str()), (*other, of_it.as_str())];
                let help = "Time from a request's head to the end of its answer.";
                meter.histogram(self.names[1], help, &labels, meter::LATENCY_SECONDS)
            })
            .observe_duration(took);
    }

    /// Gives an example of a request that took so long.
    pub(crate) fn exemplify(&self, took: Duration, trace: &str) {
        if let Some(seconds) = self.seconds.get() {
            seconds.exemplify(took.as_secs_f64(), trace, world::clock::unix_ms());
        }
    }
}

/// The routes of all tables so far that are still wanted: a route that stays goes on counting.
#[derive(Default)]
pub(crate) struct RoutesSeen(Mutex<HashMap<(String, String), Arc<RouteSeen>>>);

impl RoutesSeen {
    pub(crate) fn get(&self, route: &Route, meter: &Meter) -> Arc<RouteSeen> {
        let key = (route.service.clone(), name(route));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = known.get(&key).filter(|seen| seen.delivery == route.delivery) {
            return Arc::clone(seen);
        }
        let names = ["bramble_gateway_route_requests_total", "bramble_gateway_route_seconds"];
        let counted = (known.len() < COUNTED_MAX).then(|| meter.clone());
        let meters = Meters::new(counted, names, [("service", key.0.clone()), ("route", key.1.clone())]);
        let delivery = route.delivery.as_deref().cloned().unwrap_or_default();
        let affinity = delivery.balance.as_ref();
        let seen = Arc::new(RouteSeen {
            name: key.1.clone(),
            log: delivery.access_log,
            class: delivery.priority_class,
            affinity: affinity.and_then(|balance| Affinity::new(balance, &route.service, &route.path_prefix)),
            hedging: delivery.hedge.map(Hedging::new),
            meters,
            delivery: route.delivery.clone(),
        });
        known.insert(key, Arc::clone(&seen));
        seen
    }

    /// Forgets the routes that no table uses any more, and their series.
    pub(crate) fn sweep(&self, meter: &Meter) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<(String, String)> =
            known.extract_if(|_, seen| Arc::strong_count(seen) == 1).map(|(key, _)| key).collect();
        for (_, name) in gone {
            if !known.keys().any(|(_, other)| *other == name) {
                meter.forget("route", &name);
            }
        }
    }
}

/// Host and path, as people write it: `shop.test/api`.
fn name(route: &Route) -> String {
    let host = route.hosts.first().map_or("*", String::as_str);
    let more = if route.hosts.len() > 1 { format!("+{}", route.hosts.len() - 1) } else { String::new() };
    format!("{host}{more}{}", route.path_prefix)
}

impl InstanceSeen {
    /// `counted`: how many have series. Their owner forgets those of an instance that is gone.
    pub(crate) fn new(
        id: &Arc<str>,
        service: &str,
        machine: &str,
        meter: &Meter,
        counted: &Arc<AtomicUsize>,
    ) -> InstanceSeen {
        let place = (counted.fetch_add(1, Ordering::Relaxed) < COUNTED_MAX).then(|| Arc::clone(counted));
        if place.is_none() {
            counted.fetch_sub(1, Ordering::Relaxed);
        }
        let names = ["bramble_gateway_instance_requests_total", "bramble_gateway_instance_seconds"];
        let meters = Meters::new(
            place.is_some().then(|| meter.clone()),
            names,
            [("service", service.to_owned()), ("instance", id.to_string())],
        );
        InstanceSeen { id: Arc::clone(id), machine: machine.into(), mark: affinity::mark(service, id), meters, place }
    }
}

impl Drop for InstanceSeen {
    fn drop(&mut self) {
        if let Some(counted) = &self.place {
            counted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
