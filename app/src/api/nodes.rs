//! `/v1/nodes`: list, show, whether it takes work, what its owner asks, remove; `/healthz`.

use super::App;
use super::problem::{Body, Query, Refusal};
use crate::cluster::roles;
use axum::Json;
use axum::extract::{Path, State};
use control::view::Snapshot;
use control::{Compare, Txn};
use serde::Deserialize;
use wire::api::{Availability, ConsiderateWanted, Load, NodeDetail, NodeWanted};
use wire::hours;
use wire::resource::{self, Considerate, Node, Presence, Wanted, key};

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
    let id = known(&app, &id)?;
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

/// Of one machine: a week of several spans a day.
const HOURS_MAX: usize = 64;
/// Longer than anybody waits for a machine to be calm.
const PATIENCE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Says what a machine's owner asks of the cluster.
pub(super) async fn consider(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(wanted): Body<ConsiderateWanted>,
) -> Result<(), Refusal> {
    let id = known(&app, &id)?;
    app.change(&key::node(&id), &format!("node {id} was"), |declared: &mut Node| {
        declared.id.clone_from(&id);
        let before = declared.considerate.take().unwrap_or_default();
        declared.considerate = Some(considerate(before, &wanted)?);
        Ok(())
    })
    .await?;
    tracing::info!(machine = id, "what a machine's owner asks of the cluster has changed");
    Ok(())
}

/// Nobody comes first on a machine any more.
pub(super) async fn consider_not(State(app): State<App>, Path(id): Path<String>) -> Result<(), Refusal> {
    let id = known(&app, &id)?;
    app.change(&key::node(&id), &format!("node {id} was"), |declared: &mut Node| {
        declared.id.clone_from(&id);
        declared.considerate = None;
        Ok(())
    })
    .await?;
    tracing::info!(machine = id, "a machine has no owner any more who comes first");
    Ok(())
}

/// The id of a machine that is there, or is known to be down.
fn known(app: &App, id: &str) -> Result<String, Refusal> {
    let snapshot = app.view.borrow();
    let named = named(&snapshot, id);
    if snapshot.machines.contains_key(&named) { Ok(named) } else { Err(missing(id)) }
}

fn considerate(before: Considerate, wanted: &ConsiderateWanted) -> Result<Considerate, Refusal> {
    let refused = |message: String, hint: &str| Refusal::new(400, "B0406", message).hint(hint);
    let within = |name: &str, given: Option<u64>, before: u64| match given {
        Some(given) if given > PATIENCE_MS_MAX => {
            Err(refused(format!("`{name}` is {given} ms, more than a day"), "leave it out for the default"))
        }
        given => Ok(given.unwrap_or(before)),
    };
    let psi_percent_max = wanted.psi_percent_max.unwrap_or(before.psi_percent_max);
    if !(1..=99).contains(&psi_percent_max) {
        let message = format!("a machine may not wait {psi_percent_max} % of the time at most: it is 1 to 99");
        return Err(refused(message, "20 is the default: programs wait a fifth of the time, which is felt"));
    }
    let hours = match &wanted.hours {
        Some(texts) => {
            let read = texts.iter().take(HOURS_MAX + 1).map(|text| hours::parse(text));
            let read = read.collect::<Result<Vec<_>, _>>();
            read.map_err(|error| refused(format!("the hours {error}"), error.hint()))?.concat()
        }
        None => before.hours,
    };
    if hours.len() > HOURS_MAX {
        return Err(refused(
            format!("there are more than {HOURS_MAX} spans of hours in a week"),
            "name several days in one",
        ));
    }
    Ok(Considerate {
        psi_percent_max,
        hold_ms: within("hold_ms", wanted.hold_ms, before.hold_ms)?,
        calm_ms: within("calm_ms", wanted.calm_ms, before.calm_ms)?,
        hours,
        leave_ms: within("leave_ms", wanted.leave_ms, before.leave_ms)?,
        memory_kept_bytes: wanted.memory_kept_bytes.unwrap_or(before.memory_kept_bytes),
        cpu_kept_millis: wanted.cpu_kept_millis.unwrap_or(before.cpu_kept_millis),
    })
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
    let load = machine.load.as_ref().map(|load| told(load, machine.node.cores)).unwrap_or_default();
    let load = Load {
        cpu_reserved_millis: here.iter().map(|instance| instance.spec.resources.cpu_reserved_millis).sum(),
        memory_reserved_bytes: here.iter().map(|instance| instance.spec.resources.memory_reserved_bytes).sum(),
        // What is asked here is newer than what was reported.
        ..if id == app.node {
            Load {
                owner_cpu_millis: load.owner_cpu_millis,
                owner_memory_bytes: load.owner_memory_bytes,
                ..app.telemetry.load()
            }
        } else {
            load
        }
    };
    let shut = machine.refuses(world::clock::unix_ms()).unwrap_or_default().to_owned();
    let instances = u32::try_from(here.len()).unwrap_or(u32::MAX);
    let roles = roles::of(&snapshot.roles, id);
    Some(NodeDetail { node: machine.node.clone(), load, instances, presence: snapshot.presence(id), roles, shut })
}

/// What a machine of so many cores has reported.
fn told(load: &resource::Load, cores: u32) -> Load {
    let share = |percent: u32| f64::from(percent) / 100.0;
    Load {
        load_1m: load.load_1m_millis as f64 / 1_000.0,
        cpu_busy: load.cpu_busy_millis as f64 / (f64::from(cores.max(1)) * 1_000.0),
        memory_available_bytes: load.memory_available_bytes,
        disk_total_bytes: load.disk_total_bytes,
        disk_available_bytes: load.disk_available_bytes,
        psi_cpu: share(load.psi_cpu_percent),
        psi_memory: share(load.psi_memory_percent),
        psi_io: share(load.psi_io_percent),
        owner_cpu_millis: load.owner_cpu_millis,
        owner_memory_bytes: load.owner_memory_bytes,
        ..Load::default()
    }
}
