//! Boot and shutdown of a node: a list, and the same list backwards.

use crate::api;
use crate::certificates;
use crate::certificates::public::Worker;
use crate::cli::UpArgs;
use crate::config::{self, Node};
use crate::seen;
use crate::serve;
use crate::state;
use containers::{Agent, Hooks};
use control::stacks::Stacks;
use control::{Soft, Space, planner, view};
use futures::FutureExt;
use gateway::Gateway;
use images::{Ownership, Store};
use meter::Registration;
use replication::Group;
use sandbox::{BoxSpec, Ids, Root, Spawner, SpawnerClient, Trust};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use telemetry::Telemetry;
use telemetry::logs::Keep;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use world::task::Task;

/// Where a root agent's containers have their users: 65,536 of them from here, below what `useradd` hands out for
/// subordinate ids by default and above every login.
const IDS_FIRST: u32 = 100_000;
const IDS_COUNT: u32 = 65_536;
/// How long requests may take to end when the node stops.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// How long all instances together may take to stop on Ctrl-C.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often the bounds of logs are told to whoever prunes them.
const KEEP_LOGS_EVERY: Duration = Duration::from_secs(10);
/// Worker threads: the node shares its machine with what it runs; its own work is waiting.
const THREADS_MAX: usize = 4;

#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error("use {path} for data: {source}")]
    Data { path: String, source: std::io::Error },
    #[error("another bramble uses {path}")]
    Locked { path: String },
    #[error("listen on {address} for the API: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("start the process that builds boxes: {0}")]
    Spawner(std::io::Error),
    #[error("open the image store")]
    Images(#[from] images::OpenError),
    #[error("start the agent")]
    Agent(#[from] containers::StartupError),
    #[error("read the state of record")]
    Space(#[from] control::SpaceError),
    #[error(transparent)]
    State(#[from] state::StateError),
    #[error(transparent)]
    Certificates(#[from] certificates::OpenError),
    #[error("start the runtime: {0}")]
    Runtime(std::io::Error),
}

impl BootError {
    fn hint(&self) -> String {
        match self {
            BootError::Config(error) => error.hint().to_owned(),
            BootError::Data { .. } => "name a folder you may write to with --data DIR".to_owned(),
            BootError::Locked { .. } => "stop it first, or name another folder with --data DIR".to_owned(),
            BootError::Listen { .. } => "another program may hold it: choose another with --api ADDR".to_owned(),
            BootError::Space(error) => error.hint().to_owned(),
            BootError::Spawner(_) | BootError::Images(_) | BootError::Agent(_) | BootError::Runtime(_) => String::new(),
            BootError::State(error) => error.hint().to_owned(),
            BootError::Certificates(_) => "move the folder away to have a new authority made, or restore it".to_owned(),
        }
    }
}

/// Runs this machine's node until it is told to stop.
pub fn up(args: &UpArgs) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new(config::log_filter());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", wire::diagnostic::chain(&error));
            let hint = error.hint();
            if !hint.is_empty() {
                eprintln!("  hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start(args: &UpArgs) -> Result<(), BootError> {
    let node = config::node(args)?;
    let path = node.data.display().to_string();
    let failed = |source| BootError::Data { path: path.clone(), source };
    std::fs::create_dir_all(&node.data).map_err(failed)?;
    std::fs::set_permissions(&node.data, std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
    let data = node.data.canonicalize().map_err(failed)?;
    let node = Node { data, ..node };
    let _lock = lock(&node.data, &path)?;
    // Before the runtime: a process with threads cannot be forked.
    let spawner = Spawner::start().map_err(BootError::Spawner)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("bramble")
        .enable_all()
        .build()
        .map_err(BootError::Runtime)?;
    let ended = runtime.block_on(run(node, spawner));
    // What still waits for a disk or a child is not worth waiting for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// One bramble per data folder, for as long as the file is open.
fn lock(data: &Path, path: &str) -> Result<std::fs::File, BootError> {
    let failed = |source| BootError::Data { path: path.to_owned(), source };
    let file =
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(data.join("lock")).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BootError::Locked { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// A secret kept in a file only its owner reads, made on first use.
fn kept_word(path: &Path, length: usize) -> std::io::Result<String> {
    if let Ok(word) = std::fs::read_to_string(path)
        && !word.trim().is_empty()
    {
        return Ok(word.trim().to_owned());
    }
    let word = world::random::word(length);
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{word}")?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    Ok(word)
}

/// The parts of a running node, in the order they were started.
struct Running {
    space: Space,
    group: Group,
    soft: Soft,
    agent: Arc<Agent>,
    gateway: Arc<Gateway>,
    tasks: Vec<Task>,
    _series: Vec<Registration>,
}

async fn run(node: Node, spawner: Spawner) -> Result<(), BootError> {
    let path = node.data.display().to_string();
    let failed = |source| BootError::Data { path: path.clone(), source };
    let token = kept_word(&node.data.join("token"), 32).map_err(failed)?;
    let id = kept_word(&node.data.join("node-id"), 12).map_err(failed)?;
    let listener =
        TcpListener::bind(node.api).await.map_err(|source| BootError::Listen { address: node.api, source })?;
    let api = listener.local_addr().map_err(|source| BootError::Listen { address: node.api, source })?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BootError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(BootError::Runtime)?;

    let (running, router) = assemble(&node, &id, &token, spawner).await?;
    let server = world::task::spawn("api", async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the API ended");
        }
    });
    announce(&node, api, &token);
    let stop_instances = tokio::select! {
        _ = interrupt.recv() => true,
        _ = terminate.recv() => false,
    };
    drop(server);
    close(running, stop_instances, &mut interrupt).await;
    Ok(())
}

/// What a person, or a script that reads standard output, needs to go on.
fn announce(node: &Node, api: SocketAddr, token: &str) {
    let host = if api.ip().is_unspecified() { format!("127.0.0.1:{}", api.port()) } else { api.to_string() };
    let mut out = std::io::stdout().lock();
    let lines = format!(
        "bramble {} is up, data in {}\napi: http://{host}\ntoken: {token}\nlogin: http://{host}/#token={token}\n",
        env!("CARGO_PKG_VERSION"),
        node.data.display(),
    );
    // Nobody reading is no reason to stop.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}

fn logs_folder(data: &Path) -> Result<PathBuf, BootError> {
    let folder = data.join("logs");
    match std::fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(source) => Err(BootError::Data { path: folder.display().to_string(), source }),
    }
}

async fn assemble(node: &Node, id: &str, token: &str, spawner: Spawner) -> Result<(Running, axum::Router), BootError> {
    let meter = meter::Meter::new();
    let logs_dir = logs_folder(&node.data)?;
    let (space, group) = state::open(&node.data, id).await?;
    let soft = Soft::new();
    let (view, view_task) = view::follow(space.clone(), soft.clone()).await?;
    let telemetry = Arc::new(Telemetry::start(telemetry::Settings::new(&node.data, &logs_dir), meter.clone()));

    let spawner = spawner.client().map_err(BootError::Spawner)?;
    let (images, ids) = image_store(node, &spawner).await?;

    let drain: Arc<OnceLock<Arc<Gateway>>> = Arc::new(OnceLock::new());
    let agent = Agent::start(containers::Parts {
        node: id.to_owned(),
        data: node.data.clone(),
        logs: logs_dir,
        ids,
        view: view.clone(),
        soft: soft.clone(),
        spawner,
        images: images.clone(),
        meter: meter.clone(),
        hooks: hooks(&drain, &telemetry),
    })
    .await?;
    let agent = Arc::new(agent);
    let gateway = start_gateway(node, &agent, &meter).await;
    let _ = drain.set(Arc::clone(&gateway));

    let unserved = serve::Unserved::default();
    let (keeping, certificates) = keep_certificates(node, &gateway, &view, &meter)?;
    let front = serve::Front {
        http: node.http,
        https: node.https,
        certificates: certificates.clone(),
        unserved: Arc::clone(&unserved),
    };
    let serving = serve::run(Arc::clone(&gateway), Arc::clone(&agent), view.clone(), front, meter.clone());
    let series = vec![
        seen::services(&meter, view.clone()),
        seen::certificates(&meter, certificates.clone()),
        space.measure(&meter),
        group.measure(&meter, "control"),
    ];
    report_node(node, id, &soft)?;
    let mut tasks = vec![
        view_task,
        world::task::spawn("serve", serving),
        world::task::spawn("keep-logs", keep_logs(view.clone(), Arc::clone(&telemetry))),
        world::task::spawn("planner", planner::run(space.clone(), view.clone(), meter.clone())),
    ];
    tasks.extend(keeping);
    let router = api::router(api::Parts {
        token: token.to_owned(),
        node: id.to_owned(),
        space: space.clone(),
        soft: soft.clone(),
        stacks: Stacks::new(space.clone()),
        view,
        agent: Arc::clone(&agent),
        images,
        telemetry,
        meter,
        edge: serve::Edge { http: node.http, https: node.https, unserved },
        gateway: Arc::clone(&gateway),
        certificates,
    });
    Ok((Running { space, group, soft, agent, gateway, tasks, _series: series }, router))
}

/// Starts whoever has certificates ready, and asks a public authority if there is one.
fn keep_certificates(
    node: &Node,
    gateway: &Arc<Gateway>,
    view: &view::View,
    meter: &meter::Meter,
) -> Result<(Vec<Task>, watch::Receiver<certificates::Shown>), BootError> {
    let (mut tasks, mut asking) = (Vec::new(), None);
    if let Some(wanted) = node.acme.clone() {
        let (worker, asked) = Worker::open(&node.data, wanted, Arc::clone(gateway), meter)?;
        tasks.push(world::task::spawn("public certificates", worker.run()));
        asking = Some(asked);
    }
    let (keeper, certificates) = certificates::Keeper::open(&node.data, asking)?;
    tasks.push(world::task::spawn("certificates", keeper.run(view.clone())));
    Ok((tasks, certificates))
}

async fn start_gateway(node: &Node, agent: &Arc<Agent>, meter: &meter::Meter) -> Arc<Gateway> {
    let datagrams: Arc<dyn gateway::UdpDialer> = Arc::new(serve::Datagrams(Arc::clone(agent)));
    // The sockets of a node that was killed wait in the boxes they lead to, with whoever is connecting meanwhile.
    let held = containers::held(&node.data).await;
    let inherited = held.into_iter().filter_map(|(name, socket)| Some((name.parse().ok()?, socket))).collect();
    let trusted = node.trusted.clone();
    let settings = gateway::Settings { udp: Some(datagrams), inherited, trusted, ..gateway::Settings::default() };
    Arc::new(Gateway::start(settings, agent.dialer(), meter.clone()))
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

/// The gateway starts after the agent it dials through, so the agent learns of it late.
fn hooks(gateway: &Arc<OnceLock<Arc<Gateway>>>, telemetry: &Arc<Telemetry>) -> Hooks {
    let (gateway, logs) = (Arc::clone(gateway), telemetry.logs().clone());
    Hooks {
        drained: Arc::new(move |instance: String| {
            let gateway = gateway.get().cloned();
            async move {
                if let Some(gateway) = gateway {
                    gateway.drained(&instance).await;
                }
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
fn report_node(node: &Node, id: &str, soft: &Soft) -> Result<(), BootError> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kibibytes: u64 = total.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    let uname = rustix::system::uname();
    let reported = wire::resource::Node {
        id: id.to_owned(),
        hostname: uname.nodename().to_string_lossy().into_owned(),
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
    };
    soft.put_json(wire::resource::key::node(id), &reported)?;
    Ok(())
}

/// Tells telemetry which logs belong to what, and which processes are ours.
async fn keep_logs(mut view: view::View, telemetry: Arc<Telemetry>) {
    loop {
        let snapshot = view.borrow_and_update().clone();
        let keep = snapshot.services().map(|(stack, name, service)| {
            let live: BTreeSet<String> =
                snapshot.instances_of(stack, name).map(|instance| instance.id.clone()).collect();
            let (stack, service_name) = (stack.to_owned(), name.to_owned());
            Keep { stack, service: service_name, size_bytes_max: service.log_size_bytes_max, live }
        });
        telemetry.keep_logs(keep.collect());
        telemetry.watch_shims(snapshot.statuses.values().filter_map(|status| status.pid).collect());
        tokio::time::sleep(KEEP_LOGS_EVERY).await;
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// The boot list backwards. On Ctrl-C instances stop too; on SIGTERM they go on, for the next bramble to find.
async fn close(running: Running, stop_instances: bool, interrupt: &mut tokio::signal::unix::Signal) {
    let Running { space, group, soft, agent, gateway, tasks, _series } = running;
    if stop_instances {
        eprintln!("stopping instances; press Ctrl-C again to leave them running");
        tokio::select! {
            () = agent.stop_all(STOP_DEADLINE) => {}
            _ = interrupt.recv() => eprintln!("instances go on running; the next `bramble up` finds them"),
        }
    }
    drop(tasks);
    gateway.close(CLOSE_GRACE).await;
    drop(agent);
    soft.close();
    space.close();
    group.close().await;
}
