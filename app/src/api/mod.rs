//! The HTTP API under `/v1`: what the command line and the dashboard speak, and nothing they can go around.
//!
//! Every handler reads the view or asks a component, and answers a body of `wire::api`. Every refusal is a
//! [`problem::Refusal`] with a code. Never decides anything itself.

mod addresses;
mod auth;
mod bans;
mod cache;
mod certificates;
mod cluster;
mod endpoints;
mod images;
mod instances;
mod nodes;
mod openapi;
mod page;
mod problem;
mod requests;
mod routes;
mod runs;
mod seen;
mod services;
mod stacks;
mod summary;
mod watch;

use crate::certificates::Shown;
use crate::serve::Edge;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post, put};
use control::stacks::Stacks;
use control::view::View;
use control::{Compare, Soft, Space, Txn};
use problem::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A stack file of 10 MiB is refused by the parser with a hint; what it refers to may come with it.
const BODY_BYTES_MAX: usize = 24 << 20;

/// What handlers use.
pub struct Parts {
    pub token: String,
    pub node: String,
    pub space: Space,
    pub soft: Soft,
    pub stacks: Stacks,
    pub view: View,
    pub agent: Arc<containers::Agent>,

    pub images: ::images::Store,
    pub telemetry: Arc<telemetry::Telemetry>,
    pub meter: meter::Meter,
    pub edge: Edge,
    pub gateway: Arc<gateway::Gateway>,
    pub certificates: tokio::sync::watch::Receiver<Shown>,
    /// The API closes: what is streamed ends, so that whoever reads it asks again.
    pub closing: tokio::sync::watch::Receiver<bool>,
    pub cluster: Arc<crate::cluster::Cluster>,
    pub ground: crate::cluster::Ground,
    pub runs: Arc<::runs::front::Front>,
}

impl Parts {
    /// Changes one record, unless somebody else does meanwhile: then `what` is told, as "node n1 was".
    async fn change<T: Default + Serialize + DeserializeOwned>(
        &self,
        at: &str,
        what: &str,
        change: impl FnOnce(&mut T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let stored = self.space.get(at).await?;
        let revision = stored.as_ref().map_or(0, |entry| entry.mod_revision);
        let mut record: T = stored.map(|entry| entry.json()).transpose()?.unwrap_or_default();
        change(&mut record)?;
        let txn = Txn::new().when(Compare::mod_revision(at, revision)).put_json(at, &record);
        if self.space.commit(txn).await?.succeeded { Ok(()) } else { Err(Refusal::changed_meanwhile(what)) }
    }

    /// Ends when the API closes.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closing = self.closing.clone();
        async move {
            // Its sender gone is as good as told.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }
}

pub(crate) type App = Arc<Parts>;

/// The whole API.
pub fn router(parts: Parts) -> Router {
    let app: App = Arc::new(parts);
    let guarded = Router::new()
        .route("/metrics", get(seen::metrics))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/stacks", get(stacks::list))
        .route("/v1/stacks/check", post(stacks::check))
        .route("/v1/stacks/{name}", get(stacks::show).put(stacks::deploy).delete(stacks::remove))
        .route("/v1/stacks/{name}/plan", post(stacks::plan))
        .route("/v1/stacks/{name}/revisions", get(stacks::history))
        .route("/v1/stacks/{name}/revisions/{number}", get(stacks::revision))
        .route("/v1/stacks/{name}/diff", get(stacks::diff))
        .route("/v1/stacks/{name}/revert", post(stacks::revert))
        .route("/v1/services", get(services::list))
        .route("/v1/services/{stack}/{service}", get(services::show).delete(services::remove))
        .route("/v1/services/{stack}/{service}/why", get(services::why))
        .route("/v1/services/{stack}/{service}/scale", post(services::scale))
        .route("/v1/services/{stack}/{service}/restart", post(services::restart))
        .route("/v1/services/{stack}/{service}/logs", get(seen::logs))
        .route("/v1/instances", get(instances::list))
        .route("/v1/instances/{id}", get(instances::show))
        .route("/v1/instances/{id}/kill", post(instances::kill))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::show).put(nodes::change).delete(nodes::remove))
        .route("/v1/nodes/{id}/considerate", put(nodes::consider).delete(nodes::consider_not))
        .route("/v1/cluster/tokens", post(cluster::token))
        .route("/v1/cluster/addresses", get(addresses::list))
        .route("/v1/cluster/addresses/{ip}", put(addresses::add).delete(addresses::remove))
        .route("/v1/cluster/roles", get(cluster::roles).put(cluster::want_roles))
        .route("/v1/cluster/backup", get(cluster::backup))
        .route("/v1/routes", get(routes::list))
        .route("/v1/routes/test", post(routes::test))
        .route("/v1/gateway/endpoints", get(endpoints::list))
        .route("/v1/gateway/bans", get(bans::list))
        .route("/v1/gateway/bans/{client}", delete(bans::lift))
        .route("/v1/cache", get(cache::list))
        .route("/v1/cache/stats", get(cache::stats))
        .route("/v1/cache/purge", post(cache::purge))
        .route("/v1/gateway/requests", get(requests::list))
        .route("/v1/certificates", get(certificates::list))
        .route("/v1/certificates/authority", get(certificates::authority))
        .route("/v1/images", get(images::list).delete(images::remove))
        .route("/v1/images/pull", post(images::pull))
        .route("/v1/images/prune", post(images::prune))
        .route("/v1/series", get(seen::series))
        .route("/v1/boards", get(seen::boards))
        .route("/v1/alerts", get(seen::alerts))
        .route("/v1/watch", get(watch::changes))
        .route("/v1/runs", get(runs::list).post(runs::run))
        .route("/v1/runs/stream", get(runs::stream))
        .route("/v1/runs/{id}", get(runs::show).delete(runs::kill))
        .route("/v1/languages", get(runs::languages))
        .route("/v1/languages/{name}/prepare", post(runs::prepare))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), auth::require));
    Router::new()
        .route("/healthz", get(nodes::healthz))
        .merge(guarded)
        .fallback(page::serve)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}
