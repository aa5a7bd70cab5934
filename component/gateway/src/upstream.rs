//! One port of one service as seen from the gateway: its endpoints, its unused connections, and who waits.
//!
//! Owns the balancer's pool and the connection pool under one lock, held for no await. Promises that a pick is
//! counted until its [`Lease`] ends, however it ends. Does not know requests: `exchange` and `tunnel` use it.

use crate::affinity::Wish;
use crate::budget::Budget;
use crate::cache::Room;
use crate::crowd::Crowd;
use crate::gateway::EndpointSeen;
use crate::idle::Idle;
use crate::link::{Link, Shared};
use crate::metrics::{Failure, ServiceMeters};
use crate::proof;
use crate::seen::{InstanceSeen, Scribe};
use crate::settings::Limits;
use crate::strain::Strain;
use crate::table;
use crate::threads;
use balancer::{Breaker, Choice, NotPicked, Outcome, Pool};
use meter::Meter;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use world::net::Dialer;
use world::random::Dice;

/// A connection unused for longer than this carries only requests that may be sent twice: the shortest
/// keep-alive of common servers is 2 s (gunicorn), and losing the race would lose the request.
const IDLE_MS_ONCE_MAX: u64 = 1_000;
/// While endpoints exist but refuse connections, how long until they are asked again, by one of those that wait:
/// a thousand asking at once would keep a machine busy that has a program to start.
const PROBE_PAUSE: Duration = Duration::from_millis(50);

/// What all parts of the gateway lean on.
pub(crate) struct Ground {
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) limits: Limits,
    /// What public authorities are shown.
    pub(crate) proofs: Arc<proof::Shown>,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) cache: Room,
    pub(crate) scribe: Scribe,
    pub(crate) strain: Strain,
    zone: Option<Arc<str>>,
    meter: Meter,
    /// Instances with series of their own.
    counted: Arc<AtomicUsize>,
    started_ms: u64,
    pub(crate) dice: Dice,
    /// Told whenever an endpoint that gets nothing new has nothing left in flight.
    pub(crate) drained: Notify,
}

impl Ground {
    pub(crate) fn new(
        dialer: Arc<dyn Dialer>,
        limits: Limits,
        scribe: Scribe,
        zone: Option<Arc<str>>,
        cache: Room,
        meter: Meter,
    ) -> Ground {
        let (started_ms, drained) = (world::clock::coarse_ms(), Notify::new());
        let (strain, proofs) = (Strain::default(), Arc::new(proof::Shown::new()));
        Ground {
            dialer,
            limits,
            proofs,
            cache,
            crowd: Arc::default(),
            scribe,
            strain,
            zone,
            meter,
            counted: Arc::default(),
            started_ms,
            dice: Dice::new(),
            drained,
        }
    }

    /// Since it began. A few milliseconds are nothing to what is decided by it, and every request asks.
    pub(crate) fn now_ms(&self) -> u64 {
        world::clock::coarse_ms().saturating_sub(self.started_ms)
    }
}

/// One port of one service.
pub(crate) struct Upstream {
    /// `stack/service`.
    pub(crate) service: String,
    pub(crate) port: u16,
    pub(crate) ground: Arc<Ground>,
    pub(crate) meters: Arc<ServiceMeters>,
    state: Mutex<State>,
    /// Told when endpoints come, or stop refusing.
    changed: Notify,
    /// Told, one by one, when an instance that had as much as it may has less.
    turns: Notify,
    /// How many wait for their turn.
    queued: AtomicUsize,
    held: AtomicUsize,
    /// What the pool has in flight in all, readable without its lock.
    busy: AtomicUsize,
    /// The last attempt to connect was refused.
    refusing: AtomicBool,
    /// When one of those that wait last asked again.
    probed_ms: AtomicU64,
    /// It has passed something on.
    served: AtomicBool,
    /// A client has spoken HTTP to this port.
    http: AtomicBool,
}

struct State {
    pool: Pool,
    idle: HashMap<Arc<str>, Idle>,
    /// Connections of HTTP/2, one for each thread and endpoint that is spoken to so.
    shared: HashMap<Arc<str>, Vec<Shared>>,
    seen: HashMap<Arc<str>, Arc<InstanceSeen>>,
    budget: Budget,
}

/// Why waiting for an endpoint ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// As many wait as may.
    Full,
    /// The deadline passed.
    Late,
}

impl Upstream {
    pub(crate) fn new(service: &str, port: u16, ground: Arc<Ground>, meters: Arc<ServiceMeters>) -> Upstream {
        let state = State {
            pool: Pool::with(balancer::Settings { zone: ground.zone.clone(), ..balancer::Settings::default() }),
            idle: HashMap::new(),
            shared: HashMap::new(),
            seen: HashMap::new(),
            budget: Budget::new(ground.now_ms()),
        };
        Upstream {
            service: service.to_owned(),
            port,
            ground,
            meters,
            state: Mutex::new(state),
            changed: Notify::new(),
            turns: Notify::new(),
            queued: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            refusing: AtomicBool::new(false),
            probed_ms: AtomicU64::new(0),
            served: AtomicBool::new(false),
            http: AtomicBool::new(false),
        }
    }

    /// Makes `endpoints` the ones to choose from.
    pub(crate) fn update(&self, endpoints: &[table::Endpoint]) {
        let wanted = endpoints
            .iter()
            .map(|endpoint| balancer::Endpoint {
                id: endpoint.instance.clone(),
                weight: 1,
                draining: endpoint.draining,
                zone: endpoint.zone.clone(),
            })
            .collect();
        let now_ms = self.ground.now_ms();
        let unused: (Vec<Idle>, Vec<Vec<Shared>>) = {
            let mut state = self.lock();
            let State { pool, idle, shared, seen, .. } = &mut *state;
            pool.update(now_ms, wanted);
            seen.retain(|id, _| pool.ids().any(|known| known == id));
            for id in pool.ids().filter(|id| pool.takes_picks(id)) {
                let Ground { meter, counted, .. } = &*self.ground;
                let machine = endpoints.iter().find(|endpoint| *endpoint.instance == **id);
                let machine = machine.map_or("", |endpoint| endpoint.machine.as_str());
                let new = || Arc::new(InstanceSeen::new(id, &self.service, machine, meter, counted));
                seen.entry(Arc::clone(id)).or_insert_with(new);
            }
            let idle = idle.extract_if(|id, _| !pool.takes_picks(id)).map(|(_, links)| links).collect();
            (idle, shared.extract_if(|id, _| !pool.takes_picks(id)).map(|(_, shared)| shared).collect())
        };
        // Closing sockets is for after the lock.
        drop(unused);
        self.changed.notify_waiters();
        self.turns.notify_waiters();
        self.ground.drained.notify_waiters();
    }

    /// How much may be in flight at one endpoint; 0 is no bound.
    pub(crate) fn bound(&self, in_flight_max: usize) {
        self.lock().pool.bound(in_flight_max);
        self.turns.notify_waiters();
    }

    /// Says how busy machines are, by their ids.
    pub(crate) fn note_loads(&self, loads: &BTreeMap<String, f64>) {
        let mut state = self.lock();
        let State { pool, seen, .. } = &mut *state;
        for (id, seen) in seen {
            if let Some(load) = loads.get(&*seen.machine) {
                pool.set_load(id, *load);
            }
        }
    }

    /// Chooses an endpoint that is not in `except`. `first` says that a request asks for the first time, which
    /// counts towards what retries are measured against, and since when it has: it has not waited.
    pub(crate) fn lease(
        self: &Arc<Self>,
        except: &[Arc<str>],
        first: Option<Instant>,
        wish: &Wish,
    ) -> Result<Lease, NotPicked> {
        let now_ms = self.ground.now_ms();
        let mut state = self.lock();
        if first.is_some() {
            state.budget.note_request(now_ms);
        }
        let random = self.ground.dice.roll();
        let State { pool, seen, .. } = &mut *state;
        let choice = match wish {
            Wish::LeastLoad | Wish::Marked(None) => Choice::LeastLoad,
            Wish::Hash(key) => Choice::Hash(*key),
            Wish::Marked(Some(mark)) => {
                let marked = seen.values().find(|seen| seen.mark == *mark);
                marked.map_or(Choice::LeastLoad, |seen| Choice::Sticky(&seen.id))
            }
        };
        let id = pool.pick_by(now_ms, random, choice, except)?;
        let seen = seen.get(&id).cloned();
        self.busy.fetch_add(1, Ordering::Relaxed);
        // Written once: read by everybody.
        if first.is_some() && !self.served.load(Ordering::Relaxed) {
            self.served.store(true, Ordering::Relaxed);
        }
        Ok(Lease {
            upstream: Arc::clone(self),
            id,
            seen,
            begun: first.unwrap_or_else(world::clock::monotonic),
            ended: false,
        })
    }

    /// How many wait for their turn.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// A lease of an endpoint that has as much as it may, in turn. Bounded in number. May be dropped.
    pub(crate) async fn lease_in_turn(
        self: &Arc<Self>,
        except: &[Arc<str>],
        wish: &Wish,
        deadline: Instant,
    ) -> Result<Lease, NotHeld> {
        let Some(_place) = self.take_place() else { return Err(NotHeld::Full) };
        let mut first = self.queued.fetch_add(1, Ordering::Relaxed) == 0;
        let _queued = Queued { upstream: self };
        loop {
            let turn = self.turns.notified();
            tokio::pin!(turn);
            turn.as_mut().enable();
            // Whoever is behind others waits at first: they came before.
            if std::mem::replace(&mut first, true)
                && let Ok(lease) = self.lease(except, None, wish)
            {
                return Ok(lease);
            }
            tokio::time::timeout_at(deadline.into(), turn).await.map_err(|_| NotHeld::Late)?;
        }
    }

    /// Waits until there may be an endpoint to pick, at most until `deadline`. Bounded in number, because what
    /// waits holds a connection. May be dropped.
    pub(crate) async fn hold(self: &Arc<Self>, deadline: Instant) -> Result<(), NotHeld> {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if world::clock::monotonic() >= deadline {
            return Err(NotHeld::Late);
        }
        let Some(_place) = self.take_place() else { return Err(NotHeld::Full) };
        if self.lock().pool.size() == 0 {
            return tokio::time::timeout_at(deadline.into(), changed).await.map_err(|_| NotHeld::Late);
        }
        // There are endpoints, all tried: they refuse connections, and may not a moment from now.
        while tokio::time::timeout(PROBE_PAUSE, changed.as_mut()).await.is_err() {
            if world::clock::monotonic() >= deadline {
                return Err(NotHeld::Late);
            }
            if self.may_probe() {
                break;
            }
        }
        Ok(())
    }

    /// Whether it is this caller's turn to ask endpoints that refused.
    fn may_probe(&self) -> bool {
        let now_ms = self.ground.now_ms();
        let last_ms = self.probed_ms.load(Ordering::Relaxed);
        let pause_ms = u64::try_from(PROBE_PAUSE.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_sub(last_ms) >= pause_ms
            && self.probed_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Ends when the endpoints have changed since the call.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut changed = Box::pin(self.changed.notified());
        changed.as_mut().enable();
        changed
    }

    fn take_place(&self) -> Option<Place<'_>> {
        let before = self.held.fetch_add(1, Ordering::Relaxed);
        self.meters.waiting(1.0);
        let place = Place { upstream: self };
        (before < self.ground.limits.held_max).then_some(place)
    }

    /// Whether one more request may be sent a second time.
    pub(crate) fn may_retry(&self) -> bool {
        let now_ms = self.ground.now_ms();
        self.lock().budget.take(now_ms)
    }

    pub(crate) fn note_http(&self) {
        self.http.store(true, Ordering::Relaxed);
    }

    pub(crate) fn spoke_http(&self) -> bool {
        self.http.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self, instance: &str) -> usize {
        self.lock().pool.in_flight(instance)
    }

    pub(crate) fn in_flight_total(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// What is known of every endpoint.
    pub(crate) fn seen(&self) -> Vec<EndpointSeen> {
        let now_ms = self.ground.now_ms();
        let state = self.lock();
        let seen = state.pool.seen(now_ms).map(|seen| EndpointSeen {
            instance: seen.id.to_string(),
            breaker: seen.breaker,
            since: Duration::from_millis(now_ms.saturating_sub(seen.since_ms)),
            cause: seen.cause,
            tried_in: seen.ejected_until_ms.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(now_ms))),
            in_flight: seen.in_flight,
            latency_ms: seen.latency_ms,
            penalty_ms: seen.penalty_ms,
            load: seen.load,
            zone: seen.zone.cloned(),
            draining: seen.draining,
        });
        seen.collect()
    }

    /// Whether it has passed anything on yet.
    pub(crate) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    pub(crate) fn takes_picks(&self, instance: &str) -> bool {
        self.lock().pool.takes_picks(instance)
    }

    /// Closes connections unused for too long.
    pub(crate) fn sweep(&self) {
        let now_ms = self.ground.now_ms();
        let idle_ms = u64::try_from(self.ground.limits.idle_upstream_deadline.as_millis()).unwrap_or(u64::MAX);
        let mut closed = Vec::new();
        let mut state = self.lock();
        for idle in state.idle.values_mut() {
            closed.extend(idle.sweep(|link| now_ms.saturating_sub(link.idle_since_ms) > idle_ms || !link.is_free()));
        }
        let mut unused: Vec<Shared> = Vec::new();
        for shared in state.shared.values_mut() {
            unused.extend(shared.extract_if(.., |shared| shared.is_unused() || !shared.is_open()));
        }
        drop(state);
        drop((closed, unused));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that wait.
struct Place<'a> {
    upstream: &'a Upstream,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.upstream.held.fetch_sub(1, Ordering::Relaxed);
        self.upstream.meters.waiting(-1.0);
    }
}

/// A place among those that wait for their turn.
struct Queued<'a> {
    upstream: &'a Upstream,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.upstream.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One pick of one endpoint: counted in flight there until dropped.
pub(crate) struct Lease {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) id: Arc<str>,
    pub(crate) seen: Option<Arc<InstanceSeen>>,
    pub(crate) begun: Instant,
    ended: bool,
}

impl Lease {
    /// An unused connection, the one used last first, so that the surplus grows old and is closed.
    pub(crate) fn take_idle(&self, may_send_twice: bool) -> Option<Link> {
        let now_ms = self.upstream.ground.now_ms();
        loop {
            let mut link = self.upstream.lock().idle.get_mut(&self.id)?.take()?;
            if !may_send_twice && now_ms.saturating_sub(link.idle_since_ms) > IDLE_MS_ONCE_MAX {
                return None;
            }
            if link.is_free()
                && let Some(mut link) = link.move_here()
            {
                link.reused = true;
                return Some(link);
            }
        }
    }

    /// A share in the endpoint's connection of HTTP/2.
    pub(crate) fn take_shared(&self) -> Option<Link> {
        let state = self.upstream.lock();
        let own = state.shared.get(&self.id)?.iter().find(|shared| shared.thread == threads::here());
        own.filter(|shared| shared.is_open()).map(|shared| shared.link(true))
    }

    /// Shares a connection of HTTP/2 with those that come.
    pub(crate) fn share(&self, shared: Shared) {
        let mut state = self.upstream.lock();
        let all = state.shared.entry(Arc::clone(&self.id)).or_default();
        let before: Vec<Shared> = all.extract_if(.., |other| other.thread == shared.thread).collect();
        all.push(shared);
        drop(state);
        drop(before);
    }

    /// Connects anew. May be dropped.
    pub(crate) async fn dial(&self, client: Option<SocketAddr>) -> std::io::Result<TcpStream> {
        let ground = &self.upstream.ground;
        let dialing = ground.dialer.dial(&self.id, self.upstream.port, client);
        let stream = match tokio::time::timeout(ground.limits.connect_deadline, dialing).await {
            Ok(dialed) => dialed?,
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
        };
        stream.set_nodelay(true)?;
        if self.upstream.refusing.load(Ordering::Relaxed) && self.upstream.refusing.swap(false, Ordering::Relaxed) {
            // It is back: all who wait for it may come.
            self.upstream.changed.notify_waiters();
        }
        Ok(stream)
    }

    /// Counts and now and then logs that there is no connection to be had.
    pub(crate) fn note_unreachable(&self, error: &std::io::Error) {
        let upstream = &self.upstream;
        upstream.refusing.store(true, Ordering::Relaxed);
        upstream.meters.failure(Failure::Connect);
        if upstream.meters.may_warn(upstream.ground.now_ms()) {
            let (service, port, instance) = (&upstream.service, upstream.port, &*self.id);
            tracing::warn!(service, port, instance, %error, "cannot connect to an instance");
        }
    }

    /// Says that the connection works, when its end will say nothing more.
    pub(crate) fn works(&self) {
        let upstream = &self.upstream;
        let now_ms = upstream.ground.now_ms();
        upstream.lock().pool.answered(&self.id, now_ms);
    }

    /// Says how it went.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.settle(outcome, None);
    }

    /// Says how it went, and leaves the connection for others.
    pub(crate) fn end_with(mut self, outcome: Outcome, mut link: Link) {
        link.idle_since_ms = self.upstream.ground.now_ms();
        self.settle(outcome, Some(link));
    }

    fn settle(&mut self, outcome: Outcome, link: Option<Link>) {
        self.ended = true;
        let upstream = &self.upstream;
        let now_ms = upstream.ground.now_ms();
        let mut state = upstream.lock();
        // Only failures leave anybody out.
        let failed = matches!(outcome, Outcome::ConnectFailed | Outcome::ServerError);
        let before = if failed { state.pool.breaker(&self.id, now_ms) } else { None };
        let drained = state.pool.done(&self.id, now_ms, outcome);
        let ejected = failed && before != Some(Breaker::Open) && {
            let after = state.pool.breaker(&self.id, now_ms);
            after == Some(Breaker::Open)
        };
        upstream.busy.fetch_sub(1, Ordering::Relaxed);
        let mut surplus = None;
        if let Some(link) = link {
            if state.pool.takes_picks(&self.id) {
                let idle = match state.idle.get_mut(&self.id) {
                    Some(idle) => idle,
                    None => state.idle.entry(Arc::clone(&self.id)).or_default(),
                };
                if idle.count() < upstream.ground.limits.idle_upstream_max {
                    idle.put(link);
                } else {
                    surplus = Some(link);
                }
            } else {
                surplus = Some(link);
            }
        }
        drop(state);
        drop(surplus);
        if ejected {
            upstream.meters.ejected();
            tracing::debug!(service = upstream.service, instance = &*self.id, "an instance is left out");
        }
        if upstream.queued() > 0 {
            upstream.turns.notify_one();
        }
        if drained {
            upstream.ground.drained.notify_waiters();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.ended {
            self.settle(Outcome::ClientGone, None);
        }
    }
}
