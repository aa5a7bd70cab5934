//! Boot and shutdown of a node: a list, and the same list backwards.

use crate::certificates;
use crate::cli::{JoinArgs, UpArgs};
use crate::cluster::join::JoinError;
use crate::cluster::{self, Cluster, HomeError};
use crate::config::{self, Node};
use crate::etcds::Door;
use crate::handover::asking::{Answer, Asker, Asking};
use crate::handover::{FAILED, Gifts, Given, Inherited, Next, Opening, Previous, Refused, Staying, TakeError, Terms};
use crate::roles::{Lasting, Opened, Roles, STATE_PATIENCE};
use crate::serve;
use crate::state;
use containers::Boxes;
use gateway::Gateway;
use meter::Meter;
use sandbox::Spawner;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use telemetry::Telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use wire::spec::Protocol;

/// Of the data folder: what this machine is called.
const NODE_ID: &str = "node-id";
/// How long requests may take to end when the node stops.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// How long all instances together may take to stop on Ctrl-C.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long instances that were ready may take to be ready again for the process that takes over: half of what a request
/// is held. Those that are not by then would not be for the old process either.
const READY_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Between tries to take up again what a new process failed to take over. Clients are served meanwhile.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// How often the lab's clock is looked at.
const CLOCK_LOOK: Duration = Duration::from_millis(100);
/// Worker threads, besides those of the gateway: the node's own work is waiting.
const THREADS_MAX: usize = 4;
/// More serve no more clients: each looks ten times a second how late it is, and half a million requests are enough.
const GATEWAY_THREADS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum BootError {
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
    #[error("find out which program this is: {0}")]
    Program(std::io::Error),
    #[error("start the runtime: {0}")]
    Runtime(std::io::Error),
    #[error("listen on {address} for other machines: {source}")]
    Peers { address: SocketAddr, source: std::io::Error },
    #[error("a restore in {path} was cut off: what is there is no machine yet")]
    Unfinished { path: String },
    #[error("listen on {address} for clients of etcd: {source}")]
    Etcd { address: SocketAddr, source: std::io::Error },
    #[error("read what this machine keeps of its cluster")]
    Home(#[from] HomeError),
    #[error(transparent)]
    Twin(#[from] cluster::twin::Twin),
    #[error("join the cluster")]
    Join(#[from] Box<JoinError>),
    #[error("go on as `bramble up`: {0}")]
    GoOn(std::io::Error),
    #[error("read the record of runs")]
    Ledger(#[source] storage::log::LogError),
    #[error(transparent)]
    Languages(#[from] runs::language::LanguageError),
    #[error("take over from a running node")]
    Take(#[from] TakeError),
}

impl BootError {
    pub fn hint(&self) -> String {
        match self {
            BootError::Config(error) => error.hint().to_owned(),
            BootError::Data { .. } => "name a folder you may write to with --data DIR".to_owned(),
            BootError::Locked { .. } => "stop it first, or name another folder with --data DIR".to_owned(),
            BootError::Listen { .. } => "another program may hold it: choose another with --api ADDR".to_owned(),
            BootError::Space(error) => error.hint().to_owned(),
            BootError::Peers { .. } => "another program may hold it: choose another with --peers ADDR".to_owned(),
            BootError::Unfinished { .. } => "run `bramble cluster restore` again, with the same file".to_owned(),
            BootError::Etcd { .. } => {
                "another program, etcd itself perhaps, may hold it: choose another with --etcd ADDR".to_owned()
            }
            BootError::Home(_) => {
                "restore the folder `cluster` of the data folder, or have the machine join anew with another".to_owned()
            }
            BootError::Twin(twin) => twin.hint.clone(),
            BootError::Join(error) => error.hint(),
            BootError::GoOn(_) => "this machine has joined: run `bramble up`".to_owned(),
            BootError::Take(_) => "this is how `bramble upgrade` starts a binary; run that instead".to_owned(),
            BootError::Spawner(_)
            | BootError::Program(_)
            | BootError::Images(_)
            | BootError::Agent(_)
            | BootError::Runtime(_) => String::new(),
            BootError::State(error) => error.hint().to_owned(),
            BootError::Ledger(_) => {
                "move the folder runs/ledger of the data folder away, and keep it for whoever asks".to_owned()
            }
            BootError::Languages(_) => "mend the file, or move it out of the data folder's languages/".to_owned(),
            BootError::Certificates(_) => "move the folder away to have a new authority made, or restore it".to_owned(),
        }
    }
}

/// Runs this machine's node until it is told to stop.
pub fn up(args: &UpArgs) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new(config::log_filter());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    ended(start(args))
}

/// Makes this machine a member of a cluster, and runs its node.
pub fn join(args: &JoinArgs) -> ExitCode {
    ended(become_member(args))
}

fn become_member(args: &JoinArgs) -> Result<(), BootError> {
    let (node, path) = data_of(&args.up)?;
    let failed = |source| BootError::Data { path: path.clone(), source };
    let lock = lock(&node.data, &path)?;
    if cluster::restore::is_unfinished(&node.data) {
        return Err(BootError::Unfinished { path });
    }
    let id = kept_word(&node.data.join(NODE_ID), 12).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BootError::Runtime)?;
    let joining = cluster::join::join(&node.data, &id, node.peers, &args.token);
    let cluster = runtime.block_on(joining).map_err(Box::new)?;
    eprintln!("this machine is a member of cluster {cluster}; from now on `bramble up` starts it");
    drop((runtime, lock));
    // In this place, so that whatever started this process has the node, and its next one is started as `up` too.
    let program = config::program().map_err(BootError::Program)?;
    let error = std::process::Command::new(program).args(config::arguments_to_go_on(&args.token)).exec();
    Err(BootError::GoOn(error))
}

fn ended(ended: Result<(), BootError>) -> ExitCode {
    match ended {
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
    let inherited = args.take_over.then(Inherited::from_stdin).transpose()?;
    // Read now: by the time of an upgrade another file has this one's name.
    let program = config::program().map_err(BootError::Program)?;
    let (node, path) = data_of(args)?;
    let start = match inherited {
        Some(inherited) => Start::Over(inherited),
        None => Start::Fresh(lock(&node.data, &path)?),
    };
    if cluster::restore::is_unfinished(&node.data) {
        return Err(BootError::Unfinished { path });
    }
    // Before the runtime: a process with threads cannot be forked.
    let spawner = Spawner::start().map_err(BootError::Spawner)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors().min(THREADS_MAX))
        .thread_name("bramble")
        .enable_all()
        .build()
        .map_err(BootError::Runtime)?;
    let ended = runtime.block_on(Box::pin(run(node, program, spawner, start)));
    // What still waits for a disk or a child is not worth waiting for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// How the node runs, with a data folder that is there; and that as it was named.
fn data_of(args: &UpArgs) -> Result<(Node, String), BootError> {
    let node = config::node(args)?;
    config::set_clock(&node)?;
    let path = node.data.display().to_string();
    let data = made(&node.data, &path)?;
    Ok((Node { data, ..node }, path))
}

/// The data folder, made if it is not there.
fn made(data: &Path, path: &str) -> Result<PathBuf, BootError> {
    let failed = |source| BootError::Data { path: path.to_owned(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
    data.canonicalize().map_err(failed)
}

/// A data folder for a command that changes it: no node runs there for as long as the file is open.
pub fn hold(data: &Path) -> Result<(PathBuf, File), BootError> {
    let path = data.display().to_string();
    let data = made(data, &path)?;
    let lock = lock(&data, &path)?;
    Ok((data, lock))
}

/// What the machine with this data folder is called.
pub fn machine(data: &Path) -> Result<String, BootError> {
    kept_word(&data.join(NODE_ID), 12).map_err(|source| BootError::Data { path: data.display().to_string(), source })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How a process comes to be the node.
enum Start {
    /// With the lock of the data folder.
    Fresh(File),
    /// As the next of a process that goes on until this one serves.
    Over(Inherited),
}

/// How long a process that was killed may take to let go of its files: a loaded machine needs a moment for that.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// One bramble per data folder, for as long as the file is open.
fn lock(data: &Path, path: &str) -> Result<File, BootError> {
    let failed = |source| BootError::Data { path: path.to_owned(), source };
    let file =
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(data.join("lock")).map_err(failed)?;
    let until = world::clock::monotonic() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if world::clock::monotonic() < until => std::thread::sleep(LOCK_PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(BootError::Locked { path: path.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
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

/// What makes this process the node: nobody else has them.
struct Held {
    lock: File,
    asking: Asking,
    program: PathBuf,
}

/// What a person, or a process, may want of a running node.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    upgrade: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Follows what the lab's file says of this machine's clock, for as long as the node runs.
async fn follow_clock(node: Node) {
    loop {
        tokio::time::sleep(CLOCK_LOOK).await;
        if let Err(error) = config::set_clock(&node) {
            tracing::debug!(%error, "the lab's clock is being written");
        }
    }
}

async fn run(node: Node, program: PathBuf, spawner: Spawner, start: Start) -> Result<(), BootError> {
    let _clock = node.clock_lab.is_some().then(|| world::task::spawn("clock of the lab", follow_clock(node.clone())));
    let signals = Signals::new().map_err(BootError::Runtime)?;
    let spawner = Arc::new(spawner.client().map_err(BootError::Spawner)?);
    let path = node.data.display().to_string();
    let failed = |source| BootError::Data { path: path.clone(), source };
    match start {
        Start::Fresh(lock) => {
            let listener =
                TcpListener::bind(node.api).map_err(|source| BootError::Listen { address: node.api, source })?;
            let asking = Asking::listen(&node.data).map_err(failed)?;
            // The sockets of a node that was killed wait in the boxes they lead to, with whoever is connecting meanwhile.
            let held = containers::held(&node.data).await.into_iter();
            let inherited = held.filter_map(|(name, socket)| {
                Some(gateway::Socket { address: name.parse().ok()?, protocol: Protocol::Tcp, socket })
            });
            let lasting = lasting(node, listener, spawner, inherited.collect(), Previous::default()).await?;
            lasting.cluster.begin().await?;
            let roles = Roles::begin(&lasting, Opened::open(&lasting, Duration::ZERO).await?, at_once()).await?;
            announce(&lasting);
            work(lasting, roles, Held { lock, asking, program }, signals).await
        }
        Start::Over(inherited) => {
            let (given, opening) = inherited.open()?.receive().await?;
            let Given { lock, api, asking, sockets, ready, older } = given;
            let previous = opening.previous();
            let taken = async {
                let asking = Asking::inherit(asking).map_err(failed)?;
                let lasting = lasting(node, api.into(), spawner, sockets, previous.clone()).await?;
                let opened = Opened::open(&lasting, STATE_PATIENCE).await?;
                if !opened.ready(&ready, READY_AGAIN_MAX).await {
                    tracing::warn!("not every instance that was ready before is ready for this process");
                }
                Ok((lasting, opened, Held { lock: lock.into(), asking, program }))
            };
            let (lasting, opened, held) = match taken.await {
                Ok(taken) => taken,
                Err(error) => return Err(give_back(&opening, error).await),
            };
            opening.opened(&previous).await;
            let (may, may_serve) = watch::channel(false);
            let roles = match Roles::begin(&lasting, opened, may_serve).await {
                Ok(roles) => roles,
                Err(error) => return Err(give_back(&opening, error).await),
            };
            opening.serving().await;
            may.send_replace(true);
            previous.add_older(older);
            announce(&lasting);
            work(lasting, roles, held, signals).await
        }
    }
}

/// For a process that has its sockets to itself.
fn at_once() -> watch::Receiver<bool> {
    watch::channel(true).1
}

/// Tells the process that goes on instead why.
async fn give_back(opening: &Opening, error: BootError) -> BootError {
    opening.failed(wire::diagnostic::chain(&error)).await;
    error
}

async fn lasting(
    node: Node,
    api: TcpListener,
    spawner: Arc<sandbox::SpawnerClient>,
    mut inherited: Vec<gateway::Socket>,
    previous: Previous,
) -> Result<Lasting, BootError> {
    let path = node.data.display().to_string();
    let failed = |source| BootError::Data { path: path.clone(), source };
    let token = kept_word(&node.data.join("token"), 32).map_err(failed)?;
    let id = kept_word(&node.data.join(NODE_ID), 12).map_err(failed)?;
    let logs = logs_folder(&node.data)?;
    let etcd = Door::open(node.etcd, &mut inherited).await?;
    let meter = Meter::new();
    let mut settings = telemetry::Settings::new(&node.data, &logs);
    if let Some(ms) = node.alerts_after_ms {
        settings = settings.alerting_after(ms);
    }
    if let Some(folder) = &node.proc_lab {
        settings.proc_dir.clone_from(folder);
    }
    let telemetry = Arc::new(Telemetry::start(settings, meter.clone()));
    let boxes = Boxes::new(&node.data);
    let settings = gateway::Settings {
        udp: Some(Arc::new(serve::Datagrams(Arc::clone(&boxes)))),
        inherited,
        trusted: node.trusted.clone(),
        cache: cache(&node),
        access: Some(Arc::new(serve::Ledger(telemetry.requests().clone()))),
        access_log: Some(node.access_log),
        zone: serve::zone(&node.labels),
        threads: processors().min(GATEWAY_THREADS_MAX),
        ..gateway::Settings::default()
    };
    let doors = serve::Doors {
        instances: boxes.dialer(),
        api: serve::from_here(api.local_addr().map_err(BootError::Runtime)?),
    };
    let gateway = Arc::new(Gateway::start(settings, Arc::new(doors), meter.clone()));
    let ways = (node.peers, node.hinted.clone());
    let cluster = Arc::new(Cluster::new(&node.data, &id, ways, Arc::clone(&gateway), meter.clone()));
    Ok(Lasting { node, id, token, api, etcd, spawner, boxes, meter, telemetry, logs, gateway, cluster, previous })
}

/// Where the gateway keeps answers; nowhere without memory.
fn cache(node: &Node) -> Option<gateway::CacheSettings> {
    let bytes = |bytes: u64| usize::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    let disk = bytes(node.cache_disk_bytes).map(|bytes| (node.data.join("cache"), bytes));
    let memory_bytes_max = bytes(node.cache_memory_bytes)?;
    Some(gateway::CacheSettings { memory_bytes_max, disk, ..gateway::CacheSettings::default() })
}

/// Until somebody ends the node, or another process has its place.
async fn work(lasting: Lasting, mut roles: Roles, held: Held, mut signals: Signals) -> Result<(), BootError> {
    let failures = lasting.meter.counter(
        "bramble_upgrade_failures_total",
        "Upgrades that the new process failed to take over: the node went on as it was.",
        &[],
    );
    loop {
        let asker = tokio::select! {
            _ = signals.interrupt.recv() => {
                close(lasting, roles, true, &mut signals.interrupt).await;
                return Ok(());
            }
            _ = signals.terminate.recv() => {
                close(lasting, roles, false, &mut signals.interrupt).await;
                return Ok(());
            }
            _ = signals.upgrade.recv() => None,
            asker = held.asking.next() => match asker {
                Ok(asker) => Some(asker),
                Err(error) => {
                    tracing::warn!(%error, "cannot hear who asks for an upgrade");
                    tokio::time::sleep(REOPEN_PAUSE).await;
                    continue;
                }
            }
        };
        let terms = asker.as_ref().map_or_else(Terms::default, |asker| asker.terms.clone());
        match Box::pin(hand_over(&lasting, roles, &held, &terms)).await? {
            Handed::Over(next) => return leave(lasting, held, next, asker, &terms, signals).await,
            Handed::Back(back, refused) => {
                roles = *back;
                failures.inc();
                let reason = wire::diagnostic::chain(&refused);
                tracing::error!(code = FAILED, reason, "the upgrade failed and this process goes on");
                if let Some(asker) = asker {
                    asker.answer(&Answer::Refused { reason }).await;
                }
            }
        }
    }
}

/// What became of an upgrade.
enum Handed {
    Over(Box<Next>),
    Back(Box<Roles>, Refused),
}

/// Has a new process take everything over. Whatever it does, this one can go on as before until that one serves.
async fn hand_over(lasting: &Lasting, roles: Roles, held: &Held, terms: &Terms) -> Result<Handed, BootError> {
    let program = terms.program.clone().unwrap_or_else(|| held.program.clone());
    tracing::info!(program = %program.display(), "an upgrade begins");
    let mut next = match Next::prepare(terms, program, config::arguments_to_take_over()).await {
        Ok(next) => next,
        Err(refused) => return Ok(Handed::Back(Box::new(roles), refused)),
    };
    tracing::info!(pid = next.pid, version = next.version, "the new process is prepared");
    lasting.previous.bound().await;
    let (ready, mut sockets) = (roles.ready(), lasting.gateway.sockets().await);
    sockets.extend(lasting.etcd.as_ref().and_then(Door::handed_on));
    roles.release(lasting).await;
    let gifts = Gifts { lock: &held.lock, api: &lasting.api, asking: &held.asking, sockets, ready };
    let staying = Staying { gateway: Arc::clone(&lasting.gateway), previous: lasting.previous.clone() };
    let refused = match next.take(gifts, &staying).await {
        Ok(()) => return Ok(Handed::Over(Box::new(next))),
        Err(refused) => refused,
    };
    next.end().await;
    let mut said = false;
    loop {
        let began = match Opened::open(lasting, STATE_PATIENCE).await {
            Ok(opened) => Roles::begin(lasting, opened, at_once()).await,
            Err(error) => Err(error),
        };
        match began {
            Ok(roles) => return Ok(Handed::Back(Box::new(roles), refused)),
            Err(error) => {
                if !said {
                    let error = wire::diagnostic::chain(&error);
                    tracing::error!(
                        error,
                        "cannot take up again yet what the new process was given; clients are served"
                    );
                }
                said = true;
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    }
}

/// The end of a process whose place another one has: what is under way is finished.
async fn leave(
    lasting: Lasting,
    held: Held,
    mut next: Box<Next>,
    asker: Option<Asker>,
    terms: &Terms,
    mut signals: Signals,
) -> Result<(), BootError> {
    let Lasting { api, telemetry, gateway, previous, spawner, .. } = lasting;
    gateway.leave().await;
    let connections = gateway.connections();
    if let Some(asker) = asker {
        let (previous_version, previous_pid) = (env!("CARGO_PKG_VERSION").to_owned(), std::process::id());
        let (version, pid) = (next.version.clone(), next.pid);
        asker.answer(&Answer::Serves { version, pid, previous_version, previous_pid, connections }).await;
    }
    tracing::info!(pid = next.pid, version = next.version, connections, "another process serves; this one finishes");
    drop((held, api, telemetry, spawner));
    let staying = Staying { gateway: Arc::clone(&gateway), previous: previous.clone() };
    // Those before this one are told by the one that serves.
    previous.release();
    let finishing = async {
        let left = gateway.finish(terms.requests(), terms.tunnels()).await;
        if left.requests + left.tunnels > 0 {
            let gateway::Left { requests, tunnels } = left;
            tracing::warn!(requests, tunnels, "connections whose time was up were cut");
        }
    };
    tokio::select! {
        () = finishing => tracing::info!("everything under way is finished"),
        () = next.attend_all(&staying) => tracing::warn!("too many processes finish: this one ends with what it has"),
        _ = signals.interrupt.recv() => {}
        _ = signals.terminate.recv() => {}
    }
    gateway.close(Duration::ZERO).await;
    Ok(())
}

/// What a person, or a script that reads standard output, needs to go on.
fn announce(lasting: &Lasting) {
    let Lasting { node, token, api, .. } = lasting;
    let api = api.local_addr().unwrap_or(node.api);
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

/// The boot list backwards. On Ctrl-C instances stop too; on SIGTERM they go on, for the next bramble to find.
async fn close(lasting: Lasting, roles: Roles, stop_instances: bool, interrupt: &mut Signal) {
    if stop_instances {
        eprintln!("stopping instances; press Ctrl-C again to leave them running");
        tokio::select! {
            () = roles.stop_all(STOP_DEADLINE) => {}
            _ = interrupt.recv() => eprintln!("instances go on running; the next `bramble up` finds them"),
        }
    }
    roles.release(&lasting).await;
    lasting.gateway.close(CLOSE_GRACE).await;
}
