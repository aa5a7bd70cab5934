//! The agent itself: one life per instance of this node, orders from the view, an end for what no record names.

use crate::boxes::Boxes;
use crate::error::StartupError;
use crate::lease::{self, Leases};
use crate::life::{self, Life, Order};
use crate::shared::{Hooks, Shared, make_folder};
use crate::usage;
use control::Soft;
use control::view::{Snapshot, View};
use sandbox::{Found, Ids, Shim, SpawnerClient};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use wire::api::Usage;
use wire::resource::Wanted;
use world::task::Task;

/// How long a box nobody knows may take to die before we go on without it.
const ORPHAN_KILL_MAX: Duration = Duration::from_secs(5);

/// Shims being started at once: what one spawner does in a second or two.
pub(crate) const STARTS_MAX: usize = 256;
/// How long those may take when the agent leaves.
const START_MAX: Duration = Duration::from_secs(5);

/// How the agent is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// With every box.
    Stop,
    /// Without touching one.
    Leave,
}

/// What the agent is given.
pub struct Parts {
    /// This node's id.
    pub node: String,
    /// Folder for run records, what boxes write, and volumes.
    pub data: PathBuf,
    /// Folder for instances' logs.
    pub logs: PathBuf,
    /// How users inside images map to users of this machine.
    pub ids: Ids,
    pub view: View,
    pub soft: Soft,
    pub spawner: Arc<SpawnerClient>,
    pub boxes: Arc<Boxes>,
    pub images: images::Store,
    pub meter: meter::Meter,
    pub hooks: Hooks,
    /// Until when instances may go on that must not do so on a machine that is cut off.
    pub leases: watch::Receiver<Leases>,
}

/// The running agent. Dropped, its tasks end and the boxes go on.
pub struct Agent {
    shared: Arc<Shared>,
    orders: watch::Sender<Ending>,
    stopped: watch::Receiver<bool>,
    usage: Task,
    reconciling: Task,
    _series: meter::Registration,
}

impl Agent {
    /// Starts attending the instances of this node, finding again those that run already.
    pub async fn start(parts: Parts) -> Result<Agent, StartupError> {
        for folder in ["run", "boxes", "volumes"] {
            let path = parts.data.join(folder);
            // A set-user-id program of a container's root is real root's to anybody who gets at it from outside.
            let made = make_folder(&path).and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o700)));
            made.map_err(|source| StartupError::Folder { path, source })?;
        }
        let shared = Arc::new(Shared {
            node: parts.node,
            data: parts.data,
            logs: parts.logs,
            ids: parts.ids,
            view: parts.view,
            soft: parts.soft,
            spawner: parts.spawner,
            images: parts.images,
            meter: parts.meter,
            hooks: parts.hooks,
            boxes: parts.boxes,
            leases: parts.leases,
            starts: Arc::new(Semaphore::new(STARTS_MAX)),
        });
        let _ = life::pull_failures(&shared.meter);
        let _ = lease::stopped(&shared.meter);
        let known: BTreeSet<String> = shared.view.borrow().instances.keys().cloned().collect();
        end_orphans(&shared, &known).await?;
        let (orders, ordered) = watch::channel(Ending::NotYet);
        let (tell, stopped) = watch::channel(false);
        let attending = Arc::clone(&shared);
        let reconciling = world::task::spawn("agent", async move {
            reconcile(attending, ordered).await;
            tell.send_replace(true);
        });
        let usage = world::task::spawn("usage", usage::sample(Arc::clone(&shared)));
        let series = usage::register(&shared);
        Ok(Agent { shared, orders, stopped, usage, reconciling, _series: series })
    }

    /// Lets go of every box as it is, for the next agent to find, and ends. What was asked of the spawner has been done
    /// by then; connections that were made go on.
    pub async fn leave(self) {
        let Agent { shared, orders, stopped: _, usage, reconciling, _series } = self;
        orders.send_replace(Ending::Leave);
        let _ended = reconciling.join().await;
        usage.cancel().await;
        let all = u32::try_from(STARTS_MAX).unwrap_or(u32::MAX);
        if tokio::time::timeout(START_MAX, shared.starts.acquire_many(all)).await.is_err() {
            tracing::warn!("a box that is being built takes long, and is left to be found");
        }
        shared.boxes.unattended();
    }

    /// What an instance used when it was last looked at.
    pub fn usage(&self, instance: &str) -> Usage {
        self.shared.live().get(instance).map(|live| live.usage.clone()).unwrap_or_default()
    }

    /// Cores and memory that all instances here used when they were last looked at.
    pub fn usage_of_all(&self) -> (f64, u64) {
        let live = self.shared.live();
        let usages = live.values().map(|live| &live.usage);
        usages
            .fold((0.0, 0), |(cores, memory_bytes), usage| (cores + usage.cpu_cores, memory_bytes + usage.memory_bytes))
    }

    /// Processes of ours that hold boxes.
    pub fn boxes(&self) -> usize {
        self.shared.live().len()
    }

    /// Has an instance's shim keep listening sockets, so that they outlive this process. In place of those before.
    pub async fn hold(&self, instance: &str, sockets: &[(String, BorrowedFd<'_>)]) -> std::io::Result<()> {
        match self.shared.shim(instance) {
            Some(shim) => shim.hold(sockets).await,
            None => Ok(()),
        }
    }

    /// Instances whose boxes run, with the process id of each box: another id is another box.
    pub fn running(&self) -> Vec<(Arc<wire::resource::Instance>, u32)> {
        self.shared.live().values().map(|live| (Arc::clone(&live.instance), live.shim.pid())).collect()
    }

    /// The digest of the image that an instance of this node runs from; `None` when it never started or has none.
    pub fn image_of(&self, instance: &str) -> Option<String> {
        crate::pinned::digest(&self.shared.box_dir(instance))
    }

    /// Kills an instance's box as a crash would; its restart policy decides what follows. False: not running here.
    pub async fn kill(&self, instance: &str) -> std::io::Result<bool> {
        match self.shared.shim(instance) {
            Some(shim) => shim.kill().await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Stops every box, each within its grace. What is wanted stays wanted: the next agent starts it again.
    pub async fn stop_all(&self, deadline: Duration) {
        self.orders.send_replace(Ending::Stop);
        let mut stopped = self.stopped.clone();
        if tokio::time::timeout(deadline, stopped.wait_for(|stopped| *stopped)).await.is_err() {
            tracing::warn!("some instances did not stop in time and go on running");
        }
    }
}

/// Sockets that shims kept since an agent before this one, each name once.
pub async fn held(data: &Path) -> Vec<(String, OwnedFd)> {
    let mut found: BTreeMap<String, OwnedFd> = BTreeMap::new();
    for id in names(&data.join("run")).unwrap_or_default() {
        if let Ok(Found::Alive(shim)) = Shim::connect(&data.join("run").join(id)).await {
            found.extend(shim.held().await.unwrap_or_default());
        }
    }
    found.into_iter().collect()
}

/// One life per instance; orders follow the view.
async fn reconcile(shared: Arc<Shared>, mut ordered: watch::Receiver<Ending>) {
    let mut view = shared.view.clone();
    let mut lives: BTreeMap<String, (watch::Sender<Order>, Task)> = BTreeMap::new();
    loop {
        let snapshot = view.borrow_and_update().clone();
        let ending = *ordered.borrow_and_update();
        match ending {
            Ending::NotYet => follow(&shared, &snapshot, &mut lives, false),
            Ending::Stop => {
                follow(&shared, &snapshot, &mut lives, true);
                break;
            }
            Ending::Leave => {
                for (_, (_, task)) in lives {
                    task.cancel().await;
                }
                return;
            }
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            _ = ordered.changed() => {}
        }
    }
    for (_, (orders, task)) in lives {
        // A life that is told to forget ends; what it leaves behind is cleaned because its record is kept.
        drop(orders);
        let _ = task.join().await;
    }
}

fn follow(
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
    lives: &mut BTreeMap<String, (watch::Sender<Order>, Task)>,
    ending: bool,
) {
    lives.retain(|_, (_, task)| !task.is_finished());
    for (id, (orders, _)) in lives.iter() {
        let wanted = snapshot.instances.get(id).filter(|instance| instance.node == shared.node);
        let order = match wanted.map(|instance| instance.wanted) {
            None => Order::Forget,
            Some(Wanted::Running) if !ending => Order::Run,
            Some(Wanted::Running | Wanted::Stopped) => Order::Stop,
        };
        orders.send_if_modified(|current| std::mem::replace(current, order) != order);
    }
    for (id, instance) in &snapshot.instances {
        if instance.node != shared.node || lives.contains_key(id) || ending {
            continue;
        }
        let order = match instance.wanted {
            Wanted::Running => Order::Run,
            Wanted::Stopped => Order::Stop,
        };
        let (orders, received) = watch::channel(order);
        let life = Life::new(Arc::clone(shared), Arc::clone(instance), received);
        lives.insert(id.clone(), (orders, world::task::spawn("life", life.run())));
    }
}

/// Ends boxes, and removes folders, of instances that no record names: what a crash between two steps left behind.
async fn end_orphans(shared: &Arc<Shared>, known: &BTreeSet<String>) -> Result<(), StartupError> {
    for id in names(&shared.data.join("run"))?.difference(known) {
        let dir = shared.run_dir(id);
        tracing::info!(instance = id, "ending a box no record names");
        if let Ok(Found::Alive(shim)) = Shim::connect(&dir).await {
            let _ = shim.kill().await;
            let _ = tokio::time::timeout(ORPHAN_KILL_MAX, shim.exited()).await;
        }
        if let Err(error) = sandbox::forget(&dir) {
            tracing::warn!(instance = id, %error, "cannot clear the run folder of an orphan");
        }
    }
    for id in names(&shared.data.join("boxes"))?.difference(known) {
        if let Err(error) = crate::erase::erase(shared, id).await {
            tracing::warn!(instance = id, %error, "cannot remove what a box wrote");
        }
    }
    Ok(())
}

fn names(path: &Path) -> Result<BTreeSet<String>, StartupError> {
    let failed = |source| StartupError::List { path: path.to_owned(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
