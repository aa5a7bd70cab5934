//! What the rules of a route do to requests and answers, through real sockets.

use crate::bed::{Answer, Bed, Body, Instance, SERVICE, endpoints, route, table, until};
use gateway::{Limits, ListenerKind, Route, Speaks, Table};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::spec::{Ban, BasicAuth, Cors, RateKey, RateLimit, Redirect, Rules};

const REFUSED: &str = "bramble_gateway_refused_total";

pub(crate) fn ruled(rules: Rules) -> Route {
    Route { rules: Some(Box::new(rules)), ..route(&[], "/", SERVICE) }
}

pub(crate) fn routed(routes: Vec<Route>, ids: &[&str]) -> Table {
    Table { routes, ..table(ListenerKind::Routed, Speaks::Detect, ids) }
}

pub(crate) async fn bed(routes: Vec<Route>, instance: &Instance) -> Bed {
    let bed = Bed::start(Limits::default(), routed(routes, &["i"])).await;
    bed.doors.set("i", instance.address);
    bed
}

async fn mirror(rules: Rules) -> (Bed, Instance) {
    let instance = Instance::mirror().await;
    (bed(vec![ruled(rules)], &instance).await, instance)
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

pub(crate) fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// One request on a connection of its own.
pub(crate) async fn ask(bed: &Bed, line: &str, headers: &str) -> Answer {
    bed.client().await.ask(format!("{line} HTTP/1.1\r\nhost: shop.test\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn methods_headers_and_exact_paths_choose_the_service() {
    let (read, write, second) = (Instance::named("r").await, Instance::named("w").await, Instance::named("2").await);
    let mut routes = vec![route(&[], "/", "s/read"), route(&[], "/", "s/write"), route(&[], "/x", "s/second")];
    routes[1].conditions.methods = list(&["POST", "PUT"]);
    routes[2].conditions.exact = true;
    routes[2].conditions.headers = map(&[("x-version", "2")]);
    let mut table = routed(routes, &[]);
    let services = [("s/read", "r"), ("s/write", "w"), ("s/second", "2")];
    table.services = services.map(|(service, id)| (service.to_owned(), endpoints(&[id]))).into();
    let bed = Bed::start(Limits::default(), table).await;
    for (id, instance) in [("r", &read), ("w", &write), ("2", &second)] {
        bed.doors.set(id, instance.address);
    }
    for (line, headers, expected) in [
        ("GET /x", "", "r"),
        ("POST /x", "content-length: 0\r\n", "w"),
        ("GET /x", "x-version: 2\r\n", "2"),
        ("POST /x", "x-version: 2\r\n", "2"),
        ("GET /x/y", "x-version: 2\r\n", "r"),
        ("GET /x", "x-version: 3\r\n", "r"),
    ] {
        assert_eq!(ask(&bed, line, headers).await.text(), expected, "{line} {headers}");
    }
}

#[tokio::test]
async fn weights_share_requests_between_services() {
    let (blue, green) = (Instance::named("blue").await, Instance::named("green").await);
    let tables = |weights: [u32; 2]| {
        let mut routes = vec![route(&[], "/", "s/blue"), route(&[], "/", "s/green")];
        routes[0].weight = Some(weights[0]);
        routes[1].weight = Some(weights[1]);
        let mut table = routed(routes, &[]);
        table.services =
            [("s/blue", "b"), ("s/green", "g")].map(|(service, id)| (service.to_owned(), endpoints(&[id]))).into();
        table
    };
    let bed = Bed::start(Limits::default(), tables([1, 1])).await;
    bed.doors.set("b", blue.address);
    bed.doors.set("g", green.address);
    let mut client = bed.client().await;
    let mut counts = BTreeMap::new();
    for _ in 0..200 {
        *counts.entry(client.get("/").await.text()).or_insert(0) += 1;
    }
    // With 200 throws of a fair coin, fewer than 40 of a kind come up once in 10^18.
    assert!(counts.len() == 2 && counts.values().all(|count| *count > 40), "{counts:?}");
    bed.gateway.apply(tables([0, 1])).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "green");
    }
}

#[tokio::test]
async fn a_guarded_path_is_guarded_however_it_is_written() {
    let instance = Instance::mirror().await;
    let guarded = Rules { deny: list(&["0.0.0.0/0"]), ..Rules::default() };
    let guarded = Route { rules: Some(Box::new(guarded)), ..route(&[], "/admin", SERVICE) };
    let bed = bed(vec![route(&[], "/", SERVICE), guarded], &instance).await;
    for path in
        ["/admin", "/admin/x", "/%61dmin", "//admin", "/x/../admin", "/x/%2e%2e/admin", "/admin%2fx", "/./admin"]
    {
        assert_eq!(ask(&bed, &format!("GET {path}"), "").await.status, 403, "{path}");
    }
    for path in ["/", "/administrator", "/x/admin"] {
        assert_eq!(ask(&bed, &format!("GET {path}"), "").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn paths_and_headers_are_changed_on_the_way() {
    let rules = Rules {
        add_prefix: Some("/v1".to_owned()),
        request_headers: map(&[("x-a", "1"), ("x-b", "")]),
        response_headers: map(&[("x-served-by", "us"), ("date", "")]),
        ..Rules::default()
    };
    let instance = Instance::mirror().await;
    let strip = Route { strip_prefix: true, path_prefix: "/api".to_owned(), ..ruled(rules) };
    let bed = bed(vec![strip], &instance).await;
    let answer = ask(&bed, "GET /api/x?q=1", "x-a: 0\r\nx-b: b\r\nx-c: c\r\n").await;
    let said = answer.text();
    assert!(said.starts_with("GET /v1/x?q=1\n"), "{said}");
    assert!(said.contains("\nx-a: 1\n") && said.contains("\nx-c: c\n") && !said.contains("x-b"), "{said}");
    assert_eq!(answer.headers.get("x-served-by").map(String::as_str), Some("us"));
    let replaced = Rules { replace_path: Some("/all".to_owned()), ..Rules::default() };
    bed.gateway.apply(routed(vec![ruled(replaced)], &["i"])).await;
    assert!(ask(&bed, "GET /x?q=1", "").await.text().starts_with("GET /all?q=1\n"));
}

#[tokio::test]
async fn browsers_are_sent_elsewhere() {
    let redirect = Redirect { to: "https://{host}{path}".to_owned(), status: 308, plain_only: true };
    let (bed, _instance) = mirror(Rules { redirect: Some(redirect), ..Rules::default() }).await;
    let answer = ask(&bed, "GET /x?q=1", "").await;
    assert_eq!((answer.status, answer.headers["location"].as_str()), (308, "https://shop.test/x?q=1"));
    assert_eq!(bed.doors.dials("i"), 0);
}

#[tokio::test]
async fn addresses_are_let_through_or_not() {
    let (bed, _instance) = mirror(Rules { allow: list(&["10.0.0.0/8"]), ..Rules::default() }).await;
    let answer = ask(&bed, "GET /", "x-forwarded-for: 10.0.0.1\r\n").await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().starts_with("B0620: "), "{}", answer.text());
    bed.counts(REFUSED, "reason=\"address\"", 1.0).await;
    // It counts for the service.
    bed.counts("bramble_gateway_requests_total", SERVICE, 1.0).await;
    let open = Rules { allow: list(&["127.0.0.0/8"]), deny: list(&["127.0.0.2"]), ..Rules::default() };
    bed.gateway.apply(routed(vec![ruled(open)], &["i"])).await;
    assert_eq!(ask(&bed, "GET /", "").await.status, 200);
}

#[tokio::test]
async fn names_and_passwords_are_asked_for() {
    // Made by `htpasswd -nbB -C 5`, `-nbm` and `-nbs`, all of the password `secret`.
    let users = map(&[
        ("bcrypt", "$2y$04$P6wIgCSN38XRY0s63Vq8C.0CN8TgU2k.wT5jehAHTpNzA4oSI3.qa"),
        ("apr1", "$apr1$12345678$0lqb/6VUFP8JY/s/jTrIk0"),
        ("sha1", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
    ]);
    let auth = BasicAuth { users, realm: "shop".to_owned(), hide: true };
    let (bed, _instance) = mirror(Rules { basic_auth: Some(auth), ..Rules::default() }).await;
    let bare = ask(&bed, "GET /", "").await;
    assert_eq!(bare.status, 401);
    assert_eq!(bare.headers["www-authenticate"], "Basic realm=\"shop\", charset=\"UTF-8\"");
    for (login, status) in [
        // bcrypt:secret, twice: the second time it is known.
        ("YmNyeXB0OnNlY3JldA==", 200),
        ("YmNyeXB0OnNlY3JldA==", 200),
        // apr1:secret
        ("YXByMTpzZWNyZXQ=", 200),
        // sha1:secret
        ("c2hhMTpzZWNyZXQ=", 200),
        // bcrypt:Secret
        ("YmNyeXB0OlNlY3JldA==", 401),
        // nobody:secret
        ("bm9ib2R5OnNlY3JldA==", 401),
        ("nonsense", 401),
    ] {
        let answer = ask(&bed, "GET /", &format!("authorization: Basic {login}\r\n")).await;
        assert_eq!(answer.status, status, "{login}");
        assert!(!answer.text().contains("authorization"), "the instance does not see it");
    }
    bed.counts(REFUSED, "reason=\"password\"", 4.0).await;
}

#[tokio::test]
async fn a_rate_is_held_and_survives_new_tables() {
    let limit = RateLimit { requests: 1, period_ms: 3_600_000, burst: 2, by: RateKey::Header("x-key".to_owned()) };
    let (bed, instance) = mirror(Rules { rate_limit: Some(limit.clone()), ..Rules::default() }).await;
    assert_eq!(ask(&bed, "GET /", "x-key: a\r\n").await.status, 200);
    assert_eq!(ask(&bed, "GET /", "x-key: a\r\n").await.status, 200);
    // Another instance comes: the same route, so the same count.
    bed.doors.set("j", instance.address);
    let same = Rules { rate_limit: Some(limit), ..Rules::default() };
    bed.gateway.apply(routed(vec![ruled(same)], &["i", "j"])).await;
    let refused = ask(&bed, "GET /", "x-key: a\r\n").await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 3_000, "{refused:?}");
    assert_eq!(ask(&bed, "GET /", "x-key: b\r\n").await.status, 200);
    bed.counts(REFUSED, "reason=\"rate\"", 1.0).await;
}

#[tokio::test]
async fn a_long_body_is_refused_at_its_head_or_cut_off() {
    let (bed, _instance) = mirror(Rules { body_bytes_max: Some(10), ..Rules::default() }).await;
    let posted = bed.client().await.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789").await;
    assert_eq!(posted.status, 200);
    let declared = ask(&bed, "POST /", "content-length: 11\r\n").await;
    assert_eq!((declared.status, declared.headers["connection"].as_str()), (413, "close"));
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n";
    let mut client = bed.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: shop.test\r\n{chunked}0\r\n\r\n")).await;
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    let mut client = bed.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: shop.test\r\n{chunked}1\r\nx\r\n")).await;
    let cut = client.answer().await.expect("an answer in the middle of the body");
    assert_eq!((cut.status, cut.headers["connection"].as_str()), (413, "close"));
    assert!(cut.text().starts_with("B0623: "), "{}", cut.text());
    bed.counts(REFUSED, "reason=\"size\"", 2.0).await;
    until(|| bed.gateway.in_flight("i") == 0).await;
}

#[tokio::test]
async fn a_late_answer_is_not_waited_for() {
    async fn never(_: Request<Incoming>) -> Response<Body> {
        std::future::pending().await
    }
    let instance = Instance::http(never).await;
    let cors = Some(Cors { origins: list(&["*"]), ..Cors::default() });
    let rules = Rules { answer_deadline_ms: Some(50), cors, ..Rules::default() };
    let bed = bed(vec![ruled(rules)], &instance).await;
    let answer = ask(&bed, "GET /", "origin: https://a.test\r\n").await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.headers["access-control-allow-origin"], "*", "the page may read why");
    bed.counts(REFUSED, "reason=\"late\"", 1.0).await;
}

#[tokio::test]
async fn only_the_head_must_come_in_time() {
    // The second half of the body comes after the deadline of the head.
    let instance = Instance::raw(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(b"b").await.unwrap();
        std::future::pending().await
    })
    .await;
    let rules = Rules { answer_deadline_ms: Some(100), ..Rules::default() };
    let bed = bed(vec![ruled(rules)], &instance).await;
    assert_eq!(ask(&bed, "GET /", "").await.text(), "ab");
}

#[tokio::test]
async fn a_service_under_maintenance_says_so() {
    let (bed, _instance) = mirror(Rules { maintenance: Some(String::new()), ..Rules::default() }).await;
    let answer = ask(&bed, "GET /", "").await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "60"));
    assert!(answer.text().starts_with("B0624: "), "{}", answer.text());
    let worded = Rules { maintenance: Some("back at noon".to_owned()), ..Rules::default() };
    bed.gateway.apply(routed(vec![ruled(worded)], &["i"])).await;
    assert_eq!(ask(&bed, "GET /", "").await.text(), "back at noon\n");
    bed.counts(REFUSED, "reason=\"maintenance\"", 2.0).await;
}

#[tokio::test]
async fn pages_of_other_origins_may_read_what_they_are_allowed() {
    let cors = Cors {
        origins: list(&["https://a.test"]),
        methods: list(&["PUT"]),
        headers: list(&["x-token"]),
        credentials: true,
        max_age_s: Some(600),
        ..Cors::default()
    };
    let instance = Instance::mirror().await;
    let mut put = ruled(Rules { cors: Some(cors), deny: list(&["::1"]), ..Rules::default() });
    put.conditions.methods = list(&["PUT"]);
    let bed = bed(vec![put], &instance).await;
    let asks = "origin: https://a.test\r\naccess-control-request-method: PUT\r\n";
    let preflight = ask(&bed, "OPTIONS /x", asks).await;
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://a.test"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-token"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(preflight.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(bed.doors.dials("i"), 0, "the instance is not asked");
    let put = ask(&bed, "PUT /x", "origin: https://a.test\r\ncontent-length: 0\r\n").await;
    assert_eq!((put.status, put.headers["access-control-allow-origin"].as_str()), (200, "https://a.test"));
    let other = ask(&bed, "PUT /x", "origin: https://b.test\r\ncontent-length: 0\r\n").await;
    assert!(other.status == 200 && !other.headers.contains_key("access-control-allow-origin"), "{other:?}");
    assert_eq!(ask(&bed, "OPTIONS /x", "").await.status, 404, "no preflight, and no route for the method");
}

#[tokio::test]
async fn headers_of_a_route_are_bounded() {
    let (bed, _instance) = mirror(Rules { head_bytes_max: Some(100), ..Rules::default() }).await;
    assert_eq!(ask(&bed, "GET /", &format!("x: {}\r\n", "y".repeat(60))).await.status, 200);
    let refused = ask(&bed, "GET /", &format!("x: {}\r\n", "y".repeat(90))).await;
    assert_eq!(refused.status, 431);
    assert!(refused.text().starts_with("B0630: "), "{}", refused.text());
    bed.counts(REFUSED, "reason=\"head\"", 1.0).await;
}

fn ban(statuses: &[u16], times: u32) -> Rules {
    let ban = Ban { statuses: statuses.to_vec(), times, within_ms: 60_000, for_ms: 3_600_000 };
    Rules { ban: Some(ban), ..Rules::default() }
}

#[tokio::test]
async fn who_is_refused_too_often_is_banned_until_somebody_lifts_it() {
    let instance = Instance::http(|request: Request<Incoming>| async move {
        let mut response = Response::new(crate::bed::text("said"));
        *response.status_mut() = if request.uri() == "/there" { StatusCode::OK } else { StatusCode::NOT_FOUND };
        response
    })
    .await;
    let bed = bed(vec![ruled(ban(&[404], 3))], &instance).await;
    for (path, status) in [("/a", 404), ("/there", 200), ("/b", 404), ("/there", 200), ("/c", 404)] {
        assert_eq!(ask(&bed, &format!("GET {path}"), "").await.status, status, "{path}");
    }
    let out = ask(&bed, "GET /there", "").await;
    assert_eq!((out.status, out.headers["connection"].as_str()), (403, "close"));
    assert!(out.headers["retry-after"].parse::<u64>().unwrap() > 3_500, "{out:?}");
    assert!(out.text().starts_with("B0631: "), "{}", out.text());
    bed.counts("bramble_gateway_bans_total", SERVICE, 1.0).await;
    bed.counts(REFUSED, "reason=\"banned\"", 1.0).await;
    // New endpoints are the same route, so the same bans.
    bed.gateway.apply(routed(vec![ruled(ban(&[404], 3))], &[])).await;
    let bans = bed.gateway.bans();
    let [(service, client, left)] = &bans[..] else { panic!("one ban: {bans:?}") };
    assert_eq!((service.as_str(), client.to_string().as_str()), (SERVICE, "127.0.0.1"));
    assert!(left.as_secs() > 3_500);
    assert_eq!(bed.gateway.lift_ban("127.0.0.1".parse().unwrap()), 1);
    assert_eq!((bed.gateway.bans(), bed.gateway.lift_ban("127.0.0.1".parse().unwrap())), (vec![], 0));
    bed.gateway.apply(routed(vec![ruled(ban(&[404], 3))], &["i"])).await;
    assert_eq!(ask(&bed, "GET /there", "").await.status, 200);
}

#[tokio::test]
async fn guessing_passwords_leads_to_a_ban() {
    let auth = BasicAuth { users: map(&[("sha1", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")]), ..BasicAuth::default() };
    let (bed, _instance) = mirror(Rules { basic_auth: Some(auth), ..ban(&[401], 2) }).await;
    for (login, status) in [("", 401), ("authorization: Basic c2hhMTpTZWNyZXQ=\r\n", 401)] {
        assert_eq!(ask(&bed, "GET /", login).await.status, status);
    }
    let right = "authorization: Basic c2hhMTpzZWNyZXQ=\r\n";
    assert_eq!(ask(&bed, "GET /", right).await.status, 403, "the right one comes too late");
}
