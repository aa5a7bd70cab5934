//! What the gateway tells of requests: the access log, traces, series and their examples.

use crate::bed::{Bed, Instance, SERVICE, endpoints, listener, route, table, text, until};
use crate::proxy::read_head;
use gateway::{AccessSink, Limits, ListenerKind, Settings, Speaks, Table};
use http::{Response, StatusCode};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use wire::api::{End, RequestRecord, Why};
use wire::spec::{AccessLog, Delivery, Rules};

/// Keeps what it is told, and can be held up.
#[derive(Default)]
struct Log {
    told: Mutex<Vec<RequestRecord>>,
    held: Mutex<bool>,
    freed: Condvar,
}

impl AccessSink for Log {
    fn write(&self, records: &[RequestRecord]) {
        let held = self.held.lock().unwrap();
        drop(self.freed.wait_while(held, |held| *held).unwrap());
        self.told.lock().unwrap().extend_from_slice(records);
    }
}

impl Log {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.freed.notify_all();
    }

    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Waits until there are `count` of them, and takes them.
    async fn take(&self, count: usize) -> Vec<RequestRecord> {
        until(|| self.count() >= count).await;
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        assert_eq!(told.len(), count, "{told:?}");
        told
    }

    async fn one(&self) -> RequestRecord {
        self.take(1).await.remove(0)
    }
}

/// A gateway that tells of requests as `usual` says.
async fn bed(usual: AccessLog, table: Table, instances: &[(&str, &Instance)]) -> (Bed, Arc<Log>) {
    let log = Arc::new(Log::default());
    let limits = Limits { hold_deadline: Duration::from_millis(50), ..Limits::default() };
    let access = Some(Arc::clone(&log) as Arc<dyn AccessSink>);
    let settings = Settings { access, access_log: Some(usual), limits, ..Settings::default() };
    let bed = Bed::start_with(settings, table).await;
    for (id, instance) in instances {
        bed.doors.set(id, instance.address);
    }
    (bed, log)
}

fn routed(ids: &[&str]) -> Table {
    table(ListenerKind::Routed, Speaks::Http, ids)
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_request_is_told_of_with_all_there_is_to_know() {
    let mirror = Instance::mirror().await;
    let (bed, log) = bed(AccessLog::All, routed(&["shop.web.1"]), &[("shop.web.1", &mirror)]).await;
    let mut client = bed.client().await;
    let head = format!("host: shop.test:80\r\ntraceparent: {PARENT}\r\nx-request-id: mine\r\ncontent-length: 5\r\n");
    let answer = client.ask(format!("POST /a/b?q=1&token=abc HTTP/1.1\r\n{head}\r\nhello")).await;
    let told = log.one().await;
    let passed_on = crate::proxy::mirrored(&answer.text(), "traceparent").unwrap().to_owned();
    assert_eq!(told.trace, "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(told.parent, "b7ad6b7169203331");
    assert_eq!(passed_on, format!("00-{}-{}-01", told.trace, told.span), "the instance's part is below the gateway's");
    assert_eq!(
        (told.method.as_str(), told.host.as_str(), told.path.as_str()),
        ("POST", "shop.test:80", "/a/b?q=1&token=***")
    );
    assert_eq!((told.client.as_str(), told.version.as_str(), &told.tls), ("127.0.0.1", "HTTP/1.1", &None));
    assert_eq!((told.service.as_str(), told.route.as_str(), told.instance.as_str()), (SERVICE, "*/", "shop.web.1"));
    assert_eq!((told.status, told.code.as_str(), told.end, told.why), (200, "", End::Complete, Why::All));
    assert_eq!((told.bytes_in, told.bytes_out), (5, u64::try_from(answer.body.len()).unwrap()));
    assert_eq!((told.sends, told.reused, told.request_id.as_str()), (1, false, "mine"));
    let split = told.split;
    assert!(split.answer_us > 0 && split.total_us >= split.queue_us + split.connect_us + split.answer_us, "{split:?}");
    assert!(world::clock::unix_ms() - told.time_ms < 60_000, "{}", told.time_ms);

    client.get("/again").await;
    let again = log.one().await;
    assert!(again.reused && again.parent.is_empty() && again.trace.len() == 32 && again.span.len() == 16, "{again:?}");
    assert!(again.request_id.is_empty(), "the trace is its id");
}

#[tokio::test]
async fn what_failed_is_told_of_and_the_rest_by_its_share() {
    let instance = Instance::http(|request| async move {
        let status = match request.uri().path() {
            "/bad" => StatusCode::INTERNAL_SERVER_ERROR,
            "/missing" => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        };
        Response::builder().status(status).body(text("")).unwrap()
    })
    .await;
    let mut table = routed(&["a"]);
    table.routes = vec![
        route(&["shop.test"], "/", SERVICE),
        route(&["shop.test"], "/quiet", SERVICE),
        route(&["shop.test"], "/loud", SERVICE),
    ];
    table.routes.push(route(&["none.test"], "/", "shop/none"));
    let log_of = |log| Some(Box::new(Delivery { access_log: Some(log), ..Delivery::default() }));
    table.routes[1].delivery = log_of(AccessLog::Off);
    table.routes[2].delivery = log_of(AccessLog::All);
    let (bed, log) = bed(AccessLog::Errors, table, &[("a", &instance)]).await;
    let mut client = bed.client().await;
    for path in ["/", "/missing", "/quiet/bad"] {
        client.get(path).await;
    }
    client.get("/bad").await;
    let bad = log.one().await;
    assert_eq!((bad.path.as_str(), bad.status, bad.why), ("/bad", 500, Why::Error));
    client.get("/loud").await;
    assert_eq!(log.one().await.why, Why::All);
    // Whoever tells of the trace is told of here as well; whoever does not is not.
    let asks =
        |flags: &str| format!("GET / HTTP/1.1\r\nhost: shop.test\r\ntraceparent: {}{flags}\r\n\r\n", &PARENT[..53]);
    client.ask(asks("00")).await;
    client.ask(asks("01")).await;
    let asked = log.one().await;
    assert_eq!((asked.why, asked.trace.as_str()), (Why::Asked, &PARENT[3..35]));
    client.ask("GET / HTTP/1.1\r\nhost: none.test\r\n\r\n").await;
    let nobody = log.one().await;
    assert_eq!((nobody.status, nobody.code.as_str(), nobody.service.as_str()), (503, "B0603", "shop/none"));
    client.ask("GET /x HTTP/1.1\r\nhost: other.test\r\n\r\n").await;
    let unknown = log.one().await;
    assert_eq!((unknown.status, unknown.code.as_str(), unknown.host.as_str()), (404, "B0602", "other.test"));
    bed.gateway.told().await;
    assert_eq!(log.count(), 0);
}

#[tokio::test]
async fn what_rules_refuse_has_its_code_and_route() {
    let mut table = routed(&["a"]);
    table.routes[0].rules = Some(Box::new(Rules { deny: vec!["0.0.0.0/0".to_owned()], ..Rules::default() }));
    let (bed, log) = bed(AccessLog::All, table, &[]).await;
    bed.client().await.get("/").await;
    let told = log.one().await;
    assert_eq!((told.status, told.code.as_str(), told.service.as_str(), told.sends), (403, "B0620", SERVICE, 0));
}

#[tokio::test]
async fn tries_that_failed_are_told_of() {
    let instance = Instance::named("b").await;
    let (bed, log) = bed(AccessLog::All, routed(&["a", "b"]), &[("b", &instance)]).await;
    let mut client = bed.client().await;
    let mut retried = None;
    // Which of the two is asked first is drawn; the one that refuses is left out once it did.
    for _ in 0..200 {
        client.get("/").await;
        let told = log.one().await;
        assert_eq!((told.status, told.instance.as_str()), (200, "b"));
        retried = told.retries.into_iter().next();
        if retried.is_some() {
            break;
        }
    }
    let retry = retried.expect("the instance that refuses is asked once in two hundred");
    assert_eq!((retry.instance.as_str(), retry.why.as_str()), ("a", "connect"));
}

#[tokio::test]
async fn a_client_that_leaves_is_told_of() {
    let instance = Instance::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /half") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        }
        std::future::pending::<()>().await;
    })
    .await;
    let (bed, log) = bed(AccessLog::All, routed(&["a"]), &[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("GET /none HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
    drop(client);
    let none = log.one().await;
    assert_eq!((none.status, none.end, none.instance.as_str(), none.sends), (0, End::Left, "a", 1));
    let mut client = bed.client().await;
    client.send("GET /half HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    client.exactly(4).await.unwrap();
    drop(client);
    let half = log.one().await;
    assert_eq!((half.status, half.end, half.bytes_out), (200, End::Left, 4));
    bed.counts("bramble_gateway_requests_total", "class=\"gone\"", 2.0).await;
}

#[tokio::test]
async fn an_instance_that_breaks_off_is_told_of() {
    let instance = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    })
    .await;
    let (bed, log) = bed(AccessLog::Errors, routed(&["a"]), &[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.rest().await;
    let told = log.one().await;
    assert_eq!((told.status, told.end, told.bytes_out, told.why), (200, End::Cut, 4, Why::Error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_holds_nobody_up() {
    let instance = Instance::named("a").await;
    let (bed, log) = bed(AccessLog::All, routed(&["a"]), &[("a", &instance)]).await;
    log.hold(true);
    let dropped = || bed.counted("bramble_gateway_log_dropped_total", "reason=\"full\"");
    let mut client = bed.client().await;
    let mut asked = 0;
    while dropped() == 0.0 {
        for _ in 0..500 {
            assert_eq!(client.get("/").await.status, 200);
        }
        asked += 500;
        assert!(asked < 50_000, "the queue has a bound");
    }
    log.hold(false);
    until(|| log.count() + dropped() as usize == asked).await;
    client.get("/after").await;
    until(|| log.told.lock().unwrap().last().is_some_and(|told| told.path == "/after")).await;
}

#[tokio::test]
async fn routes_and_instances_are_counted_with_examples() {
    let instance = Instance::http(|request| async move {
        let status = if request.uri().path() == "/api/bad" { 500 } else { 200 };
        Response::builder().status(status).body(text("")).unwrap()
    })
    .await;
    let mut table = routed(&["a"]);
    table.routes = vec![route(&["shop.test", "b.test"], "/", SERVICE), route(&["shop.test"], "/api", SERVICE)];
    let (bed, log) = bed(AccessLog::Errors, table, &[("a", &instance)]).await;
    let mut client = bed.client().await;
    for path in ["/", "/", "/api/x", "/api/bad"] {
        client.get(path).await;
    }
    let told = log.one().await;
    let count = |name: &str, label: &str| bed.counted(name, label);
    until(|| count("bramble_gateway_instance_requests_total", "instance=\"a\"") == 4.0).await;
    assert_eq!(count("bramble_gateway_instance_requests_total", "class=\"5xx\""), 1.0);
    assert_eq!(count("bramble_gateway_route_requests_total", "route=\"shop.test+1/\""), 2.0);
    assert_eq!(count("bramble_gateway_route_requests_total", "class=\"5xx\",route=\"shop.test/api\""), 1.0);
    assert_eq!(count("bramble_gateway_route_seconds_count", "route=\"shop.test/api\""), 2.0);
    let text = bed.meter.encode_open();
    for name in ["bramble_gateway_request_seconds", "bramble_gateway_route_seconds", "bramble_gateway_instance_seconds"]
    {
        let example = format!("# {{trace_id=\"{}\"}}", told.trace);
        assert!(text.lines().any(|line| line.starts_with(name) && line.contains(&example)), "{name}: {text}");
    }
    // A route that goes takes its series along; what it answered before is no longer told apart.
    let mut table = Table { listeners: vec![listener(ListenerKind::Routed, Speaks::Http)], ..routed(&["a"]) };
    table.services.insert(SERVICE.to_owned(), endpoints(&["a"]));
    table.routes = vec![route(&["shop.test"], "/api", SERVICE)];
    bed.gateway.apply(table.clone()).await;
    bed.gateway.apply(table).await;
    assert_eq!(count("bramble_gateway_route_requests_total", "route=\"shop.test+1/\""), 0.0);
    assert_eq!(count("bramble_gateway_route_requests_total", "route=\"shop.test/api\""), 2.0);
}
