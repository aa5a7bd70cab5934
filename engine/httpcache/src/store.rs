//! Whether an answer may be stored, and on which terms (RFC 9111, sections 3 and 4.2).

use crate::date::{http_date, parse_date};
use crate::directive::{Directives, says_no_cache, seconds};
use crate::policy::Policy;
use crate::terms::Terms;
use crate::vary::{Variance, variance};
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};

/// A tenth of the time since it was last modified, as RFC 9111 (section 4.2.2) suggests…
const HEURISTIC_PART: u64 = 10;
/// …and no more than a day: nobody thought of caches when they left it open.
const HEURISTIC_MS_MAX: u64 = 86_400_000;
/// Statuses whose answers may be kept though they do not say for how long (RFC 9110, section 15.1).
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
/// Beside those, statuses whose meaning is known: what `must-understand` asks for (RFC 9110, section 15).
const UNDERSTOOD: [u16; 25] = [
    201, 202, 205, 302, 303, 307, 400, 401, 402, 403, 406, 407, 408, 409, 411, 412, 413, 415, 416, 417, 421, 422, 426,
    500, 503,
];

/// Headers about one connection, or between two ends of it: they are not the answer's.
const NOT_KEPT: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // It is told to caches only, and this is the last.
    HeaderName::from_static("surrogate-control"),
];

/// An answer to a GET as it came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// As the client sent it.
    pub request: &'a HeaderMap,
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    /// When the request was sent on.
    pub asked_ms: u64,
    pub received_ms: u64,
}

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The answer forbids it.
    NoStore,
    /// It is for one client.
    Private,
    /// The request had credentials, and the answer does not say that it is for all.
    Credentials,
    /// It sets a cookie.
    Cookie,
    /// It varies by what no request shows.
    Varies,
    /// A part of a whole, no answer of its own, or a status that `must-understand` is about.
    Status,
    /// It says neither how long it is fresh nor how to ask whether it still is.
    NoLifetime,
}

impl Refused {
    /// For people and for `cache-status`.
    pub fn word(self) -> &'static str {
        match self {
            Refused::NoStore => "no-store",
            Refused::Private => "private",
            Refused::Credentials => "authorization",
            Refused::Cookie => "set-cookie",
            Refused::Varies => "vary",
            Refused::Status => "status",
            Refused::NoLifetime => "no-lifetime",
        }
    }
}

/// The terms on which the answer to a GET may be stored, or why it may not.
pub fn storable(policy: &Policy, arrival: &Arrival<'_>) -> Result<Terms, Refused> {
    let said = Directives::of_answer(arrival.headers);
    let status = arrival.status.as_u16();
    if !(200..600).contains(&status) || matches!(status, 206 | 304) {
        return Err(Refused::Status);
    }
    let understood = HEURISTIC.contains(&status) || UNDERSTOOD.contains(&status);
    match (said.must_understand, said.no_store) {
        (true, _) if !understood => return Err(Refused::Status),
        (true, _) | (false, false) => {}
        (false, true) => return Err(Refused::NoStore),
    }
    if said.private {
        return Err(Refused::Private);
    }
    if arrival.request.contains_key(header::AUTHORIZATION) && !says_for_all(&said) {
        return Err(Refused::Credentials);
    }
    if !policy.keep_cookies && arrival.headers.contains_key(header::SET_COOKIE) {
        return Err(Refused::Cookie);
    }
    if variance(arrival.headers, &[]) == Variance::Any {
        return Err(Refused::Varies);
    }
    let lifetime = lifetime(policy, &said, arrival);
    let terms = terms(policy, &said, arrival, lifetime.unwrap_or(0));
    let asked_again = arrival.headers.contains_key(header::ETAG) || arrival.headers.contains_key(header::LAST_MODIFIED);
    let used_stale = said.stale_while_revalidate_s.is_some() || said.stale_if_error_s.is_some();
    let usable = !terms.always_validate && (terms.fresh_ms > terms.age_ms || (lifetime.is_some() && used_stale));
    if usable || asked_again { Ok(terms) } else { Err(Refused::NoLifetime) }
}

/// Whether an answer says that it is the same for clients with credentials and without (RFC 9111, section 3.5). It is given to
/// the former only then, though the RFC would let what was asked for without credentials be given to all: a service that makes
/// pages for those that are logged in, and forgets to say so, is more common than one that minds being asked.
pub fn is_for_all(answer: &HeaderMap) -> bool {
    says_for_all(&Directives::of_answer(answer))
}

fn says_for_all(said: &Directives) -> bool {
    said.public || said.must_revalidate || said.s_maxage_s.is_some()
}

/// The headers of an answer as they are kept.
pub fn stored_headers(headers: &HeaderMap, received_ms: u64) -> HeaderMap {
    let mut kept = headers.clone();
    let said = Directives::of_answer(headers);
    let of_connection: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in NOT_KEPT.iter().chain(&of_connection).chain(&said.withheld) {
        kept.remove(name);
    }
    // It counts from when it is used.
    kept.remove(header::AGE);
    if !kept.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::try_from(http_date(received_ms / 1_000))
    {
        kept.insert(header::DATE, date);
    }
    kept
}

/// How long the answer is fresh from when it was made; `None` when nothing says.
fn lifetime(policy: &Policy, said: &Directives, arrival: &Arrival<'_>) -> Option<u64> {
    if let Some(seconds) = said.s_maxage_s.or(said.max_age_s) {
        return Some(seconds * 1_000);
    }
    let now_s = arrival.received_ms / 1_000;
    let date_s = one(arrival.headers, &header::DATE).and_then(|date| parse_date(date.as_bytes(), now_s));
    if !said.targeted && arrival.headers.contains_key(header::EXPIRES) {
        let expires_s = one(arrival.headers, &header::EXPIRES).and_then(|date| parse_date(date.as_bytes(), now_s));
        // What is no date is in the past (RFC 9111, section 5.3).
        return Some(expires_s.map_or(0, |expires_s| expires_s.saturating_sub(date_s.unwrap_or(now_s)) * 1_000));
    }
    let may_guess = HEURISTIC.contains(&arrival.status.as_u16()) || said.public;
    if !may_guess || said.no_cache {
        return None;
    }
    if let Some(default_ttl_ms) = policy.default_ttl_ms {
        return Some(default_ttl_ms);
    }
    // What a client with a cookie got may be meant for it, where nobody says otherwise.
    if arrival.request.contains_key(header::COOKIE) || says_no_cache(arrival.headers) {
        return None;
    }
    let modified = one(arrival.headers, &header::LAST_MODIFIED)?;
    let modified_s = parse_date(modified.as_bytes(), now_s)?;
    let unchanged_ms = date_s.unwrap_or(now_s).saturating_sub(modified_s) * 1_000;
    Some((unchanged_ms / HEURISTIC_PART).min(HEURISTIC_MS_MAX))
}

fn terms(policy: &Policy, said: &Directives, arrival: &Arrival<'_>, fresh_ms: u64) -> Terms {
    let now_s = arrival.received_ms / 1_000;
    let date_s = one(arrival.headers, &header::DATE).and_then(|date| parse_date(date.as_bytes(), now_s));
    let apparent_ms = now_s.saturating_sub(date_s.unwrap_or(now_s)) * 1_000;
    let told_ms = age_s(arrival.headers) * 1_000;
    let delay_ms = arrival.received_ms.saturating_sub(arrival.asked_ms);
    let forbidden = said.must_revalidate || said.proxy_revalidate;
    // Explicit permission beside `s-maxage` is meant, what was only set for the route is not.
    let cautious = forbidden || said.s_maxage_s.is_some();
    let allowed_ms = |said: Option<u64>, wanted: Option<u64>| match said {
        _ if forbidden => 0,
        Some(seconds) => seconds * 1_000,
        None if cautious => 0,
        None => wanted.unwrap_or(0),
    };
    let if_disconnected = Some(policy.stale_if_disconnected_ms());
    Terms {
        received_ms: arrival.received_ms,
        age_ms: apparent_ms.max(told_ms.saturating_add(delay_ms)),
        fresh_ms,
        stale_while_revalidate_ms: allowed_ms(said.stale_while_revalidate_s, policy.stale_while_revalidate_ms),
        stale_if_error_ms: allowed_ms(said.stale_if_error_s, policy.stale_if_error_ms),
        stale_if_disconnected_ms: allowed_ms(said.stale_if_error_s, if_disconnected),
        always_validate: said.no_cache,
    }
}

/// The first number of `age`; what is none counts as nothing (RFC 9111, section 5.1).
fn age_s(headers: &HeaderMap) -> u64 {
    let first = headers.get(header::AGE).map(HeaderValue::as_bytes).unwrap_or_default();
    let first = first.split(|byte| *byte == b',').next().unwrap_or_default();
    seconds(first.trim_ascii()).unwrap_or(0)
}

/// The value of a header that may be there once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut all = headers.get_all(name).into_iter();
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Refused, storable, stored_headers};
    use crate::date::http_date;
    use crate::{Policy, Terms};
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use proptest::prelude::*;

    const NOW_S: u64 = 1_795_000_000;
    const NOW_MS: u64 = NOW_S * 1_000;
    const HOUR_MS: u64 = 3_600_000;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn judged(policy: &Policy, asked: &[(&str, &str)], status: u16, said: &[(&str, &str)]) -> Result<Terms, Refused> {
        let (request, headers) = (headers(asked), headers(said));
        let status = StatusCode::from_u16(status).unwrap();
        let arrival = Arrival { request: &request, status, headers: &headers, asked_ms: NOW_MS, received_ms: NOW_MS };
        storable(policy, &arrival)
    }

    fn fresh_ms(policy: &Policy, status: u16, said: &[(&str, &str)]) -> Result<u64, Refused> {
        judged(policy, &[], status, said).map(|terms| terms.fresh_ms)
    }

    #[test]
    fn lifetimes_come_from_the_nearest_word() {
        let at = |offset_s: i64| http_date(NOW_S.saturating_add_signed(offset_s));
        let (now, soon, past, day) = (at(0), at(60), at(-60), at(-86_400));
        let check = |said: &[(&str, &str)], expected| {
            assert_eq!(fresh_ms(&Policy::default(), 200, said), expected, "{said:?}");
        };
        check(&[("cache-control", "max-age=60")], Ok(60_000));
        check(&[("cache-control", "max-age=1, s-maxage=60")], Ok(60_000));
        check(&[("cache-control", "max-age=60"), ("expires", &past)], Ok(60_000));
        check(&[("cache-control", "max-age=0"), ("expires", &soon)], Err(Refused::NoLifetime));
        check(&[("expires", &soon), ("date", &now)], Ok(60_000));
        check(&[("expires", &soon), ("date", "foo")], Ok(60_000));
        check(&[("expires", "0"), ("date", &now)], Err(Refused::NoLifetime));
        check(&[("expires", &soon), ("expires", &soon), ("date", &now)], Err(Refused::NoLifetime));
        check(&[("expires", &soon), ("date", &now), ("age", "60")], Err(Refused::NoLifetime));
        check(&[("last-modified", &day), ("date", &now)], Ok(8_640_000));
        check(&[("last-modified", &at(-86_400 * 365)), ("date", &now)], Ok(86_400_000));
        check(&[("last-modified", &day), ("pragma", "no-cache"), ("date", &now)], Ok(0));
        check(&[], Err(Refused::NoLifetime));
        check(&[("etag", "\"a\"")], Ok(0));
        check(&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60"), ("expires", &past)], Ok(60_000));
    }

    #[test]
    fn only_statuses_that_may_be_guessed_are_guessed() {
        let day = http_date(NOW_S - 86_400);
        let check = |status: u16, said: &[(&str, &str)], expected: bool| {
            let found = fresh_ms(&Policy::default(), status, said).is_ok_and(|fresh_ms| fresh_ms > 0);
            assert_eq!(found, expected, "{status} {said:?}");
        };
        for status in [200, 203, 204, 301, 308, 404, 405, 410, 414, 501] {
            check(status, &[("last-modified", &day)], true);
        }
        for status in [201, 202, 302, 403, 500, 502, 503, 504, 599] {
            check(status, &[("last-modified", &day)], false);
            check(status, &[("cache-control", "max-age=9")], true);
        }
        check(599, &[("last-modified", &day), ("cache-control", "public")], true);
        check(599, &[("cache-control", "max-age=9, no-store, must-understand")], false);
        check(200, &[("cache-control", "max-age=9, no-store, must-understand")], true);
        check(206, &[("cache-control", "max-age=9")], false);
        check(304, &[("cache-control", "max-age=9")], false);
    }

    #[test]
    fn what_is_for_one_client_is_not_kept() {
        let check = |asked: &[(&str, &str)], said: &[(&str, &str)], expected| {
            let found = judged(&Policy::default(), asked, 200, said).map(|_| ());
            assert_eq!(found, expected, "{asked:?} {said:?}");
        };
        let login = [("authorization", "x")];
        check(&login, &[("cache-control", "max-age=9")], Err(Refused::Credentials));
        for for_all in ["max-age=9, public", "max-age=9, must-revalidate", "s-maxage=9"] {
            check(&login, &[("cache-control", for_all)], Ok(()));
        }
        check(&[], &[("cache-control", "max-age=9, private")], Err(Refused::Private));
        check(&[], &[("cache-control", "max-age=9, private=\"x\"")], Ok(()));
        check(&[], &[("cache-control", "max-age=9"), ("set-cookie", "a=b")], Err(Refused::Cookie));
        check(&[], &[("cache-control", "max-age=9"), ("vary", "*")], Err(Refused::Varies));
        check(&[("cookie", "a=b")], &[("cache-control", "max-age=9")], Ok(()));
        let day = http_date(NOW_S - 86_400);
        let guessed = judged(&Policy::default(), &[("cookie", "a=b")], 200, &[("last-modified", &day)]);
        assert_eq!(guessed.map(|terms| terms.fresh_ms), Ok(0), "nothing is guessed for who has a cookie");
        let policy = Policy { keep_cookies: true, ..Policy::default() };
        assert!(judged(&policy, &[], 200, &[("cache-control", "max-age=9"), ("set-cookie", "a=b")]).is_ok());
    }

    #[test]
    fn ages_add_up_and_nonsense_counts_for_nothing() {
        let check = |said: &[(&str, &str)], expected: u64| {
            let said: Vec<_> = said.iter().copied().chain([("cache-control", "max-age=4000000000")]).collect();
            let age_ms = judged(&Policy::default(), &[], 200, &said).map(|terms| terms.age_ms);
            assert_eq!(age_ms, Ok(expected), "{said:?}");
        };
        check(&[], 0);
        check(&[("age", "7")], 7_000);
        check(&[("age", "7, 0")], 7_000);
        check(&[("age", "0, 7")], 0);
        check(&[("age", "7"), ("age", "0")], 7_000);
        for nonsense in ["abc", "-7", "7.0", "7;a=b", ""] {
            check(&[("age", nonsense)], 0);
        }
        check(&[("date", &http_date(NOW_S - 9))], 9_000);
        check(&[("date", &http_date(NOW_S - 9)), ("age", "20")], 20_000);
        check(&[("date", &http_date(NOW_S + 9))], 0);
        assert_eq!(fresh_ms(&Policy::default(), 200, &[("cache-control", "max-age=9"), ("age", "2147483649")]), {
            Err(Refused::NoLifetime)
        });
    }

    #[test]
    fn stale_answers_are_allowed_by_the_service_and_the_route_and_forbidden_by_the_service() {
        let policy =
            Policy { stale_while_revalidate_ms: Some(1_000), stale_if_error_ms: Some(2_000), ..Policy::default() };
        let check = |policy: &Policy, value: &str, expected: [u64; 3]| {
            let terms = judged(policy, &[], 200, &[("cache-control", value)]).expect("it is stored");
            let found = [terms.stale_while_revalidate_ms, terms.stale_if_error_ms, terms.stale_if_disconnected_ms];
            assert_eq!(found, expected, "{value}");
        };
        check(&Policy::default(), "max-age=9", [0, 0, HOUR_MS]);
        check(&policy, "max-age=9", [1_000, 2_000, 2_000]);
        check(&policy, "max-age=9, stale-while-revalidate=5, stale-if-error=6", [5_000, 6_000, 6_000]);
        check(&policy, "s-maxage=9", [0, 0, 0]);
        check(&policy, "s-maxage=9, stale-while-revalidate=5", [5_000, 0, 0]);
        check(&policy, "max-age=9, must-revalidate, stale-while-revalidate=5", [0, 0, 0]);
        check(&policy, "max-age=9, proxy-revalidate", [0, 0, 0]);
    }

    #[test]
    fn a_route_may_say_how_long_where_the_service_does_not() {
        let policy = Policy { default_ttl_ms: Some(7_000), ..Policy::default() };
        assert_eq!(fresh_ms(&policy, 200, &[]), Ok(7_000));
        assert_eq!(fresh_ms(&policy, 500, &[]), Err(Refused::NoLifetime));
        assert_eq!(fresh_ms(&policy, 200, &[("cache-control", "max-age=1")]), Ok(1_000));
        assert_eq!(fresh_ms(&policy, 200, &[("cache-control", "no-store")]), Err(Refused::NoStore));
        assert_eq!(fresh_ms(&policy, 200, &[("cache-control", "no-cache")]), Err(Refused::NoLifetime));
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_kept() {
        let said = headers(&[
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("cache-control", "max-age=9, no-cache=\"x-once\", private=\"x-own\""),
            ("x-once", "1"),
            ("x-own", "1"),
            ("age", "5"),
            ("etag", "\"a\""),
        ]);
        let kept = stored_headers(&said, NOW_MS);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "date", "etag"]);
        assert_eq!(kept["date"], http_date(NOW_S).as_str());
    }

    proptest! {
        #[test]
        fn no_answer_forbids_storing_and_is_stored(
            value in "(max-age=[0-9]{1,3}|public|s-maxage=9|foo|no-cache)(, ?(public|immutable|a=\"b,c\")){0,3}",
            forbids in prop::sample::select(vec!["no-store", "private", "NO-STORE", "Private"]),
            before in any::<bool>(),
        ) {
            let value = if before { format!("{forbids}, {value}") } else { format!("{value},{forbids}") };
            let found = judged(&Policy { default_ttl_ms: Some(1), ..Policy::default() }, &[], 200, &[("cache-control", &value)]);
            prop_assert!(matches!(found, Err(Refused::NoStore | Refused::Private)), "{} {:?}", value, found);
        }

        #[test]
        fn nothing_panics(value in "[ -~]{0,50}", age in "[ -~]{0,20}", expires in "[ -~]{0,40}") {
            let said = [("cache-control", value.as_str()), ("age", &age), ("expires", &expires), ("etag", "\"a\"")];
            let _ = judged(&Policy::default(), &[], 200, &said);
        }
    }
}
