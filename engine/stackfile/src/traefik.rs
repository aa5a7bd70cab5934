//! Traefik's labels as routes: `traefik.http.routers.*`, `.services.*`, and the middleware `stripprefix`.
//!
//! Owns the rule language's subset that a route can say: hosts, path prefixes, `&&`, `||`. A rule that asks for more
//! (a header, a method, a negation) makes no route: serving it without the condition would show what was to be hidden.

use crate::findings::{Findings, Place};
use crate::read::shortened;
use std::collections::BTreeMap;
use wire::spec::Route;

/// What `||` may multiply to within `&&`.
const ALTERNATIVES_MAX: usize = 64;
/// Nested brackets of a rule.
const DEPTH_MAX: usize = 16;
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
    /// Middlewares that strip, with their prefixes.
    strips: BTreeMap<&'l str, Vec<&'l str>>,
}

/// The routes that a service's labels declare. `port` is taken when no label names one.
pub(crate) fn routes(labels: &[Label], port: Option<u16>, findings: &mut Findings) -> Vec<Route> {
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
            Ok(alternatives) => routes.extend(made(alternatives, router, &read, port, place, findings)),
            Err(wrong) => {
                let message = format!("the rule of the router `{}` makes no route: {wrong}", shortened(name));
                findings.warn(place, message, "declare the route under `x-bramble: routes:`");
            }
        }
    }
    routes
}

fn made(
    alternatives: Vec<Alternative>,
    router: &Router<'_>,
    read: &Labels<'_>,
    port: u16,
    place: &Place,
    findings: &mut Findings,
) -> Vec<Route> {
    let prefixes: Vec<&str> = router
        .middlewares
        .iter()
        .filter_map(|(name, _)| read.strips.get(name.split('@').next().unwrap_or(name)))
        .flatten()
        .copied()
        .collect();
    for (middleware, place) in &router.middlewares {
        if !read.strips.contains_key(middleware.split('@').next().unwrap_or(middleware)) {
            let message = format!("the middleware `{}` is not honoured", shortened(middleware));
            findings.warn(place, message, "requests go on without it; only `stripprefix` is understood");
        }
    }
    let mut routes: Vec<Route> = Vec::new();
    for alternative in alternatives {
        if alternative.exact && alternative.path != "/" {
            let message = format!("`{}` is served with everything below it", shortened(&alternative.path));
            findings.warn(place, message, "routes go by prefix; Path() is taken as PathPrefix()");
        }
        let path = alternative.path;
        let strip_prefix = prefixes.iter().any(|prefix| prefix.trim_end_matches('/') == path.trim_end_matches('/'));
        // Alternatives that differ by host only are one route.
        match routes.iter_mut().find(|route| route.path_prefix == path && !route.hosts.is_empty()) {
            Some(route) if !alternative.hosts.is_empty() => route.hosts.extend(alternative.hosts),
            Some(_) | None => routes.push(Route {
                hosts: alternative.hosts,
                path_prefix: path,
                port,
                strip_prefix,
                priority: router.priority,
                tls: router.tls,
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
            // What instances speak is plain HTTP, which is Traefik's default too.
            ["http", "services", _, "loadbalancer", "server", "scheme"] => value == "http",
            ["http", "services", _, "loadbalancer", "passhostheader"] => value == "true",
            ["http", "middlewares", name, kind, "prefixes"] if kind.eq_ignore_ascii_case("stripprefix") => {
                read.strips.insert(name, value.split(',').map(str::trim).collect());
                true
            }
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

/// One way to fulfil a rule.
#[derive(Debug, Clone, PartialEq)]
struct Alternative {
    hosts: Vec<String>,
    path: String,
    exact: bool,
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

fn parse_rule(rule: &str) -> Result<Vec<Alternative>, String> {
    let mut parser = RuleParser { rest: rule, depth: 0 };
    let alternatives = parser.any_of()?;
    if parser.rest.trim().is_empty() {
        Ok(alternatives)
    } else {
        Err(format!("`{}` is not understood", shortened(parser.rest.trim())))
    }
}

struct RuleParser<'r> {
    rest: &'r str,
    depth: usize,
}

impl RuleParser<'_> {
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn any_of(&mut self) -> Result<Vec<Alternative>, String> {
        let mut found = self.all_of()?;
        while self.take("||") {
            found.extend(self.all_of()?);
            bounded(&found)?;
        }
        Ok(found)
    }

    fn all_of(&mut self) -> Result<Vec<Alternative>, String> {
        let mut found = self.single()?;
        while self.take("&&") {
            let right = self.single()?;
            let mut product = Vec::new();
            for left in &found {
                for right in &right {
                    product.push(joined(left, right)?);
                    bounded(&product)?;
                }
            }
            found = product;
        }
        Ok(found)
    }

    fn single(&mut self) -> Result<Vec<Alternative>, String> {
        if self.take("!") {
            return Err("it holds a negation".to_string());
        }
        if self.take("(") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err("its brackets nest too deep".to_string());
            }
            let inside = self.any_of()?;
            self.depth -= 1;
            return if self.take(")") { Ok(inside) } else { Err("a bracket is not closed".to_string()) };
        }
        let name_end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let name = &self.rest[..name_end];
        self.rest = &self.rest[name_end..];
        let arguments = self.arguments()?;
        matched(name, arguments)
    }

    /// "(`a`, `b`)", in backticks or double quotes.
    fn arguments(&mut self) -> Result<Vec<String>, String> {
        let broken = || "it is not a rule".to_string();
        if !self.take("(") {
            return Err(broken());
        }
        let mut found = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            let quote = self.rest.chars().next().filter(|c| matches!(c, '`' | '"' | '\'')).ok_or_else(broken)?;
            let inside = &self.rest[1..];
            let end = inside.find(quote).ok_or_else(broken)?;
            found.push(inside[..end].to_string());
            self.rest = &inside[end + 1..];
            if self.take(")") {
                return Ok(found);
            }
            if !self.take(",") {
                return Err(broken());
            }
        }
    }
}

fn bounded(found: &[Alternative]) -> Result<(), String> {
    if found.len() <= ALTERNATIVES_MAX { Ok(()) } else { Err("it has too many alternatives".to_string()) }
}

fn matched(name: &str, arguments: Vec<String>) -> Result<Vec<Alternative>, String> {
    let path = |exact: bool| {
        let one = |path: String| {
            if path.starts_with('/') && !path.contains(['{', '*', '^', ' ']) {
                Ok(Alternative { hosts: Vec::new(), path, exact })
            } else {
                Err(format!("`{}` is not a plain path", shortened(&path)))
            }
        };
        arguments.iter().cloned().map(one).collect::<Result<Vec<_>, _>>()
    };
    match name {
        "Host" | "HostHeader" => {
            let hosts: Vec<String> = arguments.iter().map(|host| host.to_ascii_lowercase()).collect();
            match hosts.iter().find(|host| !is_host(host)) {
                Some(wrong) if wrong.is_empty() => {
                    Err("its host is empty, perhaps because a variable is not set".to_string())
                }
                Some(wrong) => Err(format!("`{}` is not a host name", shortened(wrong))),
                None => Ok(vec![Alternative { hosts, path: "/".to_string(), exact: false }]),
            }
        }
        "PathPrefix" => path(false),
        "Path" => path(true),
        "HostRegexp" | "PathRegexp" => Err(format!("{name}() goes by a pattern")),
        "" => Err("it is not a rule".to_string()),
        other => Err(format!("{}() is not understood", shortened(other))),
    }
}

/// Both at once.
fn joined(left: &Alternative, right: &Alternative) -> Result<Alternative, String> {
    let hosts = match (left.hosts.is_empty(), right.hosts.is_empty()) {
        (true, _) => right.hosts.clone(),
        (_, true) => left.hosts.clone(),
        (false, false) => return Err("it asks for two hosts at once".to_string()),
    };
    let (path, exact) = match (left.path.as_str(), right.path.as_str()) {
        ("/", _) if !left.exact => (right.path.clone(), right.exact),
        (_, "/") if !right.exact => (left.path.clone(), left.exact),
        _ => return Err("it asks for two paths at once".to_string()),
    };
    Ok(Alternative { hosts, path, exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &str, expected: Result<&[(&[&str], &str)], &str>) {
        let found = parse_rule(rule);
        match expected {
            Ok(expected) => {
                let found = found.unwrap_or_else(|wrong| panic!("{rule}: {wrong}"));
                let found: Vec<(Vec<&str>, &str)> = found
                    .iter()
                    .map(|one| (one.hosts.iter().map(String::as_str).collect(), one.path.as_str()))
                    .collect();
                let expected: Vec<(Vec<&str>, &str)> = expected.iter().map(|(h, p)| (h.to_vec(), *p)).collect();
                assert_eq!(found, expected, "{rule}");
            }
            Err(part) => {
                let wrong = found.expect_err(rule);
                assert!(wrong.contains(part), "{rule}: {wrong}");
            }
        }
    }

    #[test]
    fn rules_become_alternatives() {
        check("Host(`A.example.org`)", Ok(&[(&["a.example.org"], "/")]));
        check("Host(`a.b`, `c.d`)", Ok(&[(&["a.b", "c.d"], "/")]));
        check("Host(`a.b`) && PathPrefix(`/api`)", Ok(&[(&["a.b"], "/api")]));
        check(
            "(Host(`a`) || Host(`b`)) && (PathPrefix(`/x`) || Path(`/y`))",
            Ok(&[(&["a"], "/x"), (&["a"], "/y"), (&["b"], "/x"), (&["b"], "/y")]),
        );
        check("Path(`/`)", Ok(&[(&[], "/")]));
        check("Host(\"a.b\")", Ok(&[(&["a.b"], "/")]));
    }

    #[test]
    fn what_a_route_cannot_say_makes_none() {
        check("HostRegexp(`.+`)", Err("pattern"));
        check("!Host(`a`)", Err("negation"));
        check("Host(`a`) && Header(`x`, `y`)", Err("Header()"));
        check("Host(``)", Err("empty"));
        check("Host(`a`) && Host(`b`)", Err("two hosts"));
        check("Host(`a`", Err("not a rule"));
        check("Host(a)", Err("not a rule"));
        check("Host(`a`) nonsense", Err("not understood"));
        check("", Err("not a rule"));
        check("PathPrefix(`/{id}`)", Err("plain path"));
        check(&"(".repeat(100), Err("too deep"));
        let doubling = "(PathPrefix(`/a`) || PathPrefix(`/b`))";
        check(&[doubling; 3].join(" && "), Err("two paths"));
        let hosts = ["(Host(`a`) || Host(`b`))"; 40].join(" || ");
        check(&hosts, Err("too many"));
    }

    #[test]
    fn alternatives_multiply() {
        let many = "(Host(`a`) || Host(`b`) || Host(`c`)) && (PathPrefix(`/a`) || PathPrefix(`/b`))";
        assert_eq!(parse_rule(many).expect("six").len(), 6);
    }
}
