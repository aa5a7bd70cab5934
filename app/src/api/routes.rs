//! `/v1/routes`: what the gateway serves by host and path, and where a request would go.

use super::App;
use super::endpoints;
use super::problem::{Body, Refusal};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use gateway::{Fate, Question, Route};
use wire::api::{RouteAnswer, RouteQuestion, RouteState, RouteTried};
use wire::spec::{AccessLog, Balance};

pub(super) async fn list(State(app): State<App>) -> Json<Vec<RouteState>> {
    let routes = app.gateway.routes().await;
    Json(routes.iter().map(|route| state(&app, route)).collect())
}

pub(super) async fn test(
    State(app): State<App>,
    Body(asked): Body<RouteQuestion>,
) -> Result<Json<RouteAnswer>, Refusal> {
    let question = question(&asked)?;
    let routes = app.gateway.routes().await;
    let fates = gateway::explain(&routes, &question);
    let tried = routes.iter().zip(fates).map(|(route, fate)| {
        let (share, why) = match fate {
            Fate::Taken(share) if share >= 1.0 => (share, "taken".to_owned()),
            Fate::Taken(share) => (share, format!("taken by {:.1} %", share * 100.0)),
            Fate::Outdone => (0.0, "another is more specific".to_owned()),
            Fate::OtherHost => (0.0, "other host".to_owned()),
            Fate::OtherPath => (0.0, "other path".to_owned()),
            Fate::OtherConditions => (0.0, "other method, header or TLS".to_owned()),
        };
        RouteTried { route: state(&app, route), share, why }
    });
    Ok(Json(RouteAnswer { tried: tried.collect() }))
}

fn question(asked: &RouteQuestion) -> Result<Question, Refusal> {
    let wrong = |what: String| {
        Refusal::new(400, "B0101", what).hint("ask as in `bramble route test https://shop.example.org/api`")
    };
    // As curl reads addresses: without a scheme, it is plain HTTP.
    let whole = if asked.url.contains("://") { asked.url.clone() } else { format!("http://{}", asked.url) };
    let uri: Uri = whole.parse().map_err(|_| wrong(format!("{:?} is not an address", asked.url)))?;
    let secure = match uri.scheme_str() {
        Some("http" | "ws") => false,
        Some("https" | "wss") => true,
        _ => return Err(wrong(format!("{:?} is neither http nor https", asked.url))),
    };
    let host = uri.host().ok_or_else(|| wrong(format!("{:?} names no host", asked.url)))?;
    let method =
        Method::from_bytes(asked.method.as_bytes()).map_err(|_| wrong(format!("{:?} is no method", asked.method)))?;
    let mut headers = HeaderMap::new();
    for line in &asked.headers {
        let read = line.split_once(':').and_then(|(name, value)| {
            Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = read.ok_or_else(|| wrong(format!("{line:?} is no header")))?;
        headers.append(name, value);
    }
    Ok(Question { host: host.to_owned(), path: uri.path().to_owned(), method, headers, secure })
}

fn state(app: &App, route: &Route) -> RouteState {
    let seen = app.gateway.endpoints(&route.service, route.port);
    RouteState {
        hosts: route.hosts.clone(),
        path: route.path_prefix.clone(),
        service: route.service.clone(),
        port: route.port,
        priority: route.priority,
        weight: route.weight,
        notes: notes(route),
        endpoints: seen.into_iter().map(endpoints::state).collect(),
    }
}

/// What of a route is not its host and path, in a word each.
fn notes(route: &Route) -> Vec<String> {
    let mut notes = Vec::new();
    let conditions = &route.conditions;
    let mut note = |said: bool, text: String| {
        if said {
            notes.push(text);
        }
    };
    note(conditions.exact, "exact".to_owned());
    note(!conditions.methods.is_empty(), conditions.methods.join("|"));
    for (name, value) in &conditions.headers {
        note(true, if value.is_empty() { name.clone() } else { format!("{name}: {value}") });
    }
    note(conditions.plain, "without TLS".to_owned());
    note(route.priority != 0, format!("priority {}", route.priority));
    note(route.weight.is_some(), format!("weight {}", route.weight.unwrap_or_default()));
    note(route.strip_prefix, "strip".to_owned());
    let delivery = route.delivery.as_deref().cloned().unwrap_or_default();
    match &delivery.balance {
        Some(Balance::Sticky(_)) => note(true, "sticky".to_owned()),
        Some(Balance::Hash(_)) => note(true, "by hash".to_owned()),
        None => {}
    }
    note(!delivery.priority_class.is_normal(), format!("{} priority", delivery.priority_class.word()));
    note(delivery.hedge.is_some(), "hedged".to_owned());
    note(delivery.in_flight_max.is_some(), format!("{} at once", delivery.in_flight_max.unwrap_or_default()));
    note(delivery.access_log.is_some(), format!("log {}", delivery.access_log.unwrap_or(AccessLog::DEFAULT)));
    let Some(rules) = &route.rules else { return notes };
    let mut note = |said: bool, text: &str| {
        if said {
            notes.push(text.to_owned());
        }
    };
    note(rules.add_prefix.is_some() || rules.replace_path.is_some(), "rewritten");
    note(rules.redirect.is_some(), "redirect");
    note(!rules.request_headers.is_empty() || !rules.response_headers.is_empty(), "headers");
    note(!rules.allow.is_empty() || !rules.deny.is_empty(), "addresses");
    note(rules.basic_auth.is_some(), "password");
    note(rules.rate_limit.is_some(), "rate");
    note(rules.body_bytes_max.is_some(), "size");
    note(rules.answer_deadline_ms.is_some(), "time");
    note(rules.maintenance.is_some(), "maintenance");
    note(rules.cors.is_some(), "cors");
    note(rules.forward_auth.is_some(), "asks for leave");
    note(rules.mirror.is_some(), "mirrored");
    note(rules.compress.is_some(), "compressed");
    note(!rules.error_pages.is_empty(), "pages");
    note(rules.head_bytes_max.is_some(), "head size");
    note(rules.ban.is_some(), "bans");
    note(rules.cache.is_some(), "cache");
    notes
}
