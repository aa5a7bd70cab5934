//! Which service answers a request: by host, path and priority.
//!
//! Owns the matching rules: an exact host beats a wildcard label beats any host, a longer path beats a shorter
//! one, whole segments only, and a priority beats both. Pure; knows no request type and no connection. `T`
//! is whatever stands for a service.

use crate::table::Route;
use std::collections::HashMap;

/// Routes made ready for look-ups.
#[derive(Debug)]
pub(crate) struct Router<T> {
    exact: HashMap<String, Vec<Rule<T>>>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Vec<Rule<T>>>,
    any: Vec<Rule<T>>,
}

/// One route under one host.
#[derive(Debug)]
pub(crate) struct Rule<T> {
    /// Without a slash at its end; empty matches every path.
    prefix: String,
    strip: bool,
    priority: i32,
    pub(crate) target: T,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Router { exact: HashMap::new(), wildcard: HashMap::new(), any: Vec::new() }
    }
}

impl<T: Clone> Router<T> {
    /// Prepares `routes`; `target` says what stands for a route's service.
    pub(crate) fn new(routes: &[Route], mut target: impl FnMut(&Route) -> T) -> Router<T> {
        let mut router = Router::default();
        // Two routes that match alike are told apart by name, so that the order of the table means nothing.
        let mut ordered: Vec<&Route> = routes.iter().collect();
        ordered.sort_by(|a, b| (&a.service, a.port).cmp(&(&b.service, b.port)));
        for route in ordered {
            let target = target(route);
            let rule = || Rule {
                prefix: route.path_prefix.trim_end_matches('/').to_owned(),
                strip: route.strip_prefix,
                priority: route.priority,
                target: target.clone(),
            };
            if route.hosts.is_empty() {
                router.any.push(rule());
            }
            for host in &route.hosts {
                let host = host.to_ascii_lowercase();
                match host.strip_prefix("*.") {
                    Some(suffix) => router.wildcard.entry(suffix.to_owned()).or_default().push(rule()),
                    None => router.exact.entry(host).or_default().push(rule()),
                }
            }
        }
        let lists = router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]);
        for rules in lists {
            rules.sort_by(|a, b| b.priority.cmp(&a.priority).then(b.prefix.len().cmp(&a.prefix.len())));
        }
        router
    }

    /// The rule for a request to `path` at `host` (lower case, no port).
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Rule<T>> {
        let first = |rules: &'_ [Rule<T>]| rules.iter().position(|rule| rule.matches(path));
        let exact = self.exact.get(host).and_then(|rules| first(rules).map(|at| &rules[at]));
        let wildcard = host
            .split_once('.')
            .filter(|(label, _)| !label.is_empty())
            .and_then(|(_, suffix)| self.wildcard.get(suffix))
            .and_then(|rules| first(rules).map(|at| &rules[at]));
        let any = first(&self.any).map(|at| &self.any[at]);
        // From the least to the most specific host: of equal priorities, `max_by_key` keeps the last.
        [any, wildcard, exact].into_iter().flatten().max_by_key(|rule| rule.priority)
    }

    /// Whether any route names `host`, whatever the path.
    pub(crate) fn knows_host(&self, host: &str) -> bool {
        self.exact.contains_key(host)
            || host.split_once('.').is_some_and(|(_, suffix)| self.wildcard.contains_key(suffix))
    }
}

impl<T> Rule<T> {
    fn matches(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The prefix to cut off a path this rule matches, if it is to be cut off.
    pub(crate) fn stripped(&self) -> Option<&str> {
        (self.strip && !self.prefix.is_empty()).then_some(self.prefix.as_str())
    }
}
