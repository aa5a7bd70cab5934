//! This machine among others: founding a cluster, joining one, and what members do for each other.
//!
//! Owns the machine's identity and the way to its peers. A machine that was never told of others listens to nobody and
//! asks nobody; the first join token makes it the first member. Promises that nothing goes between machines but by mutual
//! TLS, and that a machine is known by its key, wherever it is.

mod acting;
mod addresses;
mod clocks;
mod desk;
mod discovery;
mod disk;
mod elsewhere;
pub mod entry;
mod fences;
mod gossip;
mod home;
pub mod join;
mod keeper;
mod leader;
mod lease;
mod line;
mod offices;
mod places;
mod reports;
pub mod restore;
pub mod roles;
pub mod running;
mod seal;
mod tending;
pub mod twin;

use crate::boot::BootError;
use crate::handover::sockets;
use containers::{Boxes, Leases};
use control::view::{Snapshot, View};
use control::{Compare, Soft, Space, Txn};
use desk::Desk;
use discovery::Discovery;
use elsewhere::Others;
use gateway::Gateway;
use gossip::{Circle, Heard, Talk};
use home::Standing;
pub use home::{Home, HomeError};
use lease::Lessor;
use line::Line;
use meter::Meter;
use pki::{Authority, Token, token};
use places::Places;
use replication::{Group, Start, Timing};
use rpc::{Code, Failure, Identity, Patience, Peers, Revoked};
use runs::front::Front;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tending::Tending;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch::{self, Receiver};
use twin::{Life, Witness};
use wire::identity::{ClusterId, NodeId};
use wire::resource::{ClusterAuthority, Incarnation, Member, Presence, key};
use world::task::Task;

/// Asks for the next certificate.
const RENEW: &str = "cluster/renew";
const CLUSTER_CHARACTERS: usize = 16;
/// Four heartbeats a second, and five missed ones are a new leader's: a machine that stands still for a second keeps its office.
const AMONG_OTHERS: Timing = Timing { heartbeat_ms: 250, election_ms_min: 1_250, election_ms_max: 2_500 };
/// What is under way between machines may take so long to end when the node ends.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// This machine's part in a cluster, if it has one.
pub struct Cluster {
    me: String,
    hostname: String,
    listen: SocketAddr,
    /// Where others may be, as whoever started this node said.
    hinted: Vec<SocketAddr>,
    home: Home,
    line: Arc<Line>,
    gateway: Arc<Gateway>,
    meter: Meter,
    /// On instances of this machine; they last longer than a part in the cluster does.
    leases: watch::Sender<Leases>,
    present: Mutex<Option<Present>>,
    /// Which of its lives this process is, once it has one.
    incarnation: Mutex<Option<Incarnation>>,
    /// Held while the cluster is founded.
    founding: tokio::sync::Mutex<()>,
}

/// What members do for each other, while it is held.
struct Present {
    server: rpc::Server,
    tasks: Vec<Task>,
}

/// What it needs of the node.
#[derive(Clone)]
pub struct Ground {
    pub group: Group,
    pub space: Space,
    pub soft: Soft,
    pub view: View,
    pub boxes: Arc<Boxes>,
    pub runs: Arc<Front>,
}

impl Cluster {
    /// Of the machine with this data folder, which is to listen for its peers at `listen`, and to look for them where they are
    /// known to be and at `hinted`.
    pub fn new(
        data: &Path,
        me: &str,
        (listen, hinted): (SocketAddr, Vec<SocketAddr>),
        gateway: Arc<Gateway>,
        meter: Meter,
    ) -> Cluster {
        let hostname = hostname();
        let (home, line) = (Home::of(data), Arc::default());
        Cluster {
            me: me.to_owned(),
            hostname,
            listen,
            hinted,
            home,
            line,
            gateway,
            meter,
            leases: watch::Sender::new(Leases::Alone),
            present: Mutex::default(),
            incarnation: Mutex::default(),
            founding: tokio::sync::Mutex::default(),
        }
    }

    /// The way of control's messages.
    pub fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// How this machine's member of the control group begins.
    pub fn start(&self) -> Result<(Start, Timing), HomeError> {
        self.home.put_away_superseded()?;
        // Whoever founded the cluster had its group before.
        let met = self.home.members()?;
        let has_others = met.iter().any(|member| member.id != self.me);
        if self.home.is_to_force() {
            return Ok((Start::Force, AMONG_OTHERS));
        }
        Ok(if has_others { (Start::Join, AMONG_OTHERS) } else { (Start::Found, Timing::default()) })
    }

    /// Begins another life of this machine, unless one goes on elsewhere. Before its log is opened: who has a twin must not
    /// vote. A process that takes over from another on this machine need not ask.
    pub async fn begin(&self) -> Result<(), BootError> {
        let Some(standing) = self.home.standing()? else { return Ok(()) };
        let life = self.life_as(twin::next(&self.home)?);
        let places = Places::new(self.hinted.clone());
        twin::look_for(&self.me, &standing, &life, &self.home.members()?, &places).await??;
        self.live(life.incarnation)
    }

    fn live(&self, incarnation: Incarnation) -> Result<(), BootError> {
        self.home.keep_incarnation(&incarnation)?;
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner) = Some(incarnation);
        Ok(())
    }

    /// Which of its lives this process is, once it is one of several.
    fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this machine says of that to others.
    fn life(&self) -> Option<Life> {
        self.incarnation().map(|incarnation| self.life_as(incarnation))
    }

    fn life_as(&self, incarnation: Incarnation) -> Life {
        Life { incarnation, addresses: addresses::reachable(self.listen), now_ms: world::clock::unix_ms() }
    }

    /// Where this machine stands, as its join token said.
    pub fn zone(&self) -> Result<Option<String>, HomeError> {
        Ok(self.home.members()?.into_iter().find(|member| member.id == self.me).and_then(|member| member.zone))
    }

    /// What instances of this machine go on by that must not do so where it is cut off.
    pub fn leases(&self) -> Result<Receiver<Leases>, HomeError> {
        let is_alone = self.home.standing()?.is_none() || fences::is_alone(&self.me, self.home.members()?.iter());
        self.leases.send_if_modified(|leases| {
            let is_first = !is_alone && *leases == Leases::Alone;
            if is_first {
                *leases = Leases::Among(BTreeMap::new());
            }
            is_first
        });
        Ok(self.leases.subscribe())
    }

    /// Begins to be there for others, if there are others.
    pub async fn attend(self: &Arc<Self>, ground: &Ground) -> Result<(), BootError> {
        self.home.forced()?;
        match self.home.standing()? {
            Some(standing) => self.be_present(standing, ground).await,
            None => Ok(()),
        }
    }

    /// What lets another machine in. The first one makes this machine the first member of a cluster.
    pub async fn token(self: &Arc<Self>, ground: &Ground, wanted: Wanted) -> Result<Token, Failure> {
        let _founding = self.founding.lock().await;
        let standing = match self.home.standing().map_err(internal)? {
            Some(standing) => standing,
            None => self.found(ground).await?,
        };
        let (authority, _) = entry::authority(&ground.space).await?;
        if self.present().is_none() {
            self.be_present(standing, ground).await.map_err(internal)?;
        }
        let addresses = addresses::reachable(self.listen).iter().map(ToString::to_string).collect();
        let terms = token::Terms {
            authority: authority.fingerprint(),
            addresses,
            role: wanted.role,
            zone: wanted.zone,
            expires_s: entry::now_s().saturating_add(wanted.ttl_s),
            uses: if wanted.many { token::Uses::Many } else { token::Uses::Once },
        };
        entry::mint(&ground.space, terms).await
    }

    /// Makes a cluster of this machine alone.
    async fn found(&self, ground: &Ground) -> Result<Standing, Failure> {
        let cluster = world::random::word(CLUSTER_CHARACTERS);
        let made = Authority::create(&format!("Bramble cluster {cluster}"), entry::now_s()).map_err(internal)?;
        let kept = ClusterAuthority {
            cluster: cluster.parse().map_err(internal)?,
            certificate_pem: made.certificate_pem().to_owned(),
            key_pem: made.key_pem(),
        };
        let key = self.home.key().map_err(internal)?;
        // Whoever joins is told of its founder: the two are written down together. Another caller, or an earlier try that did
        // not get further, may have done so already.
        let founder = self.record(None, key.node(), None);
        let txn = Txn::new().when(Compare::mod_revision(key::AUTHORITY, 0));
        let txn = txn.put_json(key::AUTHORITY, &kept).put_json(key::member(&self.me), &founder);
        ground.space.commit(txn).await.map_err(internal)?;
        let (authority, kept) = entry::authority(&ground.space).await?;
        let request = key.request().map_err(internal)?;
        let certificate =
            authority.enrol(&kept.cluster, &request, Some(key.node()), entry::now_s()).map_err(internal)?;
        self.home.keep(&certificate.pem(), &kept.certificate_pem).map_err(internal)?;
        tracing::info!(cluster = %kept.cluster, node = %key.node(), "this machine is the first of a cluster");
        Ok(Standing { key, certificate, roots_pem: kept.certificate_pem })
    }

    /// This machine as a member, known before or not.
    fn record(&self, before: Option<Member>, node: NodeId, fsync_p99_us: Option<u64>) -> Member {
        let (addresses, hostname) = (addresses::reachable(self.listen), self.hostname.clone());
        let incarnation = self.incarnation();
        match before {
            Some(before) => Member { addresses, hostname, fsync_p99_us, incarnation, ..before },
            None => Member {
                id: self.me.clone(),
                node,
                number: entry::number(&self.me),
                hostname,
                addresses,
                zone: None,
                role: None,
                joined_ms: world::clock::unix_ms(),
                fsync_p99_us,
                revoked: false,
                incarnation,
            },
        }
    }

    async fn be_present(self: &Arc<Self>, standing: Standing, ground: &Ground) -> Result<(), BootError> {
        let listen = |source| BootError::Peers { address: self.listen, source };
        let (listener, socket) = self.bind().await.map_err(listen)?;
        let identity = Identity::new(standing.credentials()?);
        let (revoked, patience) = (Revoked::new(), Patience::default());
        let peers = Peers::new(identity.clone(), revoked.clone(), patience, &self.meter);
        let met = self.home.members()?;
        self.line.know(&met);
        let places = Arc::new(Places::new(self.hinted.clone()));
        let circle = Circle::new(identity.node(), Arc::clone(&places));
        circle.know(met.iter().filter(|member| !member.revoked));
        met.iter().for_each(|member| peers.set_addresses(member.node, &places.of(member.node)));
        let (tell, heard) = watch::channel(Heard::default());
        let found = heard.clone();
        let talk = Talk {
            me: identity.node(),
            socket,
            circle: Arc::clone(&circle),
            peers: peers.clone(),
            listen: self.listen,
            zone: self.zone()?.unwrap_or_default(),
            meter: self.meter.clone(),
        };
        let exchange = gossip::exchange(identity.node(), Arc::clone(&circle), peers.clone(), heard.clone());
        self.line.lead(Some(peers.clone()));
        let Ground { group, space, soft, view, boxes, runs } = ground.clone();
        let (lessor, fences) = (Arc::<Lessor>::default(), Arc::<fences::Lessor>::default());
        if self.incarnation().is_none() {
            self.live(twin::next(&self.home)?)?;
        }
        let desk = self.desk(ground, standing.certificate.cluster.clone(), &peers, &circle, (&lessor, &fences));
        let server =
            rpc::Server::serve(listener, identity.clone(), revoked.clone(), Arc::new(desk), patience, &self.meter)
                .map_err(listen)?;
        boxes.look_elsewhere(Some(Others::new(&self.me, peers.clone(), view.clone())));
        runs.look_elsewhere(Some(running::Others::new(&self.me, peers.clone(), view.clone())));
        let (mut tasks, voters) = self.take_part(ground, &peers, lessor);
        tasks.extend(self.fence(ground, &peers, fences));
        let keeper = keeper::Keeper {
            me: self.me.clone(),
            group,
            space: space.clone(),
            view: view.clone(),
            peers: peers.clone(),
            gossip: heard,
            voters,
            meter: self.meter.clone(),
            home: self.home.clone(),
        };
        let acquaintance = Acquaintance {
            cluster: Arc::clone(self),
            peers: peers.clone(),
            circle,
            places: Arc::clone(&places),
            revoked,
            soft,
            view: view.clone(),
        };
        tasks.extend(self.belong(ground, (standing, identity), &peers, places, found)?);
        tasks.extend([
            world::task::spawn("gossip", gossip::talk(talk, tell)),
            world::task::spawn("gossip keys", exchange),
            world::task::spawn("cluster keeper", keeper::run(keeper)),
            world::task::spawn("cluster acquaintance", acquaintance.keep()),
        ]);
        *self.present() = Some(Present { server, tasks });
        Ok(())
    }

    fn desk(
        self: &Arc<Self>,
        ground: &Ground,
        cluster: ClusterId,
        peers: &Peers,
        circle: &Arc<Circle>,
        (lessor, fences): (&Arc<Lessor>, &Arc<fences::Lessor>),
    ) -> Desk {
        let Ground { group, space, soft, view, boxes, runs } = ground.clone();
        let witness = Witness::new(Arc::clone(self), peers.clone(), view.clone(), Arc::clone(&circle.places));
        let (circle, lessor, fences) = (Arc::clone(circle), Arc::clone(lessor), Arc::clone(fences));
        Desk { me: self.me.clone(), cluster, group, space, soft, view, boxes, runs, circle, lessor, fences, witness }
    }

    /// Stays a member that others know, and finds the others.
    fn belong(
        self: &Arc<Self>,
        ground: &Ground,
        (standing, identity): (Standing, Identity),
        peers: &Peers,
        places: Arc<Places>,
        heard: Receiver<Heard>,
    ) -> Result<[Task; 3], BootError> {
        let Ground { space, view, .. } = ground.clone();
        let (share, secret) = watch::channel(self.home.discovery()?);
        let discovery = Discovery {
            me: identity.node(),
            listen: self.listen,
            places,
            peers: peers.clone(),
            heard,
            secret,
            meter: self.meter.clone(),
        };
        let (own, own_clock) = watch::channel(None);
        let clocks = clocks::Clocks {
            me: self.me.clone(),
            peers: peers.clone(),
            authority: standing.certificate.authority(),
            home: self.home.clone(),
            meter: self.meter.clone(),
            own,
        };
        let tending = Tending {
            cluster: Arc::clone(self),
            identity,
            standing,
            peers: peers.clone(),
            space,
            view,
            own_clock,
            secret: share,
            fsync_p99_us: None,
        };
        Ok([
            world::task::spawn("cluster membership", tending.keep()),
            world::task::spawn("cluster discovery", discovery.look()),
            world::task::spawn("cluster clocks", clocks.compare()),
        ])
    }

    /// The sockets peers reach this machine at.
    async fn bind(&self) -> std::io::Result<(TcpListener, UdpSocket)> {
        let listen = self.listen;
        sockets::bound(|| async move {
            let listener = TcpListener::bind(listen).await?;
            Ok((listener, UdpSocket::bind(listen).await?))
        })
        .await
    }

    /// Is no longer there for others.
    pub async fn retire(&self, boxes: &Boxes, runs: &Front) {
        let present = self.present().take();
        let Some(Present { server, tasks }) = present else { return };
        boxes.look_elsewhere(None);
        runs.look_elsewhere(None);
        for task in tasks {
            task.cancel().await;
        }
        self.line.lead(None);
        server.stop(CLOSE_GRACE).await;
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Option<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this machine is called by people.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What a token is to say.
pub struct Wanted {
    pub role: Option<String>,
    pub zone: Option<String>,
    pub ttl_s: i64,
    pub many: bool,
}

/// Knowing the others: where they are, who they are not, and what they report.
struct Acquaintance {
    cluster: Arc<Cluster>,
    peers: Peers,
    circle: Arc<Circle>,
    places: Arc<Places>,
    revoked: Revoked,
    soft: Soft,
    view: View,
}

impl Acquaintance {
    async fn keep(self) {
        let mut view = self.view.clone();
        let mut followed: BTreeMap<NodeId, Task> = BTreeMap::new();
        let mut known: Vec<Member> = Vec::new();
        let mut lost: BTreeSet<(String, bool)> = BTreeSet::new();
        loop {
            let snapshot = view.borrow_and_update().clone();
            let members: Vec<Member> = snapshot.members.values().cloned().collect();
            if members != known && !members.is_empty() {
                self.meet(&members, &mut followed);
                known = members;
            }
            self.forget_lost(&snapshot, &mut lost);
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    fn meet(&self, members: &[Member], followed: &mut BTreeMap<NodeId, Task>) {
        let me = &self.cluster.me;
        self.revoked.set(members.iter().filter(|member| member.revoked).map(|member| member.node));
        self.cluster.line.know(members);
        self.circle.know(members.iter().filter(|member| !member.revoked));
        let others: BTreeMap<NodeId, &Member> = members
            .iter()
            .filter(|member| !member.revoked && member.id != *me)
            .map(|member| (member.node, member))
            .collect();
        followed.retain(|node, _| {
            let stays = others.contains_key(node);
            if !stays {
                self.peers.forget(*node);
            }
            stays
        });
        for (node, member) in others {
            self.peers.set_addresses(node, &self.places.of(node));
            followed.entry(node).or_insert_with(|| {
                let (peers, id) = (self.peers.clone(), member.id.clone());
                let follow = reports::follow(peers, node, id, self.soft.clone(), self.view.clone());
                world::task::spawn("reports of a machine", follow)
            });
        }
        if let Err(error) = self.cluster.home.keep_members(members) {
            tracing::warn!(
                error = wire::diagnostic::chain(&error),
                "who is a member cannot be kept for the next start"
            );
        }
    }

    /// What machines that are lost, or members no more, have last said counts no longer. What one says again before its verdict is
    /// lifted does: it will not repeat it.
    fn forget_lost(&self, snapshot: &Snapshot, lost: &mut BTreeSet<(String, bool)>) {
        for (id, member) in snapshot.members.iter().filter(|(id, _)| **id != self.cluster.me) {
            let is_down = matches!(snapshot.presence(id), Presence::Down { .. });
            if !is_down && !member.revoked {
                lost.retain(|(machine, _)| machine != id);
                continue;
            }
            if !lost.insert((id.clone(), member.revoked)) {
                continue;
            }
            let is_told = |instance: &str| snapshot.statuses.contains_key(instance);
            let told = snapshot.instances.values().filter(|instance| instance.node == *id && is_told(&instance.id));
            for instance in told {
                self.soft.delete(&key::status(&instance.id));
            }
            if member.revoked {
                self.soft.delete(&key::node(id));
            }
            self.soft.delete(&key::load(id));
            self.soft.delete(&key::runs(id));
        }
    }
}

fn internal(error: impl std::error::Error) -> Failure {
    Failure::new(Code::Internal, wire::diagnostic::chain(&error))
}
