//! `/v1/watch`: a line whenever something changed, so that nobody has to ask again and again.
//!
//! Promises that whoever asks after a line is answered from a view that has what the line is about: otherwise the
//! last change of many could be missed for good.

use super::App;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::view::{Snapshot, View};
use control::{Watch, WatchError};
use futures::{StreamExt, stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use wire::api::Changed;

/// An empty line this often keeps connections through proxies open and finds clients that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The view follows within a moment; one that hangs for longer is better looked at as it is than not at all.
const CATCH_UP: Duration = Duration::from_secs(1);

pub(super) async fn changes(State(app): State<App>) -> Response {
    // What others keep here moves the revision too, but not the view.
    let durable = app.space.watch_own(app.space.revision() + 1);
    let (durable_at, soft_at) = (app.space.revision_own(), app.soft.revision());
    let soft = app.soft.watch("", soft_at + 1);
    let sources = Sources { durable, soft, view: app.view.clone() };
    let lines = stream::unfold((sources, Some((durable_at, soft_at))), |(mut sources, began)| async move {
        let line = match began {
            Some((durable_at, soft_at)) => {
                sources.arrived(durable_at, soft_at).await?;
                line(&Changed { keys: Vec::new() })
            }
            None => sources.next().await?,
        };
        Some((Ok::<Bytes, Infallible>(line), (sources, None)))
    });
    let lines = lines.take_until(Box::pin(app.closed()));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Where changes come from, and where they are read.
struct Sources {
    durable: Watch,
    soft: Watch,
    view: View,
}

impl Sources {
    /// The next line; `None` when the client is to begin again.
    async fn next(&mut self) -> Option<Bytes> {
        let (events, is_durable) = tokio::select! {
            events = self.durable.next() => (events, true),
            events = self.soft.next() => (events, false),
            () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b"\n")),
        };
        let events = match events {
            Ok(events) => events,
            Err(WatchError::Closed | WatchError::Lagged | WatchError::Compacted { .. }) => return None,
        };
        let newest = events.iter().map(|event| event.revision).max().unwrap_or(0);
        let (durable_at, soft_at) = if is_durable { (newest, 0) } else { (0, newest) };
        self.arrived(durable_at, soft_at).await?;
        Some(line(&Changed { keys: events.into_iter().map(|event| event.key).collect() }))
    }

    /// Waits until the view has what happened up to then. `None` when the node ends.
    async fn arrived(&mut self, durable_at: u64, soft_at: u64) -> Option<()> {
        let has = |snapshot: &Arc<Snapshot>| snapshot.revision >= durable_at && snapshot.reported_revision >= soft_at;
        match tokio::time::timeout(CATCH_UP, self.view.wait_for(has)).await {
            Ok(arrived) => arrived.ok().map(drop),
            Err(_) => Some(()),
        }
    }
}

fn line(changed: &Changed) -> Bytes {
    let mut line = serde_json::to_vec(changed).expect("keys are plain text");
    line.push(b'\n');
    Bytes::from(line)
}
