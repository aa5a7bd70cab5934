//! Endpoints come, go and die, tables change: nobody who asks notices.

use crate::bed::{Bed, Client, HANG, Instance, SERVICE, endpoints, listener, published, route, table, text, until};
use crate::proxy::read_head;
use gateway::{Applied, Endpoint, Limits, ListenerKind, Speaks, Table};
use http::Response;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use world::task::Task;

/// Clients that send GETs until told to stop; any answer but 200 fails the test.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<Task>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients)
            .map(|_| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                world::task::spawn("test client", async move {
                    let mut client = Client::connect(address).await;
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.get("/").await;
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Load { stop, answered, clients }
    }

    /// Waits for this many more answers.
    async fn more(&self, answers: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + answers;
        until(|| self.answered.load(Ordering::Relaxed) >= goal || self.clients.iter().any(Task::is_finished)).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().await.expect("every answer was a 200");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_may_be_replaced_under_load() {
    let (a, b) = (Instance::named("a").await, Instance::named("b").await);
    let bed = Bed::new(&[("a", &a), ("b", &b)]).await;
    bed.serve(&["a"]).await;
    let load = Load::start(bed.address, 16);
    for _ in 0..10 {
        load.more(200).await;
        bed.serve(&["-a", "b"]).await;
        bed.gateway.drained("a").await;
        assert_eq!(bed.gateway.in_flight("a"), 0);
        load.more(50).await;
        assert_eq!(bed.gateway.in_flight("a"), 0, "nothing new goes to a drained instance");
        bed.serve(&["b"]).await;
        load.more(200).await;
        bed.serve(&["a", "b"]).await;
        load.more(50).await;
        bed.serve(&["a", "-b"]).await;
        bed.gateway.drained("b").await;
        bed.serve(&["a"]).await;
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_under_load_is_not_noticed() {
    let a = Instance::named("a").await;
    let b = Instance::named("b").await;
    let bed = Bed::new(&[("a", &a), ("b", &b)]).await;
    let load = Load::start(bed.address, 16);
    for _ in 0..3 {
        let c = Instance::named("c").await;
        bed.doors.set("b", c.address);
        load.more(300).await;
        // All its connections break, those in the middle of a request too.
        drop(c);
        load.more(300).await;
    }
    load.end().await;
    drop(b);
    until(|| bed.counted("bramble_gateway_upstream_failures_total", "kind=\"connect\"") > 0.0).await;
}

#[tokio::test]
async fn requests_wait_for_an_instance_that_restarts() {
    let bed = Bed::new(&[]).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = bed.client().await;
        clients.push(world::task::spawn("waits", async move { client.get("/").await }));
    }
    until(|| bed.counted("bramble_gateway_waiting", SERVICE) == 10.0).await;
    let a = Instance::named("up").await;
    bed.doors.set("a", a.address);
    bed.serve(&["a"]).await;
    for client in clients {
        assert_eq!(client.join().await.unwrap().text(), "up");
    }
}

#[tokio::test]
async fn a_request_waits_while_the_only_instance_refuses() {
    let bed = Bed::new(&[]).await;
    bed.serve(&["a"]).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = bed.client().await;
        clients.push(world::task::spawn("waits", async move { client.get("/").await }));
    }
    // All have asked once and are waiting; one of them has asked again.
    until(|| bed.counted("bramble_gateway_waiting", SERVICE) >= 49.0 && bed.doors.dials("a") > 50).await;
    let a = Instance::named("up").await;
    bed.doors.set("a", a.address);
    for client in clients {
        assert_eq!(client.join().await.unwrap().text(), "up");
    }
}

#[tokio::test]
async fn what_does_not_come_in_time_is_refused_with_a_reason() {
    let limits = Limits { hold_deadline: Duration::from_millis(50), ..Limits::default() };
    let bed = Bed::with(&[], limits).await;
    let mut client = bed.client().await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("B0603: service shop/web has no ready instance\n"), "{}", answer.text());
    assert_eq!(answer.headers["retry-after"], "1");
    bed.serve(&["a"]).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().starts_with("B0604: cannot connect to service shop/web\n"), "{}", answer.text());
    bed.counts("bramble_gateway_no_endpoint_total", "", 1.0).await;
}

#[tokio::test]
async fn only_so_many_requests_wait() {
    let bed = Bed::with(&[], Limits { held_max: 1, ..Limits::default() }).await;
    let mut first = bed.client().await;
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut second = bed.client().await;
    second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // One of them waits, the other is told.
    let told = tokio::select! {
        answer = first.answer() => answer,
        answer = second.answer() => answer,
    };
    let told = told.unwrap();
    assert_eq!(told.status, 503);
    assert!(told.text().starts_with("B0608"), "{}", told.text());
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_504() {
    let instance = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
    })
    .await;
    let short = Duration::from_millis(30);
    let limits = Limits { answer_deadline: short, head_deadline: short, ..Limits::default() };
    let bed = Bed::with(&[("a", &instance)], limits).await;
    let mut client = bed.client().await;
    for request in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"] {
        let answer = client.ask(request).await;
        assert_eq!(answer.status, 504);
        assert!(answer.text().starts_with("B0606"), "{}", answer.text());
        assert_eq!(bed.gateway.in_flight("a"), 0);
    }
}

/// An instance that answers `keep` requests per connection, then closes it without a word at the next request.
async fn forgetful(keep: usize, seen: Arc<AtomicUsize>) -> Instance {
    Instance::raw(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            for _ in 0..keep {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                seen.fetch_add(1, Ordering::Relaxed);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
            read_head(&mut stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_dies_costs_a_repeatable_request_nothing() {
    let seen = Arc::new(AtomicUsize::new(0));
    let instance = forgetful(1, Arc::clone(&seen)).await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(seen.load(Ordering::Relaxed), 10);
    until(|| bed.counted("bramble_gateway_retries_total", "") > 0.0).await;
}

#[tokio::test]
async fn a_request_that_must_not_be_repeated_is_sent_once() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let instance = Instance::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    let answer = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().starts_with("B0605"), "{}", answer.text());
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    // A GET is tried three times, no more.
    assert_eq!(client.get("/").await.status, 502);
    assert_eq!(seen.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn an_answer_cut_short_is_seen_as_cut_short() {
    let instance = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"abc");
    assert_eq!(client.chunk().await, None, "no last chunk");
    bed.counts("bramble_gateway_upstream_failures_total", "kind=\"cut\"", 1.0).await;
}

#[tokio::test]
async fn an_instance_drains_when_its_last_request_ends() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let slow = Instance::http(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            Response::new(text("slow"))
        }
    })
    .await;
    let fast = Instance::named("fast").await;
    let bed = Bed::new(&[("slow", &slow)]).await;
    bed.doors.set("fast", fast.address);
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("slow") == 1).await;
    bed.serve(&["fast"]).await;
    let mut other = bed.client().await;
    assert_eq!(other.get("/").await.text(), "fast");
    let gateway = Arc::clone(&bed.gateway);
    let drained = world::task::spawn("drained", async move { gateway.drained("slow").await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!drained.is_finished());
    go.notify_one();
    assert_eq!(client.answer().await.unwrap().text(), "slow");
    tokio::time::timeout(HANG, drained.join()).await.unwrap().unwrap();
    assert_eq!(client.get("/").await.text(), "fast", "the client's connection stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_may_change_under_load() {
    let a = Instance::named("a").await;
    let bed = Bed::new(&[("a", &a)]).await;
    let load = Load::start(bed.address, 16);
    for round in 0..50 {
        let mut next = table(ListenerKind::Routed, Speaks::Detect, &["a"]);
        next.listeners.push(listener(published(), Speaks::Http));
        for number in 0..round % 7 {
            let service = format!("other/{number}");
            next.routes.push(route(&["other.test"], &format!("/{number}"), &service));
            next.services.insert(service, endpoints(&["x"]));
        }
        let applied = bed.gateway.apply(next).await;
        assert_eq!((applied.failed.len(), applied.listening.len()), (0, 2));
        assert_eq!(applied.listening[0].1, bed.address);
        load.more(20).await;
        bed.serve(&["a"]).await;
        load.more(20).await;
    }
    load.end().await;
}

#[tokio::test]
async fn an_equal_table_changes_nothing() {
    let a = Instance::named("a").await;
    let bed = Bed::new(&[("a", &a)]).await;
    let mut client = bed.client().await;
    assert_eq!(client.get("/").await.status, 200);
    for _ in 0..5 {
        bed.serve(&["a"]).await;
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(bed.doors.dials("a"), 1, "the connection to the instance stays as well");
}

#[tokio::test]
async fn a_listener_that_goes_lets_its_requests_finish() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let slow = Instance::http(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            Response::new(text("slow"))
        }
    })
    .await;
    let bed = Bed::new(&[("a", &slow)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
    let applied = bed.gateway.apply(Table::default()).await;
    assert_eq!(applied, Applied::default());
    until(|| std::net::TcpStream::connect(bed.address).is_err()).await;
    go.notify_one();
    assert_eq!(client.answer().await.unwrap().text(), "slow");
    assert!(client.rest().await.is_empty(), "then the connection closes");
}

#[tokio::test]
async fn what_cannot_be_listened_at_is_said_with_a_reason() {
    let bed = Bed::new(&[]).await;
    let mut next = table(ListenerKind::Routed, Speaks::Detect, &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    next.listeners[0].address = taken.local_addr().unwrap();
    let mut twice = next.listeners[0].clone();
    next.listeners.push(listener(ListenerKind::Routed, Speaks::Detect));
    twice.address = next.listeners[1].address;
    next.listeners.push(twice);
    let applied = bed.gateway.apply(next.clone()).await;
    assert_eq!(applied.listening, [("127.0.0.1:0".parse().unwrap(), bed.address)]);
    let reasons: Vec<&str> = applied.failed.iter().map(|(_, reason)| reason.as_str()).collect();
    assert!(reasons[0].contains("another program listens there"), "{reasons:?}");
    assert!(reasons[1].contains("named twice"), "{reasons:?}");
    // It is tried again with the next table.
    drop(taken);
    next.listeners.pop();
    assert_eq!(bed.gateway.apply(next).await.failed, []);
}

#[tokio::test]
async fn a_socket_held_elsewhere_is_taken_over() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    // A client that connected while nobody accepted.
    let mut client = Client::connect(address).await;
    let settings = gateway::Settings {
        inherited: vec![gateway::Socket { address, protocol: wire::spec::Protocol::Tcp, socket: held.into() }],
        ..gateway::Settings::default()
    };
    let a = Instance::named("a").await;
    let doors = Arc::new(crate::bed::Doors::default());
    doors.set("a", a.address);
    let gateway = gateway::Gateway::start(settings, doors, meter::Meter::new());
    let mut table = table(ListenerKind::Routed, Speaks::Detect, &["a"]);
    table.listeners[0].address = address;
    assert_eq!(gateway.apply(table).await.listening, [(address, address)]);
    assert_eq!(client.get("/").await.text(), "a");
}

#[tokio::test]
async fn closing_finishes_requests_and_cuts_what_does_not_end() {
    let instance = Instance::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /never") {
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
        }
    })
    .await;
    let Bed { gateway, address, doors, .. } = Bed::new(&[("a", &instance)]).await;
    let mut idle = Client::connect(address).await;
    let mut never = Client::connect(address).await;
    never.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| gateway.in_flight("a") == 1).await;
    tokio::time::timeout(HANG, gateway.close(Duration::from_millis(20))).await.unwrap();
    assert!(idle.rest().await.is_empty());
    assert!(never.rest().await.is_empty());
    assert_eq!(doors.dials("a"), 1);
    let late = gateway.apply(table(ListenerKind::Routed, Speaks::Detect, &["a"])).await;
    assert!(late.failed[0].1.contains("the gateway is closed"), "{late:?}");
}

#[tokio::test]
async fn an_address_may_change_hands_within_one_table() {
    let a = Instance::named("a").await;
    let bed = Bed::new(&[("a", &a)]).await;
    let mut next = table(ListenerKind::Routed, Speaks::Detect, &["a"]);
    // Below the ports of clients: one of them could take it between two tables.
    let port = 10_000 + u16::try_from(world::random::number() % 20_000).unwrap();
    for ip in ["127.0.0.1", "0.0.0.0", "127.0.0.1"] {
        // The port is the same, the address overlaps with the one before.
        next.listeners[0].address = SocketAddr::new(ip.parse().unwrap(), port);
        let applied = bed.gateway.apply(next.clone()).await;
        assert_eq!(applied.failed, []);
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
        assert_eq!(client.get("/").await.text(), "a");
    }
}

/// Any table after any other: what is listened at, who answers, and what is in flight are as the table says.
#[tokio::test]
async fn any_tables_in_any_order_are_served_as_written() {
    let instances = [Instance::named("0").await, Instance::named("1").await, Instance::named("2").await];
    let bed = Bed::new(&[]).await;
    for (number, instance) in instances.iter().enumerate() {
        bed.doors.set(&number.to_string(), instance.address);
    }
    let mut state = 7_u64;
    let mut roll = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut known: BTreeMap<usize, SocketAddr> = BTreeMap::new();
    for _ in 0..60 {
        let mut next = Table::default();
        next.listeners.push(listener(ListenerKind::Routed, Speaks::Detect));
        let mut published = Vec::new();
        for number in 0..3 {
            let service = format!("shop/{number}");
            let ids: Vec<String> = (0..3).filter(|_| roll(2) == 0).map(|id: usize| id.to_string()).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            if roll(4) > 0 {
                next.services.insert(service.clone(), endpoints(&ids));
                next.routes.push(route(&[&format!("{number}.test")], "/", &service));
            }
            if roll(3) > 0 {
                let kind = ListenerKind::Service { service, port: 80, protocol: wire::spec::Protocol::Tcp };
                next.listeners.push(listener(kind, Speaks::Http));
                published.push(number);
            }
        }
        let applied = bed.gateway.apply(next.clone()).await;
        assert_eq!(applied.failed, []);
        assert_eq!(applied.listening[0].1, bed.address);
        let got: BTreeMap<usize, SocketAddr> =
            published.into_iter().zip(applied.listening[1..].iter().map(|(_, got)| *got)).collect();
        for (number, address) in &got {
            if let Some(before) = known.get(number) {
                assert_eq!(before, address, "a listener that stays keeps its socket");
            }
        }
        for (number, address) in known.iter().filter(|(number, _)| !got.contains_key(number)) {
            assert!(std::net::TcpStream::connect(address).is_err(), "{number} is not listened at");
        }
        known = got;
        let mut client = bed.client().await;
        for number in 0..3 {
            let service = format!("shop/{number}");
            let routed = next.services.get(&service);
            if routed.is_some_and(Vec::is_empty) {
                continue;
            }
            let request = format!("GET / HTTP/1.1\r\nhost: {number}.test\r\n\r\n");
            let answer = client.ask(request).await;
            match routed {
                Some(endpoints) => assert!(endpoints.iter().any(|one| one.instance == answer.text())),
                None => assert_eq!(answer.status, 404),
            }
        }
        assert!((0..3).all(|id| bed.gateway.in_flight(&id.to_string()) == 0));
    }
}

#[tokio::test]
async fn services_share_instances_by_name_only() {
    // Two services whose routes meet at one port: what one does leaves the other alone.
    let (a, b) = (Instance::named("a").await, Instance::named("b").await);
    let services = BTreeMap::from([
        (SERVICE.to_owned(), endpoints(&["a"])),
        ("shop/b".to_owned(), vec![Endpoint { instance: "b".to_owned(), ..Endpoint::default() }]),
    ]);
    let routes = vec![route(&[], "/", SERVICE), route(&[], "/b", "shop/b")];
    let listeners = vec![listener(ListenerKind::Routed, Speaks::Detect)];
    let bed = Bed::start(Limits::default(), Table { listeners, routes, services, ..Table::default() }).await;
    bed.doors.set("a", a.address);
    bed.doors.set("b", b.address);
    let mut client = bed.client().await;
    assert_eq!(client.get("/b/x").await.text(), "b");
    assert_eq!(client.get("/x").await.text(), "a");
}
