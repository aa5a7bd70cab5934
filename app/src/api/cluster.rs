//! `/v1/cluster/tokens`: what lets machines in.

use super::App;
use super::problem::{Body, Refusal};
use crate::cluster::Wanted;
use axum::Json;
use axum::extract::State;
use rpc::{Code, Failure};
use wire::api::{JoinToken, JoinTokenWanted};

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

fn refusal(failure: Failure) -> Refusal {
    let (status, code) = if failure.code == Code::InvalidArgument { (400, "B0101") } else { (503, "B0801") };
    Refusal::new(status, code, failure.message).hint(failure.hint)
}
