//! Layers being fetched: whoever wants one that is already on its way waits for it with the others.
//!
//! The work belongs to those who wait: it goes on while at least one does, and is dropped with the last. Dropped, it
//! leaves a partial download that the next one continues.

use crate::digest::Digest;
use crate::download::download;
use crate::error::PullError;
use crate::manifest::Descriptor;
use crate::registry::{Repository, Source};
use crate::store::Inner;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Work = BoxFuture<'static, Result<(), PullError>>;

/// A layer on its way.
pub(crate) struct Job {
    pub(crate) done: Shared<Work>,
    pub(crate) arrived: Arc<AtomicU64>,
}

struct Running {
    work: WeakShared<Work>,
    arrived: Arc<AtomicU64>,
}

/// All layers on their way, by content digest.
#[derive(Default)]
pub(crate) struct Jobs {
    running: Mutex<HashMap<Digest, Running>>,
}

/// A layer that is wanted, and where it can be had.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Descriptor,
    pub(crate) repository: String,
    pub(crate) reference: String,
    pub(crate) sources: Vec<Source>,
}

/// Joins the work on a layer, or starts it.
pub(crate) fn join(inner: &Arc<Inner>, wanted: Wanted) -> Job {
    let mut running = inner.jobs.running.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|_, job| job.work.upgrade().is_some_and(|work| work.peek().is_none()));
    if let Some(job) = running.get(&wanted.diff_id)
        && let Some(done) = job.work.upgrade()
    {
        return Job { done, arrived: job.arrived.clone() };
    }
    let arrived = Arc::new(AtomicU64::new(0));
    let diff_id = wanted.diff_id.clone();
    let done = fetch(inner.clone(), wanted, arrived.clone()).boxed().shared();
    if let Some(work) = done.downgrade() {
        running.insert(diff_id, Running { work, arrived: arrived.clone() });
    }
    Job { done, arrived }
}

async fn fetch(inner: Arc<Inner>, wanted: Wanted, arrived: Arc<AtomicU64>) -> Result<(), PullError> {
    let _slot = inner.slots.acquire().await.expect("the slots are never closed");
    if inner.layers.find(&wanted.diff_id).is_some() {
        arrived.store(wanted.blob.size, Ordering::Relaxed);
        return Ok(());
    }
    let path = inner.downloads.join(format!("{}.part", wanted.blob.digest.short()));
    let repository = Repository { path: &wanted.repository, reference: &wanted.reference };
    download(&inner.registry, &wanted.sources, repository, &wanted.blob, &path, &arrived).await?;
    let unpacked = unpack(&inner, &wanted.diff_id, &path).await;
    let keep = match &unpacked {
        // Until the layer is complete, its blob is what a restart goes on from. A full disk needs the room, though,
        // and a blob that is checked but bad stays bad.
        Err(PullError::DiskFull { .. }) => false,
        Err(error) => error.is_retryable() && !matches!(error, PullError::DigestMismatch { .. }),
        Ok(()) => false,
    };
    if !keep && let Err(error) = std::fs::remove_file(&path) {
        tracing::debug!(path = %path.display(), %error, "cannot remove an unpacked download");
    }
    unpacked
}

/// Stops the blocking thread when whoever waits for it goes away.
pub(crate) struct Cancel(pub(crate) Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Unpacks a whole archive as the layer `diff_id`, away from the async threads.
pub(crate) async fn unpack(inner: &Arc<Inner>, diff_id: &Digest, archive: &Path) -> Result<(), PullError> {
    let cancel = Cancel(Arc::new(AtomicBool::new(false)));
    let (cancelled, inner) = (cancel.0.clone(), inner.clone());
    let (diff_id, archive) = (diff_id.clone(), archive.to_owned());
    let path = archive.clone();
    let added = tokio::task::spawn_blocking(move || inner.layers.add(&archive, &diff_id, &cancelled));
    let added = added.await.map_err(|error| PullError::disk(&path, std::io::Error::other(error)))?;
    added.map(drop)
}
