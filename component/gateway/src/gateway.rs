//! The gateway as a whole: from one table to the next.
//!
//! Owns the set of listeners and services. Promises that a table is taken in without touching what did not
//! change: no open connection and no request under way notices.

use crate::aside::{self, Asides, Outside};
use crate::cache::{Listed, Purge, Room};
use crate::crowd::Crowd;
use crate::listener::{self, Aim, Floor, Listening, Phase, Target, TargetKind};
use crate::metrics::{ConnectionMeters, ServiceMeters};
use crate::named::Named;
use crate::policy::Policy;
use crate::proof::Proofs;
use crate::route::Router;
use crate::rule::Addresses;
use crate::rule::Shelf;
use crate::seen::{RoutesSeen, Scribe};
use crate::settings::{Limits, Settings, Socket, UdpDialer, affordable, kept};
use crate::slack;
use crate::strain;
use crate::swap::Swap;
use crate::table::{Applied, Listener, ListenerKind, Route, Table};
use crate::threads::{Ends, Threads};
use crate::tls::Tls;
use crate::upstream::{Ground, Upstream};
use balancer::{Breaker, Cause};
use meter::{Meter, Registration};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use wire::spec::{AccessLog, PriorityClass, Protocol};
use world::net::Dialer;
use world::task::Task;

/// Connections at rest may be closed so much later than they might.
const REMIND_EVERY: Duration = Duration::from_secs(5);
/// How often unused connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Requests to the routed port that match no route are counted under this name.
const NO_SERVICE: &str = "";

/// Instances with series of their own: three each, of those that are kept of a whole machine.
const MEASURED_MAX: usize = 100;

const CLOSED: &str = "the gateway is closed";

type Upstreams = BTreeMap<(String, u16), Arc<Upstream>>;

/// Serves published ports and host names. Dropped, it cuts everything off; see [`Gateway::close`].
pub struct Gateway {
    pub(crate) floor: Arc<Floor>,
    meter: Meter,
    unrouted: Arc<ServiceMeters>,
    /// For hosts that are no services.
    outside: Arc<Ground>,
    upstreams: Arc<Mutex<Upstreams>>,
    shelf: Shelf,
    routes_seen: RoutesSeen,
    _scribe: Option<Task>,
    /// Held while a table is applied, so that two do not mix.
    pub(crate) state: tokio::sync::Mutex<State>,
    _reminder: Task,
    _sweeper: Task,
    _watchers: Vec<Task>,
    _keeper: Task,
    _series: [Registration; 2],
    /// Last: what runs there ends with it.
    _threads: Ends,
}

pub(crate) struct State {
    pub(crate) listeners: HashMap<Key, Listening>,
    /// Of listeners that are gone: for the connections that remain.
    pub(crate) retired: Vec<watch::Sender<Phase>>,
    inherited: Vec<Socket>,
    udp: Option<Arc<dyn UdpDialer>>,
    /// Of the last table.
    routes: Vec<Route>,
    pub(crate) closed: bool,
}

/// What the gateway knows of an instance at one port, for people.
#[derive(Debug, Clone)]
pub struct EndpointSeen {
    pub instance: String,
    pub breaker: Breaker,
    /// How long ago requests began to flow, or ceased to.
    pub since: Duration,
    /// Why it is left out or only tried.
    pub cause: Option<Cause>,
    /// Until it is tried again, while it is left out.
    pub tried_in: Option<Duration>,
    pub in_flight: usize,
    /// How long an answer is expected to take. `None` until there was one.
    pub latency_ms: Option<f64>,
    /// What its failures cost on top.
    pub penalty_ms: f64,
    /// How busy its machine is, from 0 to 1.
    pub load: f64,
    pub zone: Option<Arc<str>>,
    /// Gets nothing new.
    pub draining: bool,
}

impl EndpointSeen {
    /// Takes in what is known of another port of the same instance.
    fn join(&mut self, other: &EndpointSeen) {
        self.breaker = self.breaker.max(other.breaker);
        self.in_flight += other.in_flight;
        self.penalty_ms = self.penalty_ms.max(other.penalty_ms);
    }
}

impl State {
    /// Closes the sockets `table` does not name.
    async fn retire_others(&mut self, table: &Table, crowd: &Crowd) {
        let wanted: HashSet<Key> = table.listeners.iter().map(Key::of).collect();
        self.retired.retain(|phase| !phase.is_closed());
        let mut closing = Vec::new();
        for (_, listening) in self.listeners.extract_if(|key, _| !wanted.contains(key)) {
            let (phases, accepting) = listening.retire();
            self.retired.extend(phases);
            closing.push(accepting);
        }
        if !closing.is_empty() {
            crowd.nudge();
        }
        for accepting in closing {
            accepting.join().await;
        }
    }
}

/// What makes a listener the same one in the next table. Free ports are told apart by what they serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    address: SocketAddr,
    pub(crate) protocol: Protocol,
    free_port_of: Option<ListenerKind>,
    tls: bool,
}

impl Key {
    fn of(listener: &Listener) -> Key {
        let protocol = match &listener.kind {
            ListenerKind::Routed => Protocol::Tcp,
            ListenerKind::Service { protocol, .. } => *protocol,
        };
        let free_port_of = (listener.address.port() == 0).then(|| listener.kind.clone());
        Key { address: listener.address, protocol, free_port_of, tls: listener.tls }
    }
}

impl Gateway {
    /// Starts a gateway that serves nothing yet. Must be called within a Tokio runtime.
    pub fn start(settings: Settings, dialer: Arc<dyn Dialer>, meter: Meter) -> Gateway {
        let Settings { inherited, udp, trusted, zone, access, access_log, cache, limits, threads } = settings;
        let (threads, ends) = Threads::start(threads);
        let trusted = Addresses::new(&trusted, &[]).map(Arc::new);
        let most = affordable(limits.connections_max);
        let limits = Limits { idle_upstream_max: kept(limits.idle_upstream_max, most), ..limits };
        let room = Arc::new(Semaphore::new(most));
        let connections = Arc::new(ConnectionMeters::new(&meter, most));
        let cache = Room::new(cache, &meter);
        let (scribe, scribing) = Scribe::start(access, access_log.unwrap_or(AccessLog::DEFAULT), &meter);
        let ground = Arc::new(Ground::new(dialer, limits, scribe, zone, cache, meter.clone()));
        let upstreams = Arc::new(Mutex::new(Upstreams::new()));
        let tls = Tls::new(Arc::clone(&ground.proofs)).expect("ring has everything TLS 1.2 and 1.3 need");
        let named = Arc::new(Swap::new(Named::default()));
        let (untold, _) = Scribe::start(None, AccessLog::Off, &meter);
        let (uncached, bounds) = (Room::new(None, &meter), ground.limits.clone());
        let outside = Arc::new(Ground::new(Arc::new(Outside), bounds, untold, None, uncached, meter.clone()));
        let floor = Arc::new(Floor { ground, meters: connections, room, places: most, tls, named, trusted, threads });
        let series = [measure(&meter, Arc::clone(&upstreams)), measure_threads(&meter, floor.threads.clone())];
        Gateway {
            unrouted: Arc::new(ServiceMeters::new(&meter, NO_SERVICE)),
            // These end with the gateway.
            _watchers: watch(&floor, &meter),
            _reminder: world::task::spawn("gateway reminder", remind(Arc::clone(&floor.ground))),
            floor,
            _series: series,
            _threads: ends,
            meter,
            _keeper: world::task::spawn("gateway memory", slack::keep()),
            _sweeper: world::task::spawn("gateway sweeper", sweep(Arc::clone(&upstreams))),
            outside,
            upstreams,
            shelf: Shelf::default(),
            routes_seen: RoutesSeen::default(),
            _scribe: scribing,
            state: tokio::sync::Mutex::new(State {
                listeners: HashMap::new(),
                retired: Vec::new(),
                inherited,
                udp,
                routes: Vec::new(),
                closed: false,
            }),
        }
    }

    /// Makes the gateway serve `table` and nothing else. May be called at any time and with the same table again;
    /// dropped halfway, the next call makes up for it. Endpoints come before routes and listeners, so that nothing
    /// points at nothing, and sockets close before others open, so that addresses can be exchanged.
    pub async fn apply(&self, table: Table) -> Applied {
        let mut state = self.state.lock().await;
        let mut applied = Applied::default();
        if state.closed {
            let refused = table.listeners.iter().map(|listener| (listener.address, CLOSED.to_owned()));
            applied.failed.extend(refused);
            return applied;
        }
        applied.unusable = self.floor.tls.show(&table.certificates);
        let upstreams = self.update_upstreams(&table);
        let upstream_of = |service: &str, port| {
            upstreams.get(&(service.to_owned(), port)).cloned().expect("every service a table names has been made")
        };
        let before = self.floor.named.get();
        let (named, unusable) = Named::new(&table, &before, &self.floor.tls, upstream_of);
        self.floor.named.set(named);
        applied.unusable.extend(unusable);
        if table.routes.iter().filter_map(|route| route.rules.as_ref()).any(|rules| rules.cache.is_some()) {
            self.floor.ground.cache.open();
        }
        self.shelf.sweep();
        self.routes_seen.sweep(&self.meter);
        let router = Arc::new(Router::new(&table.routes, |route| {
            let upstream = upstream_of(&route.service, route.port);
            let rules = self.shelf.rules(route, &upstream.meters);
            let asides = Asides::new(route.rules.as_deref(), |aside| upstream_of(&aside.service, aside.port));
            (Aim { upstream, asides, seen: self.routes_seen.get(route, &self.meter) }, rules)
        }));
        state.routes.clone_from(&table.routes);
        state.retire_others(&table, &self.floor.ground.crowd).await;
        let mut named = HashSet::new();
        for listener in &table.listeners {
            let key = Key::of(listener);
            if !named.insert(key.clone()) {
                let reason = format!("cannot listen at {}: named twice", listener.address);
                applied.failed.push((listener.address, reason));
                continue;
            }
            let kind = match &listener.kind {
                ListenerKind::Routed => TargetKind::Routed(Arc::clone(&router)),
                ListenerKind::Service { service, port, .. } => {
                    let (speaks, proxy_protocol) = (listener.speaks, listener.proxy_protocol);
                    let upstream = upstream_of(service, *port);
                    TargetKind::Service { upstream, speaks, proxy_protocol }
                }
            };
            let target = Target { kind, meters: Arc::clone(&self.unrouted), policy: Policy::default() };
            if let Some(listening) = state.listeners.get(&key) {
                listening.target.set(target);
                applied.listening.push((listener.address, listening.got));
                continue;
            }
            match self.listen(&mut state, &key, target) {
                Ok(listening) => {
                    applied.listening.push((listener.address, listening.got));
                    state.listeners.insert(key, listening);
                }
                Err(reason) => applied.failed.push((listener.address, reason)),
            }
        }
        // What nobody wants any more must not look open.
        state.inherited.clear();
        applied
    }

    /// Shows public authorities `proofs` and nothing else, from now on.
    pub fn prove(&self, proofs: Proofs) {
        self.floor.ground.proofs.set(proofs);
    }

    /// Every published socket once more, by the address that was wanted: given to [`Settings::inherited`] of the
    /// next gateway, no client finds the port closed in between.
    pub async fn sockets(&self) -> Vec<Socket> {
        let state = self.state.lock().await;
        let kept = state.listeners.iter().filter_map(|(key, listening)| {
            let socket = listening.kept.try_clone().ok()?;
            Some(Socket { address: key.address, protocol: key.protocol, socket })
        });
        kept.collect()
    }

    /// The routes of the last table.
    pub async fn routes(&self) -> Vec<Route> {
        self.state.lock().await.routes.clone()
    }

    /// Clients that routes turn away for a while: the service, the client, and for how long still.
    pub fn bans(&self) -> Vec<(String, IpAddr, Duration)> {
        self.shelf.bans()
    }

    /// Lets a client in again everywhere. How many routes had turned it away.
    pub fn lift_ban(&self, client: IpAddr) -> usize {
        self.shelf.lift(client)
    }

    /// The instances behind a port of a service.
    pub fn endpoints(&self, service: &str, port: u16) -> Vec<EndpointSeen> {
        let key = (service.to_owned(), port);
        let upstream = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        upstream.map(|upstream| upstream.seen()).unwrap_or_default()
    }

    /// The instances behind every port that is served.
    pub fn all_endpoints(&self) -> Vec<(String, u16, Vec<EndpointSeen>)> {
        let all = self.all_upstreams();
        all.iter().map(|upstream| (upstream.service.clone(), upstream.port, upstream.seen())).collect()
    }

    /// What the cache takes; `None` without one.
    pub fn cache_usage(&self) -> Option<stash::Usage> {
        self.floor.ground.cache.get().map(|cache| cache.usage())
    }

    /// What lies in the cache, those answers first that were given most often.
    pub fn cached(&self) -> Vec<Listed> {
        self.floor.ground.cache.get().map(|cache| cache.list()).unwrap_or_default()
    }

    /// Forgets cached answers. When this returns, none of them is given again, and no power cut brings one back.
    pub async fn purge(&self, what: &Purge) -> std::io::Result<()> {
        match self.floor.ground.cache.get() {
            Some(cache) => cache.purge(what).await,
            None => Ok(()),
        }
    }

    /// Waits until it is known what lies in the cache's folder.
    pub async fn cache_opened(&self) {
        if let Some(cache) = self.floor.ground.cache.get() {
            cache.stash.opened().await;
        }
    }

    /// Says how busy the machines are that instances run on, from 0.0, idle, to 1.0: those on busy ones are asked less.
    pub fn note_loads(&self, loads: &BTreeMap<String, f64>) {
        for upstream in self.all_upstreams() {
            upstream.note_loads(loads);
        }
    }

    /// Says how much of the time something on the gateway's own machine waited for a processor.
    pub fn note_waiting(&self, share: f64) {
        self.floor.ground.strain.note_waiting(share);
    }

    /// How many requests and connections an instance has.
    pub fn in_flight(&self, instance: &str) -> usize {
        self.all_upstreams().iter().map(|upstream| upstream.in_flight(instance)).sum()
    }

    /// Waits until an instance that gets nothing new has nothing in flight: it can be stopped without anybody
    /// noticing. Apply a table in which it drains or is missing first. May be dropped.
    pub async fn drained(&self, instance: &str) {
        loop {
            let mut told = std::pin::pin!(self.floor.ground.drained.notified());
            told.as_mut().enable();
            let upstreams = self.all_upstreams();
            let busy = |upstream: &Arc<Upstream>| upstream.takes_picks(instance) || upstream.in_flight(instance) > 0;
            if !upstreams.iter().any(busy) {
                return;
            }
            told.await;
        }
    }

    /// Stops accepting, lets what is under way finish for up to `grace`, and ends the rest. Tables applied
    /// afterwards are not served.
    pub async fn close(&self, grace: Duration) {
        let phases = {
            let mut state = self.state.lock().await;
            state.closed = true;
            state.retire_others(&Table::default(), &self.floor.ground.crowd).await;
            std::mem::take(&mut state.retired)
        };
        let ended = async {
            for phase in &phases {
                phase.closed().await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            let left: usize = phases.iter().map(watch::Sender::receiver_count).sum();
            tracing::warn!(connections = left, "the gateway closes and cuts client connections off");
        }
        for phase in &phases {
            phase.send_replace(Phase::Cut);
        }
        self.floor.ground.crowd.nudge();
        if let Some(cache) = self.floor.ground.cache.get() {
            cache.stash.close().await;
        }
        if tokio::time::timeout(grace, self.told()).await.is_err() {
            tracing::warn!("the gateway closes before its access log is written");
        }
    }

    /// Waits until all requests that are over by now have been told of.
    pub async fn told(&self) {
        self.floor.ground.scribe.flush().await;
    }

    /// Makes the services the table names, tells all of them their endpoints, and forgets those that are
    /// neither named nor busy.
    fn update_upstreams(&self, table: &Table) -> Upstreams {
        let routed = table.routes.iter().map(|route| (route.service.clone(), route.port));
        let rules = table.routes.iter().filter_map(|route| route.rules.as_ref());
        let asides = rules.flat_map(|rules| rules.asides()).map(|aside| (aside.service.clone(), aside.port));
        let published = table.listeners.iter().filter_map(|listener| match &listener.kind {
            ListenerKind::Routed => None,
            ListenerKind::Service { service, port, .. } => Some((service.clone(), *port)),
        });
        let carried = table.passages.iter().map(|passage| (passage.service.clone(), passage.port));
        let mut wanted = Upstreams::new();
        let mut known = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        for key in routed.chain(published).chain(carried).chain(asides) {
            let upstream = known.remove(&key).or_else(|| wanted.get(&key).cloned()).unwrap_or_else(|| {
                let meters = Arc::new(ServiceMeters::new(&self.meter, &key.0));
                let ground = if outside_host(&key.0).is_some() { &self.outside } else { &self.floor.ground };
                Arc::new(Upstream::new(&key.0, key.1, Arc::clone(ground), meters))
            });
            wanted.insert(key, upstream);
        }
        known.retain(|_, upstream| upstream.in_flight_total() > 0);
        let leaving = std::mem::take(&mut *known);
        for ((service, _), upstream) in wanted.iter().chain(&leaving) {
            match outside_host(service) {
                Some(host) => upstream.update(&[aside::endpoint(host)]),
                None => upstream.update(table.services.get(service).map_or(&[], Vec::as_slice)),
            }
            upstream.bound(table.in_flight_max(service, upstream.port));
        }
        known.extend(leaving);
        known.extend(wanted.iter().map(|(key, upstream)| (key.clone(), Arc::clone(upstream))));
        wanted
    }

    fn listen(&self, state: &mut State, key: &Key, target: Target) -> Result<Listening, String> {
        let is_its = |one: &Socket| (one.address, one.protocol) == (key.address, key.protocol);
        let held = state.inherited.iter().position(is_its);
        let held = held.map(|at| state.inherited.swap_remove(at).socket);
        let floor = Arc::clone(&self.floor);
        let listening = match (key.protocol, &state.udp) {
            (Protocol::Tcp, _) => held
                .map_or_else(|| listener::bind(key.address), listener::inherit)
                .and_then(|socket| Listening::start(socket, target, floor, key.tls)),
            (Protocol::Udp, Some(dialer)) => held
                .map_or_else(|| listener::bind_udp(key.address), listener::inherit_udp)
                .and_then(|socket| Listening::start_udp(socket, target, &floor, Arc::clone(dialer))),
            (Protocol::Udp, None) => {
                return Err(format!("cannot listen at {}: UDP ports are not published on this machine", key.address));
            }
        };
        listening.map_err(|error| listener::explain(key.address, &error))
    }

    pub(crate) fn all_upstreams(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The host of what is no service.
fn outside_host(service: &str) -> Option<&str> {
    service.strip_prefix("http://")
}

/// Looks how hard it is for each thread, all the time.
fn watch(floor: &Floor, meter: &Meter) -> Vec<Task> {
    let gauges = Arc::new(PriorityClass::ALL.map(|class| {
        let help = "How hard it is for the gateway, as each class of requests feels it, from 0 to 1.";
        (class, meter.gauge("bramble_gateway_strain", help, &[("class", class.word())]))
    }));
    let watching = floor.threads.all().map(|thread| {
        let (ground, gauges, is_first) = (Arc::clone(&floor.ground), Arc::clone(&gauges), thread.number() == 0);
        thread.spawn("gateway strain", async move {
            loop {
                let begun = world::clock::monotonic();
                tokio::time::sleep(strain::LOOK_EVERY).await;
                let late = world::clock::monotonic().saturating_duration_since(begun);
                ground.strain.note_late(late.saturating_sub(strain::LOOK_EVERY));
                if !is_first {
                    continue;
                }
                ground.strain.look();
                for (class, gauge) in gauges.iter() {
                    gauge.set(f64::from(ground.strain.of(*class)));
                }
            }
        })
    });
    watching.collect()
}

/// How connections are shared out, as series.
fn measure_threads(meter: &Meter, threads: Threads) -> Registration {
    meter.collector(move |samples| {
        for thread in threads.all() {
            let help = "Client connections that a thread of the gateway serves.";
            let number = thread.number().to_string();
            samples.gauge(
                "bramble_gateway_thread_connections",
                help,
                &[("thread", &number)],
                thread.connections() as f64,
            );
        }
    })
}

/// What is known of the instances, as series: all ports of one taken together.
fn measure(meter: &Meter, upstreams: Arc<Mutex<Upstreams>>) -> Registration {
    meter.collector(move |samples| {
        let all: Vec<Arc<Upstream>> =
            upstreams.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut known: BTreeMap<(String, String), EndpointSeen> = BTreeMap::new();
        for upstream in all.iter().filter(|upstream| upstream.has_served()) {
            for seen in upstream.seen() {
                let key = (upstream.service.clone(), seen.instance.clone());
                if known.len() >= MEASURED_MAX && !known.contains_key(&key) {
                    continue;
                }
                known.entry(key).and_modify(|other| other.join(&seen)).or_insert(seen);
            }
        }
        for ((service, instance), seen) in &known {
            let labels = [("service", service.as_str()), ("instance", instance.as_str())];
            let breaker = match seen.breaker {
                Breaker::Closed => 0.0,
                Breaker::HalfOpen => 0.5,
                Breaker::Open => 1.0,
            };
            let help = "Whether an instance is left out: 0 no, 0.5 it is tried, 1 yes.";
            samples.gauge("bramble_gateway_breaker", help, &labels, breaker);
            let help = "Requests and connections an instance has now.";
            samples.gauge("bramble_gateway_in_flight", help, &labels, seen.in_flight as f64);
            let help = "What the failures of an instance cost it in the choice, as if answers took longer by so much.";
            samples.gauge("bramble_gateway_penalty_seconds", help, &labels, seen.penalty_ms / 1_000.0);
        }
    })
}

/// Reminds connections at rest that their time is up.
async fn remind(ground: Arc<Ground>) {
    let idle_deadline = ground.limits.idle_deadline;
    let pause = REMIND_EVERY.min(idle_deadline);
    loop {
        tokio::time::sleep(pause).await;
        ground.crowd.nudge_overdue(idle_deadline);
    }
}

async fn sweep(upstreams: Arc<Mutex<Upstreams>>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let all: Vec<Arc<Upstream>> =
            upstreams.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for upstream in all {
            upstream.sweep();
        }
    }
}
