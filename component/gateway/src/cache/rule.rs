//! What a route says about its cache, made ready.

use super::meters::Meters;
use crate::table::Route;
use http::HeaderName;
use httpcache::Policy;
use meter::Meter;
use wire::spec::{IgnoreQuery, Rules};

/// An answer larger than this passes by, unless the route says otherwise.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// The cache of one route.
pub(crate) struct Rule {
    pub(crate) policy: Policy,
    /// Headers by which its answers differ, whatever they say.
    pub(crate) vary: Vec<HeaderName>,
    ignore: IgnoreQuery,
    pub(crate) answer_bytes_max: u64,
    pub(crate) meters: Meters,
    /// What the service is told besides: two routes that tell it different things share nothing.
    pub(crate) mark: String,
}

impl Rule {
    /// `None` for a route without a cache.
    pub(crate) fn new(route: &Route, rules: &Rules, meter: &Meter) -> Option<Rule> {
        let wanted = rules.cache.as_ref()?;
        Some(Rule {
            policy: Policy {
                default_ttl_ms: wanted.default_ttl_ms,
                stale_while_revalidate_ms: wanted.stale_while_revalidate_ms,
                stale_if_error_ms: wanted.stale_if_error_ms,
                keep_cookies: wanted.keep_cookies,
                obey_clients: wanted.obey_clients,
            },
            vary: wanted.vary.iter().filter_map(|name| name.parse().ok()).collect(),
            ignore: wanted.ignore_query.clone(),
            answer_bytes_max: wanted.answer_bytes_max.unwrap_or(ANSWER_BYTES_MAX),
            meters: Meters::new(meter, &route.service),
            mark: mark(route, rules),
        })
    }

    /// A path and query without what tells no answers apart.
    pub(crate) fn plain<'t>(&self, target: &'t str) -> std::borrow::Cow<'t, str> {
        let Some((path, query)) = target.split_once('?') else { return target.into() };
        match &self.ignore {
            IgnoreQuery::Nothing => target.into(),
            IgnoreQuery::All => path.into(),
            IgnoreQuery::Names(names) => {
                let name = |part: &str| part.split('=').next().unwrap_or_default().to_owned();
                let left: Vec<&str> = query.split('&').filter(|part| !names.contains(&name(part))).collect();
                if left.is_empty() { path.into() } else { format!("{path}?{}", left.join("&")).into() }
            }
        }
    }
}

/// Everything by which the same address means something else to the service.
fn mark(route: &Route, rules: &Rules) -> String {
    let Rules { add_prefix, replace_path, request_headers, .. } = rules;
    let cut = route.strip_prefix.then_some(&route.path_prefix);
    let asked = &route.conditions.headers;
    if cut.is_none() && add_prefix.is_none() && replace_path.is_none() && request_headers.is_empty() && asked.is_empty()
    {
        return String::new();
    }
    format!("{cut:?} {add_prefix:?} {replace_path:?} {request_headers:?} {asked:?}")
}

#[cfg(test)]
mod tests {
    use super::Rule;
    use crate::table::Route;
    use meter::Meter;
    use wire::spec::{Cache, IgnoreQuery, Rules};

    #[test]
    fn queries_count_as_far_as_the_route_says() {
        let check = |ignore_query: IgnoreQuery, target: &str, expected: &str| {
            let cache = Cache { ignore_query, ..Cache::default() };
            let rules = Rules { cache: Some(cache), ..Rules::default() };
            let rule = Rule::new(&Route::default(), &rules, &Meter::new()).expect("it has a cache");
            assert_eq!(rule.plain(target), expected, "{target}");
        };
        let names = || IgnoreQuery::Names(vec!["utm".to_owned(), "ref".to_owned()]);
        check(IgnoreQuery::Nothing, "/a?b=1&utm=2", "/a?b=1&utm=2");
        check(IgnoreQuery::All, "/a?b=1", "/a");
        check(names(), "/a?utm=2&b=1&ref", "/a?b=1");
        check(names(), "/a?utm=2", "/a");
        check(names(), "/a?utm2=2", "/a?utm2=2");
        check(names(), "/a", "/a");
    }
}
