//! `/v1/cluster`: what lets machines in, and the state of record as a file.

use super::App;
use super::problem::{Body, Query, Refusal};
use crate::cluster::{Wanted, hostname};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::Txn;
use control::backup::{Backup, Head};
use futures::stream;
use rpc::{Code, Failure};
use serde::Deserialize;
use std::convert::Infallible;
use wire::api::{JoinToken, JoinTokenWanted};
use wire::resource::{ClusterAuthority, LastBackup, key};

/// A year: what is good for longer is no token.
const TTL_S_MAX: u64 = 365 * 24 * 60 * 60;

pub(super) async fn token(
    State(app): State<App>,
    Body(wanted): Body<JoinTokenWanted>,
) -> Result<Json<JoinToken>, Refusal> {
    if wanted.ttl_s == 0 || wanted.ttl_s > TTL_S_MAX {
        let message = format!("a token is good for 1 to {TTL_S_MAX} seconds, not for {}", wanted.ttl_s);
        return Err(Refusal::new(400, "B0101", message).hint("leave `ttl_s` out for an hour"));
    }
    let ttl_s = i64::try_from(wanted.ttl_s).unwrap_or(i64::MAX);
    let JoinTokenWanted { role, zone, many, .. } = wanted;
    let token = app.cluster.token(&app.ground, Wanted { role, zone, ttl_s, many }).await.map_err(refusal)?;
    tracing::info!(token = token.id, many, "a join token was made");
    Ok(Json(JoinToken { token: token.text(), addresses: token.terms.addresses, expires_s: token.terms.expires_s }))
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
        term: app.ground.group.overview().term,
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
