//! `/v1/runs` and `/v1/languages`: code handed in, whole or as a stream.

mod stream;
mod whole;

pub(super) use stream::stream;
pub(super) use whole::run;

use super::App;
use super::problem::{Query, Refusal};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use runs::session::RefusedRun;
use serde::Deserialize;
use wire::run::{LanguageDetail, RunRecord};

/// How many runs are listed unless it is said.
const LISTED: usize = 50;
const LISTED_MAX: usize = 1_000;
/// Who may do everything: there is one token.
const WHO: &str = "owner";

#[derive(Deserialize)]
pub(super) struct Listing {
    limit: Option<usize>,
}

pub(super) async fn list(State(app): State<App>, Query(listing): Query<Listing>) -> Json<Vec<RunRecord>> {
    Json(app.runs.list(listing.limit.unwrap_or(LISTED).min(LISTED_MAX)).await)
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
