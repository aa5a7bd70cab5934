//! `/v1/stacks`: check, plan, deploy, list, show, history, diff, revert, remove.

use super::problem::{Body, Query, Refusal};
use super::{App, summary};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine;
use serde::Deserialize;
use std::collections::BTreeMap;
use wire::api::{Deployed, Diff, Plan, Revert, RevisionSummary, StackDetail, StackFile, StackSummary};
use wire::diagnostic::{Diagnostic, Report};
use wire::resource::StackRevision;
use wire::spec::Stack;

/// A revision holds the file and the spec made from it and has to fit one value of the space.
const SOURCE_KEPT_BYTES_MAX: usize = 256 << 10;

pub(super) async fn list(State(app): State<App>) -> Json<Vec<StackSummary>> {
    let snapshot = app.view.borrow().clone();
    Json(snapshot.stacks.keys().filter_map(|name| summary::stack(&snapshot, name, &app.edge)).collect())
}

#[derive(Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    name: String,
}

/// Findings are an answer, not a failure: always 200.
pub(super) async fn check(Query(named): Query<Named>, Body(file): Body<StackFile>) -> Result<Json<Report>, Refusal> {
    let name = if named.name.is_empty() { "check".to_owned() } else { named.name };
    Ok(Json(parse(name, file, stackfile::check).await?))
}

pub(super) async fn plan(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(file): Body<StackFile>,
) -> Result<Json<Plan>, Refusal> {
    let (stack, warnings) = accept(name, file).await?;
    let plan = app.stacks.plan(&stack).await?;
    Ok(Json(Plan { warnings, ..plan }))
}

pub(super) async fn deploy(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(file): Body<StackFile>,
) -> Result<Json<Deployed>, Refusal> {
    let mut source = file.source.clone();
    if source.len() > SOURCE_KEPT_BYTES_MAX {
        source = format!("# the file has {} bytes, too many to keep with its revision\n", source.len());
    }
    let (stack, warnings) = accept(name, file).await?;
    deployed(&app, stack, &source, warnings).await
}

async fn deployed(app: &App, stack: Stack, source: &str, warnings: Vec<Diagnostic>) -> Result<Json<Deployed>, Refusal> {
    let name = stack.name.clone();
    let applied = app.stacks.apply(stack, source, "deploy", world::clock::unix_ms()).await?;
    let plan = Plan { warnings: warnings.clone(), ..applied.plan };
    Ok(Json(Deployed { stack: name, revision: applied.revision, changed: applied.changed, plan, warnings }))
}

pub(super) async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<StackDetail>, Refusal> {
    let snapshot = app.view.borrow().clone();
    let missing = || Refusal::from(control::stacks::ApplyError::NoStack(name.clone()));
    let summary = summary::stack(&snapshot, &name, &app.edge).ok_or_else(missing)?;
    let revision = snapshot.current(&name).ok_or_else(missing)?;
    let services = summary::services(&snapshot, Some(&name), &app.edge);
    Ok(Json(StackDetail { summary, spec: revision.stack.clone(), services, source: revision.source.clone() }))
}

pub(super) async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    app.stacks.remove(&name).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn history(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Vec<RevisionSummary>>, Refusal> {
    Ok(Json(app.stacks.history(&name).await?))
}

pub(super) async fn revision(
    State(app): State<App>,
    Path((name, number)): Path<(String, String)>,
) -> Result<Json<StackRevision>, Refusal> {
    Ok(Json(app.stacks.revision(&name, number_of(&number)?).await?))
}

#[derive(Deserialize)]
pub(super) struct Between {
    from: Option<u64>,
    to: Option<u64>,
}

/// Without numbers: what the current revision changed.
pub(super) async fn diff(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(between): Query<Between>,
) -> Result<Json<Diff>, Refusal> {
    let (head, _) = app.stacks.current(&name).await?;
    let to = between.to.unwrap_or(head.revision);
    let from = between.from.unwrap_or(to.saturating_sub(1));
    let new = app.stacks.revision(&name, to).await?;
    let old = if from == 0 { None } else { Some(app.stacks.revision(&name, from).await?) };
    let plan = control::difference::plan(old.as_ref().map(|old| &old.stack), &new.stack);
    Ok(Json(Diff { from, to, services: plan.services }))
}

pub(super) async fn revert(
    State(app): State<App>,
    Path(name): Path<String>,
    Body(revert): Body<Revert>,
) -> Result<Json<Deployed>, Refusal> {
    let applied = app.stacks.revert(&name, revert.to, world::clock::unix_ms()).await?;
    let (revision, changed, plan) = (applied.revision, applied.changed, applied.plan);
    Ok(Json(Deployed { stack: name, revision, changed, plan, warnings: Vec::new() }))
}

pub(super) fn number_of(text: &str) -> Result<u64, Refusal> {
    let refusal = || Refusal::new(400, "B0202", format!("{text:?} is not a revision number")).hint("use a number");
    text.parse().map_err(|_| refusal())
}

/// The spec of a file without errors, and its warnings.
async fn accept(name: String, file: StackFile) -> Result<(Stack, Vec<Diagnostic>), Refusal> {
    let parsed = parse(name, file, stackfile::parse).await?;
    match parsed.stack {
        Some(stack) => Ok((stack, parsed.report.warnings)),
        None => {
            let count = parsed.report.errors.len();
            let message = format!("the stack file has {count} {}", if count == 1 { "error" } else { "errors" });
            Err(Refusal::new(422, "B0101", message)
                .hint("`bramble stack check FILE` shows each one in its place")
                .diagnostics(parsed.report.errors))
        }
    }
}

/// Parsing a large file takes long enough to leave the async threads alone.
async fn parse<T: Send + 'static>(
    name: String,
    file: StackFile,
    with: fn(&stackfile::Input<'_>) -> T,
) -> Result<T, Refusal> {
    let mut files = BTreeMap::new();
    for (path, content) in file.files {
        let content = base64::engine::general_purpose::STANDARD.decode(content).map_err(|_| {
            Refusal::new(400, "B0202", format!("the content of file {path:?} is not base 64"))
                .hint("send each referenced file's bytes as base 64")
        })?;
        files.insert(path, content);
    }
    let parsed = tokio::task::spawn_blocking(move || {
        with(&stackfile::Input {
            name: &name,
            source: file.source.as_bytes(),
            variables: &file.variables,
            files: &files,
            directory: &file.directory,
        })
    });
    parsed.await.map_err(|_| {
        Refusal::new(422, "B0101", "the stack file could not be read")
            .hint("this is a defect of the parser: please report the file")
    })
}
