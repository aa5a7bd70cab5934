//! `/v1/instances`: list, show, kill.

use super::problem::Refusal;
use super::{App, summary};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use wire::api::InstanceDetail;

pub(super) async fn list(State(app): State<App>) -> Json<Vec<InstanceDetail>> {
    let snapshot = app.view.borrow().clone();
    let all = snapshot.instances.values();
    Json(all.map(|instance| summary::instance(&snapshot, instance, app.agent.usage(&instance.id))).collect())
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<InstanceDetail>, Refusal> {
    let snapshot = app.view.borrow().clone();
    let instance = snapshot.instances.get(&id).ok_or_else(|| missing(&id))?;
    Ok(Json(summary::instance(&snapshot, instance, app.agent.usage(&id))))
}

/// Ends its processes as a crash would; the restart policy decides what follows.
pub(super) async fn kill(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    if !app.view.borrow().instances.contains_key(&id) {
        return Err(missing(&id));
    }
    match app.agent.kill(&id).await {
        Ok(true) => Ok(StatusCode::ACCEPTED),
        Ok(false) => {
            Err(Refusal::new(409, "B0402", format!("instance {id} does not run")).hint("there is nothing to kill"))
        }
        Err(error) => Err(Refusal::new(503, "B0403", format!("kill instance {id}: {error}")).hint("try again")),
    }
}

fn missing(id: &str) -> Refusal {
    Refusal::new(404, "B0401", format!("instance {id} does not exist"))
        .hint("`bramble service show STACK/SERVICE` lists a service's instances")
}
