//! `/v1/cache`: what the gateway keeps of answers, and what it is to forget.

use super::App;
use super::problem::{Body, Query, Refusal};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use gateway::{CacheUsage, Purge};
use meter::Value;
use serde::Deserialize;
use std::collections::BTreeMap;
use wire::api::{CacheListing, CachePurge, CacheService, CacheStats, CachedAnswer};

/// As many as a person reads.
const LISTED_DEFAULT: usize = 1_000;
const HINT: &str = "give one of `url`, `host`, `service`, `tag` and `all`";

#[derive(Deserialize)]
pub(super) struct Asked {
    limit: Option<usize>,
    /// Only of this host or service.
    of: Option<String>,
}

pub(super) async fn list(State(app): State<App>, Query(asked): Query<Asked>) -> Json<CacheListing> {
    let mut cached = app.gateway.cached();
    if let Some(of) = &asked.of {
        cached.retain(|one| one.service == *of || host(&one.address).is_some_and(|host| host.eq_ignore_ascii_case(of)));
    }
    let limit = asked.limit.unwrap_or(LISTED_DEFAULT);
    let more = cached.len() > limit;
    cached.truncate(limit);
    let answers = cached.into_iter().map(|one| CachedAnswer {
        address: one.address,
        service: one.service,
        status: one.status,
        size_bytes: one.bytes,
        age_ms: one.age_ms,
        ttl_ms: one.ttl_ms,
        hits: one.hits,
        varies: one.varies,
    });
    Json(CacheListing { answers: answers.collect(), more })
}

fn host(address: &str) -> Option<String> {
    address.parse::<Uri>().ok()?.host().map(str::to_owned)
}

pub(super) async fn stats(State(app): State<App>) -> Json<CacheStats> {
    let usage = app.gateway.cache_usage().unwrap_or_default();
    let CacheUsage { memory_bytes, memory_bytes_max, disk_bytes, disk_bytes_max, evicted, disk_lost } = usage;
    let mut services: BTreeMap<String, CacheService> = BTreeMap::new();
    for sample in app.meter.samples() {
        let (Some(service), Value::Counter(count)) = (sample.label("service"), &sample.value) else { continue };
        let entry = || CacheService { service: service.to_owned(), ..CacheService::default() };
        // Counts of whole things.
        let count = *count as u64;
        match sample.name {
            "bramble_cache_requests_total" => {
                let result = sample.label("result").unwrap_or_default().to_owned();
                services.entry(service.to_owned()).or_insert_with(entry).requests.insert(result, count);
            }
            "bramble_cache_bytes_total" => {
                services.entry(service.to_owned()).or_insert_with(entry).served_bytes = count;
            }
            _ => {}
        }
    }
    let services = services.into_values().collect();
    Json(CacheStats { memory_bytes, memory_bytes_max, disk_bytes, disk_bytes_max, disk_lost, evicted, services })
}

pub(super) async fn purge(State(app): State<App>, Body(asked): Body<CachePurge>) -> Result<StatusCode, Refusal> {
    let purge = wanted(asked)?;
    let done = app.gateway.purge(&purge).await;
    done.map_err(|error| {
        Refusal::new(500, "B0642", format!("note on disk what was purged: {error}")).hint(
            "it is not given again while the node runs; to be sure after a restart, make room and purge once more",
        )
    })?;
    Ok(StatusCode::NO_CONTENT)
}

fn wanted(asked: CachePurge) -> Result<Purge, Refusal> {
    let wrong = |message: String| Refusal::new(422, "B0641", message).hint(HINT);
    match asked {
        CachePurge { url: Some(url), host: None, service: None, tag: None, all: false } => {
            let whole = if url.contains("://") { url.clone() } else { format!("http://{url}") };
            let uri: Uri = whole.parse().map_err(|_| wrong(format!("{url:?} is not an address")))?;
            let authority = uri.authority().ok_or_else(|| wrong(format!("{url:?} names no host")))?;
            let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
            Ok(Purge::Address { authority: authority.as_str().to_ascii_lowercase(), target })
        }
        CachePurge { url: None, host: Some(host), service: None, tag: None, all: false } => Ok(Purge::Host(host)),
        CachePurge { url: None, host: None, service: Some(name), tag: None, all: false } => Ok(Purge::Service(name)),
        CachePurge { url: None, host: None, service: None, tag: Some(tag), all: false } => Ok(Purge::Tag(tag)),
        CachePurge { url: None, host: None, service: None, tag: None, all: true } => Ok(Purge::Everything),
        CachePurge { .. } => Err(wrong("it is not said what is to be purged, or more than one thing".to_owned())),
    }
}
