//! `/v1/services`: list, show, scale, restart, remove.

use super::problem::{Body, Refusal};
use super::{App, summary};
use axum::Json;
use axum::extract::{Path, State};
use control::stacks::{Applied, ApplyError};
use wire::api::{Deployed, Scale, ServiceDetail, ServiceSummary, ServiceWhy};

/// As many as a stack file may ask for.
const REPLICAS_MAX: u32 = 10_000;

pub(super) async fn list(State(app): State<App>) -> Json<Vec<ServiceSummary>> {
    let snapshot = app.view.borrow().clone();
    Json(summary::services(&snapshot, None, &app.edge))
}

pub(super) async fn show(
    State(app): State<App>,
    Path((stack, service)): Path<(String, String)>,
) -> Result<Json<ServiceDetail>, Refusal> {
    let snapshot = app.view.borrow().clone();
    let Some(spec) = snapshot.service(&stack, &service) else {
        return Err(ApplyError::NoService { stack, service }.into());
    };
    let instances = snapshot
        .instances_of(&stack, &service)
        .map(|instance| summary::instance(&snapshot, instance, app.agent.usage(&instance.id)))
        .collect();
    Ok(Json(ServiceDetail {
        summary: summary::service(&snapshot, &stack, &service, spec, &app.edge),
        spec: spec.clone(),
        rollout: snapshot.rollouts.get(&(stack.clone(), service.clone())).cloned(),
        instances,
    }))
}

pub(super) async fn why(
    State(app): State<App>,
    Path((stack, service)): Path<(String, String)>,
) -> Result<Json<ServiceWhy>, Refusal> {
    let snapshot = app.view.borrow().clone();
    let why = control::planner::explain(&snapshot, &stack, &service, world::clock::unix_ms());
    why.map(Json).ok_or_else(|| ApplyError::NoService { stack, service }.into())
}

pub(super) async fn scale(
    State(app): State<App>,
    Path((stack, service)): Path<(String, String)>,
    Body(scale): Body<Scale>,
) -> Result<Json<Deployed>, Refusal> {
    if scale.replicas > REPLICAS_MAX {
        let message = format!("{} replicas are more than {REPLICAS_MAX}", scale.replicas);
        return Err(Refusal::new(422, "B0111", message).hint("choose a smaller number"));
    }
    let applied = app.stacks.scale(&stack, &service, scale.replicas, world::clock::unix_ms()).await?;
    Ok(deployed(stack, applied))
}

pub(super) async fn restart(
    State(app): State<App>,
    Path((stack, service)): Path<(String, String)>,
) -> Result<Json<Deployed>, Refusal> {
    let applied = app.stacks.restart(&stack, &service, world::clock::unix_ms()).await?;
    Ok(deployed(stack, applied))
}

pub(super) async fn remove(
    State(app): State<App>,
    Path((stack, service)): Path<(String, String)>,
) -> Result<Json<Deployed>, Refusal> {
    let applied = app.stacks.remove_service(&stack, &service, world::clock::unix_ms()).await?;
    Ok(deployed(stack, applied))
}

fn deployed(stack: String, applied: Applied) -> Json<Deployed> {
    let Applied { revision, changed, plan } = applied;
    Json(Deployed { stack, revision, changed, plan, warnings: Vec::new() })
}
