//! Which service answers a request: by host, path, conditions and priority.
//!
//! Owns the matching rules. A priority beats all; then an exact host beats a wildcard label beats any host, an exact
//! path beats a prefix, a longer path a shorter one (whole segments only), more conditions fewer. Routes that match
//! alike share by weight, as soon as one of them has one. Pure; knows no connection. `T` is whatever stands for a
//! service.

use crate::rule::{Conditions, Rules, plain};
use crate::table::Route;
use http::{HeaderMap, Method};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What of a request decides its route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'r> {
    /// Lower case, no port.
    pub(crate) host: &'r str,
    /// As [`plain`] makes it.
    pub(crate) path: &'r str,
    pub(crate) method: &'r Method,
    pub(crate) headers: &'r HeaderMap,
    /// It came with TLS.
    pub(crate) secure: bool,
}

/// Routes made ready for look-ups.
#[derive(Debug)]
pub(crate) struct Router<T> {
    exact: HashMap<String, Vec<Entry<T>>>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Vec<Entry<T>>>,
    any: Vec<Entry<T>>,
}

/// Routes that match alike, under one host.
#[derive(Debug)]
struct Entry<T> {
    /// Of a prefix, without a slash at its end; empty matches every path.
    path: Arc<str>,
    exact: bool,
    priority: i32,
    /// What most routes do not have.
    conditions: Option<Arc<Conditions>>,
    /// Never empty; more than one only where they share.
    arms: Vec<Arm<T>>,
}

/// One route under one host.
#[derive(Debug, Clone)]
pub(crate) struct Arm<T> {
    strip: Option<Arc<str>>,
    weight: Option<u32>,
    pub(crate) rules: Option<Arc<Rules>>,
    pub(crate) target: T,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Router { exact: HashMap::new(), wildcard: HashMap::new(), any: Vec::new() }
    }
}

impl<T: Clone> Router<T> {
    /// Prepares `routes`; `target` says what stands for a route's service, and which rules it goes by.
    pub(crate) fn new(routes: &[Route], mut target: impl FnMut(&Route) -> (T, Option<Arc<Rules>>)) -> Router<T> {
        let mut router = Router::default();
        // Two routes that match alike are told apart by name, so that the order of the table means nothing.
        let mut ordered: Vec<&Route> = routes.iter().collect();
        ordered.sort_by(|a, b| (&a.service, a.port).cmp(&(&b.service, b.port)));
        for route in ordered {
            let (target, rules) = target(route);
            let exact = route.conditions.exact;
            let path = plain(&route.path_prefix);
            let path: Arc<str> = if exact { path.as_ref() } else { path.trim_end_matches('/') }.into();
            let has_cors = route.rules.as_ref().is_some_and(|rules| rules.cors.is_some());
            let conditions = Conditions::new(&route.conditions, has_cors).map(Arc::new);
            let entry = || Entry {
                path: Arc::clone(&path),
                exact,
                priority: route.priority,
                conditions: conditions.clone(),
                arms: vec![Arm {
                    strip: (route.strip_prefix && !path.is_empty()).then(|| Arc::clone(&path)),
                    weight: route.weight,
                    rules: rules.clone(),
                    target: target.clone(),
                }],
            };
            if route.hosts.is_empty() {
                router.any.push(entry());
            }
            let hosts: HashSet<String> = route.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
            for host in hosts {
                match host.strip_prefix("*.") {
                    Some(suffix) => router.wildcard.entry(suffix.to_owned()).or_default().push(entry()),
                    None => router.exact.entry(host).or_default().push(entry()),
                }
            }
        }
        let lists = router.exact.values_mut().chain(router.wildcard.values_mut()).chain([&mut router.any]);
        for entries in lists {
            *entries = ranked(std::mem::take(entries));
        }
        router
    }

    /// The route of a request. `random` is asked only where several share.
    pub(crate) fn find(&self, head: Head<'_>, random: impl FnOnce() -> u64) -> Option<&Arm<T>> {
        let first = |entries: &'_ [Entry<T>]| entries.iter().position(|entry| entry.matches(head));
        let exact = self.exact.get(head.host).and_then(|entries| first(entries).map(|at| &entries[at]));
        let wildcard = head
            .host
            .split_once('.')
            .filter(|(label, _)| !label.is_empty())
            .and_then(|(_, suffix)| self.wildcard.get(suffix))
            .and_then(|entries| first(entries).map(|at| &entries[at]));
        let any = first(&self.any).map(|at| &self.any[at]);
        // From the least to the most specific host: of equal priorities, `max_by_key` keeps the last.
        let entry = [any, wildcard, exact].into_iter().flatten().max_by_key(|entry| entry.priority)?;
        match entry.arms.as_slice() {
            [only] => Some(only),
            arms => shared(arms, random()),
        }
    }

    /// Whether any route names `host`, whatever the path.
    pub(crate) fn knows_host(&self, host: &str) -> bool {
        self.exact.contains_key(host)
            || host.split_once('.').is_some_and(|(_, suffix)| self.wildcard.contains_key(suffix))
    }
}

/// The entries in the order in which they are tried, those that match alike made into one.
fn ranked<T>(mut entries: Vec<Entry<T>>) -> Vec<Entry<T>> {
    entries.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let mut ranked: Vec<Entry<T>> = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let of_its_rank = ranked.iter_mut().rev().take_while(|known| known.rank() == entry.rank());
        match of_its_rank.into_iter().find(|known| known.conditions == entry.conditions) {
            Some(known) => known.arms.append(&mut entry.arms),
            None => ranked.push(entry),
        }
    }
    for entry in &mut ranked {
        if entry.arms.iter().all(|arm| arm.weight.is_none()) {
            entry.arms.truncate(1);
        }
    }
    ranked
}

/// The arm that `random` falls to, each having its weight of the range of all numbers.
fn shared<T>(arms: &[Arm<T>], random: u64) -> Option<&Arm<T>> {
    let weight = |arm: &Arm<T>| u128::from(arm.weight.unwrap_or(1));
    let total: u128 = arms.iter().map(weight).sum();
    let mut left = (u128::from(random) * total) >> u64::BITS;
    let chosen = arms.iter().find(|arm| {
        let weight = weight(arm);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    });
    // All of them may weigh nothing.
    chosen.or(arms.first())
}

impl<T> Entry<T> {
    fn matches(&self, head: Head<'_>) -> bool {
        let path_fits = match head.path.strip_prefix(&*self.path) {
            Some(rest) => rest.is_empty() || (!self.exact && rest.starts_with('/')),
            None => false,
        };
        path_fits
            && self.conditions.as_ref().is_none_or(|conditions| conditions.met(head.method, head.headers, head.secure))
    }

    /// Smaller is tried earlier.
    fn rank(&self) -> (Reverse<i32>, Reverse<bool>, Reverse<usize>, &str, Reverse<usize>) {
        let conditions = self.conditions.as_ref().map_or(0, |conditions| conditions.count());
        (Reverse(self.priority), Reverse(self.exact), Reverse(self.path.len()), &self.path, Reverse(conditions))
    }
}

impl<T> Arm<T> {
    /// The prefix to cut off a path this route matches, if it is to be cut off.
    pub(crate) fn stripped(&self) -> Option<&str> {
        self.strip.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::{Head, Router};
    use crate::table::Route;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use proptest::prelude::*;

    fn route(hosts: &[&str], path_prefix: &str, priority: i32, service: &str) -> Route {
        Route {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path_prefix: path_prefix.to_owned(),
            priority,
            service: service.to_owned(),
            port: 80,
            ..Route::default()
        }
    }

    fn find(routes: &[Route], host: &str, path: &str) -> Option<String> {
        find_by(routes, host, path, &Method::GET, &HeaderMap::new(), 0)
    }

    fn find_by(
        routes: &[Route],
        host: &str,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
        random: u64,
    ) -> Option<String> {
        let router = Router::new(routes, |route| (route.service.clone(), None));
        router.find(Head { host, path, method, headers, secure: false }, || random).map(|arm| arm.target.clone())
    }

    fn asking(path: &str, change: impl FnOnce(&mut Route), service: &str) -> Route {
        let mut route = route(&[], path, 0, service);
        change(&mut route);
        route
    }

    #[test]
    fn the_route_that_asks_for_more_answers() {
        let get = |route: &mut Route| route.conditions.methods = vec!["GET".to_owned()];
        let version = |route: &mut Route| drop(route.conditions.headers.insert("x-v".to_owned(), "2".to_owned()));
        let routes = [
            asking("/", |_| {}, "all"),
            asking("/", get, "get"),
            asking("/", version, "second"),
            asking(
                "/",
                |route| {
                    get(route);
                    version(route)
                },
                "get-second",
            ),
            asking("/api/", |route| route.conditions.exact = true, "exact"),
            asking("/api", |_| {}, "prefix"),
            asking("/api/v1", get, "longer"),
        ];
        let second = HeaderMap::from_iter([(HeaderName::from_static("x-v"), HeaderValue::from_static("2"))]);
        let check = |method: Method, path: &str, headers: &HeaderMap, expected: &str| {
            let found = find_by(&routes, "a.test", path, &method, headers, 0);
            assert_eq!(found.as_deref(), Some(expected), "{method} {path} {headers:?}");
        };
        check(Method::GET, "/", &HeaderMap::new(), "get");
        check(Method::POST, "/", &HeaderMap::new(), "all");
        check(Method::POST, "/", &second, "second");
        check(Method::GET, "/", &second, "get-second");
        check(Method::GET, "/api/", &HeaderMap::new(), "exact");
        check(Method::GET, "/api", &HeaderMap::new(), "prefix");
        check(Method::GET, "/api/x", &HeaderMap::new(), "prefix");
        check(Method::GET, "/api/v1/x", &HeaderMap::new(), "longer");
        check(Method::PUT, "/api/v1/x", &HeaderMap::new(), "prefix");
    }

    #[test]
    fn routes_that_match_alike_share_by_weight() {
        let share = |weights: [Option<u32>; 3]| {
            let routes: Vec<Route> = [("a", weights[0]), ("b", weights[1]), ("c", weights[2])]
                .map(|(name, weight)| asking("/", |route| route.weight = weight, name))
                .into();
            let router = Router::new(&routes, |route| (route.service.clone(), None));
            let mut counts = [0_u32; 3];
            for step in 0..1_000_u64 {
                let head =
                    Head { host: "", path: "/", method: &Method::GET, headers: &HeaderMap::new(), secure: false };
                let arm = router.find(head, || step * (u64::MAX / 1_000)).expect("all match");
                counts[usize::from(arm.target.as_bytes()[0] - b'a')] += 1;
            }
            counts.map(|count| (count + 5) / 10)
        };
        assert_eq!(share([None, None, None]), [100, 0, 0], "without weights the first by name answers");
        assert_eq!(share([Some(90), Some(10), Some(0)]), [90, 10, 0]);
        assert_eq!(share([Some(3), None, Some(1)]), [60, 20, 20]);
        assert_eq!(share([Some(0), Some(0), Some(0)]), [100, 0, 0]);
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

    /// Priority, host, exact, length of the path, conditions.
    type Rank = (i32, usize, bool, usize, usize);

    /// The rule as one would write it down, without any index.
    fn slowly<'a>(routes: &'a [Route], host: &str, path: &str, method: &str, random: u64) -> Option<&'a str> {
        let mut best: Option<(Rank, Vec<&Route>)> = None;
        let mut ordered: Vec<&Route> = routes.iter().collect();
        ordered.sort_by_key(|route| (&route.service, route.port));
        for route in ordered {
            let Route { conditions, path_prefix, .. } = route;
            let prefix = if conditions.exact { path_prefix } else { path_prefix.trim_end_matches('/') };
            let below = !conditions.exact && path.starts_with(&format!("{prefix}/"));
            let welcome = conditions.methods.is_empty() || conditions.methods.iter().any(|known| known == method);
            // No request of this test has a header.
            let matches = (path == prefix || below) && welcome && conditions.headers.is_empty();
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
            let asked = usize::from(!conditions.methods.is_empty());
            let rank = (route.priority, host_rank, conditions.exact, prefix.len(), asked);
            match &mut best {
                Some((known, _)) if rank < *known => {}
                Some((known, alike)) if rank == *known => alike.push(route),
                Some(_) | None => best = Some((rank, vec![route])),
            }
        }
        let (_, mut alike) = best?;
        let methods = alike[0].conditions.methods.clone();
        alike.retain(|route| route.conditions.methods == methods);
        if alike.iter().all(|route| route.weight.is_none()) {
            return Some(alike[0].service.as_str());
        }
        let tickets = alike.iter().flat_map(|route| vec![route; route.weight.unwrap_or(1) as usize]);
        let tickets: Vec<&&Route> = tickets.collect();
        let drawn = (u128::from(random) * tickets.len() as u128) >> 64;
        Some(tickets.get(drawn as usize).map_or(alike[0].service.as_str(), |route| route.service.as_str()))
    }

    fn routes() -> impl Strategy<Value = Vec<Route>> {
        let host = prop::sample::select(vec!["a.test", "b.test", "*.test", "*.a.test", "x.a.test", "test", "*.*"]);
        let path = prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/ab", "", "/a/b/c"]);
        let methods = prop::sample::select(vec![vec![], vec![], vec!["GET"], vec!["PUT"], vec!["GET", "PUT"]]);
        let more = (any::<bool>(), methods, prop::option::weighted(0.3, 0..3_u32), prop::bool::weighted(0.1));
        let route = (prop::collection::vec(host, 0..3), path, -1..2_i32, 0..9_u32, more);
        let route = route.prop_map(|(hosts, path, priority, number, (exact, methods, weight, header))| {
            let mut route = route_of(&hosts, path, priority, number);
            route.conditions.exact = exact;
            route.conditions.methods = methods.iter().map(ToString::to_string).collect();
            if header {
                route.conditions.headers.insert("x-a".to_owned(), String::new());
            }
            route.weight = weight;
            route
        });
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
            method in prop::sample::select(vec![Method::GET, Method::PUT, Method::POST]),
            random in any::<u64>(),
        ) {
            // What one service says twice goes by the order of its file.
            let mut seen = std::collections::HashSet::new();
            routes.retain(|route| seen.insert(route.service.clone()));
            let headers = HeaderMap::new();
            let found = find_by(&routes, host, path, &method, &headers, random);
            prop_assert_eq!(found.as_deref(), slowly(&routes, host, path, method.as_str(), random));
            routes.reverse();
            let again = find_by(&routes, host, path, &method, &headers, random);
            prop_assert_eq!(again, found, "the order of the table means nothing");
        }

        #[test]
        fn any_text_may_be_asked_for(host in ".{0,40}", path in ".{0,40}", named in ".{0,20}", prefix in ".{0,20}") {
            let routes = [route(&[&named], &prefix, 0, "s"), route(&[], &prefix, 0, "t")];
            if let Some(service) = find(&routes, &host, &path) {
                let prefix = super::plain(&prefix);
                prop_assert!(path.starts_with(prefix.trim_end_matches('/')), "{service}");
            }
        }
    }
}
