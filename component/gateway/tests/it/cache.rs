//! The cache of a route, through real sockets: what is asked for once and given often, and what never is.

use crate::bed::{Answer, Bed, Body, Client, Instance, SERVICE, route, table, text, until};
use bytes::Bytes;
use gateway::{CacheSettings, Limits, ListenerKind, Purge, Route, Settings, Speaks, Table};
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc};
use wire::spec::{BasicAuth, Cache, Cors, IgnoreQuery, Rules};

const COUNTED: &str = "bramble_cache_requests_total";

fn cached(cache: Cache) -> Route {
    let rules = Rules { cache: Some(cache), ..Rules::default() };
    Route { rules: Some(Box::new(rules)), ..route(&[], "/", SERVICE) }
}

fn routed(routes: Vec<Route>) -> Table {
    Table { routes, ..table(ListenerKind::Routed, Speaks::Detect, &["i"]) }
}

async fn bed_of(routes: Vec<Route>, instance: &Instance) -> Bed {
    bed_with(CacheSettings::default(), Limits::default(), routes, instance).await
}

async fn bed_with(cache: CacheSettings, limits: Limits, routes: Vec<Route>, instance: &Instance) -> Bed {
    let settings = Settings { cache: Some(cache), limits, ..Settings::default() };
    let bed = Bed::start_with(settings, routed(routes)).await;
    bed.doors.set("i", instance.address);
    bed.gateway.cache_opened().await;
    bed
}

async fn bed(instance: &Instance) -> Bed {
    bed_of(vec![cached(Cache::default())], instance).await
}

/// Says how often it was asked, and the headers that the path of the request names after `/`, as `name=value` between `&`.
struct Counting {
    instance: Instance,
    asked: Arc<AtomicUsize>,
}

impl Counting {
    async fn new() -> Counting {
        Counting::answering(|_, _| {}).await
    }

    /// `change` may change each answer; it is told how many came before.
    async fn answering(change: impl Fn(usize, &mut Response<Body>) + Clone + Send + Sync + 'static) -> Counting {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let instance = Instance::http(move |request: Request<Incoming>| {
            let (before, change) = (counter.fetch_add(1, Ordering::SeqCst), change.clone());
            async move {
                let mut response = Response::new(text(format!("answer {}", before + 1)));
                let path = request.uri().path().trim_start_matches('/').replace("%20", " ");
                for pair in path.split('&').filter_map(|pair| pair.split_once('=')) {
                    let name: HeaderName = pair.0.parse().unwrap();
                    response.headers_mut().append(name, HeaderValue::from_str(pair.1).unwrap());
                }
                change(before, &mut response);
                response
            }
        })
        .await;
        Counting { instance, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn get(bed: &Bed, path: &str, headers: &str) -> Answer {
    ask(bed, "GET", path, headers).await
}

async fn ask(bed: &Bed, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n{headers}\r\n");
    bed.client().await.ask(request).await
}

/// Waits until what was answered is kept as well: the body comes to the client first.
async fn kept(bed: &Bed, count: usize) {
    until(|| bed.gateway.cached().len() == count).await;
}

const FRESH: &str = "/cache-control=max-age=60";

#[tokio::test]
async fn what_was_asked_for_once_is_given_again() {
    let service = Counting::new().await;
    let bed = bed(&service.instance).await;
    let first = get(&bed, FRESH, "").await;
    assert_eq!((first.text().as_str(), first.headers.get("age")), ("answer 1", None));
    let said = &first.headers["cache-status"];
    // How long it is fresh depends on the second it was made in.
    assert!(said.starts_with("bramble; fwd=uri-miss; fwd-status=200; ttl=") && said.ends_with("; stored"), "{said}");
    kept(&bed, 1).await;
    let second = get(&bed, FRESH, "").await;
    assert_eq!((second.text().as_str(), second.headers.contains_key("age")), ("answer 1", true));
    assert!(second.headers["cache-status"].starts_with("bramble; hit; ttl="), "{second:?}");
    assert_eq!(second.headers["content-length"], "8");
    let head = bed.client().await;
    let mut head = head;
    head.send(format!("HEAD {FRESH} HTTP/1.1\r\nhost: shop.test\r\n\r\n")).await;
    let head = head.head().await.expect("a head");
    assert_eq!((head.status, head.headers["content-length"].as_str()), (200, "8"));
    assert_eq!(service.asked(), 1);
    bed.counts(COUNTED, "miss", 1.0).await;
    bed.counts(COUNTED, "\"hit\"", 2.0).await;
    // The cache's own are no client's.
    bed.counts("bramble_gateway_requests_total", "2xx", 3.0).await;
    let listed = bed.gateway.cached();
    assert_eq!((listed[0].hits, listed[0].address.as_str()), (2, "http://shop.test/cache-control=max-age=60"));
}

#[tokio::test]
async fn a_route_without_the_rule_keeps_nothing() {
    let service = Counting::new().await;
    let bed = bed_of(vec![route(&[], "/", SERVICE)], &service.instance).await;
    for count in 1..=3 {
        let answer = get(&bed, FRESH, "").await;
        assert_eq!(answer.text(), format!("answer {count}"));
        assert!(!answer.headers.contains_key("cache-status"));
    }
    assert!(bed.gateway.cached().is_empty());
}

#[tokio::test]
async fn what_may_not_be_kept_is_not() {
    let service = Counting::new().await;
    let bed = bed(&service.instance).await;
    for (path, headers, why) in [
        ("/x", "", "no-lifetime"),
        ("/cache-control=no-store", "", "no-store"),
        ("/cache-control=private,max-age=9", "", "private"),
        ("/cache-control=max-age=9&set-cookie=a", "", "set-cookie"),
        ("/cache-control=max-age=9&vary=*", "", "vary"),
        ("/cache-control=max-age=9", "authorization: Basic eDp5\r\n", "authorization"),
    ] {
        let before = service.asked();
        for _ in 0..2 {
            let answer = get(&bed, path, headers).await;
            let said = format!("bramble; fwd=uri-miss; fwd-status=200; detail={why}");
            assert_eq!(answer.headers["cache-status"], said, "{path}");
        }
        assert_eq!(service.asked(), before + 2, "{path}");
    }
    bed.counts(COUNTED, "uncacheable", 12.0).await;
    let public = "/cache-control=max-age=9,public";
    get(&bed, public, "authorization: Basic eDp5\r\n").await;
    kept(&bed, 1).await;
    get(&bed, FRESH, "").await;
    kept(&bed, 2).await;
    let own = get(&bed, FRESH, "authorization: Basic eDp5\r\n").await;
    assert_eq!(own.headers["cache-status"], "bramble; fwd=bypass", "what others got is not for who is logged in");
    assert!(get(&bed, FRESH, "").await.headers.contains_key("age"));
    assert!(get(&bed, public, "").await.headers.contains_key("age"), "the service says that it is for all");
}

#[tokio::test]
async fn answers_are_told_apart_by_host_query_and_the_headers_they_vary_by() {
    let service = Counting::new().await;
    let ignore_query = IgnoreQuery::Names(vec!["utm".to_owned()]);
    let rule = Cache { ignore_query, vary: vec!["x-beta".to_owned()], ..Cache::default() };
    let bed = bed_of(vec![cached(rule)], &service.instance).await;
    let vary = "/cache-control=max-age=60&vary=accept-language";
    let check = async |path: String, headers: &str, expected: usize, count: usize| {
        let answer = get(&bed, &path, headers).await;
        assert_eq!(answer.text(), format!("answer {expected}"), "{path} {headers}");
        kept(&bed, count).await;
    };
    check(vary.to_owned(), "accept-language: en, de\r\n", 1, 1).await;
    check(vary.to_owned(), "accept-language: de,EN\r\n", 1, 1).await;
    check(vary.to_owned(), "accept-language: fr\r\n", 2, 2).await;
    check(vary.to_owned(), "accept-language: en, de\r\n", 1, 2).await;
    check(vary.to_owned(), "", 3, 3).await;
    check(vary.to_owned(), "x-beta: 1\r\n", 4, 4).await;
    check(format!("{vary}?a=1"), "", 5, 5).await;
    check(format!("{vary}?utm=x&a=1"), "", 5, 5).await;
    check(format!("{vary}?utm=x"), "", 3, 5).await;
    let other = bed.client().await.ask(format!("GET {vary} HTTP/1.1\r\nhost: other.test\r\n\r\n")).await;
    assert_eq!(other.text(), "answer 6");
}

/// Answers the head and the first half at once, and the rest when it is told.
async fn halves(rest: Arc<Semaphore>, asked: Arc<AtomicUsize>) -> Instance {
    Instance::raw(move |mut stream| {
        let (rest, asked) = (Arc::clone(&rest), Arc::clone(&asked));
        async move {
            read_head(&mut stream).await;
            asked.fetch_add(1, Ordering::SeqCst);
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 8\r\n\r\nhalf";
            stream.write_all(head.as_bytes()).await.unwrap();
            rest.acquire().await.unwrap().forget();
            stream.write_all(b"rest").await.unwrap();
            std::future::pending().await
        }
    })
    .await
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).await.unwrap() > 2 {}
    head
}

#[tokio::test]
async fn many_that_want_the_same_read_what_one_asked_for_as_it_comes() {
    let (rest, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let instance = halves(Arc::clone(&rest), Arc::clone(&asked)).await;
    let bed = bed(&instance).await;
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..20 {
        let mut client = bed.client().await;
        client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
        let head = client.head().await.expect("a head, before the body is there");
        assert_eq!(head.headers["cache-status"].ends_with("; collapsed"), number > 0, "{head:?}");
        assert_eq!(client.exactly(4).await.expect("what came"), b"half");
        clients.push(client);
    }
    // The one that asked leaves; the others get the rest.
    drop(clients.remove(0));
    rest.add_permits(1);
    for client in &mut clients {
        assert_eq!(client.exactly(4).await.expect("the rest"), b"rest");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    bed.counts(COUNTED, "collapsed", 19.0).await;
    kept(&bed, 1).await;
    assert_eq!(get(&bed, "/", "").await.text(), "halfrest");
}

/// Hands each request to the test, which answers it when it likes.
async fn by_hand() -> (Instance, mpsc::Receiver<mpsc::Sender<&'static str>>) {
    let (sender, asked) = mpsc::channel::<mpsc::Sender<&'static str>>(64);
    let instance = Instance::raw(move |mut stream| {
        let sender = sender.clone();
        async move {
            read_head(&mut stream).await;
            let (answer, mut answers) = mpsc::channel(1);
            sender.send(answer).await.unwrap();
            while let Some(part) = answers.recv().await {
                stream.write_all(part.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (instance, asked)
}

/// What is answered by hand is answered once on a connection.
const NO_STORE: &str = "HTTP/1.1 200 OK\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
const STORE: &str = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nconnection: close\r\ncontent-length: 3\r\n\r\nyes";

#[tokio::test]
async fn an_answer_that_is_not_for_keeping_makes_nobody_wait_for_nobody() {
    let (instance, mut asked) = by_hand().await;
    let bed = bed(&instance).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = bed.client().await;
        client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
        clients.push(client);
    }
    let first = asked.recv().await.unwrap();
    first.send(NO_STORE).await.unwrap();
    // All others come at once, before any of them is answered.
    let mut others = Vec::new();
    for _ in 0..7 {
        others.push(asked.recv().await.unwrap());
    }
    for other in &others {
        other.send(NO_STORE).await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.expect("an answer").text(), "no");
    }
    // And now nobody waits any more: two come, though neither is answered.
    let (mut one, mut two) = (bed.client().await, bed.client().await);
    one.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    two.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    let both = [asked.recv().await.unwrap(), asked.recv().await.unwrap()];
    // One of them is for keeping by now.
    both[0].send(STORE).await.unwrap();
    both[1].send(STORE).await.unwrap();
    assert_eq!(one.answer().await.expect("an answer").text(), "yes");
    kept(&bed, 1).await;
    assert_eq!(get(&bed, "/", "").await.text(), "yes");
}

#[tokio::test]
async fn when_the_one_that_asks_leaves_another_asks() {
    let (instance, mut asked) = by_hand().await;
    let bed = bed(&instance).await;
    let mut first = bed.client().await;
    first.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    let unanswered = asked.recv().await.unwrap();
    let mut second = bed.client().await;
    second.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    drop(first);
    let answered = asked.recv().await.unwrap();
    answered.send(STORE).await.unwrap();
    assert_eq!(second.answer().await.expect("an answer").text(), "yes");
    drop(unanswered);
}

#[tokio::test]
async fn a_stale_answer_is_given_once_more_while_it_is_asked_for_anew() {
    let service = Counting::new().await;
    let bed = bed(&service.instance).await;
    let path = "/cache-control=max-age=0,stale-while-revalidate=60";
    assert_eq!(get(&bed, path, "").await.text(), "answer 1");
    kept(&bed, 1).await;
    // What a HEAD has asked for anew is the whole answer.
    let mut head = bed.client().await;
    head.send(format!("HEAD {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n")).await;
    assert_eq!(head.head().await.expect("a head").headers["content-length"], "8");
    until(|| service.asked() == 2).await;
    until(|| bed.gateway.in_flight("i") == 0).await;
    let stale = get(&bed, path, "").await;
    assert!(stale.text().starts_with("answer "), "{stale:?}");
    // As old as it may be, or older.
    assert!(stale.headers["cache-status"].ends_with("; detail=stale"), "{stale:?}");
    until(|| service.asked() == 3).await;
    // Each look may find the one before, and asks once more; at last it is another.
    let mut seen = String::from("answer 1");
    while seen == "answer 1" || seen == "answer 2" {
        seen = get(&bed, path, "").await.text();
    }
    until(|| bed.counted(COUNTED, "\"stale\"") >= 2.0).await;
    // What is asked for in the background is no request.
    bed.counts(COUNTED, "\"miss\"", 1.0).await;
}

#[tokio::test]
async fn what_is_stale_is_asked_for_by_its_name() {
    let instance = Instance::http(|request: Request<Incoming>| async move {
        let mut response = Response::new(text("body"));
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-cache"));
        response.headers_mut().insert("etag", HeaderValue::from_static("\"a\""));
        if request.headers().get("if-none-match").is_some_and(|etag| etag == "\"a\"") {
            response.headers_mut().insert("x-renewed", HeaderValue::from_static("1"));
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::new(Bytes::new());
        }
        response
    })
    .await;
    let bed = bed(&instance).await;
    assert_eq!(get(&bed, "/", "").await.text(), "body");
    kept(&bed, 1).await;
    let second = get(&bed, "/", "").await;
    assert_eq!((second.text().as_str(), second.headers["x-renewed"].as_str()), ("body", "1"));
    assert!(second.headers["cache-status"].starts_with("bramble; fwd=stale; fwd-status=304"), "{second:?}");
    let third = get(&bed, "/", "if-none-match: \"x\", \"a\"\r\n").await;
    assert_eq!((third.status, third.headers["etag"].as_str()), (304, "\"a\""));
    bed.counts(COUNTED, "revalidated", 2.0).await;
}

#[tokio::test]
async fn parts_and_conditions_are_answered_from_what_is_kept() {
    let service = Counting::answering(|_, response| {
        response.headers_mut().insert("etag", HeaderValue::from_static("\"a\""));
    })
    .await;
    let bed = bed(&service.instance).await;
    // The condition is not passed on, so that the answer can be kept; it is met all the same.
    assert_eq!(get(&bed, FRESH, "if-none-match: \"a\"\r\n").await.status, 304);
    kept(&bed, 1).await;
    let part = get(&bed, FRESH, "range: bytes=2-4\r\n").await;
    assert_eq!(
        (part.status, part.text().as_str(), part.headers["content-range"].as_str()),
        (206, "swe", "bytes 2-4/8")
    );
    let none = get(&bed, FRESH, "range: bytes=9-\r\n").await;
    assert_eq!((none.status, none.headers["content-range"].as_str()), (416, "bytes */8"));
    let other = get(&bed, FRESH, "range: bytes=2-4\r\nif-range: \"b\"\r\n").await;
    assert_eq!((other.status, other.text().as_str()), (200, "answer 1"));
    assert_eq!(service.asked(), 1);
    let unkept = get(&bed, "/cache-control=max-age=61", "range: bytes=2-4\r\n").await;
    assert_eq!(unkept.headers["cache-status"], "bramble; fwd=bypass");
}

#[tokio::test]
async fn a_service_in_trouble_is_answered_for() {
    let service = Counting::answering(|before, response| {
        if before > 0 {
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        }
    })
    .await;
    let rule = Cache { stale_if_error_ms: Some(60_000), ..Cache::default() };
    let limits = Limits { hold_deadline: std::time::Duration::from_millis(1), ..Limits::default() };
    let bed = bed_with(CacheSettings::default(), limits, vec![cached(rule)], &service.instance).await;
    let path = "/cache-control=max-age=0&etag=\"a\"";
    assert_eq!(get(&bed, path, "").await.text(), "answer 1");
    kept(&bed, 1).await;
    let failing = get(&bed, path, "").await;
    assert_eq!((failing.status, failing.text().as_str()), (200, "answer 1"));
    assert!(failing.headers["cache-status"].ends_with("detail=stale"), "{failing:?}");
    bed.doors.remove("i");
    drop(service);
    assert_eq!(get(&bed, path, "").await.text(), "answer 1", "nobody is there at all");
    assert_eq!(get(&bed, "/other", "").await.status, 502);
}

#[tokio::test]
async fn who_forbids_stale_answers_gets_none() {
    let service = Counting::new().await;
    let limits = Limits { hold_deadline: std::time::Duration::from_millis(1), ..Limits::default() };
    let bed = bed_with(CacheSettings::default(), limits, vec![cached(Cache::default())], &service.instance).await;
    let paths = ["max-age=0,must-revalidate", "max-age=0,proxy-revalidate", "s-maxage=0", "no-cache"];
    let paths = paths.map(|said| format!("/cache-control={said}&etag=\"a\""));
    for (count, path) in paths.iter().enumerate() {
        assert_eq!(get(&bed, path, "").await.status, 200);
        kept(&bed, count + 1).await;
    }
    bed.doors.remove("i");
    drop(service);
    for path in &paths {
        assert_eq!(get(&bed, path, "").await.status, 502, "{path}");
    }
}

#[tokio::test]
async fn purges_and_changes_are_forgotten_and_nothing_else() {
    let service = Counting::new().await;
    let bed = bed(&service.instance).await;
    let count = AtomicUsize::new(0);
    let fresh = async |path: &str| {
        let text = get(&bed, path, "").await.text();
        until(|| bed.gateway.cached().iter().any(|one| one.address.ends_with(path))).await;
        let asked = count.load(Ordering::SeqCst) + 1 == service.asked();
        count.store(service.asked(), Ordering::SeqCst);
        (text, asked)
    };
    let paths =
        ["/cache-control=max-age=60&cache-tag=a,%20b", "/cache-control=max-age=60", "/cache-control=max-age=60?q"];
    for path in paths {
        assert!(fresh(path).await.1, "{path}");
    }
    let address = |target: &str| Purge::Address { authority: "shop.test".to_owned(), target: target.to_owned() };
    let all_but = |purge: Purge, gone: &'static [usize]| {
        let (bed, fresh) = (&bed, &fresh);
        async move {
            bed.gateway.purge(&purge).await.unwrap();
            for (at, path) in paths.iter().enumerate() {
                assert_eq!(fresh(path).await.1, gone.contains(&at), "{purge:?} {path}");
            }
        }
    };
    all_but(Purge::Tag("c".to_owned()), &[]).await;
    all_but(Purge::Tag("b".to_owned()), &[0]).await;
    all_but(address(paths[2]), &[2]).await;
    all_but(address(paths[1]), &[1, 2]).await;
    all_but(Purge::Host("other.test".to_owned()), &[]).await;
    all_but(Purge::Host("Shop.test".to_owned()), &[0, 1, 2]).await;
    all_but(Purge::Service("shop/other".to_owned()), &[]).await;
    all_but(Purge::Service(SERVICE.to_owned()), &[0, 1, 2]).await;
    all_but(Purge::Everything, &[0, 1, 2]).await;
    ask(&bed, "POST", paths[1], "content-length: 0\r\n").await;
    count.store(service.asked(), Ordering::SeqCst);
    all_but(Purge::Tag("c".to_owned()), &[1]).await;
    ask(&bed, "DELETE", "/content-location=/cache-control=max-age=60", "content-length: 0\r\n").await;
    count.store(service.asked(), Ordering::SeqCst);
    all_but(Purge::Tag("c".to_owned()), &[1]).await;
}

#[tokio::test]
async fn what_comes_after_a_purge_but_was_asked_for_before_is_not_kept() {
    let (instance, mut asked) = by_hand().await;
    let bed = bed(&instance).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    let answer = asked.recv().await.unwrap();
    bed.gateway.purge(&Purge::Host("shop.test".to_owned())).await.unwrap();
    answer.send(STORE).await.unwrap();
    assert_eq!(client.answer().await.expect("an answer").text(), "yes");
    let mut again = bed.client().await;
    again.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    asked.recv().await.expect("the service is asked again");
    assert!(bed.gateway.cached().is_empty());
}

#[tokio::test]
async fn a_long_answer_passes_by_whole() {
    let long = Notify::new();
    long.notify_one();
    let chunk = "x".repeat(1_000);
    let instance = Instance::raw(move |mut stream| {
        let chunk = chunk.clone();
        async move {
            let head = read_head(&mut stream).await;
            let said = if head.contains("/declared") { "content-length: 9000" } else { "transfer-encoding: chunked" };
            let head = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{said}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..9 {
                let part = if said.contains("chunked") { format!("3e8\r\n{chunk}\r\n") } else { chunk.clone() };
                stream.write_all(part.as_bytes()).await.unwrap();
            }
            if said.contains("chunked") {
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let rule = Cache { answer_bytes_max: Some(5_000), ..Cache::default() };
    let bed = bed_of(vec![cached(rule)], &instance).await;
    for path in ["/declared", "/chunked"] {
        for _ in 0..2 {
            assert_eq!(get(&bed, path, "").await.body.len(), 9_000, "{path}");
        }
    }
    assert!(bed.gateway.cached().is_empty());
    until(|| bed.gateway.in_flight("i") == 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_and_is_not_kept() {
    let (instance, mut asked) = by_hand().await;
    let bed = bed(&instance).await;
    let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 9\r\n\r\nhalf";
    let mut clients = Vec::new();
    let mut first = bed.client().await;
    first.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    let answer = asked.recv().await.unwrap();
    answer.send(head).await.unwrap();
    clients.push(first);
    let mut second = bed.client().await;
    second.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    clients.push(second);
    for client in &mut clients {
        client.head().await.expect("a head");
        assert_eq!(client.exactly(4).await.expect("what came"), b"half");
    }
    drop(answer);
    for client in &mut clients {
        assert_eq!(client.exactly(1).await, None, "no more comes, and the connection ends");
    }
    assert!(bed.gateway.cached().is_empty());
}

#[tokio::test]
async fn guards_and_headers_of_the_route_apply_to_what_is_kept() {
    let service = Counting::new().await;
    let users = [("ann".to_owned(), "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=".to_owned())].into();
    let rules = Rules {
        cache: Some(Cache::default()),
        basic_auth: Some(BasicAuth { users, realm: "shop".to_owned(), hide: true }),
        cors: Some(Cors { origins: vec!["https://a.test".to_owned()], ..Cors::default() }),
        response_headers: [("x-by".to_owned(), "route".to_owned())].into(),
        ..Rules::default()
    };
    let bed = bed_of(vec![Route { rules: Some(Box::new(rules)), ..route(&[], "/", SERVICE) }], &service.instance).await;
    let login = "authorization: Basic YW5uOnRlc3Q=\r\n";
    // The service does not see the password, but the cache knows that there was one.
    assert!(get(&bed, FRESH, login).await.headers["cache-status"].ends_with("detail=authorization"));
    let public = "/cache-control=public,max-age=60";
    assert_eq!(get(&bed, public, login).await.status, 200);
    kept(&bed, 1).await;
    assert_eq!(get(&bed, public, "").await.status, 401);
    let own = get(&bed, public, &format!("{login}origin: https://a.test\r\n")).await;
    assert!(own.headers.contains_key("age"));
    assert_eq!(own.headers["access-control-allow-origin"], "https://a.test");
    assert_eq!(own.headers["x-by"], "route");
    let other = get(&bed, public, &format!("{login}origin: https://b.test\r\n")).await;
    assert!(!other.headers.contains_key("access-control-allow-origin"), "what one page may is not kept for another");
}

#[tokio::test]
async fn clients_are_heard_where_the_route_says_so() {
    let service = Counting::new().await;
    let bed = bed(&service.instance).await;
    get(&bed, FRESH, "").await;
    kept(&bed, 1).await;
    assert_eq!(get(&bed, FRESH, "cache-control: no-cache\r\npragma: no-cache\r\n").await.text(), "answer 1");
    let obeying = Cache { obey_clients: true, ..Cache::default() };
    bed.gateway.apply(routed(vec![cached(obeying)])).await;
    assert_eq!(get(&bed, FRESH, "cache-control: no-cache\r\n").await.text(), "answer 2");
    assert_eq!(get(&bed, "/new", "cache-control: only-if-cached\r\n").await.status, 504);
    get(&bed, "/cache-control=max-age=61", "cache-control: no-store\r\n").await;
    assert_eq!(get(&bed, "/cache-control=max-age=61", "").await.text(), "answer 4");
}

#[tokio::test]
async fn the_disk_brings_answers_over_a_restart() {
    let service = Counting::new().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = || CacheSettings { disk: Some((folder.path().to_owned(), 64 << 20)), ..CacheSettings::default() };
    let routes = || vec![cached(Cache::default())];
    let lasting = ["/cache-control=max-age=3600&vary=x-a", "/cache-control=max-age=3601"];
    let first = bed_with(settings(), Limits::default(), routes(), &service.instance).await;
    for (count, path) in lasting.iter().enumerate() {
        get(&first, path, "x-a: 1\r\n").await;
        kept(&first, count + 1).await;
    }
    let purge = Purge::Address { authority: "shop.test".to_owned(), target: lasting[1].to_owned() };
    first.gateway.purge(&purge).await.unwrap();
    first.gateway.close(std::time::Duration::ZERO).await;
    drop(first);
    let second = bed_with(settings(), Limits::default(), routes(), &service.instance).await;
    let answer = get(&second, lasting[0], "x-a: 1\r\n").await;
    assert_eq!(answer.text(), "answer 1");
    assert!(answer.headers["cache-status"].starts_with("bramble; hit"), "{answer:?}");
    assert_eq!(get(&second, lasting[0], "x-a: 2\r\n").await.text(), "answer 3");
    assert_eq!(get(&second, lasting[1], "").await.text(), "answer 4", "it was purged before");
}
