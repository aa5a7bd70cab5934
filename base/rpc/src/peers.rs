//! The connections to other machines: one for calls and watches, a few for tunnels, made when they are needed.
//!
//! Owns the book of addresses, who is connected, and when it is tried again. Promises that whoever answers is the machine
//! wanted, whatever address it has, that a peer which cannot be reached fails calls at once, and that a renewed
//! certificate disturbs nothing. Does not know what is said.

use crate::backoff::Backoff;
use crate::connection::{Connection, Manner, config, connect};
use crate::error::{AttemptError, CallError, ConnectError};
use crate::identity::{Credentials, Identity};
use crate::line::Ending;
use crate::meters::{Meters, Side};
use crate::passport::Called;
use crate::revoked::Revoked;
use crate::settings::{ADDRESSES_MAX, CONNECTION_AGE_MAX, Patience, TUNNEL_CONNECTIONS_MAX};
use meter::Meter;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, watch};
use wire::identity::NodeId;
use world::random::Dice;
use world::task::Task;

/// The way to other machines. Clones share everything; with the last, all connections are cut.
#[derive(Debug, Clone)]
pub struct Peers {
    pub(crate) inner: Arc<Inner>,
    _keeper: Arc<Task<()>>,
}

pub(crate) struct Inner {
    identity: Identity,
    revoked: Revoked,
    patience: Patience,
    pub(crate) meters: Arc<Meters>,
    dice: Dice,
    book: Mutex<HashMap<NodeId, Peer>>,
}

/// What a connection is for: bulk never holds up calls. What watches say is no more than calls do, and another connection to each
/// peer would cost 50 kB at both ends for as long as one watches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Calls and watches.
    Words,
    /// Tunnels.
    Bulk,
}

#[derive(Default)]
struct Peer {
    /// As they were given, and as they are tried.
    given: Vec<SocketAddr>,
    addresses: Vec<SocketAddr>,
    backoff: Backoff,
    /// Why it is not tried at the moment.
    last: Option<Arc<ConnectError>>,
    words: Lane,
    bulk: Vec<Lane>,
    /// Of all its connections, those no longer used for anything new as well.
    endings: Vec<Weak<Ending>>,
}

/// One connection, or the wish for one.
#[derive(Default)]
struct Lane {
    open: Option<Open>,
    connecting: Option<Connecting>,
}

struct Open {
    connection: Arc<Connection>,
    credentials: Arc<Credentials>,
    since: Instant,
    used: Instant,
}

struct Connecting {
    settled: watch::Receiver<Settled>,
    task: Task<()>,
}

/// `None` while it is being made.
type Settled = Option<Result<(), Arc<ConnectError>>>;

/// What to do for a place on a connection.
enum Step {
    Take(Arc<Connection>, OwnedSemaphorePermit),
    /// All its places are taken.
    Queue(Arc<Connection>),
    Await(watch::Receiver<Settled>),
}

impl Peers {
    /// Needs a runtime.
    pub fn new(identity: Identity, revoked: Revoked, patience: Patience, meter: &Meter) -> Peers {
        let (meters, dice, book) = (Meters::new(meter, Side::Client), Dice::new(), Mutex::default());
        let inner = Arc::new(Inner { identity, revoked, patience, meters, dice, book });
        let keeper = world::task::spawn("rpc peers", keep(Arc::downgrade(&inner), inner.revoked.watch(), patience));
        Peers { inner, _keeper: Arc::new(keeper) }
    }

    /// Where `node` is to be found from now on, the likeliest address first. A connection that works is kept.
    pub fn set_addresses(&self, node: NodeId, addresses: &[SocketAddr]) {
        let addresses = addresses.get(..ADDRESSES_MAX).unwrap_or(addresses);
        let mut book = self.inner.book();
        let peer = book.entry(node).or_default();
        if peer.given != addresses {
            peer.given = addresses.to_vec();
            peer.addresses = addresses.to_vec();
            // What failed at other addresses says nothing about these. Whoever waits begins anew.
            peer.backoff.forget();
            peer.words.connecting = None;
            peer.bulk.iter_mut().for_each(|lane| lane.connecting = None);
        }
    }

    /// `node` is none of ours any more: what is under way with it is cut off.
    pub fn forget(&self, node: NodeId) {
        if let Some(mut peer) = self.inner.book().remove(&node) {
            peer.cut();
        }
    }

    /// The address a call to `node` would go to without waiting.
    pub fn connected(&self, node: NodeId) -> Option<SocketAddr> {
        let book = self.inner.book();
        let connection = &book.get(&node)?.words.open.as_ref()?.connection;
        connection.is_open().then_some(connection.address)
    }
}

impl Inner {
    /// A place for a stream on a connection to `node`. Waits until there is one; may be dropped.
    pub(crate) async fn place(
        self: &Arc<Self>,
        node: NodeId,
        purpose: Use,
    ) -> Result<(Arc<Connection>, OwnedSemaphorePermit), CallError> {
        loop {
            let step = self.step(node, purpose)?;
            match step {
                Step::Take(connection, place) => return Ok((connection, place)),
                Step::Queue(connection) => {
                    if let Ok(place) = Arc::clone(&connection.places).acquire_owned().await {
                        return Ok((connection, place));
                    }
                }
                Step::Await(mut settled) => {
                    // Its end without a word is a change of addresses.
                    if let Ok(settled) = settled.wait_for(Option::is_some).await
                        && let Some(Err(source)) = &*settled
                    {
                        return Err(CallError::Unreachable { node, source: Arc::clone(source) });
                    }
                }
            }
        }
    }

    fn step(self: &Arc<Self>, node: NodeId, purpose: Use) -> Result<Step, CallError> {
        if self.revoked.contains(node) {
            return Err(CallError::Revoked { node });
        }
        let now = world::clock::monotonic();
        let current = self.identity.current();
        let mut book = self.book();
        let peer = book.get_mut(&node).ok_or(CallError::NoAddress { node })?;
        let at = match purpose {
            Use::Words => None,
            Use::Bulk => Some(peer.roomy().ok_or(CallError::Crowded { node })?),
        };
        let waits = peer.backoff.left(now);
        let lane = peer.lane(at);
        lane.open = lane.open.take().filter(|open| open.connection.is_open());
        let is_fresh = lane.open.as_ref().is_some_and(|open| open.is_fresh(&current, now));
        if !is_fresh && lane.connecting.is_none() && waits.is_none() && !peer.addresses.is_empty() {
            let connecting = self.connect(node, at, &peer.addresses, current);
            peer.lane(at).connecting = Some(connecting);
        }
        let lane = peer.lane(at);
        // An old connection serves until there is a new one.
        if let Some(open) = &mut lane.open {
            open.used = now;
            let connection = Arc::clone(&open.connection);
            return Ok(match Arc::clone(&connection.places).try_acquire_owned() {
                Ok(place) => Step::Take(connection, place),
                Err(_) => Step::Queue(connection),
            });
        }
        if let Some(connecting) = &lane.connecting {
            return Ok(Step::Await(connecting.settled.clone()));
        }
        match (waits, &peer.last) {
            (Some(again_in), Some(source)) => Err(CallError::Waiting { node, again_in, source: Arc::clone(source) }),
            (_, _) => Err(CallError::NoAddress { node }),
        }
    }

    fn connect(
        self: &Arc<Self>,
        node: NodeId,
        at: Option<usize>,
        addresses: &[SocketAddr],
        credentials: Arc<Credentials>,
    ) -> Connecting {
        let (settle, settled) = watch::channel(None);
        let (inner, addresses) = (Arc::downgrade(self), addresses.to_vec());
        let (patience, meters) = (self.patience, Arc::clone(&self.meters));
        let called = Called { wanted: node, credentials: Arc::clone(&credentials), revoked: self.revoked.clone() };
        let task = world::task::spawn("rpc connect", async move {
            let (provider, own) = (Arc::clone(&credentials.provider), Arc::clone(&credentials.own));
            let made = match config(provider, Arc::new(called), Some(own)) {
                Ok(config) => connect(&addresses, &Manner { config: Arc::new(config), patience, meters }).await,
                Err(source) => {
                    let error = AttemptError::Credentials { source };
                    Err(ConnectError { attempts: addresses.first().map(|first| (*first, error)).into_iter().collect() })
                }
            };
            if let Some(inner) = inner.upgrade() {
                settle.send_replace(Some(inner.settle(node, at, credentials, made)));
            }
        });
        Connecting { settled, task }
    }

    fn settle(
        &self,
        node: NodeId,
        at: Option<usize>,
        credentials: Arc<Credentials>,
        made: Result<Connection, ConnectError>,
    ) -> Result<(), Arc<ConnectError>> {
        let now = world::clock::monotonic();
        let mut book = self.book();
        let Some(peer) = book.get_mut(&node) else { return Ok(()) };
        if let Some(connecting) = peer.lane(at).connecting.take() {
            // It is this one, and done.
            connecting.task.detach();
        }
        match made {
            Ok(connection) => {
                peer.backoff.forget();
                peer.endings.retain(|ending| ending.strong_count() > 0);
                peer.endings.push(Arc::downgrade(&connection.ending));
                if self.revoked.contains(node) {
                    connection.ending.cut();
                }
                // Next time the address that answered is tried first.
                if let Some(found) = peer.addresses.iter().position(|address| *address == connection.address) {
                    peer.addresses[..=found].rotate_right(1);
                }
                let connection = Arc::new(connection);
                peer.lane(at).open = Some(Open { connection, credentials, since: now, used: now });
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%node, %error, "a peer cannot be reached");
                let error = Arc::new(error);
                peer.backoff.failed(now, self.dice.roll());
                peer.last = Some(Arc::clone(&error));
                Err(error)
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, HashMap<NodeId, Peer>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, nodes: &BTreeSet<NodeId>) {
        let mut book = self.book();
        for node in nodes {
            if let Some(peer) = book.get_mut(node) {
                peer.cut();
            }
        }
    }

    /// Lets go of connections nobody uses.
    fn tidy(&self) {
        let now = world::clock::monotonic();
        let idle = self.patience.idle;
        let mut book = self.book();
        for peer in book.values_mut() {
            for lane in std::iter::once(&mut peer.words).chain(&mut peer.bulk) {
                let is_idle =
                    |open: &Open| open.connection.is_unused() && now.saturating_duration_since(open.used) >= idle;
                lane.open = lane.open.take().filter(|open| open.connection.is_open() && !is_idle(open));
            }
        }
    }
}

impl Peer {
    /// The lane of calls and watches, or that of tunnels at this place.
    fn lane(&mut self, at: Option<usize>) -> &mut Lane {
        match at {
            None => &mut self.words,
            Some(at) => {
                if self.bulk.len() <= at {
                    self.bulk.resize_with(at + 1, Lane::default);
                }
                &mut self.bulk[at]
            }
        }
    }

    /// The first lane of tunnels with a place, or one that is to be made.
    fn roomy(&self) -> Option<usize> {
        let has_room = |lane: &Lane| {
            lane.open
                .as_ref()
                .is_none_or(|open| !open.connection.is_open() || open.connection.places.available_permits() > 0)
        };
        let next = self.bulk.iter().position(has_room).unwrap_or(self.bulk.len());
        (next < TUNNEL_CONNECTIONS_MAX).then_some(next)
    }

    fn cut(&mut self) {
        for ending in self.endings.drain(..).filter_map(|ending| ending.upgrade()) {
            ending.cut();
        }
        self.words = Lane::default();
        self.bulk.clear();
    }
}

impl Open {
    /// It was made with the certificate in use, not long ago.
    fn is_fresh(&self, current: &Arc<Credentials>, now: Instant) -> bool {
        Arc::ptr_eq(&self.credentials, current) && now.saturating_duration_since(self.since) < CONNECTION_AGE_MAX
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.book().values_mut().for_each(Peer::cut);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Peers").field("node", &self.identity.node()).finish_non_exhaustive()
    }
}

/// Cuts off who is revoked, and lets go of what is idle, for as long as there are peers.
async fn keep(inner: Weak<Inner>, mut revoked: watch::Receiver<Arc<BTreeSet<NodeId>>>, patience: Patience) {
    loop {
        tokio::select! {
            changed = revoked.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(patience.idle / 2) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        let nodes = Arc::clone(&revoked.borrow_and_update());
        inner.cut(&nodes);
        inner.tidy();
    }
}
