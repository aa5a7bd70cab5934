//! `/v1/nodes`: list, show, whether it takes work, remove; `/healthz`.

use super::App;
use super::problem::{Body, Query, Refusal};
use crate::cluster::roles;
use axum::Json;
use axum::extract::{Path, State};
use control::view::Snapshot;
use control::{Compare, Txn};
use serde::Deserialize;
use wire::api::{Availability, Load, NodeDetail, NodeWanted};
use wire::resource::{Node, Presence, Wanted, key};

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
    detail(&app, &snapshot, &named(&snapshot, &id)).map(Json).ok_or_else(|| missing(&id))
}

/// A machine's id, whether it was given or the host name was.
fn named(snapshot: &Snapshot, id: &str) -> String {
    let by_name = snapshot.machines.values().find(|machine| machine.node.hostname == id);
    // Several machines may have one name; an id is only one's.
    if snapshot.machines.contains_key(id) || snapshot.members.contains_key(id) {
        return id.to_owned();
    }
    by_name.map_or(id, |machine| &machine.node.id).to_owned()
}

fn missing(id: &str) -> Refusal {
    Refusal::new(404, "B0404", format!("node {id} does not exist")).hint("`bramble node ls` lists them")
}

/// Says whether a machine takes work.
pub(super) async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(wanted): Body<NodeWanted>,
) -> Result<(), Refusal> {
    let snapshot = app.view.borrow().clone();
    let id = named(&snapshot, &id);
    if !snapshot.machines.contains_key(&id) {
        return Err(missing(&id));
    }
    app.change(&key::node(&id), &format!("node {id} was"), |declared: &mut Node| {
        declared.id.clone_from(&id);
        declared.cordoned = wanted.availability == Availability::Cordoned;
        declared.drained = wanted.availability == Availability::Drained;
        Ok(())
    })
    .await?;
    tracing::info!(machine = id, availability = ?wanted.availability, "what a machine is to do has changed");
    Ok(())
}

/// How a machine is removed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Removal {
    /// Also one that has work.
    force: bool,
}

/// Takes a machine out of the cluster for good: its certificates count no more.
pub(super) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(Removal { force }): Query<Removal>,
) -> Result<(), Refusal> {
    let snapshot = app.view.borrow().clone();
    let id = named(&snapshot, &id);
    let member = snapshot.members.get(&id).filter(|member| !member.revoked).ok_or_else(|| missing(&id))?;
    if id == app.node {
        return Err(Refusal::new(409, "B0405", format!("node {id} cannot remove itself"))
            .hint("run this on another machine, or with --server at another one's API"));
    }
    let is_down = matches!(snapshot.presence(&id), Presence::Down { .. });
    let here = snapshot.instances.values().filter(|instance| instance.node == id).count();
    if !force && !is_down && here > 0 {
        return Err(Refusal::new(409, "B0405", format!("node {id} still has {here} instances"))
            .hint("`bramble node drain` moves them away first; --force removes it as it is"));
    }
    let at = key::member(&id);
    let stored = app.space.get(&at).await?.ok_or_else(|| missing(&id))?;
    let member = wire::resource::Member { revoked: true, ..member.clone() };
    let txn = Txn::new()
        .when(Compare::mod_revision(&at, stored.mod_revision))
        .put_json(&at, &member)
        .delete(key::verdict(&id))
        .delete(key::node(&id));
    if !app.space.commit(txn).await?.succeeded {
        return Err(Refusal::changed_meanwhile(&format!("node {id} was")));
    }
    tracing::warn!(machine = id, "a machine was removed from the cluster");
    Ok(())
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
    let roles = roles::of(&snapshot.roles, id);
    Some(NodeDetail { node: machine.node.clone(), load, instances, presence: snapshot.presence(id), roles })
}
