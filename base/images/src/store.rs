//! The store itself: what is here, what is being fetched, what may go.
//!
//! One process owns a store's folder at a time (flock). On disk: `images/` and `names/` (records), `layers/` (unpacked),
//! `downloads/` (partial blobs, kept over restarts), `unpacking/` and `trash/` (emptied at open).

use crate::digest::Digest;
use crate::error::{OpenError, PullError, RemoveError};
use crate::layer::Layers;
use crate::record::{ImageRecord, NameRecord, Records};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::share::Jobs;
use crate::{Config, Image, Pruned, Record};
use rustix::fs::FlockOperation;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

const FORMAT: &str = "1";
/// An agent that is being replaced lets go of the store within this time: it ends what it writes at that moment.
const LOCK_ATTEMPTS_MAX: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The image store of one machine. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) registry: Registry,
    pub(crate) layers: Layers,
    pub(crate) downloads: PathBuf,
    pub(crate) slots: Semaphore,
    pub(crate) jobs: Jobs,
    state: Mutex<State>,
    /// Held as long as anything works on the folder, also a blocking thread whose owner is gone.
    _lock: File,
}

struct State {
    records: Records,
    /// Layers that a pull under way counts on, with how many do.
    pinned: BTreeMap<Digest, usize>,
}

/// Keeps layers from being pruned while a pull or import counts on them.
pub(crate) struct Pin {
    inner: Arc<Inner>,
    layers: Vec<Digest>,
}

impl Store {
    /// Opens the store in `root`, making it when there is none, and clears away what an earlier process left half-done.
    pub async fn open(root: &Path, config: Config) -> Result<Store, OpenError> {
        check_mirrors(&config.mirrors)?;
        let registry = Registry::new(config.mirrors, config.credentials).map_err(|source| OpenError::Tls { source })?;
        let lock = lock(root).await?;
        let (path, ownership) = (root.to_owned(), config.ownership);
        let opened = tokio::task::spawn_blocking(move || open_folders(&path, ownership)).await;
        let failed = |source| OpenError::Disk { path: root.to_owned(), source };
        let (layers, records) = opened.map_err(io::Error::other).map_err(failed)??;
        let inner = Inner {
            registry,
            layers,
            downloads: root.join("downloads"),
            slots: Semaphore::new(config.layers_at_once.max(1)),
            jobs: Jobs::default(),
            state: Mutex::new(State { records, pinned: BTreeMap::new() }),
            _lock: lock,
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The image of this name, when it is here as a whole.
    pub fn find(&self, reference: &Reference) -> Option<Image> {
        let digest = self.inner.digest_of(reference)?;
        self.inner.complete(&digest).map(|record| self.inner.as_image(reference, record))
    }

    /// Every name, and every image that has lost its name but not its place.
    pub fn list(&self) -> Vec<Record> {
        let state = self.inner.state();
        let record = |reference: Option<&NameRecord>, image: &ImageRecord| Record {
            reference: reference.map(|name| name.reference.clone()),
            digest: image.digest.to_string(),
            layers: image.layers.len(),
            size_bytes: image.size_bytes,
            pulled_ms: reference.map_or(0, |name| name.pulled_ms),
        };
        let names = state.records.names.values();
        let mut list: Vec<Record> =
            names.filter_map(|name| Some(record(Some(name), state.records.images.get(&name.digest)?))).collect();
        let named: BTreeSet<&Digest> = state.records.names.values().map(|name| &name.digest).collect();
        let nameless = state.records.images.values().filter(|image| !named.contains(&image.digest));
        list.extend(nameless.map(|image| record(None, image)));
        list
    }

    /// Forgets a name. The image's files stay until [`Store::prune`]: a container may be running from them.
    pub async fn remove(&self, reference: &Reference) -> Result<(), RemoveError> {
        let inner = self.inner.clone();
        let name = reference.to_string();
        let removed = blocking(move || inner.state().records.remove_name(&name)).await;
        match removed {
            Ok(true) => Ok(()),
            Ok(false) => Err(RemoveError::NotHere { reference: reference.to_string() }),
            Err(source) => Err(RemoveError::Disk { reference: reference.to_string(), source }),
        }
    }

    /// Removes every image, named or not, whose digest is not `in_use`, and every layer and partial download that no
    /// image left and no pull under way needs. What cannot be removed is logged and tried again next time.
    ///
    /// An image just pulled for a container about to start must already be in `in_use`.
    pub async fn prune(&self, in_use: &BTreeSet<String>) -> Pruned {
        let (inner, in_use) = (self.inner.clone(), in_use.clone());
        let pruned = blocking(move || {
            let pruned = inner.prune(&in_use)?;
            inner.layers.empty_trash()?;
            Ok(pruned)
        });
        pruned.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "pruning images stopped early");
            Pruned::default()
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which image a name stands for. A digest finds the image under whatever name it came.
    pub(crate) fn digest_of(&self, reference: &Reference) -> Option<Digest> {
        let state = self.state();
        if let Some(digest) = &reference.digest {
            let digest: Digest = digest.parse().ok()?;
            return state.records.images.contains_key(&digest).then_some(digest);
        }
        Some(state.records.names.get(&reference.to_string())?.digest.clone())
    }

    /// The image of this digest, when all its layers are here.
    fn complete(&self, digest: &Digest) -> Option<ImageRecord> {
        let record = self.state().records.images.get(digest)?.clone();
        self.has_layers(&record).then_some(record)
    }

    fn has_layers(&self, record: &ImageRecord) -> bool {
        record.layers.iter().all(|layer| self.layers.find(layer).is_some())
    }

    fn as_image(&self, reference: &Reference, record: ImageRecord) -> Image {
        Image {
            digest: record.digest.to_string(),
            reference: reference.to_string(),
            layers: record.layers.iter().map(|layer| self.layers.files(layer)).collect(),
            config: record.config,
            size_bytes: record.size_bytes,
        }
    }

    /// Gives an image that is here a name; `None` when it is not here as a whole.
    pub(crate) async fn rename(
        self: &Arc<Self>,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Option<Image>, PullError> {
        let Some(record) = self.state().records.images.get(digest).cloned() else { return Ok(None) };
        // Pinned before it is looked at: what is found stays until the name is on disk.
        let _pin = self.pin(&record.layers);
        if !self.has_layers(&record) {
            return Ok(None);
        }
        self.record(reference, record).await.map(Some)
    }

    /// Makes the image known, on disk first.
    pub(crate) async fn record(
        self: &Arc<Self>,
        reference: &Reference,
        image: ImageRecord,
    ) -> Result<Image, PullError> {
        let name = NameRecord::new(reference.to_string(), image.digest.clone(), world::clock::unix_ms());
        let (inner, record) = (self.clone(), image.clone());
        let added = blocking(move || inner.state().records.add(record, name)).await;
        added.map_err(|error| PullError::disk(&self.downloads, error))?;
        Ok(self.as_image(reference, image))
    }

    /// Keeps these layers from being pruned until the pin is dropped.
    pub(crate) fn pin(self: &Arc<Self>, layers: &[Digest]) -> Pin {
        let mut state = self.state();
        for layer in layers {
            *state.pinned.entry(layer.clone()).or_default() += 1;
        }
        Pin { inner: self.clone(), layers: layers.to_vec() }
    }

    fn prune(&self, in_use: &BTreeSet<String>) -> io::Result<Pruned> {
        // One lock from deciding to renaming: a pull that starts now either pins first or finds the layer gone.
        let mut state = self.state();
        let doomed: Vec<Digest> =
            state.records.images.keys().filter(|digest| !in_use.contains(digest.as_str())).cloned().collect();
        let mut pruned = Pruned::default();
        for digest in doomed {
            state.records.remove_image(&digest)?;
            pruned.images.push(digest.to_string());
        }
        let used: BTreeSet<&str> =
            state.records.images.values().flat_map(|image| &image.layers).map(Digest::short).collect();
        let pinned: BTreeSet<&str> = state.pinned.keys().map(Digest::short).collect();
        let keep = |name: &str| used.contains(name) || pinned.contains(name);
        for (path, size_bytes) in self.layers.unwanted(keep)? {
            self.layers.discard(&path)?;
            pruned.layers += 1;
            pruned.freed_bytes += size_bytes;
        }
        if state.pinned.is_empty() {
            // With a pull under way its partial files must stay, and they carry other digests than the pins.
            for entry in fs::read_dir(&self.downloads)? {
                let entry = entry?;
                pruned.freed_bytes += entry.metadata()?.len();
                fs::remove_file(entry.path())?;
            }
        }
        Ok(pruned)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        for layer in &self.layers {
            if let Some(count) = state.pinned.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(layer);
                }
            }
        }
    }
}

fn check_mirrors(mirrors: &BTreeMap<String, String>) -> Result<(), OpenError> {
    for (registry, url) in mirrors {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
        if reqwest::Url::parse(url).is_err() || host.is_empty() || host.contains(['?', '#', '@']) {
            return Err(OpenError::Mirror { registry: registry.clone(), url: url.clone() });
        }
    }
    Ok(())
}

fn open_folders(root: &Path, ownership: crate::Ownership) -> Result<(Layers, Records), OpenError> {
    let failed = |source| OpenError::Disk { path: root.to_owned(), source };
    let version = root.join("version");
    match fs::read_to_string(&version) {
        Ok(found) if found.trim() == FORMAT => {}
        // Empty: made at the moment the power went.
        Ok(found) if found.trim().is_empty() => fs::write(&version, FORMAT).map_err(failed)?,
        Ok(found) => return Err(OpenError::Newer { path: root.to_owned(), found: found.trim().to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(&version, FORMAT).map_err(failed)?,
        Err(error) => return Err(failed(error)),
    }
    // An image's set-user-id program would be real root's to anybody who gets at it from outside.
    fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(failed)?;
    fs::create_dir_all(root.join("downloads")).map_err(failed)?;
    let layers = Layers::open(root, ownership).map_err(failed)?;
    let records = Records::open(root).map_err(failed)?;
    Ok((layers, records))
}

async fn lock(root: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Disk { path: root.to_owned(), source };
    fs::create_dir_all(root).map_err(failed)?;
    let file = File::options().write(true).create(true).truncate(false).open(root.join("lock")).map_err(failed)?;
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(failed(error.into())),
        }
    }
    Err(OpenError::InUse { path: root.to_owned() })
}

/// Runs file work where waiting for a disk stops nobody. Dropped, the work still runs to its end.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
