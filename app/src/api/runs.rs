//! `/v1/runs` and `/v1/languages`: code handed in, whole or as a stream.

mod stream;
mod whole;

pub(super) use stream::stream;
pub(super) use whole::run;

use super::App;
use super::problem::{Query, Refusal};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use runs::front::Asker;
use runs::session::RefusedRun;
use serde::Deserialize;
use wire::run::{LanguageDetail, RunRecord};

/// How many runs are listed unless it is said.
const LISTED: usize = 50;
const LISTED_MAX: usize = 1_000;
/// Who may do everything: there is one token.
const WHO: &str = "owner";

/// Whoever asks with these headers: their trace goes on, or one begins.
fn asker(headers: &HeaderMap) -> Asker {
    let came = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(trace_of);
    let begins = || format!("{:016x}{:016x}", world::random::number(), world::random::number());
    Asker { who: WHO.to_owned(), trace: came.map_or_else(begins, str::to_owned) }
}

/// The trace in a `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_of(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits =
        version == "00" && trace.len() == 32 && trace.bytes().all(is_hex) && trace.bytes().any(|byte| byte != b'0');
    (fits && parts.count() == 2).then_some(trace)
}

#[derive(Deserialize)]
pub(super) struct Listing {
    limit: Option<usize>,
    trace: Option<String>,
}

pub(super) async fn list(State(app): State<App>, Query(listing): Query<Listing>) -> Json<Vec<RunRecord>> {
    Json(app.runs.list(listing.limit.unwrap_or(LISTED).min(LISTED_MAX), listing.trace.as_deref()).await)
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<RunRecord>, Refusal> {
    app.runs.find(&id).await.map(Json).ok_or_else(|| no_run(&id))
}

/// Ends a run, whoever watches it. That it has ended already is no failure.
pub(super) async fn kill(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let record = app.runs.find(&id).await.ok_or_else(|| no_run(&id))?;
    if record.verdict.is_none() {
        app.runs.kill(&id).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn languages(State(app): State<App>) -> Json<Vec<LanguageDetail>> {
    Json(app.runs.languages().await)
}

/// Copies a language's files before anybody waits for them.
pub(super) async fn prepare(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    app.runs.house.prepare(&name).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_run(id: &str) -> Refusal {
    Refusal::new(404, "B0903", format!("there is no run {id}")).hint("`bramble runs ls` lists the last ones")
}

fn refused(refused: RefusedRun) -> Refusal {
    let (status, problem) = refused.problem();
    Refusal::of(status, problem)
}

#[cfg(test)]
mod tests {
    use super::trace_of;

    #[test]
    fn a_trace_goes_on_if_it_is_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_of(&format!("00-{trace}-00f067aa0ba902b7-01")), Some(trace));
        for none in [
            "",
            "00",
            "00-1-2-3",
            &format!("01-{trace}-00f067aa0ba902b7-01"),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        ] {
            assert_eq!(trace_of(none), None, "{none}");
        }
    }
}
