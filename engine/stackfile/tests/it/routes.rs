//! What routes say beyond host and path, in `x-bramble` and in Traefik's labels, and how it is refused.

use crate::support::{Case, errors, warnings, web_source};
use std::collections::BTreeMap;
use wire::spec::{
    AccessLog, Aside, Balance, Ban, BasicAuth, Cache, Coding, Compress, Conditions, Cors, Delivery, ForwardAuth,
    HashKey, Hedge, IgnoreQuery, Mirror, PriorityClass, RateKey, RateLimit, Redirect, Route, Rules,
};

const BCRYPT: &str = "$2y$05$P6wIgCSN38XRY0s63Vq8C.0CN8TgU2k.wT5jehAHTpNzA4oSI3.qa";
const SHA1: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";

/// The one route of `x-bramble` with these keys.
#[track_caller]
fn route(keys: &str) -> Route {
    let routes = Case::new().web(&format!("x-bramble: {{routes: [{{port: 80, {keys}}}]}}")).routes;
    let [route] = &routes[..] else { panic!("one route: {routes:?}") };
    route.clone()
}

#[track_caller]
fn rules(keys: &str, expected: Rules) {
    assert_eq!(route(keys).rules, Some(Box::new(expected)), "{keys}");
}

/// The errors of a route with these keys, from its key on.
#[track_caller]
fn refused(keys: &str, expected: &[&str]) {
    let report =
        Case::new().parse(web_source(&format!("x-bramble:\n  routes:\n    - port: 80\n{}", indented(keys)))).report;
    let found: Vec<String> = errors(&report).iter().map(|line| line.replace("services.web.x-bramble.", "")).collect();
    assert_eq!(found, expected, "{keys}");
    // Where the message names what would be right, there is no more to say.
    let says_all = |message: &str| message.contains("whole number") || message.contains("not one of");
    assert!(report.errors.iter().all(|error| !error.hint.is_empty() || says_all(&error.message)), "{keys}");
}

fn indented(keys: &str) -> String {
    keys.lines().map(|line| format!("      {line}\n")).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn a_route_asks_for_methods_headers_and_exact_paths() {
    let asking = route("path: /a, exact: true, methods: [get, POST], headers: {X-Version: '2', X-Any: }, weight: 5");
    let conditions = Conditions {
        exact: true,
        methods: list(&["GET", "POST"]),
        headers: map(&[("x-version", "2"), ("x-any", "")]),
        plain: false,
    };
    assert_eq!((asking.conditions, asking.weight, asking.rules), (conditions, Some(5), None));
    let plain = route("path: /a");
    assert!(plain.conditions.is_none() && plain.weight.is_none() && plain.rules.is_none());
    assert_eq!(route("maintenance: false, allow: []").rules, None, "what says nothing is nothing");
}

#[test]
fn a_route_rewrites_redirects_and_changes_headers() {
    rules("strip_prefix: true, add_prefix: /v1/", Rules { add_prefix: Some("/v1".into()), ..Rules::default() });
    rules("replace_path: /x", Rules { replace_path: Some("/x".into()), ..Rules::default() });
    let redirect = |to: &str, status, plain_only| Rules {
        redirect: Some(Redirect { to: to.into(), status, plain_only }),
        ..Rules::default()
    };
    rules("redirect: https", redirect("https://{host}{path}", 308, true));
    rules("redirect: {to: 'https://new.test{path}', status: 301}", redirect("https://new.test{path}", 301, false));
    rules(
        "request_headers: {X-A: '1', X-B: ''}, response_headers: [X-C=d e]",
        Rules {
            request_headers: map(&[("x-a", "1"), ("x-b", "")]),
            response_headers: map(&[("x-c", "d e")]),
            ..Rules::default()
        },
    );
}

#[test]
fn a_route_has_guards() {
    rules(
        "allow: [10.0.0.0/8, '::1'], deny: 10.0.0.1",
        Rules { allow: list(&["10.0.0.0/8", "::1"]), deny: list(&["10.0.0.1"]), ..Rules::default() },
    );
    let users = map(&[("ann", BCRYPT), ("bob", SHA1)]);
    let auth = Some(BasicAuth { users, realm: "restricted".into(), hide: false });
    let doubled = BCRYPT.replace('$', "$$");
    rules(
        &format!("basic_auth: {{users: {{ann: '{doubled}', bob: '{SHA1}'}}}}"),
        Rules { basic_auth: auth.clone(), ..Rules::default() },
    );
    rules(
        &format!("basic_auth: {{users: ['ann:{doubled}', 'bob:{SHA1}']}}"),
        Rules { basic_auth: auth, ..Rules::default() },
    );
    let limit = |requests, period_ms, burst, by| Rules {
        rate_limit: Some(RateLimit { requests, period_ms, burst, by }),
        ..Rules::default()
    };
    rules("rate_limit: {requests: 100}", limit(100, 1_000, 100, RateKey::Address));
    rules(
        "rate_limit: {requests: 9, period: 1m, burst: 3, by: 'header:X-Key'}",
        limit(9, 60_000, 3, RateKey::Header("x-key".into())),
    );
    rules("rate_limit: {requests: 9, by: route}", limit(9, 1_000, 9, RateKey::Route));
    rules(
        "body_max: 10m, timeout: 30s, maintenance: true",
        Rules {
            body_bytes_max: Some(10 << 20),
            answer_deadline_ms: Some(30_000),
            maintenance: Some(String::new()),
            ..Rules::default()
        },
    );
    rules("maintenance: back at noon", Rules { maintenance: Some("back at noon".into()), ..Rules::default() });
    let cache = |cache| Rules { cache: Some(cache), ..Rules::default() };
    rules("cache: true", cache(Cache::default()));
    assert_eq!(route("cache: false").rules, None);
    rules("cache: {}", cache(Cache::default()));
    rules("cache: {ignore_query: yes}", cache(Cache { ignore_query: IgnoreQuery::All, ..Cache::default() }));
    rules(
        "cache: {default_ttl: 1m, stale_while_revalidate: 10s, stale_if_error: 1h, max_bytes: 1m, ignore_query: [utm, ref], \
         vary: Accept-Language, set_cookie: true, obey_clients: true}",
        cache(Cache {
            default_ttl_ms: Some(60_000),
            stale_while_revalidate_ms: Some(10_000),
            stale_if_error_ms: Some(3_600_000),
            answer_bytes_max: Some(1 << 20),
            ignore_query: IgnoreQuery::Names(list(&["utm", "ref"])),
            vary: list(&["accept-language"]),
            keep_cookies: true,
            obey_clients: true,
        }),
    );
    let cors = Cors {
        origins: list(&["https://a.test"]),
        methods: list(&["PUT"]),
        headers: list(&["x-token"]),
        expose: list(&["x-total"]),
        credentials: true,
        max_age_s: Some(600),
    };
    rules(
        "cors: {origins: ['https://A.test'], methods: [put], headers: [X-Token], expose: X-Total, credentials: yes, max_age: 10m}",
        Rules { cors: Some(cors), ..Rules::default() },
    );
    rules(
        "cors: {origins: '*'}",
        Rules { cors: Some(Cors { origins: list(&["*"]), ..Cors::default() }), ..Rules::default() },
    );
}

#[test]
fn everything_wrong_is_said_at_once() {
    refused(
        "methods: [GET, 'a b']\nheaders: {'x y': '1', host: a.b}\nweight: -1\nadd_prefix: x\nredirect: nowhere\n\
         request_headers: {Content-Length: '1', X-A: \"a\\nb\"}\nresponse_headers: {Transfer-Encoding: '', Connection: close}",
        &[
            "7:26 routes[0].methods[1]: `a b` is not a method",
            "8:28 routes[0].headers.x y: `x y` is not the name of a header",
            "8:39 routes[0].headers.host: `host` is no condition",
            "9:19 routes[0].weight: `-1` is not a whole number from 0 to 10000",
            "10:23 routes[0].add_prefix: `x` is not a path",
            "11:21 routes[0].redirect: `nowhere` is nowhere to be sent to",
            "12:45 routes[0].request_headers.Content-Length: `Content-Length` is not a header that may be changed",
            "12:55 routes[0].request_headers.X-A: `a b` is not the value of a header",
            "13:49 routes[0].response_headers.Transfer-Encoding: `Transfer-Encoding` is not a header that may be changed",
            "13:65 routes[0].response_headers.Connection: `Connection` is not a header that may be changed",
        ],
    );
    refused(
        "allow: [10.0.0.0/33, localhost]\nbasic_auth: {users: {ann: secret}, realm: 'a\"b'}\nrate_limit: {period: 0s, by: moon}\n\
         body_max: big\ntimeout: 1h\ncors: {origins: [a.test], credentials: true, nmae: x}",
        &[
            "7:19 routes[0].allow[0]: `10.0.0.0/33` has too many bits after the slash",
            "7:32 routes[0].allow[1]: `localhost` is not an address or network",
            "8:37 routes[0].basic_auth.users.ann: what stands for `ann` is not a hash of bcrypt, apr1 or SHA1",
            "8:53 routes[0].basic_auth.realm: `a\"b` is not a realm",
            "9:11 routes[0].rate_limit: the rate has no `requests`",
            "9:32 routes[0].rate_limit.period: `0s` is no time at all",
            "9:40 routes[0].rate_limit.by: `moon` tells no clients apart",
            "10:21 routes[0].body_max: `big` is not a size",
            "11:20 routes[0].timeout: `1h` is too long",
            "12:28 routes[0].cors.origins[0]: `a.test` is not an origin",
            "12:56 routes[0].cors.nmae: unknown key `nmae`",
        ],
    );
    refused(
        "strip_prefix: true\nreplace_path: /x",
        &["8:25 routes[0].replace_path: the whole path is replaced, so nothing is cut off or added"],
    );
    refused(
        "cache: {default_ttl: 2y, max_bytes: 9m, ignore_query: ['a=b'], vary: 'a b', ttl: 1}",
        &[
            "7:32 routes[0].cache.default_ttl: `2y` is not a duration",
            "7:47 routes[0].cache.max_bytes: `9m` is not a size from 1 to 8m",
            "7:66 routes[0].cache.ignore_query[0]: `a=b` is no name in a query",
            "7:80 routes[0].cache.vary: `a b` is not the name of a header",
            "7:87 routes[0].cache.ttl: unknown key `ttl`",
        ],
    );
    refused("cache: 5m", &["7:18 routes[0].cache: `5m` is no cache"]);
    refused("basic_auth: {}", &["7:11 routes[0].basic_auth: nobody would be let in"]);
    refused("cors: {}", &["7:11 routes[0].cors: no page may read anything: there are no `origins`"]);
    refused(
        "cors: {origins: '*', credentials: true}",
        &["7:11 routes[0].cors: `credentials` and `*` do not go together: browsers refuse both"],
    );
    refused(
        "redirect: {status: 200}",
        &[
            "7:11 routes[0].redirect: the redirect has no `to`",
            "7:30 routes[0].redirect.status: `200` is not one of `301`, `302`, `303`, `307`, `308`",
        ],
    );
}

/// A router `r` with these further labels; each line is one.
#[track_caller]
fn labelled(rule: &str, middlewares: &str, lines: &[&str]) -> (Vec<Route>, Vec<String>) {
    let labels: String = lines.iter().map(|line| format!("\n  - 'traefik.http.middlewares.{line}'")).collect();
    let used = if middlewares.is_empty() {
        String::new()
    } else {
        format!("\n  - traefik.http.routers.r.middlewares={middlewares}")
    };
    let source =
        web_source(&format!("expose: ['80']\nlabels:\n  - 'traefik.http.routers.r.rule={rule}'{used}{labels}"));
    let parsed = Case::new().parse(&source);
    assert_eq!(errors(&parsed.report), Vec::<String>::new(), "{source}");
    let warned =
        warnings(&parsed.report).iter().filter_map(|line| Some(line.split_once("]: ")?.1.to_string())).collect();
    (parsed.stack.expect("no errors").services["web"].routes.clone(), warned)
}

/// What a middleware `m` with these labels makes of the route, and what is said about it.
#[track_caller]
fn becomes(lines: &[&str], expected: Rules, said: &[&str]) {
    let lines: Vec<String> = lines.iter().map(|line| format!("m.{line}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (routes, warned) = labelled("Host(`a.b`)", "m", &lines);
    let [route] = &routes[..] else { panic!("one route: {routes:?} {warned:?}") };
    assert_eq!(route.rules.clone().unwrap_or_default(), Box::new(expected), "{lines:?}");
    assert_eq!(warned, said, "{lines:?}");
}

/// A middleware `m` with these labels makes no route.
#[track_caller]
fn closes(lines: &[&str], said: &str) {
    let lines: Vec<String> = lines.iter().map(|line| format!("m.{line}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (routes, warned) = labelled("Host(`a.b`)", "m", &lines);
    assert_eq!(routes, [], "{lines:?}");
    assert_eq!(warned, [format!("the router `r` makes no route: its middleware `m` {said}")], "{lines:?}");
}

#[test]
fn traefiks_rules_become_conditions() {
    let (routes, warned) = labelled("Host(`a.b`) && Path(`/x`) && Method(`GET`) && Header(`X-A`, `1`)", "", &[]);
    assert_eq!(warned, Vec::<String>::new());
    let expected = Conditions { exact: true, methods: list(&["GET"]), headers: map(&[("x-a", "1")]), plain: false };
    assert_eq!((routes[0].path_prefix.as_str(), &routes[0].conditions), ("/x", &expected));
    let (routes, _) = labelled("Host(`a.b`) && (Path(`/x`) || PathPrefix(`/x`))", "", &[]);
    assert_eq!(routes.iter().map(|route| route.conditions.exact).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn traefiks_middlewares_become_rules() {
    becomes(&["addprefix.prefix=/v1"], Rules { add_prefix: Some("/v1".into()), ..Rules::default() }, &[]);
    becomes(&["replacePath.path=/x"], Rules { replace_path: Some("/x".into()), ..Rules::default() }, &[]);
    let allow = list(&["10.0.0.0/8", "1.2.3.4"]);
    becomes(&["ipallowlist.sourcerange=10.0.0.0/8, 1.2.3.4"], Rules { allow: allow.clone(), ..Rules::default() }, &[]);
    becomes(&["ipwhitelist.sourceRange=10.0.0.0/8,1.2.3.4"], Rules { allow, ..Rules::default() }, &[]);
    let limit = |requests, period_ms, burst| Rules {
        rate_limit: Some(RateLimit { requests, period_ms, burst, by: RateKey::Address }),
        ..Rules::default()
    };
    becomes(&["ratelimit.average=100", "ratelimit.burst=50"], limit(100, 1_000, 50), &[]);
    becomes(&["ratelimit.average=6", "ratelimit.period=1m"], limit(6, 60_000, 1), &[]);
    becomes(&["ratelimit.average=0"], Rules::default(), &[]);
    let size = Rules { body_bytes_max: Some(1_000), ..Rules::default() };
    becomes(
        &["buffering.maxRequestBodyBytes=1000", "buffering.memRequestBodyBytes=1"],
        size,
        &["the middleware `m` (buffering.memrequestbodybytes) is not honoured"],
    );
    let users = map(&[("ann", BCRYPT), ("bob", SHA1)]);
    let line = format!("basicauth.users=ann:{},bob:{SHA1}", BCRYPT.replace('$', "$$"));
    let auth = |realm: &str, hide| Rules {
        basic_auth: Some(BasicAuth { users: users.clone(), realm: realm.into(), hide }),
        ..Rules::default()
    };
    becomes(&[&line], auth("traefik", false), &[]);
    becomes(&[&line, "basicauth.realm=shop", "basicauth.removeheader=true"], auth("shop", true), &[]);
    let headers = Rules {
        request_headers: map(&[("x-a", "1"), ("x-b", "")]),
        response_headers: map(&[("x-c", "3")]),
        ..Rules::default()
    };
    becomes(
        &[
            "headers.customRequestHeaders.X-A=1",
            "headers.customrequestheaders.X-B=",
            "headers.customresponseheaders.X-C=3",
            "headers.framedeny=true",
            "headers.customrequestheaders.Host=x",
        ],
        headers,
        &[
            "the middleware `m` (headers.customrequestheaders.host) is not honoured",
            "the middleware `m` (headers.framedeny) is not honoured",
        ],
    );
    let cors = Cors {
        origins: list(&["https://a.test"]),
        methods: list(&["GET", "PUT"]),
        headers: list(&["*"]),
        max_age_s: Some(100),
        ..Cors::default()
    };
    becomes(
        &[
            "headers.accesscontrolalloworiginlist=https://a.test",
            "headers.accesscontrolallowmethods=GET,PUT",
            "headers.accesscontrolallowheaders=*",
            "headers.accesscontrolmaxage=100",
            "headers.addvaryheader=true",
        ],
        Rules { cors: Some(cors), ..Rules::default() },
        &[],
    );
}

#[test]
fn a_redirect_to_https_is_for_plain_requests() {
    let lines = ["m.redirectscheme.scheme=https", "m.redirectscheme.permanent=true"];
    let (routes, warned) = labelled("Host(`a.b`)", "m", &lines);
    let redirect = Redirect { to: "https://{host}{path}".into(), status: 308, plain_only: true };
    assert_eq!(routes[0].rules.as_ref().and_then(|rules| rules.redirect.clone()), Some(redirect));
    assert!(routes[0].conditions.plain, "the router beside it, for https, has its own guards");
    assert_eq!(warned, ["the middleware `m` sends browsers to https"]);
}

#[test]
fn what_is_not_wholly_understood_of_a_guard_makes_no_route() {
    closes(&["basicauth.usersfile=/x"], "(basicauth) names no users here");
    closes(&["basicauth.users=ann:secret"], "(basicauth) has no password hash for `ann`");
    let line = format!("basicauth.users=bob:{SHA1}");
    closes(&[&line, "basicauth.headerfield=X-User"], "(basicauth) has the option `headerfield`, which is not honoured");
    closes(&["ipallowlist.sourcerange=x"], "(ipallowlist) has `x`, which is not an address or network");
    closes(
        &["ipallowlist.sourcerange=10.0.0.0/8", "ipallowlist.ipstrategy.depth=1"],
        "(ipallowlist) has the option `ipstrategy.depth`, which is not honoured",
    );
    closes(&["addprefix.prefix=x"], "(addprefix) has `x`, which is no path");
    closes(&["forwardauth.address=https://x"], "(forwardauth) has the address `https://x`, which asks for TLS");
    closes(
        &["forwardauth.address=http://x", "forwardauth.authresponseheadersregex=^X-"],
        "(forwardauth) has the option `authresponseheadersregex`, which is not honoured",
    );
    closes(
        &["forwardauth.address=http://x", "forwardauth.authresponseheaders=Content-Length"],
        "(forwardauth) has `Content-Length`, which is not a header that may be changed",
    );
    let two = ["a.ipallowlist.sourcerange=10.0.0.0/8", "b.ipallowlist.sourcerange=10.1.0.0/16"];
    let (routes, warned) = labelled("Host(`a.b`)", "a,b", &two);
    assert_eq!(routes, []);
    assert_eq!(warned, ["the router `r` makes no route: its middleware `b` is the second that is about addresses"]);
}

#[test]
fn specs_stored_before_read_and_equal_what_is_read_today() {
    let stored = r#"{"hosts":["a.b"],"path_prefix":"/x","port":80,"strip_prefix":true,"priority":3,"tls":false}"#;
    let read: Route = serde_json::from_str(stored).expect("a route of the first form");
    assert_eq!(read, route("host: a.b, path: /x, strip_prefix: true, priority: 3"));
    assert_eq!(serde_json::to_string(&read).expect("it is plain data"), stored);
    let full = route(
        "exact: true, weight: 2, allow: [10.0.0.1], rate_limit: {requests: 1, by: 'header:x'}, cors: {origins: '*'}",
    );
    let text = serde_json::to_string(&full).expect("it is plain data");
    assert_eq!(serde_json::from_str::<Route>(&text).expect("what was written"), full);
}

#[test]
fn answers_may_be_compressed() {
    let compress = |compress| Rules { compress: Some(compress), ..Rules::default() };
    rules("compress: true", compress(Compress::default()));
    assert_eq!(route("compress: false").rules, None);
    let all = Compress {
        codings: vec![Coding::Br, Coding::Gzip],
        bytes_min: Some(2 << 10),
        types: list(&["text/*", "application/json"]),
        except: list(&["text/csv"]),
    };
    let written = "min: 2k, encodings: [br, gzip], types: [TEXT/*, application/json], except: text/csv";
    rules(&format!("compress: {{{written}}}"), compress(all.clone()));
    refused(
        "compress: {encodings: [deflate], types: [html], min: small}",
        &[
            "7:34 routes[0].compress.encodings[0]: `deflate` is not one of `zstd`, `br`, `gzip`",
            "7:52 routes[0].compress.types[0]: `html` is not a type of content",
            "7:64 routes[0].compress.min: `small` is not a size",
        ],
    );
    becomes(&["compress=true"], compress(Compress::default()), &[]);
    becomes(
        &[
            "compress.minresponsebodybytes=2048",
            "compress.encodings=br, gzip",
            "compress.includedcontenttypes=text/*,application/json",
            "compress.excludedcontenttypes=text/csv",
            "compress.defaultencoding=gzip",
        ],
        compress(all),
        &[],
    );
}

#[test]
fn another_service_may_be_asked_and_another_gets_copies() {
    let auth = |service: &str, port, path: &str| ForwardAuth {
        to: Aside { service: service.into(), port },
        path: path.into(),
        deadline_ms: 10_000,
        ..ForwardAuth::default()
    };
    let asks = |auth| Rules { forward_auth: Some(auth), ..Rules::default() };
    rules("forward_auth: 'web:9091'", asks(auth("web", 9091, "/")));
    rules("forward_auth: 'http://web/verify?a=b'", asks(auth("web", 80, "/verify?a=b")));
    rules("forward_auth: 'http://Auth.test:81?a'", asks(auth("http://auth.test", 81, "/?a")));
    rules("forward_auth: 'http://[::1]:81/x'", asks(auth("http://[::1]", 81, "/x")));
    let whole = ForwardAuth {
        response_headers: list(&["remote-user", "x-b"]),
        request_headers: list(&["cookie"]),
        deadline_ms: 2_000,
        ..auth("http://10.0.0.1", 80, "/")
    };
    rules(
        "forward_auth: {address: 'http://10.0.0.1', response_headers: [Remote-User, X-B], request_headers: Cookie, timeout: 2s}",
        asks(whole),
    );
    let copies = |share, body_bytes_max| Rules {
        mirror: Some(Mirror { to: Aside { service: "web".into(), port: 80 }, share, body_bytes_max }),
        ..Rules::default()
    };
    rules("mirror: 'web:80'", copies(10_000, None));
    rules("mirror: {service: 'web:80', percent: 0.5, body_max: 1k}", copies(50, Some(1_024)));
    refused(
        "forward_auth: {address: 'https://a.test', timeout: 0s, response_headers: [Host]}\nmirror: {service: 'other:80', percent: 101}",
        &[
            "7:35 routes[0].forward_auth.address: `https://a.test` asks for TLS",
            "7:62 routes[0].forward_auth.timeout: `0s` is no time at all",
            "7:85 routes[0].forward_auth.response_headers[0]: `Host` is not a header that may be changed",
            "8:50 routes[0].mirror.percent: `101` is not a percentage",
        ],
    );
    refused("forward_auth: 'wep:80'", &["7:25 routes[0].forward_auth: there is no service `wep`"]);
    for (written, wrong) in [
        ("'web'", "`web` names no port"),
        ("'web:0/x'", "`web:0/x` is not an address"),
        ("'http://'", "`http://` is not an address"),
        ("'http://a b/'", "`http://a b/` is not an address"),
        ("'http://a/ b'", "`http://a/ b` is not an address"),
        ("'http://u@a/'", "`http://u@a/` is not an address"),
        ("'ftp://a/'", "`ftp://a/` is not an address"),
        ("{timeout: 1s}", "it is not said who is asked: there is no `address`"),
    ] {
        let place = if written.starts_with('{') { "7:11" } else { "7:25" };
        refused(&format!("forward_auth: {written}"), &[&format!("{place} routes[0].forward_auth: {wrong}")]);
    }
    refused("mirror: 'web:80/x'", &["7:19 routes[0].mirror: a copy asks for the path that the request asks for"]);
    refused(
        "mirror: {percent: 1}",
        &["7:11 routes[0].mirror: it is not said who gets the copies: there is no `service`"],
    );
    let labelled = ForwardAuth {
        response_headers: list(&["remote-user", "remote-groups"]),
        request_headers: list(&["cookie"]),
        deadline_ms: 30_000,
        ..auth("web", 9091, "/api/verify?rd=https://a.test")
    };
    becomes(
        &[
            "forwardauth.address=http://web:9091/api/verify?rd=https://a.test",
            "forwardAuth.authResponseHeaders=Remote-User, Remote-Groups",
            "forwardauth.authrequestheaders=Cookie",
            "forwardauth.trustForwardHeader=true",
        ],
        asks(labelled),
        &["the middleware `m` (forwardauth.trustforwardheader) is not honoured"],
    );
}

#[test]
fn failures_may_have_pages_of_their_own() {
    let pages = |pairs: &[(&str, &str)]| Some(Box::new(Rules { error_pages: map(pairs), ..Rules::default() }));
    let source = "services:\n  web:\n    image: a\n    x-bramble:\n      routes:\n        - port: 80\n          error_pages: \
                  {404: '<h1>No</h1>', 5XX: {config: sorry}}\nconfigs: {sorry: {content: we are sorry}}\n";
    let stack = Case::new().stack(source);
    assert_eq!(stack.services["web"].routes[0].rules, pages(&[("404", "<h1>No</h1>"), ("5xx", "we are sorry")]));
    refused(
        "error_pages: {200: ok, 3xx: x, 404: {config: none}, 500: {}, 503: ''}",
        &[
            "7:30 routes[0].error_pages.200: `200` is not the status of a failure",
            "7:39 routes[0].error_pages.3xx: `3xx` is not the status of a failure",
            "7:56 routes[0].error_pages.404.config: there is no config `none`",
            "7:63 routes[0].error_pages.500: the page has no text",
            "7:77 routes[0].error_pages.503: the value is empty",
        ],
    );
}

#[test]
fn clients_may_be_banned_and_heads_bounded() {
    let ban = |ban| Rules { ban: Some(ban), ..Rules::default() };
    rules(
        "ban: {status: [401, 404], times: 20, within: 2m, for: 1h}",
        ban(Ban { statuses: vec![401, 404], times: 20, within_ms: 120_000, for_ms: 3_600_000 }),
    );
    rules(
        "ban: {status: 403, times: 1}",
        ban(Ban { statuses: vec![403], times: 1, within_ms: 60_000, for_ms: 600_000 }),
    );
    rules("head_max: 4k", Rules { head_bytes_max: Some(4_096), ..Rules::default() });
    refused("ban: {status: [200], times: 1}", &["7:26 routes[0].ban.status[0]: `200` is not the status of a refusal"]);
    refused(
        "ban: {within: 1m}\nhead_max: long",
        &[
            "7:11 routes[0].ban: nothing leads to a ban: there is no `status`",
            "7:11 routes[0].ban: the ban has no `times`",
            "8:21 routes[0].head_max: `long` is not a size",
        ],
    );
    refused(
        "ban: {status: 404, times: 1000}",
        &["7:37 routes[0].ban.times: `1000` is not a whole number from 1 to 100"],
    );
    refused("ban: {status: 404, times: 1, for: 30d}", &["7:45 routes[0].ban.for: `30d` is too long"]);
}

#[test]
fn a_route_says_which_requests_are_logged() {
    let log = |keys: &str| route(keys).delivery.and_then(|delivery| delivery.access_log);
    assert_eq!(log("path: /a"), None);
    assert_eq!(log("access_log: off"), Some(AccessLog::Off));
    assert_eq!(log("access_log: errors"), Some(AccessLog::Errors));
    assert_eq!(log("access_log: sampled(0.5)"), Some(AccessLog::Sampled(500_000)));
    assert_eq!(log("access_log: all"), Some(AccessLog::All));
    refused("access_log: some", &["7:23 routes[0].access_log: `some` does not say which requests are logged"]);
    refused(
        "access_log: sampled(2)",
        &["7:23 routes[0].access_log: `sampled(2)` does not say which requests are logged"],
    );
}

#[test]
fn a_route_says_how_its_requests_are_carried() {
    let check = |keys: &str, expected: Delivery| assert_eq!(route(keys).delivery, Some(Box::new(expected)), "{keys}");
    let balanced = |balance| Delivery { balance: Some(balance), ..Delivery::default() };
    check("balance: sticky", balanced(Balance::Sticky(String::new())));
    check("balance: {by: sticky, cookie: Shop}", balanced(Balance::Sticky("Shop".to_string())));
    check("balance: hash(address)", balanced(Balance::Hash(HashKey::Address)));
    check("balance: {by: 'hash(header:X-User)'}", balanced(Balance::Hash(HashKey::Header("x-user".to_string()))));
    check("balance: 'hash(cookie:sid)'", balanced(Balance::Hash(HashKey::Cookie("sid".to_string()))));
    let hedged = |hedge| Delivery { hedge: Some(hedge), ..Delivery::default() };
    check("hedge: p95", hedged(Hedge::P95));
    check("hedge: {after: 50ms}", hedged(Hedge::AfterMs(50)));
    let class = Delivery { priority_class: PriorityClass::Low, in_flight_max: Some(7), ..Delivery::default() };
    check("priority_class: low, in_flight_max: 7", class);
    assert_eq!(route("priority_class: normal").delivery, None, "what says nothing is nothing");

    refused("balance: best", &["7:20 routes[0].balance: `best` does not say which instance"]);
    refused("balance: {cookie: a}", &["7:11 routes[0].balance: it is not said by what"]);
    refused(
        "balance: {by: sticky, cookie: 'a b'}",
        &["7:41 routes[0].balance.cookie: `a b` is not the name of a cookie"],
    );
    refused("priority_class: best", &["7:27 routes[0].priority_class: `best` is no class of priority"]);
    refused("hedge: {}", &["7:11 routes[0].hedge: it is not said after how long"]);
    refused("hedge: 2h", &["7:18 routes[0].hedge: `2h` is no time to wait before asking another"]);
}

#[test]
fn sticky_services_of_traefik_are() {
    let labels = |more: &str| {
        let rule = "traefik.http.routers.a.rule: Host(`a.test`), traefik.http.services.s.loadbalancer.server.port: 80";
        let mut routes = Case::new().web(&format!("labels: {{{rule}{more}}}")).routes;
        routes.remove(0).delivery.and_then(|delivery| delivery.balance)
    };
    assert_eq!(labels(""), None);
    let sticky = "traefik.http.services.s.loadbalancer.sticky.cookie";
    assert_eq!(labels(&format!(", {sticky}: true")), Some(Balance::Sticky(String::new())));
    assert_eq!(
        labels(&format!(", {sticky}: true, {sticky}.name: shop, {sticky}.secure: true")),
        Some(Balance::Sticky("shop".to_string()))
    );
}
