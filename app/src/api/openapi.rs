//! The API described by itself: OpenAPI 3.1, made from one table.

use axum::Json;
use serde_json::{Map, Value, json};

/// One operation: method, path, what it does, the body it takes and the one it gives (names of `wire::api`).
struct Operation(&'static str, &'static str, &'static str, &'static str, &'static str);

const OPERATIONS: [Operation; 63] = [
    Operation("get", "/healthz", "Whether the API answers; needs no token.", "", "text"),
    Operation("get", "/metrics", "Every metric, as Prometheus text.", "", "text"),
    Operation("get", "/v1/openapi.json", "This document.", "", "object"),
    Operation("get", "/v1/stacks", "All stacks.", "", "StackSummary[]"),
    Operation("post", "/v1/stacks/check", "Findings in a stack file; ?name= is the stack's.", "StackFile", "Report"),
    Operation("get", "/v1/stacks/{name}", "One stack.", "", "StackDetail"),
    Operation("put", "/v1/stacks/{name}", "Deploys a stack file as a new revision.", "StackFile", "Deployed"),
    Operation("delete", "/v1/stacks/{name}", "Stops and forgets a stack. Named volumes stay.", "", ""),
    Operation("post", "/v1/stacks/{name}/plan", "What a deploy would do.", "StackFile", "Plan"),
    Operation("get", "/v1/stacks/{name}/revisions", "History, newest first.", "", "RevisionSummary[]"),
    Operation("get", "/v1/stacks/{name}/revisions/{number}", "One revision.", "", "StackRevision"),
    Operation("get", "/v1/stacks/{name}/diff", "What lies between ?from= and ?to=.", "", "Diff"),
    Operation("post", "/v1/stacks/{name}/revert", "Makes an earlier revision wanted again.", "Revert", "Deployed"),
    Operation("get", "/v1/services", "All services.", "", "ServiceSummary[]"),
    Operation("get", "/v1/services/{stack}/{service}", "One service with its instances.", "", "ServiceDetail"),
    Operation("delete", "/v1/services/{stack}/{service}", "Takes a service out of its stack.", "", "Deployed"),
    Operation("get", "/v1/services/{stack}/{service}/why", "Why its instances are where they are.", "", "ServiceWhy"),
    Operation("post", "/v1/services/{stack}/{service}/scale", "Changes how many instances run.", "Scale", "Deployed"),
    Operation("post", "/v1/services/{stack}/{service}/restart", "Replaces every instance.", "", "Deployed"),
    Operation(
        "get",
        "/v1/services/{stack}/{service}/logs",
        "Lines of JSON; ?follow= &tail= &grep= &since_ms= &until_ms= &instance=.",
        "",
        "LogLine",
    ),
    Operation("get", "/v1/instances", "All instances.", "", "InstanceDetail[]"),
    Operation("get", "/v1/instances/{id}", "One instance.", "", "InstanceDetail"),
    Operation("post", "/v1/instances/{id}/kill", "Ends its processes as a crash would.", "", ""),
    Operation("get", "/v1/nodes", "All machines.", "", "NodeDetail[]"),
    Operation("get", "/v1/nodes/{id}", "One machine, by id or host name.", "", "NodeDetail"),
    Operation("put", "/v1/nodes/{id}", "Whether a machine takes work.", "NodeWanted", ""),
    Operation(
        "delete",
        "/v1/nodes/{id}",
        "Removes a machine from the cluster; ?force=true also one with work.",
        "",
        "",
    ),
    Operation(
        "put",
        "/v1/nodes/{id}/considerate",
        "What a machine's owner asks of the cluster; what is left out stays as it is.",
        "ConsiderateWanted",
        "",
    ),
    Operation("delete", "/v1/nodes/{id}/considerate", "Nobody comes first on a machine any more.", "", ""),
    Operation("post", "/v1/cluster/tokens", "What lets a machine join.", "JoinTokenWanted", "JoinToken"),
    Operation("get", "/v1/cluster/addresses", "Addresses that are always the gateway's.", "", "FloatingState[]"),
    Operation("put", "/v1/cluster/addresses/{ip}", "Has an address float; ip or ip%2Fprefix.", "FloatingWanted", ""),
    Operation("delete", "/v1/cluster/addresses/{ip}", "Has an address float no more.", "", ""),
    Operation("get", "/v1/cluster/roles", "Who has which role, and why.", "", "RolesDetail"),
    Operation("put", "/v1/cluster/roles", "How many of each role there are to be at least.", "RolesWanted", ""),
    Operation(
        "get",
        "/v1/cluster/backup",
        "The state of record as a file, secrets among it; ?stale=true without asking who leads.",
        "",
        "bytes",
    ),
    Operation("get", "/v1/routes", "What the gateway serves by host and path.", "", "RouteState[]"),
    Operation("post", "/v1/routes/test", "Where a request would go, and why.", "RouteQuestion", "RouteAnswer"),
    Operation("get", "/v1/gateway/endpoints", "Instances behind served ports, who is left out.", "", "ServedPort[]"),
    Operation("get", "/v1/gateway/bans", "Whom routes turn away for a while.", "", "BanState[]"),
    Operation("delete", "/v1/gateway/bans/{client}", "Lets an address in again.", "", "BanLifted"),
    Operation("get", "/v1/cache", "Answers that are kept; ?of= a host or service, ?limit=.", "", "CacheListing"),
    Operation("get", "/v1/cache/stats", "How much is kept, and of how much use it was.", "", "CacheStats"),
    Operation("post", "/v1/cache/purge", "Forgets answers.", "CachePurge", ""),
    Operation(
        "get",
        "/v1/gateway/requests",
        "Lines of the access log; ?service= &route= &instance= &client= &trace= &status= &slow_ms= &since_ms= &until_ms= &tail= &follow=.",
        "",
        "RequestRecord",
    ),
    Operation("get", "/v1/certificates", "What the gateway shows over TLS.", "", "CertificateState[]"),
    Operation("get", "/v1/certificates/authority", "Whom to trust for the node's own.", "", "AuthorityCertificate"),
    Operation("get", "/v1/images", "All images.", "", "Image[]"),
    Operation("delete", "/v1/images", "Removes the name ?reference=.", "", ""),
    Operation("post", "/v1/images/pull", "Pulls an image; answers lines of progress.", "Pull", "PullProgress"),
    Operation("post", "/v1/images/prune", "Removes images that nothing uses.", "", "Pruned"),
    Operation("get", "/v1/series", "Samples of ?name=, filtered by ?label=key:value, from ?since_ms=.", "", "Series[]"),
    Operation("get", "/v1/boards", "What to draw for each component.", "", "object"),
    Operation("get", "/v1/alerts", "Alerts, firing or not.", "", "Alert[]"),
    Operation("get", "/v1/watch", "A line whenever something changed.", "", "Changed"),
    Operation("get", "/v1/runs", "Runs that go on, then the last ones; ?limit= &trace=.", "", "RunRecord[]"),
    Operation("post", "/v1/runs", "Runs code, once or for each of its inputs.", "RunWanted", "RunAnswer"),
    Operation("get", "/v1/runs/stream", "A run over a WebSocket: docs/runs.md.", "", ""),
    Operation("get", "/v1/runs/{id}", "What became of a run.", "", "RunRecord"),
    Operation("delete", "/v1/runs/{id}", "Ends a run.", "", ""),
    Operation("get", "/v1/languages", "Languages, and which machine can run which.", "", "LanguageDetail[]"),
    Operation("post", "/v1/languages/{name}/prepare", "Copies what a language needs from the machine.", "", ""),
    Operation("get", "/", "The dashboard.", "", "text"),
];

pub(super) async fn document() -> Json<Value> {
    Json(describe())
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for Operation(method, path, summary, takes, gives) in &OPERATIONS {
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let mut operation = json!({
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "2XX": {"description": "done", "content": content(gives)},
                "4XX": {"description": "refused", "content": content("Problem")},
            },
        });
        if !takes.is_empty() {
            operation["requestBody"] = json!({"required": true, "content": content(takes)});
        }
        let entry = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        entry[*method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Bramble", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    })
}

fn content(name: &str) -> Value {
    match name {
        "" => json!({}),
        "bytes" => json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}),
        "text" => json!({"text/plain": {"schema": {"type": "string"}}}),
        _ => {
            let (title, many) = name.strip_suffix("[]").map_or((name, false), |title| (title, true));
            let one = json!({"type": "object", "title": title});
            let schema = if many { json!({"type": "array", "items": one}) } else { one };
            json!({"application/json": {"schema": schema}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let router = include_str!("mod.rs");
        let routed: Vec<&str> = router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let document = describe();
        for path in &routed {
            assert!(document["paths"].get(path).is_some(), "{path} is not in the document");
        }
        assert!(routed.len() > 20);
    }
}
