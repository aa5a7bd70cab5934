//! What is seen: `/metrics`, series, boards, alerts, logs.

use super::App;
use super::problem::{Query, Refusal};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::stacks::ApplyError;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::time::Duration;
use telemetry::logs::{Query as LogQuery, QueryError};
use wire::api::{Alert, Series};

/// Lines shown when nobody says how many.
const TAIL_DEFAULT: usize = 1_000;
/// An empty line this often keeps a quiet log's connection open and finds clients that are gone.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Prometheus' own text; OpenMetrics, with examples of traces, for those that ask for it, as Prometheus does.
pub(super) async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    if accepts.contains("application/openmetrics-text") {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return ([(CONTENT_TYPE, kind)], app.meter.encode_open()).into_response();
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.meter.encode()).into_response()
}

pub(super) async fn alerts(State(app): State<App>) -> Json<Vec<Alert>> {
    Json(app.telemetry.alerts())
}

pub(super) async fn boards() -> Response {
    Json(telemetry::boards()).into_response()
}

/// `label` may come several times, so the query is read pair by pair.
pub(super) async fn series(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Json<Vec<Series>>, Refusal> {
    let query = query.unwrap_or_default();
    let (mut name, mut filters, mut since_ms) = (String::new(), Vec::new(), 0);
    for (key, value) in pairs(&query) {
        match key.as_str() {
            "name" => name = value,
            "since_ms" => since_ms = super::stacks::number_of(&value)?,
            "label" => match value.split_once(':') {
                Some((label, value)) => filters.push((label.to_owned(), value.to_owned())),
                None => {
                    return Err(Refusal::new(400, "B0202", format!("label {value:?} has no `:`"))
                        .hint("write `label=service:shop/web`"));
                }
            },
            _ => {
                return Err(Refusal::new(400, "B0202", format!("{key:?} is not a parameter"))
                    .hint("there are name, label and since_ms"));
            }
        }
    }
    if name.is_empty() {
        let message = "a series needs a name";
        return Err(
            Refusal::new(400, "B0202", message).hint("add `?name=bramble_node_cpu_busy`; `/metrics` shows the names")
        );
    }
    Ok(Json(app.telemetry.series(&name, &filters, since_ms)))
}

/// The pairs of a query string, with `%` and `+` undone.
fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits are a byte"));
                at += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    follow: bool,
    tail: Option<usize>,
    grep: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    instance: Option<String>,
}

pub(super) async fn logs(
    State(app): State<App>,
    Path((stack, service)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let query = LogQuery {
        since_ms: wanted.since_ms,
        until_ms: wanted.until_ms,
        grep: wanted.grep.filter(|grep| !grep.is_empty()),
        tail: wanted.tail.or(if wanted.since_ms.is_none() { Some(TAIL_DEFAULT) } else { None }),
        instance: wanted.instance,
    };
    let logs = app.telemetry.logs();
    let known = app.view.borrow().service(&stack, &service).is_some();
    let missing = || Refusal::from(ApplyError::NoService { stack: stack.clone(), service: service.clone() });
    let body = if wanted.follow {
        if !known {
            return Err(missing());
        }
        let follow = logs.follow(&stack, &service, query).map_err(refusal)?;
        let lines = stream::unfold(follow, |mut follow| async move {
            let bytes = match tokio::time::timeout(KEEP_ALIVE, follow.next()).await {
                Ok(line) => encoded(&line?),
                Err(_) => b"\n".to_vec(),
            };
            Some((Ok::<Bytes, Infallible>(Bytes::from(bytes)), follow))
        });
        Body::from_stream(lines.take_until(Box::pin(app.closed())))
    } else {
        let lines = logs.query(&stack, &service, query).await.map_err(refusal)?;
        // A service that was removed may have left something to read.
        if !known && lines.is_empty() {
            return Err(missing());
        }
        Body::from(lines.iter().flat_map(encoded).collect::<Vec<u8>>())
    };
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// A line of JSON.
pub(super) fn encoded(line: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("what lines are made of is plain data");
    bytes.push(b'\n');
    bytes
}

pub(super) fn refusal(error: QueryError) -> Refusal {
    let (status, code) = if error.is_callers_fault() { (422, "B0701") } else { (503, "B0702") };
    let hint = error.hint();
    Refusal::new(status, code, error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let check = |query: &str, expected: &[(&str, &str)]| {
            let expected: Vec<_> =
                expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(pairs(query), expected);
        };
        check("name=a&label=service%3Ashop%2Fweb", &[("name", "a"), ("label", "service:shop/web")]);
        check("a=b+c&&d", &[("a", "b c"), ("d", "")]);
        check("a=%zz%4", &[("a", "%zz%4")]);
    }
}
