//! `/v1/cluster`: what lets machines in, who has which role, and the state of record as a file.

use super::App;
use super::problem::{Body, Query, Refusal};
use crate::cluster::{Wanted, hostname, roles};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::Txn;
use control::backup::{Backup, Head};
use futures::stream;
use membership::roles::{Role, Spec};
use rpc::{Code, Failure};
use serde::Deserialize;
use std::convert::Infallible;
use wire::api::{JoinToken, JoinTokenWanted, MachineRoles, RolesDetail, RolesWanted};
use wire::resource::{ClusterAuthority, LastBackup, key};

/// A year: what is good for longer is no token.
const TTL_S_MAX: u64 = 365 * 24 * 60 * 60;
/// More voters make writes slower and no safer against what happens to machines of one house.
const VOTERS_MAX: u32 = 9;

pub(super) async fn token(
    State(app): State<App>,
    Body(wanted): Body<JoinTokenWanted>,
) -> Result<Json<JoinToken>, Refusal> {
    if wanted.ttl_s == 0 || wanted.ttl_s > TTL_S_MAX {
        let message = format!("a token is good for 1 to {TTL_S_MAX} seconds, not for {}", wanted.ttl_s);
        return Err(Refusal::new(400, "B0101", message).hint("leave `ttl_s` out for an hour"));
    }
    if let Some(role) = wanted.role.as_deref().filter(|role| role.parse::<Role>().is_err()) {
        return Err(Refusal::new(400, "B0101", format!("{role} is no role"))
            .hint("roles are gateway, monitor, assigner and worker; left out, the cluster finds out what is missing"));
    }
    let ttl_s = i64::try_from(wanted.ttl_s).unwrap_or(i64::MAX);
    let JoinTokenWanted { role, zone, many, .. } = wanted;
    let token = app.cluster.token(&app.ground, Wanted { role, zone, ttl_s, many }).await.map_err(refusal)?;
    tracing::info!(token = token.id, many, "a join token was made");
    Ok(Json(JoinToken { token: token.text(), addresses: token.terms.addresses, expires_s: token.terms.expires_s }))
}

/// Who has which role, and why.
pub(super) async fn roles(State(app): State<App>) -> Json<RolesDetail> {
    let (snapshot, overview) = (app.view.borrow().clone(), app.ground.group.overview());
    let members = snapshot.members.values().filter(|member| !member.revoked);
    let machines = members.map(|member| MachineRoles {
        node: member.id.clone(),
        hostname: member.hostname.clone(),
        roles: roles::of(&snapshot.roles, &member.id),
        why: roles::why(&snapshot, &overview, &member.id),
        fsync_p99_us: member.fsync_p99_us,
    });
    let leader = overview.leader.and_then(|number| snapshot.member_of(number));
    Json(RolesDetail {
        wanted: told(&snapshot.roles_wanted),
        leader: leader.map(|member| member.id.clone()),
        machines: machines.collect(),
    })
}

fn told(spec: &Spec) -> RolesWanted {
    let count = |count: usize| Some(u32::try_from(count).unwrap_or(u32::MAX));
    RolesWanted {
        monitors: count(spec.monitors),
        pairs: count(spec.pairs),
        workers: Some(spec.workers),
        apart: Some(spec.apart),
        voters_max: count(spec.voters_max),
    }
}

/// Says how many of each role there are to be at least.
pub(super) async fn want_roles(State(app): State<App>, Body(wanted): Body<RolesWanted>) -> Result<(), Refusal> {
    let refused = |message: &str, hint: &str| Err(Refusal::new(400, "B0101", message).hint(hint));
    if wanted.monitors == Some(0) || wanted.pairs == Some(0) {
        return refused(
            "a cluster has at least one monitor and one pair of assigners",
            "leave it out, or say 1 or more",
        );
    }
    if wanted.voters_max.is_some_and(|most| most.is_multiple_of(2) || most > VOTERS_MAX) {
        return refused("the number of voters is odd and at most 9", "say 1, 3 or 5");
    }
    app.change(key::ROLES_WANTED, "the roles were", |spec: &mut Spec| {
        let count = |count: Option<u32>, before: usize| count.map_or(before, |count| count as usize);
        *spec = Spec {
            monitors: count(wanted.monitors, spec.monitors),
            pairs: count(wanted.pairs, spec.pairs),
            workers: wanted.workers.unwrap_or(spec.workers),
            apart: wanted.apart.unwrap_or(spec.apart),
            voters_max: count(wanted.voters_max, spec.voters_max),
        };
        Ok(())
    })
    .await?;
    tracing::info!(?wanted, "how many of each role there are to be has changed");
    Ok(())
}

/// How a backup is taken.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Taking {
    /// What this machine knows, where nobody leads.
    stale: bool,
}

/// The state of record at one revision, block by block: however slow whoever reads is, nobody waits for it.
pub(super) async fn backup(
    State(app): State<App>,
    Query(Taking { stale }): Query<Taking>,
) -> Result<Response, Refusal> {
    let authority = app.space.list_local(key::AUTHORITY).entries.into_iter().next();
    let authority = authority.map(|entry| entry.json::<ClusterAuthority>()).transpose()?;
    let about = Head {
        cluster: authority.map(|authority| authority.cluster.to_string()).unwrap_or_default(),
        machine: app.node.clone(),
        hostname: hostname(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        taken_ms: world::clock::unix_ms(),
        term: app.ground.group.term(),
        ..Head::default()
    };
    let backup = if stale { app.space.backup_local(about) } else { app.space.backup(about).await? };
    let blocks = stream::unfold((app, backup), |(app, mut backup)| async move {
        let Some(block) = backup.next() else {
            written_down(&app, &backup);
            return None;
        };
        Some((Ok::<Bytes, Infallible>(block.into()), (app, backup)))
    });
    Ok(([(CONTENT_TYPE, "application/octet-stream")], axum::body::Body::from_stream(blocks)).into_response())
}

/// Has everybody know when the last one was. Nobody waits for it: the file is whole without it.
fn written_down(app: &App, backup: &Backup) {
    let Head { revision, keys, bytes, taken_ms, .. } = *backup.head();
    tracing::info!(revision, keys, bytes, "the state of record was written to a backup");
    let (space, last) = (app.space.clone(), LastBackup { at_ms: taken_ms, revision, machine: app.node.clone() });
    // A few seconds at most: the space says no by itself.
    let writing = async move {
        if let Err(error) = space.commit(Txn::new().put_json(key::LAST_BACKUP, &last)).await {
            tracing::warn!(%error, "when the last backup was taken cannot be written down");
        }
    };
    world::task::spawn("last backup", writing).detach();
}

fn refusal(failure: Failure) -> Refusal {
    let (status, code) = if failure.code == Code::InvalidArgument { (400, "B0101") } else { (503, "B0801") };
    Refusal::new(status, code, failure.message).hint(failure.hint)
}
