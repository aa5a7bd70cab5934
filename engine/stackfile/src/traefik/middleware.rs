//! Traefik's middlewares: which of them cut a prefix, which a route can do without, and which may keep people out.
//!
//! They are collected from all services of the file, since a router may name one that another service declares.

use crate::read::shortened;
use crate::yaml::Node;
use std::collections::{BTreeMap, BTreeSet};

/// Without these, requests are answered by the same program with the same content, only less well.
const IDLE: [&str; 13] = [
    "buffering",
    "circuitbreaker",
    "compress",
    "contenttype",
    "errors",
    "grpcweb",
    "headers",
    "inflightreq",
    "passtlsclientcert",
    "ratelimit",
    "redirectregex",
    "redirectscheme",
    "retry",
];

/// Every middleware that the file's labels declare, by name.
#[derive(Debug, Default)]
pub(crate) struct Middlewares(BTreeMap<String, Middleware>);

#[derive(Debug, Default)]
struct Middleware {
    /// `stripprefix`, `basicauth` and so on, lower case.
    kinds: BTreeSet<String>,
    prefixes: Vec<String>,
    /// What a `chain` consists of.
    members: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Strips(Vec<String>),
    /// Of this kind, and dispensable.
    Idle(String),
    /// Why the route must not be made, to follow the middleware's name.
    Guards(String),
}

/// Reads the labels of every service below `services`.
pub(crate) fn collect(services: &Node) -> Middlewares {
    let mut found = Middlewares::default();
    for service in services.entries() {
        let deployed = service.value.get("deploy").and_then(|deploy| deploy.get("labels"));
        for labels in [service.value.get("labels"), deployed].into_iter().flatten() {
            for entry in labels.entries() {
                found.note(&entry.key, entry.value.text().unwrap_or_default());
            }
            for (name, value) in labels.items().iter().filter_map(Node::text).filter_map(|text| text.split_once('=')) {
                found.note(name, value);
            }
        }
    }
    found
}

impl Middlewares {
    fn note(&mut self, label: &str, value: &str) {
        let Some(rest) = label.strip_prefix("traefik.http.middlewares.") else { return };
        let mut parts = rest.split('.');
        let (Some(name), Some(kind)) = (parts.next(), parts.next()) else { return };
        let kind = kind.to_ascii_lowercase();
        let middleware = self.0.entry(name.to_string()).or_default();
        let values = || value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(String::from);
        match (kind.as_str(), parts.next()) {
            ("stripprefix", Some("prefixes")) => middleware.prefixes.extend(values()),
            ("chain", Some("middlewares")) => middleware.members.extend(values()),
            _ => {}
        }
        middleware.kinds.insert(kind);
    }

    /// What a middleware does, those of a chain one by one, each once.
    pub(super) fn effects(&self, name: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut waiting = vec![name];
        let mut seen = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            let bare = name.split('@').next().unwrap_or(name);
            if !seen.insert(bare) {
                continue;
            }
            let Some(middleware) = self.0.get(bare) else {
                effects
                    .push(Effect::Guards("is not declared in this file, and may be what keeps people out".to_string()));
                continue;
            };
            for kind in &middleware.kinds {
                match kind.as_str() {
                    "stripprefix" => effects.push(Effect::Strips(middleware.prefixes.clone())),
                    "chain" => waiting.extend(middleware.members.iter().map(String::as_str)),
                    idle if IDLE.contains(&idle) => effects.push(Effect::Idle(idle.to_string())),
                    other => effects.push(Effect::Guards(format!("({}) is not honoured", shortened(other)))),
                }
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], name: &str, expected: &[Effect]) {
        let mut found = Middlewares::default();
        labels.iter().for_each(|(label, value)| found.note(&format!("traefik.http.middlewares.{label}"), value));
        assert_eq!(found.effects(name), expected, "{labels:?}");
    }

    #[test]
    fn what_may_keep_people_out_is_told_from_the_rest() {
        let guards = |why: &str| Effect::Guards(why.to_string());
        let strips = || Effect::Strips(vec!["/a".into(), "/b".into()]);
        check(&[("cut.StripPrefix.prefixes", "/a, /b")], "cut@docker", &[strips()]);
        check(&[("small.compress", "true")], "small", &[Effect::Idle("compress".into())]);
        check(&[("auth.basicauth.users", "x")], "auth", &[guards("(basicauth) is not honoured")]);
        check(&[], "auth@file", &[guards("is not declared in this file, and may be what keeps people out")]);
        let chain = [
            ("all.chain.middlewares", "cut,all,auth"),
            ("cut.stripprefix.prefixes", "/a,/b"),
            ("auth.forwardauth.address", "x"),
        ];
        check(&chain, "all", &[guards("(forwardauth) is not honoured"), strips()]);
    }
}
