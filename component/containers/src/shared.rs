//! What all instances of this machine share: folders, the view, the spawner, the image store, hooks to the rest.

use crate::boxes::Boxes;
use crate::lease::Leases;
use control::Soft;
use control::view::View;
use futures::future::BoxFuture;
use sandbox::{Ids, Shim, SpawnerClient};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use tokio::sync::{Semaphore, watch};
use wire::api::Usage;
use wire::resource::Instance;

/// Writes a line into an instance's log.
pub type Note = Arc<dyn Fn(&Instance, &str) + Send + Sync>;

/// What other components do for the agent; the app ties them together.
#[derive(Clone)]
pub struct Hooks {
    /// Ends when no request is at the instance any more. The agent bounds the wait itself.
    pub drained: Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Writes a line of the platform's own into an instance's log.
    pub note: Note,
}

/// Handed to every task of the agent.
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) data: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) ids: Ids,
    pub(crate) view: View,
    pub(crate) soft: Soft,
    pub(crate) spawner: Arc<SpawnerClient>,
    pub(crate) images: images::Store,
    pub(crate) meter: meter::Meter,
    pub(crate) hooks: Hooks,
    pub(crate) boxes: Arc<Boxes>,
    pub(crate) leases: watch::Receiver<Leases>,
    /// Shims being started, each with one: whoever leaves waits for all.
    pub(crate) starts: Arc<Semaphore>,
}

/// An instance whose box runs.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) instance: Arc<Instance>,
    pub(crate) shim: Arc<Shim>,
    pub(crate) usage: Usage,
    /// Processor time and when it was read, to make a rate of.
    pub(crate) cpu_before: Option<(u64, u64)>,
}

impl Shared {
    pub(crate) fn run_dir(&self, instance: &str) -> PathBuf {
        self.boxes.run_dir(instance)
    }

    /// What a box writes to its root, kept over restarts of the instance.
    pub(crate) fn box_dir(&self, instance: &str) -> PathBuf {
        self.data.join("boxes").join(instance)
    }

    pub(crate) fn volume_dir(&self, volume: &str) -> PathBuf {
        self.data.join("volumes").join(volume)
    }

    pub(crate) fn log_dir(&self, instance: &Instance) -> PathBuf {
        self.logs.join(&instance.stack).join(&instance.service).join(&instance.id)
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, BTreeMap<String, Live>> {
        self.boxes.live()
    }

    pub(crate) fn shim(&self, instance: &str) -> Option<Arc<Shim>> {
        self.boxes.attended(instance)
    }
}

/// Makes a folder with its parents.
pub(crate) fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}
