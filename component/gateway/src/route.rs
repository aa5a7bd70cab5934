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

#[cfg(test)]
mod tests {
    use super::Router;
    use crate::table::Route;
    use proptest::prelude::*;

    fn route(hosts: &[&str], path_prefix: &str, priority: i32, service: &str) -> Route {
        Route {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path_prefix: path_prefix.to_owned(),
            strip_prefix: false,
            priority,
            service: service.to_owned(),
            port: 80,
        }
    }

    fn find(routes: &[Route], host: &str, path: &str) -> Option<String> {
        Router::new(routes, |route| route.service.clone()).find(host, path).map(|rule| rule.target.clone())
    }

    #[test]
    fn the_more_specific_route_answers() {
        let routes = [
            route(&[], "/", 0, "any"),
            route(&["*.shop.test"], "/", 0, "wild"),
            route(&["eu.shop.test"], "/", 0, "eu"),
            route(&["eu.shop.test"], "/api", 0, "eu-api"),
            route(&["eu.shop.test", "shop.test"], "/api/v2/", 0, "v2"),
            route(&["shop.test"], "/status", 5, "status"),
            route(&[], "/health", 9, "health"),
        ];
        let check = |host: &str, path: &str, expected: &str| {
            assert_eq!(find(&routes, host, path).as_deref(), Some(expected), "{host} {path}");
        };
        check("eu.shop.test", "/", "eu");
        check("eu.shop.test", "/api", "eu-api");
        check("eu.shop.test", "/api/", "eu-api");
        check("eu.shop.test", "/apis", "eu");
        check("eu.shop.test", "/api/v2", "v2");
        check("eu.shop.test", "/api/v2/x", "v2");
        check("us.shop.test", "/api", "wild");
        check("a.b.shop.test", "/", "any");
        check(".shop.test", "/", "any");
        check("shop.test", "/", "any");
        check("shop.test", "/status/x", "status");
        check("other.test", "/anything", "any");
        check("", "/", "any");
        check("eu.shop.test", "/health", "health");
    }

    #[test]
    fn what_no_route_names_is_not_found() {
        let routes = [route(&["shop.test"], "/api", 0, "api")];
        for (host, path) in [("shop.test", "/"), ("other.test", "/api"), ("shop.test", "/ap"), ("shop.test", "*")] {
            assert_eq!(find(&routes, host, path), None, "{host} {path}");
        }
    }

    /// The rule as one would write it down, without any index.
    fn slowly<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a str> {
        let mut best: Option<((i32, usize, usize), &Route)> = None;
        let mut ordered: Vec<&Route> = routes.iter().collect();
        ordered.sort_by_key(|route| std::cmp::Reverse((&route.service, route.port)));
        for route in ordered {
            let prefix = route.path_prefix.trim_end_matches('/');
            let matches = path == prefix || path.starts_with(&format!("{prefix}/"));
            let hosts = route.hosts.iter().filter_map(|pattern| match pattern.strip_prefix('*') {
                _ if pattern == host => Some(2),
                Some(end) => {
                    let label = host.strip_suffix(end)?;
                    (!label.is_empty() && !label.contains('.')).then_some(1)
                }
                None => None,
            });
            let host_rank = if route.hosts.is_empty() { Some(0) } else { hosts.max() };
            let Some(host_rank) = host_rank.filter(|_| matches) else { continue };
            let rank = (route.priority, host_rank, prefix.len());
            if best.is_none_or(|(known, _)| rank >= known) {
                best = Some((rank, route));
            }
        }
        best.map(|(_, route)| route.service.as_str())
    }

    fn routes() -> impl Strategy<Value = Vec<Route>> {
        let host = prop::sample::select(vec!["a.test", "b.test", "*.test", "*.a.test", "x.a.test", "test", "*.*"]);
        let path = prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/ab", "", "/a/b/c"]);
        let route = (prop::collection::vec(host, 0..3), path, -1..2_i32, 0..9_u32);
        let route = route.prop_map(|(hosts, path, priority, number)| route_of(&hosts, path, priority, number));
        prop::collection::vec(route, 0..8)
    }

    fn route_of(hosts: &[&str], path: &str, priority: i32, number: u32) -> Route {
        route(hosts, path, priority, &format!("s{number}"))
    }

    proptest! {
        #[test]
        fn the_index_answers_as_the_rule_does(
            mut routes in routes(),
            host in prop::sample::select(vec!["a.test", "x.a.test", "y.a.test", "test", "c.test", "", ".test", "q.x.a.test"]),
            path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/abc", "/a/b/c/d", "*", ""]),
        ) {
            let found = find(&routes, host, path);
            prop_assert_eq!(found.as_deref(), slowly(&routes, host, path));
            routes.reverse();
            prop_assert_eq!(find(&routes, host, path), found, "the order of the table means nothing");
        }

        #[test]
        fn any_text_may_be_asked_for(host in ".{0,40}", path in ".{0,40}", named in ".{0,20}", prefix in ".{0,20}") {
            let routes = [route(&[&named], &prefix, 0, "s"), route(&[], &prefix, 0, "t")];
            let router = Router::new(&routes, |route| route.service.clone());
            if let Some(rule) = router.find(&host, &path) {
                prop_assert!(path.starts_with(prefix.trim_end_matches('/')), "{}", rule.target);
            }
        }
    }
}
