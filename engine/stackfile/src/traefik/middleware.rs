//! Traefik's middlewares: what they do to a route, which ones it can do without, and which may keep people out.
//!
//! They are collected from all services of the file, since a router may name one that another service declares.

use super::effect::{Effect, effects_of};
use crate::yaml::Node;
use std::collections::{BTreeMap, BTreeSet};

/// Middlewares within chains, one in the other.
const MEMBERS_MAX: usize = 100;

/// Options of a middleware by name, lower case: `users`, or `customrequestheaders.x-a`.
pub(super) type Options = BTreeMap<String, String>;

/// Every middleware that the file's labels declare, by name.
#[derive(Debug, Default)]
pub(crate) struct Middlewares {
    declared: BTreeMap<String, Middleware>,
    /// The names of the file's services, which an address may have for a host.
    services: BTreeSet<String>,
}

/// `stripprefix`, `basicauth` and so on, lower case, with their options.
#[derive(Debug, Default)]
struct Middleware(BTreeMap<String, Options>);

/// Reads the labels of every service below `services`.
pub(crate) fn collect(services: &Node) -> Middlewares {
    let mut found = Middlewares::default();
    for service in services.entries() {
        found.services.insert(service.key.clone());
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
        let mut parts = rest.splitn(3, '.');
        let (Some(name), Some(kind)) = (parts.next(), parts.next()) else { return };
        let options =
            self.declared.entry(name.to_string()).or_default().0.entry(kind.to_ascii_lowercase()).or_default();
        if let Some(option) = parts.next() {
            options.insert(option.to_ascii_lowercase(), value.to_string());
        }
    }

    /// What a middleware does, those of a chain one by one in their order, each once.
    pub(super) fn effects(&self, name: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut waiting = vec![name];
        let mut seen = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            let bare = name.split('@').next().unwrap_or(name);
            if !seen.insert(bare) {
                continue;
            }
            let Some(middleware) = self.declared.get(bare).filter(|_| seen.len() <= MEMBERS_MAX) else {
                effects
                    .push(Effect::Guards("is not declared in this file, and may be what keeps people out".to_string()));
                continue;
            };
            for (kind, options) in &middleware.0 {
                if kind == "chain" {
                    let members = options.get("middlewares").map(String::as_str).unwrap_or_default();
                    waiting.extend(members.split(',').map(str::trim).filter(|name| !name.is_empty()).rev());
                } else {
                    effects.extend(effects_of(kind, options, &self.services));
                }
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::Rules;

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
        check(&[("again.retry.attempts", "3")], "again", &[Effect::Idle("retry".into())]);
        check(&[("auth.digestauth.users", "x")], "auth", &[guards("(digestauth) is not honoured")]);
        check(&[], "auth@file", &[guards("is not declared in this file, and may be what keeps people out")]);
        let chain = [
            ("all.chain.middlewares", "cut,all,more,auth"),
            ("cut.stripprefix.prefixes", "/a,/b"),
            ("more.addPrefix.prefix", "/v1/"),
            ("auth.forwardauth.address", "https://x"),
        ];
        let adds = Rules { add_prefix: Some("/v1".into()), ..Rules::default() };
        check(
            &chain,
            "all",
            &[
                strips(),
                Effect::Rules(Box::new(adds)),
                guards("(forwardauth) has the address `https://x`, which asks for TLS"),
            ],
        );
    }
}
