//! `/v1/gateway/bans`: whom routes turn away for a while.

use super::App;
use super::problem::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use std::net::IpAddr;
use wire::api::{BanLifted, BanState};

pub(super) async fn list(State(app): State<App>) -> Json<Vec<BanState>> {
    let bans = app.gateway.bans().into_iter().map(|(service, client, left)| BanState {
        client: client.to_string(),
        service,
        left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    });
    let mut bans: Vec<BanState> = bans.collect();
    bans.sort_by(|one, other| (&one.service, &one.client).cmp(&(&other.service, &other.client)));
    Json(bans)
}

pub(super) async fn lift(State(app): State<App>, Path(client): Path<String>) -> Result<Json<BanLifted>, Refusal> {
    let address: IpAddr = client.parse().map_err(|_| {
        Refusal::new(400, "B0101", format!("{client:?} is not an address"))
            .hint("`bramble gateway bans ls` lists those who are banned")
    })?;
    let routes = app.gateway.lift_ban(address);
    if routes == 0 {
        let message = format!("{address} is not banned on this node");
        return Err(Refusal::new(404, "B0628", message).hint("`bramble gateway bans ls` lists those who are"));
    }
    tracing::info!(client = %address, routes, "a ban was lifted");
    Ok(Json(BanLifted { routes: u64::try_from(routes).unwrap_or(u64::MAX) }))
}
