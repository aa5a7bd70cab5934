//! Where a request would go, and why not elsewhere: for people.
//!
//! Owns no rule of matching: each route is asked by the router itself, alone and with parts of it taken away.

use crate::route::{Head, Router};
use crate::rule::plain;
use crate::table::Route;
use http::{HeaderMap, Method};

/// A request that is only thought of.
#[derive(Debug, Clone)]
pub struct Question {
    /// Without a port.
    pub host: String,
    pub path: String,
    pub method: Method,
    pub headers: HeaderMap,
    /// It would come with TLS.
    pub secure: bool,
}

/// What becomes of a question at one route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// This share of such requests goes this way.
    Taken(f64),
    /// It matches, but another does better.
    Outdone,
    OtherHost,
    OtherPath,
    /// A method, a header, or whether it has TLS.
    OtherConditions,
}

/// How many draws tell the shares of routes with weights.
const DRAWS: u32 = 1_000;

/// The fate at each route, in their order.
pub(crate) fn explain(routes: &[Route], question: &Question) -> Vec<Fate> {
    let (host, path) = (question.host.to_ascii_lowercase(), plain(&question.path));
    let (method, headers, secure) = (&question.method, &question.headers, question.secure);
    let head = Head { host: &host, path: &path, method, headers, secure };
    let numbered = |routes: &[Route]| {
        Router::new(routes, |route| (routes.iter().position(|one| std::ptr::eq(one, route)).unwrap_or(0), None))
    };
    let all = numbered(routes);
    let mut taken = vec![0_u32; routes.len()];
    for draw in 0..DRAWS {
        let random = u64::MAX / u64::from(DRAWS) * u64::from(draw);
        if let Some(count) = all.find(head, || random).and_then(|arm| taken.get_mut(arm.target)) {
            *count += 1;
        }
    }
    let matches = |route: Route| numbered(&[route]).find(head, || 0).is_some();
    let fate = |(route, taken): (&Route, &u32)| {
        if *taken > 0 {
            return Fate::Taken(f64::from(*taken) / f64::from(DRAWS));
        }
        let conditions = wire::spec::Conditions { exact: route.conditions.exact, ..Default::default() };
        let unconditional = Route { conditions, ..route.clone() };
        let everywhere = Route { path_prefix: "/".to_owned(), conditions: Default::default(), ..route.clone() };
        if !matches(everywhere) {
            Fate::OtherHost
        } else if !matches(unconditional) {
            Fate::OtherPath
        } else if !matches(route.clone()) {
            Fate::OtherConditions
        } else {
            Fate::Outdone
        }
    };
    routes.iter().zip(&taken).map(fate).collect()
}

#[cfg(test)]
mod tests {
    use super::{Fate, Question, explain};
    use crate::table::Route;
    use http::{HeaderMap, Method};

    fn route(host: &str, path: &str, service: &str) -> Route {
        let (hosts, path_prefix, service) = (vec![host.to_owned()], path.to_owned(), service.to_owned());
        Route { hosts, path_prefix, service, ..Route::default() }
    }

    #[test]
    fn every_route_says_why() {
        let mut get_only = route("a.test", "/api/v2", "get");
        get_only.conditions.methods = vec!["GET".to_owned()];
        let (mut blue, mut green) = (route("a.test", "/api", "blue"), route("a.test", "/api", "green"));
        (blue.weight, green.weight) = (Some(3), Some(1));
        let routes =
            [route("b.test", "/", "b"), route("a.test", "/", "a"), route("a.test", "/x", "x"), get_only, blue, green];
        let question = Question {
            host: "A.test".to_owned(),
            path: "/api/v2/x".to_owned(),
            method: Method::POST,
            headers: HeaderMap::new(),
            secure: false,
        };
        let fates = explain(&routes, &question);
        assert_eq!(fates[..4], [Fate::OtherHost, Fate::Outdone, Fate::OtherPath, Fate::OtherConditions]);
        let share = |fate: Fate| match fate {
            Fate::Taken(share) => share,
            Fate::Outdone | Fate::OtherHost | Fate::OtherPath | Fate::OtherConditions => panic!("{fate:?}"),
        };
        assert!((share(fates[4]) - 0.75).abs() < 0.01 && (share(fates[5]) - 0.25).abs() < 0.01, "{fates:?}");
    }
}
