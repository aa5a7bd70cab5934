//! This machine among others: founding a cluster, joining one, and what members do for each other.
//!
//! Owns the machine's identity and the way to its peers. A machine that was never told of others listens to nobody and
//! asks nobody; the first join token makes it the first member. Promises that nothing goes between machines but by mutual
//! TLS, and that a machine is known by its key, wherever it is.

mod acting;
mod addresses;
mod desk;
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
mod reports;
pub mod restore;
pub mod roles;
mod seal;

use crate::boot::BootError;
use containers::{Boxes, Leases};
use control::view::{Snapshot, View};
use control::{Compare, Soft, Space, Txn};
use desk::Desk;
use elsewhere::Others;
use gossip::{Circle, Heard, Talk};
use home::Standing;
pub use home::{Home, HomeError};
use lease::{Holder, Lessor};
use line::Line;
use meter::Meter;
use pki::{Authority, Token, token};
use replication::{Group, Start, Timing};
use roles::Roles;
use rpc::{Code, Failure, Identity, Patience, Peers, Revoked, Terms};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch::{self, Receiver};
use wire::identity::{ClusterId, NodeId};
use wire::join::JoinAnswer;
use wire::resource::{ClusterAuthority, Member, Presence, key};
use world::task::Task;

/// Asks whether a machine is there.
const PING: &str = "cluster/ping";
/// Asks for the next certificate.
const RENEW: &str = "cluster/renew";
const CLUSTER_CHARACTERS: usize = 16;
/// Four heartbeats a second, and five missed ones are a new leader's: a machine that stands still for a second keeps its office.
const AMONG_OTHERS: Timing = Timing { heartbeat_ms: 250, election_ms_min: 1_250, election_ms_max: 2_500 };
/// How often a member looks whether its certificate is to be renewed and its addresses have changed.
const TEND: Duration = Duration::from_secs(10);
/// And again after a failure, as nobody led just then.
const TEND_AGAIN: Duration = Duration::from_millis(500);
const BIND_PATIENCE: Duration = Duration::from_secs(2);
const BIND_PAUSE: Duration = Duration::from_millis(20);
const RENEWED_WITHIN: Duration = Duration::from_secs(5);
/// What is under way between machines may take so long to end when the node ends.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// This machine's part in a cluster, if it has one.
pub struct Cluster {
    me: String,
    hostname: String,
    listen: SocketAddr,
    home: Home,
    line: Arc<Line>,
    meter: Meter,
    /// On instances of this machine; they last longer than a part in the cluster does.
    leases: watch::Sender<Leases>,
    present: Mutex<Option<Present>>,
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
}

impl Cluster {
    /// Of the machine with this data folder, which is to listen for its peers at `listen`.
    pub fn new(data: &Path, me: &str, listen: SocketAddr, meter: Meter) -> Cluster {
        let hostname = hostname();
        let (home, line) = (Home::of(data), Arc::default());
        Cluster {
            me: me.to_owned(),
            hostname,
            listen,
            home,
            line,
            meter,
            leases: watch::Sender::new(Leases::Alone),
            present: Mutex::default(),
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
        match before {
            Some(before) => Member { addresses, hostname, fsync_p99_us, ..before },
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
        met.iter().for_each(|member| peers.set_addresses(member.node, &member.addresses));
        let circle = Circle::new(identity.node());
        circle.know(met.iter().filter(|member| !member.revoked));
        let (tell, heard) = watch::channel(Heard::default());
        let talk = Talk {
            me: identity.node(),
            socket,
            circle: Arc::clone(&circle),
            addresses: addresses::reachable(self.listen),
            zone: self.zone()?.unwrap_or_default(),
            meter: self.meter.clone(),
        };
        let exchange = gossip::exchange(identity.node(), Arc::clone(&circle), peers.clone(), heard.clone());
        self.line.lead(Some(peers.clone()));
        let Ground { group, space, soft, view, boxes } = ground.clone();
        let cluster: ClusterId = standing.certificate.cluster.clone();
        let (lessor, fences) = (Arc::<Lessor>::default(), Arc::<fences::Lessor>::default());
        let desk = Desk {
            me: self.me.clone(),
            cluster,
            group: group.clone(),
            space: space.clone(),
            soft: soft.clone(),
            view: view.clone(),
            boxes: Arc::clone(&boxes),
            circle: Arc::clone(&circle),
            lessor: Arc::clone(&lessor),
            fences: Arc::clone(&fences),
        };
        let server =
            rpc::Server::serve(listener, identity.clone(), revoked.clone(), Arc::new(desk), patience, &self.meter)
                .map_err(listen)?;
        boxes.look_elsewhere(Some(Others::new(&self.me, peers.clone(), view.clone())));
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
        let acquaintance =
            Acquaintance { cluster: Arc::clone(self), peers: peers.clone(), circle, revoked, soft, view: view.clone() };
        let tending = Tending { cluster: Arc::clone(self), identity, standing, peers, space, view, fsync_p99_us: None };
        tasks.extend([
            world::task::spawn("gossip", gossip::talk(talk, tell)),
            world::task::spawn("gossip keys", exchange),
            world::task::spawn("cluster keeper", keeper::run(keeper)),
            world::task::spawn("cluster acquaintance", acquaintance.keep()),
            world::task::spawn("cluster membership", tending.keep()),
        ]);
        *self.present() = Some(Present { server, tasks });
        Ok(())
    }

    /// Decides about roles while this machine leads, and takes up its own. Says who is to vote.
    fn take_part(
        &self,
        ground: &Ground,
        peers: &Peers,
        lessor: Arc<Lessor>,
    ) -> (Vec<Task>, Receiver<Option<BTreeSet<u64>>>) {
        let Ground { group, space, view, .. } = ground.clone();
        let (voters, votes) = watch::channel(None);
        let roles = Roles {
            group: group.clone(),
            space: space.clone(),
            view: view.clone(),
            lessor: Arc::clone(&lessor),
            meter: self.meter.clone(),
            voters,
        };
        let ((hold, held), (stop, stopped)) = (watch::channel(None), watch::channel(0));
        let acting =
            acting::Acting { me: self.me.clone(), view: view.clone(), held, stopped: stop, meter: self.meter.clone() };
        let holder = Holder {
            me: self.me.clone(),
            group,
            space,
            view,
            peers: peers.clone(),
            lessor,
            meter: self.meter.clone(),
            held: hold,
            stopped,
        };
        let tasks = vec![
            world::task::spawn("cluster roles", roles.assign()),
            world::task::spawn("gateway lease", holder.hold()),
            world::task::spawn("acting gateway", acting.act()),
        ];
        (tasks, votes)
    }

    /// Has leases on what must not run where it is cut off, and gives them while this machine leads.
    fn fence(&self, ground: &Ground, peers: &Peers, lessor: Arc<fences::Lessor>) -> [Task; 2] {
        let Ground { group, space, view, .. } = ground.clone();
        let holder = fences::Holder {
            me: self.me.clone(),
            group: group.clone(),
            space: space.clone(),
            view: view.clone(),
            peers: peers.clone(),
            lessor: Arc::clone(&lessor),
            leases: self.leases.clone(),
        };
        let fences = fences::Fences { group, space, view, lessor, meter: self.meter.clone() };
        [world::task::spawn("leases on instances", holder.hold()), world::task::spawn("fences", fences.answer())]
    }

    /// The sockets peers reach this machine at. A process whose place this one takes may be about to let go of them.
    async fn bind(&self) -> std::io::Result<(TcpListener, UdpSocket)> {
        let until = world::clock::monotonic() + BIND_PATIENCE;
        loop {
            let bound = match TcpListener::bind(self.listen).await {
                Ok(listener) => UdpSocket::bind(self.listen).await.map(|socket| (listener, socket)),
                Err(error) => Err(error),
            };
            match bound {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && world::clock::monotonic() < until => {
                    tokio::time::sleep(BIND_PAUSE).await;
                }
                bound => return bound,
            }
        }
    }

    /// Is no longer there for others.
    pub async fn retire(&self, boxes: &Boxes) {
        let present = self.present().take();
        let Some(Present { server, tasks }) = present else { return };
        boxes.look_elsewhere(None);
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
            self.peers.set_addresses(node, &member.addresses);
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
        }
    }
}

/// Being a member: known by its present addresses, with a certificate that has not ended.
struct Tending {
    cluster: Arc<Cluster>,
    identity: Identity,
    standing: Standing,
    peers: Peers,
    space: Space,
    view: View,
    /// How fast its disk is, once that is known.
    fsync_p99_us: Option<u64>,
}

impl Tending {
    async fn keep(mut self) {
        self.fsync_p99_us = self.measure_disk().await;
        loop {
            if let Err(error) = self.be_known().await {
                tracing::debug!(%error, "this machine's record cannot be brought up to date yet");
                tokio::time::sleep(TEND_AGAIN).await;
                continue;
            }
            if entry::now_s() >= self.standing.certificate.renew_at_s()
                && let Err(error) = self.renew().await
            {
                tracing::warn!(%error, "this machine's certificate cannot be renewed yet");
            }
            tokio::time::sleep(TEND).await;
        }
    }

    /// As fast as its writes are, this machine may vote or not.
    async fn measure_disk(&self) -> Option<u64> {
        let folder = self.cluster.home.folder().to_owned();
        match tokio::task::spawn_blocking(move || disk::fsync_p99_us(&folder)).await {
            Ok(Ok(p99_us)) => {
                let seconds = Duration::from_micros(p99_us).as_secs_f64();
                let help = "99 of 100 writes were on the disk within this time when the node began.";
                self.cluster.meter.gauge("bramble_cluster_fsync_p99_seconds", help, &[]).set(seconds);
                Some(p99_us)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "how fast this machine's disk writes cannot be measured: it gets no vote");
                None
            }
            Err(_) => None,
        }
    }

    async fn be_known(&self) -> Result<(), control::SpaceError> {
        let me = &self.cluster.me;
        let known = self.view.borrow().members.get(me).cloned();
        let record = |before| self.cluster.record(before, self.identity.node(), self.fsync_p99_us);
        let is_right = |known: &Member| {
            let now = record(Some(known.clone()));
            let is_as_fast = is_as_fast(known.fsync_p99_us, now.fsync_p99_us);
            (&known.addresses, &known.hostname, is_as_fast) == (&now.addresses, &now.hostname, true)
        };
        if known.as_ref().is_some_and(is_right) {
            return Ok(());
        }
        let at = key::member(me);
        let stored = self.space.get(&at).await?;
        let revision = stored.as_ref().map_or(0, |entry| entry.mod_revision);
        let before: Option<Member> = stored.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let member = record(before);
        let txn = Txn::new().when(Compare::mod_revision(&at, revision)).put_json(&at, &member);
        self.space.commit(txn).await.map(drop)
    }

    /// Any member gives the next certificate, this one first: it has the same state of record.
    async fn renew(&mut self) -> Result<(), Failure> {
        let request = self.standing.key.request().map_err(internal)?;
        let (node, cluster) = (self.identity.node(), self.standing.certificate.cluster.clone());
        let mut told = entry::renew(&self.space, &cluster, Some(node), &request).await;
        let others: Vec<NodeId> = self.view.borrow().members.values().map(|member| member.node).collect();
        for other in others.into_iter().filter(|other| *other != node) {
            if told.is_ok() {
                break;
            }
            let asked = self.peers.call(other, RENEW, request.clone(), Terms::within(RENEWED_WITHIN)).await;
            told = match asked {
                Ok(answer) => serde_json::from_slice(&answer.bytes).map_err(internal),
                Err(error) => Err(Failure::new(error.code(), error.to_string())),
            };
        }
        let JoinAnswer { chain_pem, roots_pem, .. } = told?;
        self.cluster.home.keep(&chain_pem, &roots_pem).map_err(internal)?;
        if let Some(standing) = self.cluster.home.standing().map_err(internal)? {
            self.identity.renew(standing.credentials().map_err(internal)?).map_err(internal)?;
            self.standing = standing;
        }
        Ok(())
    }
}

/// Whether a disk that was so fast still is, as far as votes go. What it takes a little longer or shorter is not written down.
fn is_as_fast(before: Option<u64>, now: Option<u64>) -> bool {
    let may_vote = |p99_us: Option<u64>| p99_us.is_some_and(|p99_us| p99_us <= membership::roles::FSYNC_P99_US_MAX);
    before.is_some() == now.is_some() && may_vote(before) == may_vote(now)
}

fn internal(error: impl std::error::Error) -> Failure {
    Failure::new(Code::Internal, wire::diagnostic::chain(&error))
}
