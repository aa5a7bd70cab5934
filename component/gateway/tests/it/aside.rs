//! Requests beside those of clients: another service is asked for leave, or gets a copy.

use crate::bed::{Bed, Doors, Instance, SERVICE, endpoints, text, until};
use crate::rules::{ask, list, routed, ruled};
use gateway::{Limits, Table};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::{Arc, Mutex};
use wire::spec::{Aside, BasicAuth, ForwardAuth, Mirror, Rules};

const BESIDE: &str = "shop/beside";

fn leave(to: Aside) -> Rules {
    let auth = ForwardAuth {
        to,
        path: "/verify?a=b".to_owned(),
        response_headers: list(&["remote-user"]),
        request_headers: Vec::new(),
        deadline_ms: 20_000,
    };
    Rules { forward_auth: Some(auth), ..Rules::default() }
}

fn beside() -> Aside {
    Aside { service: BESIDE.to_owned(), port: 80 }
}

fn table(rules: Rules, beside: &[&str]) -> Table {
    let mut table = routed(vec![ruled(rules)], &["i"]);
    table.services.insert(BESIDE.to_owned(), endpoints(beside));
    table
}

async fn bed(rules: Rules, instance: &Instance, other: &Instance) -> Bed {
    let bed = Bed::start(Limits::default(), table(rules, &["b"])).await;
    bed.doors.set("i", instance.address);
    bed.doors.set("b", other.address);
    bed
}

/// Lets through who has a cookie, and says who it is; sends the others to log in.
async fn doorkeeper(asked: Arc<Mutex<Vec<String>>>) -> Instance {
    Instance::http(move |request: Request<Incoming>| {
        let asked = Arc::clone(&asked);
        async move {
            let header = |name: &str| {
                request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
            };
            let names =
                ["x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-for"];
            let said: Vec<String> = names.iter().map(|name| header(name)).collect();
            asked.lock().unwrap().push(format!("{} {} {}", request.method(), request.uri(), said.join(" ")));
            if header("cookie") == "session=ann" {
                return Response::builder().header("remote-user", "ann").body(text("")).unwrap();
            }
            let login = Response::builder().status(StatusCode::FOUND).header("location", "https://login.test/?rd=x");
            login.header("set-cookie", "a=1").header("set-cookie", "b=2").body(text("log in first")).unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn another_service_is_asked_for_leave() {
    let asked = Arc::default();
    let (instance, keeper) = (Instance::mirror().await, doorkeeper(Arc::clone(&asked)).await);
    let bed = bed(leave(beside()), &instance, &keeper).await;
    let mut client = bed.client().await;
    let made_up = "remote-user: root\r\nx-forwarded-uri: /made-up\r\nx-forwarded-for: 10.0.0.1\r\n";
    let turned =
        client.ask(format!("GET /admin?x=1 HTTP/1.1\r\nhost: shop.test\r\n{made_up}cookie: none\r\n\r\n")).await;
    assert_eq!((turned.status, turned.headers["location"].as_str()), (302, "https://login.test/?rd=x"));
    assert_eq!(turned.text(), "log in first");
    assert!(turned.headers.contains_key("set-cookie"));
    assert_eq!(bed.doors.dials("i"), 0, "the service saw nothing of it");
    let body = "POST /admin HTTP/1.1\r\nhost: shop.test\r\ncookie: session=ann\r\ncontent-length: 5\r\n";
    let passed = client.ask(format!("{body}{made_up}\r\nhello")).await;
    let said = passed.text();
    assert!(passed.status == 200 && said.starts_with("POST /admin\n") && said.ends_with("hello"), "{said}");
    assert!(said.contains("\nremote-user: ann\n") && !said.contains("root"), "{said}");
    let expected = [
        "GET /verify?a=b GET http shop.test /admin?x=1 127.0.0.1",
        "GET /verify?a=b POST http shop.test /admin 127.0.0.1",
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
    bed.counts("bramble_gateway_refused_total", "reason=\"leave\"", 1.0).await;
    assert_eq!(bed.doors.dials("b"), 1, "its connection is used again");
    until(|| bed.gateway.in_flight("b") == 0).await;
}

#[tokio::test]
async fn a_host_outside_may_be_asked() {
    let asked = Arc::default();
    let (instance, keeper) = (Instance::mirror().await, doorkeeper(Arc::clone(&asked)).await);
    let outside = Aside { service: "http://127.0.0.1".to_owned(), port: keeper.address.port() };
    let bed = bed(leave(outside), &instance, &keeper).await;
    assert_eq!(ask(&bed, "GET /", "cookie: session=ann\r\n").await.status, 200);
    assert_eq!(ask(&bed, "GET /", "").await.status, 302);
    assert_eq!((bed.doors.dials("b"), asked.lock().unwrap().len()), (0, 2));
}

#[tokio::test]
async fn who_gives_no_answer_gives_no_leave() {
    async fn never(_: Request<Incoming>) -> Response<crate::bed::Body> {
        std::future::pending().await
    }
    let (instance, silent) = (Instance::mirror().await, Instance::http(never).await);
    let mut rules = leave(beside());
    if let Some(auth) = &mut rules.forward_auth {
        auth.deadline_ms = 50;
    }
    let bed = bed(rules.clone(), &instance, &silent).await;
    let late = ask(&bed, "GET /", "").await;
    assert_eq!(late.status, 503);
    assert!(late.text().starts_with("B0627: "), "{}", late.text());
    until(|| bed.gateway.in_flight("b") == 0).await;
    // Nor is there leave when nobody is there to be asked.
    bed.gateway.apply(table(rules, &[])).await;
    assert_eq!(ask(&bed, "GET /", "").await.status, 503);
    let huge = Instance::http(|_| async { Response::new(text(vec![b'x'; 1 << 20])) }).await;
    let bed = self::bed(leave(beside()), &instance, &huge).await;
    assert_eq!(ask(&bed, "GET /", "").await.status, 503, "an answer without end is none");
    assert_eq!(bed.doors.dials("i"), 0);
}

#[tokio::test]
async fn the_password_comes_before_the_question() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (instance, keeper) = (Instance::mirror().await, doorkeeper(Arc::clone(&asked)).await);
    let auth = BasicAuth { realm: "a".to_owned(), ..BasicAuth::default() };
    let bed = bed(Rules { basic_auth: Some(auth), ..leave(beside()) }, &instance, &keeper).await;
    assert_eq!(ask(&bed, "GET /", "").await.status, 401);
    assert!(asked.lock().unwrap().is_empty());
}

fn mirror(share: u32, body_bytes_max: Option<u64>) -> Rules {
    Rules { mirror: Some(Mirror { to: beside(), share, body_bytes_max }), ..Rules::default() }
}

/// Notes what it gets.
async fn listener(heard: Arc<Mutex<Vec<String>>>) -> Instance {
    Instance::http(move |request: Request<Incoming>| {
        let heard = Arc::clone(&heard);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            heard.lock().unwrap().push(format!("{} {} {body}", head.method, head.uri));
            let mut response = Response::new(text("nobody reads this"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    })
    .await
}

#[tokio::test]
async fn copies_go_to_another_service_and_nobody_notices() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (instance, copies) = (Instance::mirror().await, listener(Arc::clone(&heard)).await);
    let bed = bed(mirror(10_000, Some(10)), &instance, &copies).await;
    assert_eq!(ask(&bed, "GET /a", "").await.status, 200);
    let posts = [
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "content-length: 11\r\n\r\nhello world",
        "transfer-encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n4\r\nijkl\r\n0\r\n\r\n",
    ];
    for post in posts {
        let answer = bed.client().await.ask(format!("POST /b HTTP/1.1\r\nhost: a\r\n{post}")).await;
        assert_eq!(answer.status, 200, "{post}");
    }
    let outcome = |name: &str| bed.counted("bramble_gateway_mirrored_total", &format!("outcome=\"{name}\""));
    until(|| outcome("answered") == 3.0 && outcome("skipped") == 2.0).await;
    let mut heard = heard.lock().unwrap().clone();
    heard.sort();
    assert_eq!(heard, ["GET /a ", "POST /b abcde", "POST /b hello"]);
    // Nobody is there: no client waits, none fails.
    bed.gateway.apply(table(mirror(10_000, None), &[])).await;
    assert_eq!(ask(&bed, "GET /c", "").await.status, 200);
}

#[tokio::test]
async fn only_a_share_is_copied() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (instance, copies) = (Instance::mirror().await, listener(Arc::clone(&heard)).await);
    let bed = bed(mirror(5_000, None), &instance, &copies).await;
    let mut client = bed.client().await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 200);
        // One after the other, so that none finds all places for copies taken.
        until(|| bed.gateway.in_flight("b") == 0).await;
    }
    let told = || bed.counted("bramble_gateway_mirrored_total", BESIDE);
    // With 200 throws of a fair coin, fewer than 40 of a kind come up once in 10^18.
    assert!((40.0..=160.0).contains(&told()), "{}", told());
    bed.counts("bramble_gateway_requests_total", SERVICE, 200.0).await;
    bed.gateway.apply(table(mirror(0, None), &["b"])).await;
    let before = told();
    assert_eq!(ask(&bed, "GET /", "").await.status, 200);
    assert_eq!(told(), before);
}

#[tokio::test]
async fn the_services_beside_come_and_go_with_the_table() {
    let (instance, keeper) = (Instance::mirror().await, doorkeeper(Arc::default()).await);
    let bed = bed(leave(beside()), &instance, &keeper).await;
    let doors: &Doors = &bed.doors;
    let cookie = "cookie: session=ann\r\n";
    assert_eq!(ask(&bed, "GET /", cookie).await.status, 200);
    bed.gateway.apply(routed(vec![], &["i"])).await;
    let next = doorkeeper(Arc::default()).await;
    doors.set("c", next.address);
    doors.remove("b");
    drop(keeper);
    bed.gateway.apply(table(leave(beside()), &["c"])).await;
    assert_eq!(ask(&bed, "GET /", cookie).await.status, 200);
    assert_eq!(doors.dials("c"), 1);
}
