//! `/v1/cluster/addresses`: addresses that are always the gateway's.

use super::App;
use super::problem::{Body, Refusal};
use address::Floating as Checked;
use axum::Json;
use axum::extract::{Path, State};
use wire::api::{FloatingState, FloatingWanted};
use wire::resource::{Floating, FloatingAddress, key};

/// Each is asked for by ARP and renewed several times a second.
const ADDRESSES_MAX: usize = 16;

pub(super) async fn list(State(app): State<App>) -> Json<Vec<FloatingState>> {
    let snapshot = app.view.borrow().clone();
    let gateway = snapshot.roles.gateway.as_ref().map(|gateway| gateway.holder.to_string());
    let state = |floating: &FloatingAddress| FloatingState {
        address: format!("{}/{}", floating.ip, floating.prefix),
        interface: floating.interface.clone(),
        gateway: gateway.clone(),
    };
    Json(snapshot.floating.addresses.iter().map(state).collect())
}

pub(super) async fn add(
    State(app): State<App>,
    Path(text): Path<String>,
    Body(wanted): Body<FloatingWanted>,
) -> Result<(), Refusal> {
    let read: Checked = text.parse().map_err(|error: address::Error| {
        Refusal::new(400, "B0101", error.to_string()).hint(error.hint().unwrap_or_default())
    })?;
    let snapshot = app.view.borrow().clone();
    if snapshot.members.is_empty() {
        return Err(Refusal::new(409, "B0405", "this machine is on its own: no address has to float")
            .hint("`bramble cluster token` lets others join"));
    }
    let own = snapshot.members.values().find(|member| member.addresses.iter().any(|one| one.ip() == read.ip()));
    if let Some(member) = own {
        return Err(Refusal::new(409, "B0405", format!("{} is the address of machine {}", read.ip(), member.id))
            .hint("take an address of the same network that no machine has"));
    }
    let floating = FloatingAddress { ip: read.ip(), prefix: read.prefix(), interface: wanted.interface };
    app.change(key::FLOATING, "the addresses were", |all: &mut Floating| {
        all.addresses.retain(|one| one.ip != floating.ip);
        if all.addresses.len() >= ADDRESSES_MAX {
            return Err(Refusal::new(409, "B0405", format!("{ADDRESSES_MAX} addresses float already"))
                .hint("remove one that is not used any more"));
        }
        all.addresses.push(floating.clone());
        Ok(())
    })
    .await?;
    tracing::info!(address = %floating.ip, "an address floats");
    Ok(())
}

pub(super) async fn remove(State(app): State<App>, Path(text): Path<String>) -> Result<(), Refusal> {
    let ip = text.split('/').next().unwrap_or_default().parse().ok();
    app.change(key::FLOATING, "the addresses were", |all: &mut Floating| {
        let before = all.addresses.len();
        all.addresses.retain(|one| Some(one.ip) != ip);
        if all.addresses.len() == before {
            return Err(Refusal::new(404, "B0404", format!("address {text} does not float"))
                .hint("`bramble cluster address ls` lists them"));
        }
        Ok(())
    })
    .await?;
    tracing::info!(address = text, "an address floats no more");
    Ok(())
}
