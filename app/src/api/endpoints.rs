//! `/v1/gateway/endpoints`: the instances behind every served port, and which of them are left out.

use super::App;
use axum::Json;
use axum::extract::State;
use gateway::{Breaker, Cause, EndpointSeen};
use std::time::Duration;
use wire::api::{EndpointState, ServedPort};

pub(super) async fn list(State(app): State<App>) -> Json<Vec<ServedPort>> {
    let all = app.gateway.all_endpoints().into_iter().map(|(service, port, seen)| ServedPort {
        service,
        port,
        endpoints: seen.into_iter().map(state).collect(),
    });
    Json(all.collect())
}

/// An instance as people are told of it. The gateway counts from its own start: the API speaks of moments.
pub(super) fn state(seen: EndpointSeen) -> EndpointState {
    let now_ms = world::clock::unix_ms();
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    EndpointState {
        instance: seen.instance,
        breaker: match seen.breaker {
            Breaker::Closed => "closed",
            Breaker::HalfOpen => "half-open",
            Breaker::Open => "open",
        }
        .to_owned(),
        since_ms: now_ms.saturating_sub(millis(seen.since)),
        why: match seen.cause {
            None => "",
            Some(Cause::Errors) => "errors",
            Some(Cause::Unreachable) => "unreachable",
        }
        .to_owned(),
        retry_ms: seen.tried_in.map_or(0, |tried_in| now_ms.saturating_add(millis(tried_in))),
        in_flight: u64::try_from(seen.in_flight).unwrap_or(u64::MAX),
        latency_ms: seen.latency_ms,
        penalty_ms: seen.penalty_ms,
        load: seen.load,
        zone: seen.zone.as_deref().unwrap_or_default().to_owned(),
        draining: seen.draining,
    }
}
