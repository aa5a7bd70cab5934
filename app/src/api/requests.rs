//! `/v1/gateway/requests`: the gateway's access log.

use super::App;
use super::problem::{Query, Refusal};
use super::seen::{KEEP_ALIVE, encoded, refusal};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;
use std::convert::Infallible;
use telemetry::requests::Wanted;

/// Requests shown when nobody says how many.
const TAIL_DEFAULT: usize = 200;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    follow: bool,
    tail: Option<usize>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    service: Option<String>,
    route: Option<String>,
    instance: Option<String>,
    client: Option<String>,
    trace: Option<String>,
    status: Option<String>,
    slow_ms: Option<u64>,
}

pub(super) async fn list(State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Refusal> {
    let follow = asked.follow;
    let wanted = wanted(asked)?;
    let requests = app.telemetry.requests();
    let body = if follow {
        let following = requests.follow(wanted).map_err(refusal)?;
        let records = stream::unfold(following, |mut following| async move {
            let bytes = match tokio::time::timeout(KEEP_ALIVE, following.next()).await {
                Ok(record) => encoded(&record?),
                Err(_) => b"\n".to_vec(),
            };
            Some((Ok::<Bytes, Infallible>(Bytes::from(bytes)), following))
        });
        Body::from_stream(records.take_until(Box::pin(app.closed())))
    } else {
        // What is over by now is to be in the answer.
        app.gateway.told().await;
        let records = requests.query(wanted).await.map_err(refusal)?;
        Body::from(records.iter().flat_map(encoded).collect::<Vec<u8>>())
    };
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn wanted(asked: Asked) -> Result<Wanted, Refusal> {
    let status = asked.status.filter(|text| !text.is_empty()).map(|text| {
        text.parse().map_err(|()| {
            Refusal::new(400, "B0202", format!("{text:?} is not a status")).hint("write 404, 5xx, or gone")
        })
    });
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let whole = asked.since_ms.is_some() || asked.trace.is_some();
    Ok(Wanted {
        since_ms: asked.since_ms,
        until_ms: asked.until_ms,
        service: given(asked.service),
        route: given(asked.route),
        instance: given(asked.instance),
        client: given(asked.client),
        trace: given(asked.trace),
        status: status.transpose()?,
        slow_us: asked.slow_ms.map(|slow_ms| slow_ms.saturating_mul(1_000)),
        tail: asked.tail.or((!whole).then_some(TAIL_DEFAULT)),
    })
}
