//! Traefik's labels as routes: `traefik.http.routers.*`, `.services.*`, `.middlewares.*`.
//!
//! Promises to open nothing that was guarded: a rule that asks for more than a route can say (a pattern, a negation), or
//! a middleware that may keep people out and is not wholly understood, makes no route but a warning.

mod effect;
mod middleware;
mod rule;

use crate::findings::{Findings, Place};
use crate::read::shortened;
use crate::route::forms::cookie_name;
use effect::{Effect, merge};
pub(crate) use middleware::{Middlewares, collect};
use rule::{Alternative, parse_rule};
use std::collections::BTreeMap;
use wire::spec::{Balance, Delivery, Route, Rules};

const HOST_LETTERS_MAX: usize = 253;

type Label = (String, String, Place);

#[derive(Default)]
struct Router<'l> {
    rule: Option<(&'l str, &'l Place)>,
    service: Option<&'l str>,
    middlewares: Vec<(&'l str, &'l Place)>,
    priority: i32,
    tls: bool,
    place: Option<&'l Place>,
}

/// Everything the labels say, by name.
#[derive(Default)]
struct Labels<'l> {
    enabled: bool,
    routers: BTreeMap<&'l str, Router<'l>>,
    ports: BTreeMap<&'l str, u16>,
    /// The cookies by which services keep clients at one instance; empty for one that is made up.
    sticky: BTreeMap<&'l str, &'l str>,
}

/// The routes that a service's labels declare. `port` is taken when no label names one.
pub(crate) fn routes(
    labels: &[Label],
    port: Option<u16>,
    middlewares: &Middlewares,
    findings: &mut Findings,
) -> Vec<Route> {
    let read = read_labels(labels, findings);
    if !read.enabled {
        return Vec::new();
    }
    let mut routes = Vec::new();
    for (name, router) in &read.routers {
        let Some((rule, place)) = router.rule else {
            if let Some(place) = router.place {
                let message = format!("the router `{}` has no rule, so it makes no route", shortened(name));
                findings.warn(place, message, "give it a rule such as Host(`shop.example.org`)");
            }
            continue;
        };
        let own = router.service.and_then(|service| read.ports.get(service.split('@').next().unwrap_or(service)));
        let Some(port) = own.or(read.ports.values().next()).copied().or(port) else {
            let hint = "name it with `traefik.http.services.<name>.loadbalancer.server.port`";
            findings.warn(place, "it is not known which port the route leads to, so there is none", hint);
            continue;
        };
        match parse_rule(rule) {
            Ok(alternatives) => {
                if let Some(mut treatment) = treatment(name, router, middlewares, findings) {
                    treatment.sticky = read.sticky_of(router);
                    routes.extend(made(alternatives, router, &treatment, port));
                }
            }
            Err(wrong) => {
                let message = format!("the rule of the router `{}` makes no route: {wrong}", shortened(name));
                findings.warn(place, message, "declare the route under `x-bramble: routes:`");
            }
        }
    }
    routes
}

/// What a router's middlewares do.
#[derive(Default)]
struct Treatment {
    /// Prefixes that are cut off.
    strips: Vec<String>,
    rules: Rules,
    /// The cookie that keeps clients at one instance.
    sticky: Option<String>,
}

impl Labels<'_> {
    /// Of the service the router names, or of the one there is.
    fn sticky_of(&self, router: &Router<'_>) -> Option<String> {
        let named = router.service.map(|service| service.split('@').next().unwrap_or(service));
        let cookie = match named {
            Some(service) => self.sticky.get(service),
            None => self.sticky.values().next(),
        };
        cookie.map(|cookie| (*cookie).to_string())
    }
}

/// What the router's middlewares do together. `None`, with a warning, if one of them may keep people out.
fn treatment(name: &str, router: &Router<'_>, middlewares: &Middlewares, findings: &mut Findings) -> Option<Treatment> {
    let mut treatment = Treatment::default();
    let mut is_guarded = false;
    for (middleware, place) in &router.middlewares {
        for effect in middlewares.effects(middleware) {
            let refused = match effect {
                Effect::Strips(_) if treatment.rules.add_prefix.is_some() => {
                    Some("cuts a prefix off after another was added".to_string())
                }
                Effect::Strips(stripped) => {
                    treatment.strips.extend(stripped);
                    None
                }
                Effect::Rules(rules) => {
                    if rules.redirect.is_some() {
                        let message = format!("the middleware `{}` sends browsers to https", shortened(middleware));
                        findings.warn(place, message, "the node answers there when it is started with `--https`");
                    }
                    let merged = merge(&mut treatment.rules, *rules);
                    merged.err().map(|what| format!("is the second that is about {what}"))
                }
                Effect::Idle(kind) => {
                    let message = format!("the middleware `{}` ({kind}) is not honoured", shortened(middleware));
                    findings.warn(place, message, "requests go on without it");
                    None
                }
                Effect::Guards(why) => Some(why),
            };
            if let Some(why) = refused {
                is_guarded = true;
                let message = format!(
                    "the router `{}` makes no route: its middleware `{}` {why}",
                    shortened(name),
                    shortened(middleware)
                );
                let hint = "if it may be open to everybody, declare the route under `x-bramble: routes:`";
                findings.warn(place, message, hint);
            }
        }
    }
    (!is_guarded).then_some(treatment)
}

fn made(alternatives: Vec<Alternative>, router: &Router<'_>, treatment: &Treatment, port: u16) -> Vec<Route> {
    let Treatment { strips, rules, sticky } = treatment;
    let delivery = sticky
        .clone()
        .map(|cookie| Box::new(Delivery { balance: Some(Balance::Sticky(cookie)), ..Delivery::default() }));
    let mut routes: Vec<Route> = Vec::new();
    for Alternative { hosts, path, mut conditions } in alternatives {
        let strip_prefix = strips.iter().any(|prefix| prefix.trim_end_matches('/') == path.trim_end_matches('/'));
        // Such a router stands beside one for https: it must not answer there, where the other has its guards.
        conditions.plain = rules.redirect.is_some() && !router.tls;
        // Alternatives that differ by host only are one route.
        let alike =
            |route: &&mut Route| route.path_prefix == path && route.conditions == conditions && !route.hosts.is_empty();
        match routes.iter_mut().find(alike) {
            Some(route) if !hosts.is_empty() => route.hosts.extend(hosts),
            Some(_) | None => routes.push(Route {
                hosts,
                path_prefix: path,
                port,
                strip_prefix,
                priority: router.priority,
                tls: router.tls,
                conditions,
                weight: None,
                rules: (*rules != Rules::default()).then(|| Box::new(rules.clone())),
                delivery: delivery.clone(),
                ..Route::default()
            }),
        }
    }
    routes
}

fn read_labels<'l>(labels: &'l [Label], findings: &mut Findings) -> Labels<'l> {
    let mut read = Labels { enabled: true, ..Labels::default() };
    for (name, value, place) in labels {
        // Traefik's own names are case-insensitive, but nobody writes them otherwise.
        let Some(key) = name.strip_prefix("traefik.") else { continue };
        let parts: Vec<&str> = key.split('.').collect();
        let known = match parts.as_slice() {
            ["enable"] => {
                read.enabled = crate::units::truth(value).unwrap_or(true);
                true
            }
            // Which network Traefik itself would take; the gateway reaches all of them.
            ["docker" | "swarm", "network"] | ["docker", "lbswarm"] | ["swarm", "lbswarm"] => true,
            ["http", "routers", router, rest @ ..] => {
                let router = read.routers.entry(router).or_default();
                router.place = router.place.or(Some(place));
                router_label(router, rest, value, place)
            }
            ["http", "services", service, "loadbalancer", "server", "port"] => match value.parse() {
                Ok(port) if port > 0 => {
                    read.ports.insert(service, port);
                    true
                }
                Ok(_) | Err(_) => {
                    findings.warn(
                        place,
                        format!("`{}` is not a port", shortened(value)),
                        "the service's first port is taken",
                    );
                    true
                }
            },
            ["http", "services", service, "loadbalancer", "sticky"] => {
                let wanted = crate::units::truth(value).unwrap_or(false);
                if wanted {
                    read.sticky.entry(service).or_default();
                }
                wanted
            }
            ["http", "services", service, "loadbalancer", "sticky", "cookie", rest @ ..] => {
                sticky_label(&mut read.sticky, service, rest, value)
            }
            // What instances speak is plain HTTP, which is Traefik's default too.
            ["http", "services", _, "loadbalancer", "server", "scheme"] => value == "http",
            ["http", "services", _, "loadbalancer", "passhostheader"] => value == "true",
            // Reported where a router uses it.
            ["http", "middlewares", ..] => true,
            _ => false,
        };
        if !known {
            findings.warn(
                place,
                format!("the label `{}` is not honoured", shortened(name)),
                "Traefik is not there to read it",
            );
        }
    }
    read
}

/// Whether the label of a sticky service is understood. The cookie is for programs only, and for secure connections where
/// the client's was, whatever the labels say.
fn sticky_label<'l>(sticky: &mut BTreeMap<&'l str, &'l str>, service: &'l str, rest: &[&str], value: &'l str) -> bool {
    match rest {
        [] if crate::units::truth(value) == Some(true) => drop(sticky.entry(service).or_default()),
        ["name"] if cookie_name(value).is_ok() => drop(sticky.insert(service, value)),
        ["secure" | "httponly" | "httpOnly"] => drop(sticky.entry(service).or_default()),
        ["samesite" | "sameSite"] => {
            sticky.entry(service).or_default();
            return value.eq_ignore_ascii_case("lax");
        }
        _ => return false,
    }
    true
}

/// Whether the label of a router is understood.
fn router_label<'l>(router: &mut Router<'l>, rest: &[&str], value: &'l str, place: &'l Place) -> bool {
    match rest {
        ["rule"] => router.rule = Some((value, place)),
        ["service"] => router.service = Some(value),
        ["middlewares"] => {
            let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
            router.middlewares = names.map(|name| (name, place)).collect();
        }
        ["priority"] => match value.parse() {
            Ok(priority) => router.priority = priority,
            Err(_) => return false,
        },
        ["tls"] => router.tls |= crate::units::truth(value).unwrap_or(true),
        ["tls", ..] => router.tls = true,
        ["entrypoints" | "entryPoints"] => {
            // Only the usual names say something; others are Traefik's own configuration.
            router.tls |= value.split(',').any(|name| matches!(name.trim(), "websecure" | "https"));
        }
        // The syntax of the rule is the same in what is understood here.
        ["rulesyntax" | "ruleSyntax"] => {}
        _ => return false,
    }
    true
}

/// A host name in lower case, or `*.` before one.
pub(crate) fn is_host(host: &str) -> bool {
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        !label.is_empty() && label.len() <= 63 && label.chars().all(inner) && !label.starts_with('-')
    };
    bare.len() <= HOST_LETTERS_MAX && bare.split('.').all(label)
}
