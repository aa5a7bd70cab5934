//! Gossip on the wire: datagrams between machines, and what this machine has heard of the others.
//!
//! Owns the socket and the clock of [`membership::alive`], and where which machine is. Promises that what is heard was sealed
//! by the machine it is from. It says who is silent; whether that machine is down is for whoever leads to find out.

use super::addresses;
use super::places::Places;
use super::seal::{Seals, TICKET_BYTES};
use futures::StreamExt;
use membership::alive::{self, DATAGRAM_BYTES_MAX, Effect, Event, Gossip, Record, Settings, Standing};
use meter::{Counter, Gauge, Meter};
use rpc::{Peers, Terms};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use wire::identity::NodeId;
use wire::resource::Member;

/// The method by which a machine gets a key to seal for another.
pub const KEY: &str = "gossip/key";
const KEY_WITHIN: Duration = Duration::from_secs(2);
const KEYS_AT_ONCE: usize = 16;
/// Between tries to get keys of those that have given none.
const KEY_PAUSE: Duration = Duration::from_millis(500);
/// A key is asked for anew after so long without a word from its machine: it may have begun anew, and lost it.
const KEY_STALE: Duration = Duration::from_secs(2);
/// Between two looks at which addresses this machine has.
const LOOK: Duration = Duration::from_secs(2);
/// A datagram with its seal, and one byte more to see that one is longer.
const BUFFER_BYTES: usize = DATAGRAM_BYTES_MAX + 64;

/// Addresses of machines that are remembered: some of each.
const PLACES_MAX: usize = 4_096;

/// Who is not heard of, and who is. Machines in neither were not heard of yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    pub alive: BTreeSet<NodeId>,
    pub silent: BTreeSet<NodeId>,
}

/// The keys and the members, as the desk and the gossip share them.
pub struct Circle {
    seals: Mutex<Seals>,
    pub places: Arc<Places>,
}

impl Circle {
    pub fn new(me: NodeId, places: Arc<Places>) -> Arc<Circle> {
        Arc::new(Circle { seals: Mutex::new(Seals::new(me)), places })
    }

    /// These are members, and no others.
    pub fn know<'a>(&self, members: impl Iterator<Item = &'a Member>) {
        self.places.know(members);
        self.seals().keep(|node| self.places.is_member(node));
    }

    /// A key for `caller`, if it is a member.
    pub fn invite(&self, caller: NodeId) -> Option<Vec<u8>> {
        if !self.places.is_member(caller) {
            return None;
        }
        let mut ticket = [0; TICKET_BYTES];
        world::random::fill(&mut ticket);
        Some(self.seals().invite(caller, ticket))
    }

    fn seals(&self) -> MutexGuard<'_, Seals> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gets keys of all members that have not given one, or are not heard of. Runs until it is dropped, anywhere.
pub async fn exchange(me: NodeId, circle: Arc<Circle>, peers: Peers, heard: watch::Receiver<Heard>) {
    let mut asked: BTreeMap<NodeId, Instant> = BTreeMap::new();
    loop {
        let now = world::clock::monotonic();
        let alive = heard.borrow().alive.clone();
        let missing: Vec<NodeId> = {
            let (members, seals) = (circle.places.members(), circle.seals());
            let is_due = |node: &NodeId| {
                let lately = asked.get(node).is_some_and(|at| now.saturating_duration_since(*at) < KEY_STALE);
                !seals.reaches(*node) || (!alive.contains(node) && !lately)
            };
            members.into_iter().filter(|node| *node != me).filter(is_due).collect()
        };
        asked.extend(missing.iter().map(|node| (*node, now)));
        let ask = |node| {
            let called = peers.call(node, KEY, Vec::new(), Terms::within(KEY_WITHIN));
            async move { (node, called.await) }
        };
        // Those that do not answer hold up nobody else.
        let mut answers = futures::stream::iter(missing.into_iter().map(ask)).buffer_unordered(KEYS_AT_ONCE);
        while let Some((node, answer)) = answers.next().await {
            if let Ok(answer) = answer {
                circle.seals().accept(node, &answer.bytes);
            }
        }
        tokio::time::sleep(KEY_PAUSE).await;
    }
}

/// What one machine's gossip is made of.
pub struct Talk {
    pub me: NodeId,
    pub socket: UdpSocket,
    pub circle: Arc<Circle>,
    pub peers: Peers,
    pub listen: SocketAddr,
    pub zone: String,
    pub meter: Meter,
}

struct Meters {
    sent: Counter,
    received: Counter,
    refused: Counter,
    silent: Gauge,
}

/// Gossips until it is dropped, anywhere.
pub async fn talk(talk: Talk, tell: watch::Sender<Heard>) {
    let record = Record {
        zone: talk.zone.clone(),
        addresses: addresses::reachable(talk.listen),
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_ms: world::clock::unix_ms(),
        ..Record::default()
    };
    let gossip = match Gossip::new(Settings::default(), far(talk.me), world::clock::unix_ms(), record) {
        Ok(gossip) => gossip,
        Err(error) => {
            tracing::error!(%error, "this machine does not gossip: others find out by asking whether it is there");
            return;
        }
    };
    let count = |name, help| talk.meter.counter(name, help, &[]);
    let meters = Meters {
        sent: count("bramble_gossip_sent_bytes_total", "Bytes of gossip sent."),
        received: count("bramble_gossip_received_bytes_total", "Bytes of gossip received."),
        refused: count("bramble_gossip_refused_total", "Datagrams that were no gossip of a member."),
        silent: talk.meter.gauge("bramble_gossip_silent", "Machines that are not heard of.", &[]),
    };
    let began = world::clock::monotonic();
    Talking { talk, gossip, meters, began, looked: began, places: BTreeMap::new(), tell }.run().await;
}

struct Talking {
    talk: Talk,
    gossip: Gossip,
    meters: Meters,
    began: Instant,
    /// When it saw which addresses this machine has.
    looked: Instant,
    /// Whose address it is: where it was heard from last, besides those it has as a member.
    places: BTreeMap<SocketAddr, NodeId>,
    tell: watch::Sender<Heard>,
}

impl Talking {
    async fn run(mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut effects = Vec::new();
        loop {
            let now_ms = self.now_ms();
            let due = Duration::from_millis(self.gossip.next_tick_ms().saturating_sub(now_ms));
            tokio::select! {
                received = self.talk.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.hear(buffer.get(..length).unwrap_or_default(), from, &mut effects),
                    // Of what was sent before: nobody is there.
                    Err(error) => tracing::debug!(%error, "a datagram came back"),
                },
                () = tokio::time::sleep(due) => {
                    self.meet();
                    self.look();
                    let now_ms = self.now_ms();
                    self.gossip.tick(now_ms, world::random::number(), &mut effects);
                }
            }
            self.carry_out(&mut effects).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Has others told of the addresses this machine has now: those that hear it only through others find it by that.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = world::clock::monotonic();
        let addresses = addresses::reachable(self.talk.listen);
        let record = self.gossip.record();
        if record.addresses != addresses
            && let Err(error) = self.gossip.set_record(Record { addresses, ..record.clone() })
        {
            tracing::warn!(%error, "others are not told of this machine's addresses");
        }
    }

    /// Introduces members that are not known yet.
    fn meet(&mut self) {
        let members = self.talk.circle.places.members();
        for node in members.into_iter().filter(|node| *node != self.talk.me) {
            for address in self.talk.circle.places.told_of(node) {
                if self.places.insert(address, node) != Some(node) {
                    self.gossip.contact(address);
                }
            }
        }
    }

    fn hear(&mut self, sealed: &[u8], from: SocketAddr, effects: &mut Vec<Effect>) {
        self.meters.received.add(u64::try_from(sealed.len()).unwrap_or(0));
        let opened = self.talk.circle.seals().open(sealed);
        let own = opened.filter(|(node, datagram)| alive::sender(datagram).is_ok_and(|sender| sender == far(*node)));
        let Some((node, datagram)) = own else {
            self.meters.refused.inc();
            return;
        };
        // Members' own are put back when they are due.
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        self.places.insert(from, node);
        let now_ms = self.now_ms();
        if let Err(error) = self.gossip.hear(now_ms, from, &datagram, effects) {
            self.meters.refused.inc();
            tracing::debug!(%from, %error, "gossip that cannot be read");
        }
    }

    async fn carry_out(&mut self, effects: &mut Vec<Effect>) {
        let mut has_news = false;
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, datagram } => {
                    let sealed = self.places.get(&to).and_then(|node| self.talk.circle.seals().seal(*node, &datagram));
                    if let Some(sealed) = sealed
                        && let Ok(sent) = self.talk.socket.send_to(&sealed, to).await
                    {
                        self.meters.sent.add(u64::try_from(sent).unwrap_or(0));
                    }
                }
                Effect::Tell(event) => {
                    has_news = true;
                    if let Event::Twins { id, addresses } = event {
                        super::twin::seen(&self.talk.meter, &near(id).to_string()).inc();
                        tracing::error!(node = %id, ?addresses, "two machines have one key: is one's data folder a copy of the other's?");
                    }
                }
            }
        }
        if has_news {
            self.publish();
        }
    }

    fn publish(&self) {
        let mut heard = Heard::default();
        for seen in self.gossip.peers(self.now_ms()) {
            let node = near(seen.id);
            // It may have told others where it is before it could have it written down.
            if seen.standing == Standing::Alive && self.talk.circle.places.found(node, &seen.record.addresses) {
                self.talk.peers.set_addresses(node, &self.talk.circle.places.of(node));
            }
            match seen.standing {
                Standing::Alive => heard.alive.insert(node),
                Standing::Silent { .. } | Standing::Left { .. } => heard.silent.insert(node),
            };
        }
        self.meters.silent.set(heard.silent.len() as f64);
        self.tell.send_if_modified(|before| {
            let changed = *before != heard;
            *before = heard;
            changed
        });
    }
}

/// The id as gossip has it, which has room for more.
fn far(node: NodeId) -> alive::NodeId {
    let mut bytes = [0; 32];
    let (begin, _) = bytes.split_at_mut(node.as_bytes().len());
    begin.copy_from_slice(node.as_bytes());
    alive::NodeId(bytes)
}

fn near(node: alive::NodeId) -> NodeId {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&node.0[..20]);
    NodeId::from_bytes(bytes)
}
