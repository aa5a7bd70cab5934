//! `/v1/images`: list, pull with progress, remove, prune.

use super::App;
use super::problem::{Body, Query, Refusal};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::view::Snapshot;
use futures::stream;
use images::{PullError, Reference};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use tokio::sync::{mpsc, watch};
use wire::api::{Image, Problem, Pruned, Pull, PullProgress};
use wire::diagnostic::chain;

/// Lines of progress waiting for a slow client; older ones are worth nothing.
const PROGRESS_LINES_MAX: usize = 8;

pub(super) async fn list(State(app): State<App>) -> Json<Vec<Image>> {
    let snapshot = app.view.borrow().clone();
    let running = running(&app, &snapshot);
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    for record in app.images.list() {
        let image = images.entry(record.digest.clone()).or_insert_with(|| Image {
            references: Vec::new(),
            digest: record.digest.clone(),
            size_bytes: record.size_bytes,
            created_ms: record.pulled_ms,
            used_ms: record.pulled_ms,
            instances: running.get(&record.digest).copied().unwrap_or(0),
        });
        image.references.extend(record.reference);
    }
    Json(images.into_values().collect())
}

/// Digests of images that instances run from, or will when they start, with how many do. A tag that moved meanwhile
/// does not change what runs.
fn running(app: &App, snapshot: &Snapshot) -> BTreeMap<String, u32> {
    let mut running = BTreeMap::new();
    for (id, instance) in &snapshot.instances {
        let by_name = || Some(app.images.find(&instance.spec.image.parse::<Reference>().ok()?)?.digest);
        if let Some(digest) = app.agent.image_of(id).or_else(by_name) {
            *running.entry(digest).or_default() += 1;
        }
    }
    running
}

fn reference(text: &str) -> Result<Reference, Refusal> {
    text.parse().map_err(|error: images::ReferenceError| {
        Refusal::new(422, "B0501", format!("{text:?} is not an image reference: {error}"))
            .hint("write it as `name:tag`, `registry.example.org/name:tag` or `name@sha256:…`")
    })
}

pub(super) async fn pull(State(app): State<App>, Body(pull): Body<Pull>) -> Result<Response, Refusal> {
    let reference = reference(&pull.reference)?;
    let (lines, received) = mpsc::channel::<PullProgress>(PROGRESS_LINES_MAX);
    // Ends with the pull; a client that leaves makes `lines` fail and the pull be dropped, resumable.
    world::task::spawn("pull", report(app, reference, lines)).detach();
    let lines = stream::unfold(received, |mut received| async move {
        let progress = received.recv().await?;
        let mut line = serde_json::to_vec(&progress).expect("progress is plain data");
        line.push(b'\n');
        Some((Ok::<Bytes, Infallible>(Bytes::from(line)), received))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], axum::body::Body::from_stream(lines)).into_response())
}

async fn report(app: App, reference: Reference, lines: mpsc::Sender<PullProgress>) {
    let (progress, mut seen) = watch::channel(images::Progress::default());
    let pull = app.images.pull(&reference, images::Pull::Always, progress);
    tokio::pin!(pull);
    let closed = app.closed();
    tokio::pin!(closed);
    let mut watching = true;
    let pulled = loop {
        tokio::select! {
            pulled = &mut pull => break pulled,
            // The node is being replaced: the next one finds what is here already.
            () = &mut closed => return,
            changed = seen.changed(), if watching => {
                watching = changed.is_ok();
                let line = line(&seen.borrow());
                // Full means that the client is slow: it will hear of a later state.
                if let Err(mpsc::error::TrySendError::Closed(_)) = lines.try_send(line) {
                    return;
                }
            }
        }
    };
    let last = line(&seen.borrow());
    let last = match pulled {
        Ok(image) => PullProgress { digest: Some(image.digest), ..last },
        Err(error) => PullProgress { problem: Some(problem(&reference, &error)), ..last },
    };
    let _ = lines.send(last).await;
}

fn line(progress: &images::Progress) -> PullProgress {
    PullProgress {
        done_bytes: progress.bytes_done,
        total_bytes: progress.bytes_total,
        layers_done: u32::try_from(progress.layers_done).unwrap_or(u32::MAX),
        layers: u32::try_from(progress.layers_total).unwrap_or(u32::MAX),
        digest: None,
        problem: None,
    }
}

fn problem(reference: &Reference, error: &PullError) -> Problem {
    let message = format!("pull {reference}: {}", chain(error));
    Refusal::new(502, "B0502", message).hint(error.hint()).into_problem()
}

#[derive(Deserialize)]
pub(super) struct Named {
    reference: String,
}

pub(super) async fn remove(State(app): State<App>, Query(named): Query<Named>) -> Result<StatusCode, Refusal> {
    let wanted = reference(&named.reference)?;
    let snapshot = app.view.borrow().clone();
    let user = snapshot
        .instances
        .values()
        .find(|instance| instance.spec.image.parse::<Reference>().is_ok_and(|used| used == wanted));
    if let Some(instance) = user {
        return Err(Refusal::new(409, "B0503", format!("image {wanted} is used by instance {}", instance.id))
            .hint("remove the service first"));
    }
    app.images.remove(&wanted).await.map_err(|error| {
        Refusal::new(404, "B0504", format!("remove image {wanted}: {error}"))
            .hint("`bramble image ls` lists the images")
    })?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn prune(State(app): State<App>) -> Json<Pruned> {
    let snapshot = app.view.borrow().clone();
    let mut in_use: BTreeSet<String> = running(&app, &snapshot).into_keys().collect();
    // Boxes that wait for code stand on these, and the next run of a language would copy it again.
    in_use.extend(app.runs.house.images_in_use());
    let pruned = app.images.prune(&in_use).await;
    let images = u32::try_from(pruned.images.len()).unwrap_or(u32::MAX);
    Json(Pruned { images, freed_bytes: pruned.freed_bytes })
}
