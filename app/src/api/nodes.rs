//! `/v1/nodes`: list, show; `/healthz`.

use super::App;
use super::problem::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use control::view::Snapshot;
use wire::api::{Load, NodeDetail};
use wire::resource::Wanted;

/// Answers while the API does; whoever needs more asks for more.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn list(State(app): State<App>) -> Json<Vec<NodeDetail>> {
    let snapshot = app.view.borrow().clone();
    Json(snapshot.machines.keys().filter_map(|id| detail(&app, &snapshot, id)).collect())
}

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<NodeDetail>, Refusal> {
    let snapshot = app.view.borrow().clone();
    let by_name = snapshot.machines.values().find(|machine| machine.node.hostname == id);
    let found = detail(&app, &snapshot, by_name.map_or(id.as_str(), |machine| &machine.node.id));
    let missing =
        || Refusal::new(404, "B0404", format!("node {id} does not exist")).hint("`bramble node ls` lists them");
    found.map(Json).ok_or_else(missing)
}

fn detail(app: &App, snapshot: &Snapshot, id: &str) -> Option<NodeDetail> {
    let machine = snapshot.machines.get(id)?;
    let here: Vec<_> = snapshot
        .instances
        .values()
        .filter(|instance| instance.node == id && instance.wanted == Wanted::Running)
        .collect();
    let load = if id == app.node { app.telemetry.load() } else { Load::default() };
    let load = Load {
        cpu_reserved_millis: here.iter().map(|instance| instance.spec.resources.cpu_reserved_millis).sum(),
        memory_reserved_bytes: here.iter().map(|instance| instance.spec.resources.memory_reserved_bytes).sum(),
        ..load
    };
    let instances = u32::try_from(here.len()).unwrap_or(u32::MAX);
    Some(NodeDetail { node: machine.node.clone(), load, instances })
}
