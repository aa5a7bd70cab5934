//! `/v1/watch`: a line whenever something changed, so that nobody has to ask again and again.

use super::App;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::WatchError;
use futures::stream;
use std::convert::Infallible;
use std::time::Duration;
use wire::api::Changed;

/// An empty line this often keeps connections through proxies open and finds clients that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn changes(State(app): State<App>) -> Response {
    let durable = app.space.watch("", app.space.revision() + 1);
    let soft = app.soft.watch("", app.soft.revision() + 1);
    let first = line(&Changed { keys: Vec::new() });
    let lines = stream::unfold((durable, soft, Some(first)), |(mut durable, mut soft, first)| async move {
        if let Some(first) = first {
            return Some((Ok::<Bytes, Infallible>(first), (durable, soft, None)));
        }
        let events = tokio::select! {
            events = durable.next() => events,
            events = soft.next() => events,
            () = tokio::time::sleep(KEEP_ALIVE) => return Some((Ok(Bytes::from_static(b"\n")), (durable, soft, None))),
        };
        let keys = match events {
            Ok(events) => events.into_iter().map(|event| event.key).collect(),
            // The client asks for everything again when the stream ends.
            Err(WatchError::Closed | WatchError::Lagged | WatchError::Compacted { .. }) => return None,
        };
        Some((Ok(line(&Changed { keys })), (durable, soft, None)))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line(changed: &Changed) -> Bytes {
    let mut line = serde_json::to_vec(changed).expect("keys are plain text");
    line.push(b'\n');
    Bytes::from(line)
}
