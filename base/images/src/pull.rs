//! A pull from name to image: find the manifest for this machine, fetch what is missing, then make it known.
//!
//! May be dropped at any await: layers that are complete stay, partial ones are continued by the next pull.

use crate::digest::Digest;
use crate::error::PullError;
use crate::manifest::{
    self, Configuration, Descriptor, Document, INDEX_DEPTH_MAX, Manifest, Platform, choose, parse_configuration,
};
use crate::record::ImageRecord;
use crate::reference::Reference;
use crate::registry::{Repository, Source};
use crate::share::{Job, Wanted, join};
use crate::store::{Inner, Store};
use crate::{Image, Progress, Pull, Step};
use futures::future::try_join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// How often a watcher learns of new bytes: often enough for a bar that moves.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What a name stands for.
enum Answer {
    /// An image that is here already, under whatever name.
    Here(Image),
    There(Found),
}

/// A manifest found, and by which way.
struct Found {
    /// Of what the name stands for: the index, if there is one.
    digest: Digest,
    manifest: Manifest,
    source: Source,
}

/// Layers of an image that are to be here, each once, bottom first.
pub(crate) struct Plan {
    pub(crate) diff_ids: Vec<Digest>,
    /// In the same order.
    pub(crate) blobs: Vec<Descriptor>,
}

impl Store {
    /// Makes sure that an image is here as a whole, fetching what is missing. Pulls of one layer share the work.
    pub async fn pull(
        &self,
        reference: &Reference,
        policy: Pull,
        progress: watch::Sender<Progress>,
    ) -> Result<Image, PullError> {
        let present = self.find(reference);
        match (policy, present) {
            (Pull::Missing | Pull::Never, Some(image)) => {
                progress.send_modify(|progress| progress.step = Step::Done);
                return Ok(image);
            }
            (Pull::Never, None) => return Err(PullError::NotHere { reference: reference.to_string() }),
            (Pull::Always, _) | (Pull::Missing, None) => {}
        }
        let written = reference.to_string();
        let repository = Repository { path: &reference.repository, reference: &written };
        let sources = self.inner.registry.sources(&reference.registry);
        let found = match self.inner.find_manifest(&sources, repository, reference).await? {
            Answer::Here(image) => {
                progress.send_modify(|progress| progress.step = Step::Done);
                return Ok(image);
            }
            Answer::There(found) => found,
        };
        let configuration = self.inner.configuration(&found, repository).await?;
        let plan = plan(&written, &found.manifest, configuration.diff_ids)?;
        let pin = self.inner.pin(&plan.diff_ids);
        // The source that had the manifest most likely has the layers; the registry itself is asked last.
        let mut order = sources;
        order.sort_by_key(|source| *source != found.source);
        let wanted = plan.diff_ids.iter().zip(&plan.blobs).map(|(diff_id, blob)| Wanted {
            diff_id: diff_id.clone(),
            blob: blob.clone(),
            repository: reference.repository.clone(),
            reference: written.clone(),
            sources: order.clone(),
        });
        let jobs: Vec<Job> = wanted.map(|wanted| join(&self.inner, wanted)).collect();
        let bytes_total = plan.blobs.iter().map(|blob| blob.size).sum();
        wait(jobs, bytes_total, &progress).await?;
        let image = self.inner.finish(reference, found.digest, plan.diff_ids, configuration.config).await?;
        drop(pin);
        progress.send_modify(|progress| progress.step = Step::Done);
        Ok(image)
    }
}

impl Inner {
    async fn find_manifest(
        self: &Arc<Self>,
        sources: &[Source],
        repository: Repository<'_>,
        reference: &Reference,
    ) -> Result<Answer, PullError> {
        let mut failure = None;
        for source in sources {
            match self.manifest_from(source, repository, reference).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::debug!(?source, %error, "no manifest from here");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| PullError::Unknown { reference: repository.reference.to_owned() }))
    }

    async fn manifest_from(
        self: &Arc<Self>,
        source: &Source,
        repository: Repository<'_>,
        reference: &Reference,
    ) -> Result<Answer, PullError> {
        // Only worth a question when the answer may be that nothing has changed. Any other image that is here is not
        // handed out for its digest alone: a registry must show the manifest to give a name to it.
        if reference.digest.is_none()
            && let Some(known) = self.digest_of(reference)
            && self.registry.digest(source, repository, reference.selector()).await.as_ref() == Some(&known)
            && let Some(image) = self.rename(reference, &known).await?
        {
            return Ok(Answer::Here(image));
        }
        let mut fetched = self.registry.manifest(source, repository, reference.selector()).await?;
        let digest = fetched.digest.clone();
        if let Some(image) = self.rename(reference, &digest).await? {
            return Ok(Answer::Here(image));
        }
        for _ in 0..INDEX_DEPTH_MAX {
            let document = manifest::parse(repository.reference, fetched.content_type.as_deref(), &fetched.bytes)?;
            let entries = match document {
                Document::Image(manifest) => {
                    return Ok(Answer::There(Found { digest, manifest, source: source.clone() }));
                }
                Document::Index(entries) => entries,
            };
            let entry = choose(repository.reference, &entries, &Platform::here())?;
            fetched = self.registry.manifest(source, repository, entry.digest.as_str()).await?;
        }
        let why = "it is an index of indexes without end".to_owned();
        Err(PullError::Malformed { what: repository.reference.to_owned(), why })
    }

    async fn configuration(&self, found: &Found, repository: Repository<'_>) -> Result<Configuration, PullError> {
        let bytes = self.registry.small_blob(&found.source, repository, &found.manifest.config.digest).await?;
        let configuration = parse_configuration(repository.reference, &bytes)?;
        configuration.check_platform(repository.reference, &Platform::here())?;
        Ok(configuration)
    }

    /// Makes an image known whose layers are all here.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        reference: &Reference,
        digest: Digest,
        mut layers: Vec<Digest>,
        config: crate::ImageConfig,
    ) -> Result<Image, PullError> {
        let mut size_bytes = 0;
        let opaque = |layer: &Digest| self.layers.find(layer).is_some_and(|note| note.root_opaque);
        if let Some(lowest) = layers.iter().rposition(opaque) {
            layers.drain(..lowest);
        }
        for layer in &layers {
            let gone = || std::io::Error::other(format!("layer {layer} has disappeared"));
            let note = self.layers.find(layer).ok_or_else(|| PullError::disk(&self.layers.files(layer), gone()))?;
            size_bytes += note.size_bytes;
        }
        self.record(reference, ImageRecord::new(digest, layers, config, size_bytes)).await
    }
}

/// Pairs blobs with their content digests. A layer that comes twice counts where it is uppermost: everything it says
/// is said again there, and overlayfs refuses the same folder twice.
pub(crate) fn plan(what: &str, manifest: &Manifest, diff_ids: Vec<Digest>) -> Result<Plan, PullError> {
    if manifest.layers.len() != diff_ids.len() {
        let why = format!("it has {} layers, its configuration {}", manifest.layers.len(), diff_ids.len());
        return Err(PullError::Malformed { what: what.to_owned(), why });
    }
    let mut seen = BTreeSet::new();
    let mut plan = Plan { diff_ids: Vec::new(), blobs: Vec::new() };
    for (diff_id, blob) in diff_ids.into_iter().zip(&manifest.layers).rev() {
        if seen.insert(diff_id.clone()) {
            plan.diff_ids.push(diff_id);
            plan.blobs.push(blob.clone());
        }
    }
    plan.diff_ids.reverse();
    plan.blobs.reverse();
    Ok(plan)
}

/// Waits for all layers, telling the watcher how far they are.
async fn wait(jobs: Vec<Job>, bytes_total: u64, progress: &watch::Sender<Progress>) -> Result<(), PullError> {
    let tell = || {
        let now = Progress {
            step: Step::Fetching,
            layers_done: jobs.iter().filter(|job| job.done.peek().is_some()).count(),
            layers_total: jobs.len(),
            bytes_done: jobs.iter().map(|job| job.arrived.load(Ordering::Relaxed)).sum(),
            bytes_total,
        };
        progress.send_if_modified(|progress| {
            let changed = *progress != now;
            *progress = now;
            changed
        });
    };
    let mut all = Box::pin(try_join_all(jobs.iter().map(|job| job.done.clone())));
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            outcome = &mut all => {
                tell();
                return outcome.map(drop);
            }
            _ = ticks.tick() => tell(),
        }
    }
}
