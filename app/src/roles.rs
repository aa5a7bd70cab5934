//! What a node does besides serving clients: the state of record, the agent, the planner, the API.
//!
//! These are opened and let go as a whole, more than once in a process: a node that is being replaced lets go of them for
//! the new one, and takes them up again if that fails. What lasts meanwhile is [`Lasting`].

use crate::api;
use crate::boot::BootError;
use crate::certificates::public::Worker;
use crate::certificates::{Keeper, Shown};
use crate::cluster::{Cluster, Ground, entry, hostname, running};
use crate::config::{self, Node};
use crate::etcds;
use crate::handover::Previous;
use crate::loads;
use crate::runners;
use crate::seen;
use crate::selftest;
use crate::serve;
use crate::state;
use containers::{Agent, Boxes, Hooks};
use control::stacks::Stacks;
use control::view::View;
use control::{Soft, Space, planner, view};
use futures::FutureExt;
use gateway::Gateway;
use images::{Ownership, Store};
use meter::{Meter, Registration};
use replication::Group;
use runs::front::Front;
use sandbox::{BoxSpec, Ids, Root, SpawnerClient, Trust};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use telemetry::Telemetry;
use telemetry::logs::Keep;
use tokio::sync::watch;
use wire::resource::Wanted;
use world::task::Task;

/// Where a root agent's containers have their users: 65,536 of them from here, below what `useradd` hands out for
/// subordinate ids by default and above every login.
const IDS_FIRST: u32 = 100_000;
const IDS_COUNT: u32 = 65_536;
/// How often the bounds of logs are told to whoever prunes them.
const KEEP_LOGS_EVERY: Duration = Duration::from_secs(10);
/// How long calls of the API may take to end when the node gives up its roles. Their answers are small.
const API_GRACE: Duration = Duration::from_secs(3);
/// How long whoever was let in last has to begin its first call: a connection without any is cut when the API closes.
const FIRST_CALL_GRACE: Duration = Duration::from_millis(20);
/// Between tries to open the state of record while another process lets go of it.
const STATE_PAUSE: Duration = Duration::from_millis(5);
/// How long letting go takes at most: a write to a slow disk, and the tasks that waited for it.
pub const STATE_PATIENCE: Duration = Duration::from_secs(3);

/// What a process has for as long as it runs.
pub struct Lasting {
    pub node: Node,
    pub id: String,
    pub token: String,
    pub api: std::net::TcpListener,
    pub etcd: Option<etcds::Door>,
    pub spawner: Arc<SpawnerClient>,
    pub boxes: Arc<Boxes>,
    pub meter: Meter,
    pub telemetry: Arc<Telemetry>,
    pub logs: PathBuf,
    pub gateway: Arc<Gateway>,
    pub cluster: Arc<Cluster>,
    /// Processes before this one that finish what they had.
    pub previous: Previous,
}

/// The state of record and this machine's instances.
pub struct Opened {
    space: Space,
    group: Group,
    soft: Soft,
    pub view: View,
    view_task: Task,
    agent: Arc<Agent>,
    images: Store,
    /// Where code to run is handed in.
    runs: runners::Opened,
    /// What this machine is, as it was reported.
    node: wire::resource::Node,
}

/// All of it, at work.
pub struct Roles {
    opened: Opened,
    /// For clients of etcd.
    etcd: Option<etcd::Server>,
    server: Server,
    tasks: Vec<Task>,
    series: Vec<Registration>,
}

impl Opened {
    /// Opens what is there. Another process, or an earlier time of this one, may take up to `patience` to let go of it.
    pub async fn open(lasting: &Lasting, patience: Duration) -> Result<Opened, BootError> {
        let Lasting { node, id, meter, .. } = lasting;
        let until = world::clock::monotonic() + patience;
        let (number, (start, timing)) = (entry::number(id), lasting.cluster.start()?);
        let (space, group) = loop {
            match state::open(&node.data, number, start, timing, lasting.cluster.line()).await {
                Ok(opened) => break opened,
                Err(error) if world::clock::monotonic() >= until => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(error = wire::diagnostic::chain(&error), "the state of record is not free yet");
                    tokio::time::sleep(STATE_PAUSE).await;
                }
            }
        };
        let soft = Soft::new();
        let (view, view_task) = view::follow(space.clone(), soft.clone());
        let (images, ids) = image_store(node, &lasting.spawner).await?;
        let agent = Agent::start(containers::Parts {
            node: id.clone(),
            data: node.data.clone(),
            logs: lasting.logs.clone(),
            ids,
            view: view.clone(),
            soft: soft.clone(),
            spawner: Arc::clone(&lasting.spawner),
            boxes: Arc::clone(&lasting.boxes),
            images: images.clone(),
            meter: meter.clone(),
            hooks: hooks(lasting),
            leases: lasting.cluster.leases()?,
        })
        .await?;
        let node = report_node(node, id, lasting.cluster.zone()?, &soft)?;
        let runs = runners::open(lasting, &images, &view).await?;
        // Last: what others ask is then there to be asked for.
        let opened = Opened { space, group, soft, view, view_task, agent: Arc::new(agent), images, runs, node };
        lasting.cluster.attend(&opened.ground(lasting)).await?;
        Ok(opened)
    }

    /// What others are served from.
    fn ground(&self, lasting: &Lasting) -> Ground {
        Ground {
            group: self.group.clone(),
            space: self.space.clone(),
            soft: self.soft.clone(),
            view: self.view.clone(),
            boxes: Arc::clone(&lasting.boxes),
            runs: self.front(),
        }
    }

    fn front(&self) -> Arc<Front> {
        Arc::clone(&self.runs.front)
    }

    /// Waits until these instances are ready, as far as they are still to run. False: not within `patience`.
    pub async fn ready(&self, instances: &[String], patience: Duration) -> bool {
        let mut view = self.view.clone();
        let all_ready = view.wait_for(|snapshot| {
            instances.iter().all(|id| {
                let wanted = snapshot.instances.get(id).is_some_and(|instance| instance.wanted == Wanted::Running);
                !wanted || snapshot.statuses.get(id).is_some_and(|status| status.ready)
            })
        });
        tokio::time::timeout(patience, all_ready).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Lets go of everything, boxes as they are.
    pub async fn release(self, lasting: &Lasting) {
        lasting.cluster.retire(&lasting.boxes, &self.runs.front).await;
        let Opened { space, group, soft, view, view_task, agent, images, runs, node: _ } = self;
        drop((view, images));
        let runners::Opened { front, tasks, figures } = runs;
        drop(figures);
        // Its workers go on for a while, for whoever begins next.
        front.house.workers().leave();
        drop(front);
        for task in tasks {
            task.cancel().await;
        }
        match Arc::try_unwrap(agent) {
            Ok(agent) => agent.leave().await,
            // A call of the API that does not end; dropped, it ends at its next step.
            Err(_shared) => tracing::warn!("the agent is still being asked something"),
        }
        soft.close();
        space.close();
        view_task.cancel().await;
        group.close().await;
    }
}

impl Roles {
    /// Plans, and serves clients and the API from when `may_serve` is true.
    pub async fn begin(
        lasting: &Lasting,
        opened: Opened,
        may_serve: watch::Receiver<bool>,
    ) -> Result<Roles, BootError> {
        let Lasting { node, id, token, meter, telemetry, gateway, .. } = lasting;
        let Opened { space, group, soft, view, agent, images, .. } = &opened;
        let unserved = serve::Unserved::default();
        let (keeping, certificates) = keep_certificates(lasting, view)?;
        let front = serve::Front {
            http: node.http,
            https: node.https,
            runs: runs_host(lasting)?,
            certificates: certificates.clone(),
            unserved: Arc::clone(&unserved),
            previous: lasting.previous.clone(),
            may_serve: may_serve.clone(),
        };
        let serve = serve::run(Arc::clone(gateway), Arc::clone(agent), view.clone(), front, meter.clone());
        let tell_load = serve::tell_load(Arc::clone(gateway), Arc::clone(telemetry), view.clone());
        let series = vec![
            seen::services(meter, view.clone()),
            seen::machines(meter, view.clone()),
            seen::loads(meter, view.clone()),
            seen::backups(meter, view.clone()),
            seen::cores(meter, view.clone()),
            seen::certificates(meter, certificates.clone()),
            space.measure(meter),
            group.measure(meter, "control"),
        ];
        let mut tasks = vec![
            world::task::spawn("planner", planner::run(space.clone(), view.clone(), meter.clone())),
            world::task::spawn("serve", serve),
            world::task::spawn("tell-load", tell_load),
            world::task::spawn("loads", loads::report(reported(lasting, &opened))),
            world::task::spawn("runs of this machine", running::report(id.clone(), soft.clone(), opened.front())),
            world::task::spawn("selftest", selftest::keep(examined(lasting, &opened))),
            world::task::spawn("keep-logs", keep_logs(view.clone(), Arc::clone(telemetry), id.clone())),
        ];
        tasks.extend(keeping);
        let (closing, closes) = watch::channel(false);
        let router = api::router(api::Parts {
            token: token.clone(),
            node: id.clone(),
            space: space.clone(),
            soft: soft.clone(),
            stacks: Stacks::new(space.clone()),
            view: view.clone(),
            agent: Arc::clone(agent),
            images: images.clone(),
            telemetry: Arc::clone(telemetry),
            meter: meter.clone(),
            edge: serve::Edge { http: node.http, https: node.https, unserved },
            gateway: Arc::clone(gateway),
            certificates,
            closing: closes,
            cluster: Arc::clone(&lasting.cluster),
            ground: opened.ground(lasting),
            runs: opened.front(),
        });
        let etcd = lasting.etcd.as_ref().map(|door| door.serve(space, group, meter)).transpose()?;
        let server = Server::start(&lasting.api, router, closing, may_serve)?;
        Ok(Roles { opened, etcd, server, tasks, series })
    }

    /// Instances that get requests.
    pub fn ready(&self) -> Vec<String> {
        let snapshot = self.opened.view.borrow().clone();
        let ready = snapshot.statuses.iter().filter(|(_, status)| status.ready);
        ready.map(|(id, _)| id.clone()).collect()
    }

    pub fn agent(&self) -> &Agent {
        &self.opened.agent
    }

    /// Ends what this machine runs.
    pub async fn stop_all(&self, deadline: Duration) {
        self.opened.runs.front.house.workers().stop();
        self.agent().stop_all(deadline).await;
    }

    /// The list backwards. Instances run on, and the gateway serves them as it last knew them.
    pub async fn release(self, lasting: &Lasting) {
        let Roles { opened, etcd, server, tasks, series } = self;
        if let Some(etcd) = etcd {
            etcd.close(API_GRACE).await;
        }
        server.close().await;
        drop(series);
        for task in tasks {
            task.cancel().await;
        }
        opened.release(lasting).await;
    }
}

/// Where code may be handed in through the gateway, if it is to be.
fn runs_host(lasting: &Lasting) -> Result<Option<serve::RunsHost>, BootError> {
    let Some(host) = lasting.node.runs_host.clone() else { return Ok(None) };
    let api = serve::from_here(lasting.api.local_addr().map_err(BootError::Runtime)?);
    Ok(Some(serve::RunsHost { host, api, node: lasting.id.clone() }))
}

/// Starts whoever has certificates ready, and asks a public authority if there is one. What there is already is shown
/// when this returns: the first client would find nothing otherwise.
fn keep_certificates(lasting: &Lasting, view: &View) -> Result<(Vec<Task>, watch::Receiver<Shown>), BootError> {
    let node = &lasting.node;
    let (mut worker, mut asking) = (None, None);
    if let Some(wanted) = node.acme.clone() {
        let (opened, asked) = Worker::open(&node.data, wanted, Arc::clone(&lasting.gateway), &lasting.meter)?;
        (worker, asking) = (Some(opened), Some(asked));
    }
    let (mut keeper, certificates) = Keeper::open(&node.data, asking)?;
    let snapshot = view.borrow().clone();
    keeper.begin(&snapshot);
    let mut tasks = Vec::new();
    if let Some(mut worker) = worker {
        worker.begin();
        keeper.begin(&snapshot);
        tasks.push(world::task::spawn("public certificates", worker.run()));
    }
    tasks.push(world::task::spawn("certificates", keeper.run(view.clone())));
    Ok((tasks, certificates))
}

/// What measuring this machine needs.
fn reported(lasting: &Lasting, opened: &Opened) -> loads::Parts {
    loads::Parts {
        node: opened.node.clone(),
        soft: opened.soft.clone(),
        agent: Arc::clone(&opened.agent),
        telemetry: Arc::clone(&lasting.telemetry),
        meter: lasting.meter.clone(),
    }
}

/// What the test of this machine's cores needs.
fn examined(lasting: &Lasting, opened: &Opened) -> selftest::Parts {
    selftest::Parts {
        me: lasting.id.clone(),
        space: opened.space.clone(),
        view: opened.view.clone(),
        telemetry: Arc::clone(&lasting.telemetry),
        meter: lasting.meter.clone(),
        lab: lasting.node.selftest_lab.clone(),
    }
}

/// The API's socket, at which nobody is let in any more once it closes.
struct Door {
    listener: tokio::net::TcpListener,
    closing: watch::Receiver<bool>,
}

impl axum::serve::Listener for Door {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Door { listener, closing } = self;
        let closed = async move {
            let _ = closing.wait_for(|closing| *closing).await;
        };
        tokio::select! {
            biased;
            () = closed => std::future::pending().await,
            accepted = axum::serve::Listener::accept(listener) => {
                // A word is an answer to somebody who waits: it does not wait itself for a packet to be full.
                let _ = accepted.0.set_nodelay(true);
                accepted
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The API at its socket.
struct Server {
    closing: watch::Sender<bool>,
    task: Task,
}

impl Server {
    fn start(
        socket: &std::net::TcpListener,
        router: axum::Router,
        closing: watch::Sender<bool>,
        mut may_serve: watch::Receiver<bool>,
    ) -> Result<Server, BootError> {
        let listener = socket.try_clone().and_then(|socket| {
            socket.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(socket)
        });
        let listener = listener.map_err(BootError::Runtime)?;
        let mut told = closing.subscribe();
        let task = world::task::spawn("api", async move {
            if may_serve.wait_for(|may| *may).await.is_err() {
                return;
            }
            let listener = Door { listener, closing: told.clone() };
            let closed = async move {
                // Its sender gone is as good as told.
                let _ = told.wait_for(|closing| *closing).await;
                tokio::time::sleep(FIRST_CALL_GRACE).await;
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(closed).await {
                tracing::error!(%error, "the API ended");
            }
        });
        Ok(Server { closing, task })
    }

    /// Answers what was asked and ends what is streamed. Who connects now waits for whoever serves next.
    async fn close(self) {
        self.closing.send_replace(true);
        if tokio::time::timeout(API_GRACE, self.task.join()).await.is_err() {
            tracing::warn!("calls of the API did not end in time");
        }
    }
}

/// The image store, and how users inside images map to users of this machine: both follow from who runs the node.
async fn image_store(node: &Node, spawner: &SpawnerClient) -> Result<(Store, Ids), BootError> {
    let is_root = rustix::process::geteuid().is_root();
    // What root unpacks keeps the image's numbers: boxes see layers through mounts that translate them.
    let ownership = if is_root { Ownership::Keep } else { Ownership::Mine };
    let ids =
        if is_root { Ids::Range { outside_start: IDS_FIRST, count: IDS_COUNT } } else { subordinate(spawner).await };
    let store_config = images::Config {
        ownership,
        mirrors: node.mirrors.clone(),
        credentials: node.credentials.clone(),
        ..images::Config::default()
    };
    let images = Store::open(&node.data.join("images"), store_config).await?;
    Ok((images, ids))
}

/// The users an ordinary user's containers have: those of /etc/subuid, if a box with them can be built here.
async fn subordinate(spawner: &SpawnerClient) -> Ids {
    let Some((outside_start, others)) = config::subordinate_ids() else { return Ids::Single };
    // User 0 is this user and takes none of the range.
    let ids = Ids::Range { outside_start, count: others.saturating_add(1).min(IDS_COUNT) };
    let mut trial = BoxSpec::new("trial", Trust::Service, Root::Host);
    trial.ids = ids;
    match spawner.park(&trial).await {
        Ok(_built) => ids,
        Err(error) => {
            let error = wire::diagnostic::chain(&error);
            tracing::warn!(error, "the range of users in /etc/subuid cannot be used: containers have a single user");
            Ids::Single
        }
    }
}

fn hooks(lasting: &Lasting) -> Hooks {
    let (gateway, previous) = (Arc::clone(&lasting.gateway), lasting.previous.clone());
    let logs = lasting.telemetry.logs().clone();
    Hooks {
        drained: Arc::new(move |instance: String| {
            let (gateway, previous) = (Arc::clone(&gateway), previous.clone());
            async move {
                gateway.drained(&instance).await;
                previous.drained(&instance).await;
            }
            .boxed()
        }),
        note: Arc::new(move |instance, text| {
            if let Err(error) = logs.note(&instance.stack, &instance.service, &instance.id, text) {
                tracing::debug!(instance = instance.id, %error, "cannot note");
            }
        }),
    }
}

/// Tells everybody what this machine is.
fn report_node(node: &Node, id: &str, zone: Option<String>, soft: &Soft) -> Result<wire::resource::Node, BootError> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kibibytes: u64 = total.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let reported = wire::resource::Node {
        id: id.to_owned(),
        hostname: hostname(),
        os: "linux".to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: kibibytes * 1024,
        labels: node.labels.clone(),
        role: "manager".to_owned(),
        drained: false,
        started_ms: world::clock::unix_ms(),
        limits: sandbox::capabilities().lacks,
        zone: zone.unwrap_or_default(),
        utc_offset_minutes: loads::utc_offset_minutes(),
        ..wire::resource::Node::default()
    };
    soft.put_json(wire::resource::key::node(id), &reported)?;
    Ok(reported)
}

/// Tells telemetry which logs belong to what, and which processes are ours.
async fn keep_logs(mut view: view::View, telemetry: Arc<Telemetry>, me: String) {
    loop {
        let snapshot = view.borrow_and_update().clone();
        let keep = snapshot.services().map(|(stack, name, service)| {
            let live: BTreeSet<String> =
                snapshot.instances_of(stack, name).map(|instance| instance.id.clone()).collect();
            let (stack, service_name) = (stack.to_owned(), name.to_owned());
            Keep { stack, service: service_name, size_bytes_max: service.log_size_bytes_max, live }
        });
        telemetry.keep_logs(keep.collect());
        // A process of another machine would have the number of one that is none of ours.
        let is_here = |instance: &str| snapshot.instances.get(instance).is_some_and(|instance| instance.node == me);
        let here = snapshot.statuses.values().filter(|status| is_here(&status.instance));
        telemetry.watch_shims(here.filter_map(|status| status.pid).collect());
        tokio::time::sleep(KEEP_LOGS_EVERY).await;
        if view.changed().await.is_err() {
            return;
        }
    }
}
