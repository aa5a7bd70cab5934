//! What HTTP requests and answers look like on the other side.

use crate::bed::{Bed, Client, HANG, Instance, SERVICE, endpoints, listener, route, table, text, until};
use gateway::{Limits, ListenerKind, Route, Speaks, Table};
use http::Response;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// The value of a header in what a mirror said.
pub(crate) fn mirrored<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn a_request_goes_through_with_its_body() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let answer =
        client.ask("POST /x?y=1 HTTP/1.1\r\nHost: shop.test\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(answer.status, 200);
    let said = answer.text();
    assert!(said.starts_with("POST /x?y=1\n"), "{said}");
    assert!(said.ends_with("\nhello"), "{said}");
    assert_eq!(mirrored(&said, "x-own"), Some("1"));
    assert_eq!(mirrored(&said, "host"), Some("shop.test"));
    assert_eq!(mirrored(&said, "content-length"), Some("5"));
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let mut other = bed.client().await;
    assert_eq!(other.get("/").await.status, 200);
    assert_eq!(bed.doors.dials("a"), 1);
    assert_eq!(bed.gateway.in_flight("a"), 0);
    bed.counts("bramble_gateway_requests_total", "2xx", 21.0).await;
}

#[tokio::test]
async fn head_and_empty_answers_keep_their_framing() {
    let instance = Instance::http(|request| async move {
        match request.uri().path() {
            "/none" => Response::builder().status(204).body(text("")).unwrap(),
            "/same" => Response::builder().status(304).header("etag", "\"1\"").body(text("")).unwrap(),
            _ => Response::builder().header("content-length", "1234").body(text("")).unwrap(),
        }
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("HEAD /big HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.headers["content-length"].as_str()), (200, "1234"));
    assert_eq!(client.get("/none").await.status, 204);
    assert_eq!(client.get("/same").await.status, 304);
    assert_eq!(bed.doors.dials("a"), 1);
}

#[tokio::test]
async fn chunks_stream_through_as_they_come() {
    let step = Arc::new(Notify::new());
    let go = Arc::clone(&step);
    let instance = Instance::raw(move |mut stream| {
        let go = Arc::clone(&go);
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            for bytes in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                go.notified().await;
            }
        }
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.headers["transfer-encoding"], "chunked");
    // The second chunk is only sent once the first has arrived.
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"one");
    step.notify_one();
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"two");
    step.notify_one();
    assert_eq!(client.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_chunked_body_goes_up() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let head = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for _ in 0..3 {
        let answer = client.ask(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
        assert!(answer.text().ends_with("\nabcde"), "{}", answer.text());
        assert_eq!(answer.headers.get("connection"), None);
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_whole_request() {
    let instance = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        // An echo: both directions at once.
        let mut bytes = [0; 1024];
        let mut left = 4;
        while left > 0 {
            let read = stream.read(&mut bytes).await.unwrap();
            left -= bytes[..read].iter().filter(|byte| **byte == b'x').count();
            stream.write_all(b"1\r\n!\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    for _ in 0..4 {
        client.send("x").await;
        assert_eq!(client.chunk().await.unwrap().unwrap(), b"!");
    }
    assert_eq!(client.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 100);
    let answer = client.ask("hi").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().ends_with("\nhi"));
    assert_eq!(mirrored(&answer.text(), "expect"), None);
}

#[tokio::test]
async fn what_a_client_claims_to_be_is_replaced() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let said = client
        .ask(
            "GET / HTTP/1.1\r\nHost: shop.test:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 1\r\n\
             Forwarded: for=7.7.7.7\r\nX-Forwarded-Prefix: /evil\r\n\r\n",
        )
        .await
        .text();
    assert_eq!(mirrored(&said, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(mirrored(&said, "x-forwarded-proto"), Some("http"));
    assert_eq!(mirrored(&said, "x-forwarded-host"), Some("shop.test:81"));
    assert_eq!(mirrored(&said, "forwarded"), Some("for=127.0.0.1;host=\"shop.test:81\";proto=http"));
    for gone in ["x-real-ip", "x-forwarded-port", "x-forwarded-prefix"] {
        assert_eq!(mirrored(&said, gone), None, "{said}");
    }
    assert!(!said.contains("6.6.6.6") && !said.contains("7.7.7.7") && !said.contains("evil"), "{said}");
}

#[tokio::test]
async fn headers_about_one_connection_stay_there() {
    let instance = Instance::http(|request| async move {
        let names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
        Response::builder()
            .header("connection", "x-secret, keep-alive")
            .header("x-secret", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("x-open", "1")
            .body(text(names.join(" ")))
            .unwrap()
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    let answer = client
        .ask(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Drop, host\r\nX-Drop: 1\r\nX-Keep: 1\r\nTE: trailers\r\n\
             Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n\r\n",
        )
        .await;
    let said = answer.text();
    let names: Vec<&str> = said.split(' ').collect();
    assert!(names.contains(&"x-keep") && names.contains(&"host"), "{names:?}");
    for gone in ["x-drop", "te", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "connection"] {
        assert!(!names.contains(&gone), "{gone} in {names:?}");
    }
    assert_eq!(answer.headers.get("x-open").map(String::as_str), Some("1"));
    for gone in ["x-secret", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.headers.get(gone), None);
    }
}

#[tokio::test]
async fn a_trace_is_passed_on_or_begun() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let said = client
        .ask(format!("GET / HTTP/1.1\r\nhost: a\r\ntraceparent: {parent}\r\nx-request-id: mine-1\r\n\r\n"))
        .await
        .text();
    assert_eq!(mirrored(&said, "traceparent"), Some(parent));
    assert_eq!(mirrored(&said, "x-request-id"), Some("mine-1"));

    let said = client
        .ask("GET / HTTP/1.1\r\nhost: a\r\ntraceparent: junk\r\ntracestate: a=1\r\nx-request-id: a b\r\n\r\n")
        .await
        .text();
    let made = mirrored(&said, "traceparent").unwrap().to_owned();
    assert!(made.starts_with("00-") && made.ends_with("-01") && made.len() == 55, "{made}");
    assert_eq!(mirrored(&said, "x-request-id"), Some(&made[3..35]));
    assert_eq!(mirrored(&said, "tracestate"), None);
    let again = client.get("/").await.text();
    assert_ne!(mirrored(&again, "traceparent"), Some(made.as_str()));
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_and_half_closed() {
    let instance = Instance::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("upgrade: websocket"), "{head}");
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhi";
        stream.write_all(agreed).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.write_all(b"bye").await.unwrap();
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    let request = "GET /ws HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly ";
    let answer = client.ask(request).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.headers["upgrade"], "websocket");
    assert_eq!(client.exactly(8).await.unwrap(), b"hiearly ");
    client.send("frame").await;
    assert_eq!(client.exactly(5).await.unwrap(), b"frame");
    assert_eq!(bed.gateway.in_flight("a"), 1);
    client.stream.get_mut().shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye");
    until(|| bed.gateway.in_flight("a") == 0).await;
}

#[tokio::test]
async fn an_upgrade_refused_is_an_ordinary_answer() {
    let named = Instance::named("no").await;
    let bed = Bed::new(&[("a", &named)]).await;
    let mut client = bed.client().await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(client.ask(request).await.text(), "no");
    assert_eq!(client.get("/").await.text(), "no");
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_refused() {
    let instance = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let forced = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: x\r\n\r\n";
        stream.write_all(forced).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().starts_with("B0605"), "{}", answer.text());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let gone = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&gone);
    let instance = Instance::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let head = read_head(&mut stream).await;
            if head.starts_with("GET /body") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart").await.unwrap();
            }
            // Never answers: only the other side's leaving ends this.
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    for (path, left) in [("/head", 1), ("/body", 2)] {
        let mut client = bed.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        if path == "/body" {
            client.head().await.unwrap();
        }
        until(|| bed.gateway.in_flight("a") == 1).await;
        drop(client);
        until(|| gone.load(Ordering::Relaxed) == left).await;
        until(|| bed.gateway.in_flight("a") == 0).await;
    }
    until(|| bed.counted("bramble_gateway_requests_total", "class=\"gone\"") == 2.0).await;
}

#[tokio::test]
async fn a_slow_reader_slows_the_instance_down() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    const TOTAL: usize = 256 << 20;
    let instance = Instance::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunk = vec![b'x'; 64 << 10];
            while count.load(Ordering::Relaxed) < TOTAL {
                stream.write_all(&chunk).await.unwrap();
                count.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.head().await.unwrap();
    // Nobody reads: the instance gets stuck after what the sockets and one buffer hold.
    let mut before = usize::MAX;
    while before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(before < TOTAL, "all was buffered");
    assert_eq!(client.exactly(TOTAL).await.unwrap().len(), TOTAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_goes_up_as_well_as_down() {
    const TOTAL: usize = 32 << 20;
    let instance = Instance::http(|request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
        Response::new(text(body))
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let sent: Vec<u8> = (0..TOTAL).map(|number| (number % 251) as u8).collect();
    for chunked in [false, true] {
        let client = bed.client().await;
        let (read, mut write) = client.stream.into_inner().into_split();
        let bytes = sent.clone();
        let sending = world::task::spawn("sends", async move {
            if chunked {
                let head = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
                write.write_all(head.as_bytes()).await.unwrap();
                for chunk in bytes.chunks(100_000) {
                    write.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
                    write.write_all(chunk).await.unwrap();
                    write.write_all(b"\r\n").await.unwrap();
                }
                write.write_all(b"0\r\n\r\n").await.unwrap();
            } else {
                let head = format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {TOTAL}\r\n\r\n");
                write.write_all(head.as_bytes()).await.unwrap();
                write.write_all(&bytes).await.unwrap();
            }
            write
        });
        let mut read = tokio::io::BufReader::new(read);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(HANG, read.read_u8()).await.unwrap().unwrap());
        }
        let mut got = vec![0; TOTAL];
        tokio::time::timeout(HANG, read.read_exact(&mut got)).await.unwrap().unwrap();
        assert!(got == sent, "chunked: {chunked}");
        drop(sending.join().await);
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let ahead: String = (0..20).map(|number| format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    client.send(ahead).await;
    for number in 0..20 {
        let said = client.answer().await.unwrap().text();
        assert!(said.starts_with(&format!("GET /{number}\n")), "{said}");
    }
}

#[tokio::test]
async fn a_client_over_ipv6_is_named_as_the_rules_say() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut next = crate::bed::table(ListenerKind::Routed, Speaks::Detect, &["a"]);
    next.listeners[0].address = "[::]:0".parse().unwrap();
    let applied = bed.gateway.apply(next).await;
    let Some((_, got)) = applied.listening.first() else {
        // A machine without IPv6 says so, and that is all there is to see.
        assert_eq!(applied.failed.len(), 1);
        return;
    };
    let check = async |address: String, name: &str, node: &str| {
        let mut client = Client::connect(address.parse().unwrap()).await;
        let said = client.get("/").await.text();
        assert_eq!(mirrored(&said, "x-forwarded-for"), Some(name));
        assert!(mirrored(&said, "forwarded").unwrap().starts_with(&format!("for={node};")), "{said}");
    };
    check(format!("127.0.0.1:{}", got.port()), "127.0.0.1", "127.0.0.1").await;
    check(format!("[::1]:{}", got.port()), "::1", "\"[::1]\"").await;
}

#[tokio::test]
async fn http_1_0_gets_an_answer_and_a_close() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let answer = client.ask("GET /old HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("GET /old\n"));
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn an_absolute_target_overrules_the_host_header() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let said = client.ask("GET http://real.test/p?q HTTP/1.1\r\nhost: other.test\r\n\r\n").await.text();
    assert!(said.starts_with("GET /p?q\n"), "{said}");
    assert_eq!(mirrored(&said, "host"), Some("real.test"));
    assert_eq!(mirrored(&said, "x-forwarded-host"), Some("real.test"));
}

#[tokio::test]
async fn a_host_as_a_whole_is_asked_for_its_options() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    let said = client.ask("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await.text();
    assert!(said.starts_with("OPTIONS *\n"), "{said}");
    assert_eq!(client.ask("GET * HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 400);
}

#[tokio::test]
async fn routes_choose_by_host_and_path() {
    let web = Instance::named("web").await;
    let api = Instance::mirror().await;
    let routes = vec![
        route(&["shop.test"], "/", SERVICE),
        Route { strip_prefix: true, ..route(&["shop.test", "*.shop.test"], "/api/", "shop/api") },
    ];
    let services =
        BTreeMap::from([(SERVICE.to_owned(), endpoints(&["w"])), ("shop/api".to_owned(), endpoints(&["p"]))]);
    let listeners = vec![listener(ListenerKind::Routed, Speaks::Detect)];
    let bed = Bed::start(Limits::default(), Table { listeners, routes, services, ..Table::default() }).await;
    bed.doors.set("w", web.address);
    bed.doors.set("p", api.address);
    let mut client = Client::connect(bed.address).await;
    assert_eq!(client.get("/").await.text(), "web");
    assert_eq!(client.get("/apis").await.text(), "web");
    let said = client.get("/api/items?x=1").await.text();
    assert!(said.starts_with("GET /items?x=1\n"), "{said}");
    assert_eq!(mirrored(&said, "x-forwarded-prefix"), Some("/api"));
    assert!(client.get("/api").await.text().starts_with("GET /\n"));
    assert!(client.get("/api?x").await.text().starts_with("GET /?x\n"));
    assert!(client.ask("GET /api/ HTTP/1.1\r\nHost: EU.Shop.Test.:80\r\n\r\n").await.text().starts_with("GET /\n"));
    for host in ["nobody.test", "a.b.shop.test"] {
        let answer = client.ask(format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status, 404);
        assert!(
            answer.text().starts_with(&format!("B0602: no service answers /x at host {host}\n")),
            "{}",
            answer.text()
        );
    }
    bed.counts("bramble_gateway_requests_total", "service=\"\"", 2.0).await;
}

/// Reads to the end of a head.
pub(crate) async fn read_head(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(HANG, reading).await.expect("a head before the hang guard");
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_client_that_says_how_long_it_waits_waits_no_longer() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let ask = |timeout: &str| format!("GET / HTTP/1.1\r\nhost: a\r\nx-request-timeout: {timeout}\r\n\r\n");
    let said = bed.client().await.ask(ask("50")).await.text();
    let line = said.lines().find_map(|line| line.strip_prefix("x-request-timeout: ")).expect("it is passed on");
    let left_ms: u64 = line.trim_end_matches("ms").parse().unwrap();
    assert!(left_ms <= 50_000, "{line}");

    let silent = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        // Until the gateway leaves.
        assert_eq!(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await.unwrap_or(0), 0);
    })
    .await;
    let bed = Bed::new(&[("a", &silent)]).await;
    let answer = bed.client().await.ask(ask("20ms")).await;
    assert_eq!(answer.status, 504);
    assert!(answer.text().starts_with("B0606: ") && answer.text().contains("x-request-timeout"), "{}", answer.text());
    until(|| bed.gateway.in_flight("a") == 0).await;
}

/// A gateway that believes clients on loopback, and what it made of their words.
async fn trusting() -> (Instance, Bed) {
    let mirror = Instance::mirror().await;
    let trusted = vec!["127.0.0.0/8".to_owned(), "10.0.0.0/8".to_owned()];
    let settings = gateway::Settings { trusted, ..gateway::Settings::default() };
    let table = crate::bed::table(gateway::ListenerKind::Routed, gateway::Speaks::Http, &["a"]);
    let bed = Bed::start_with(settings, table).await;
    bed.doors.set("a", mirror.address);
    (mirror, bed)
}

#[tokio::test]
async fn a_trusted_balancer_names_its_clients_by_the_proxy_protocol() {
    let (_mirror, bed) = trusting().await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let binary =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[203, 0, 113, 9, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb]];
    for (header, expected) in [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n".to_vec(), "2001:db8::7"),
        (binary.concat(), "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (Vec::new(), "127.0.0.1"),
    ] {
        for cut in [0, 1, header.len() / 2, header.len()] {
            let mut client = bed.client().await;
            let (first, second) = header.split_at(cut.min(header.len()));
            client.send(first).await;
            tokio::task::yield_now().await;
            client.send(second).await;
            let said = client.ask(request).await.text();
            assert!(said.contains(&format!("x-forwarded-for: {expected}\n")), "{}: {said}", header.escape_ascii());
        }
    }
    let mut client = bed.client().await;
    client.send("PROXY TCP4 nonsense\r\n").await;
    assert!(client.rest().await.is_empty(), "no answer to what cannot be read");
}

#[tokio::test]
async fn a_trusted_balancer_names_its_clients_by_headers() {
    let (_mirror, bed) = trusting().await;
    let ask = async |headers: &str| {
        bed.client().await.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await.text()
    };
    let said = ask("x-forwarded-for: 6.6.6.6, 203.0.113.7, 10.1.2.3\r\nx-forwarded-proto: https\r\n").await;
    assert!(said.contains("x-forwarded-for: 203.0.113.7, 10.1.2.3, 127.0.0.1\n"), "{said}");
    assert!(said.contains("x-forwarded-proto: https\n") && said.contains("for=203.0.113.7;"), "{said}");
    let said = ask("x-forwarded-for: nobody\r\nx-forwarded-proto: https\r\n").await;
    assert!(said.contains("x-forwarded-for: 127.0.0.1\n") && said.contains("x-forwarded-proto: http\n"), "{said}");
}

#[tokio::test]
async fn nobody_else_speaks_for_others() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let said = bed.client().await.ask("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\n\r\n").await.text();
    assert!(said.contains("x-forwarded-for: 127.0.0.1\n"), "{said}");
    let line = "PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(bed.client().await.ask(line).await.status, 400);
}

#[tokio::test]
async fn a_refusal_of_a_head_request_has_no_body() {
    let bed =
        Bed::start(Limits::default(), Table { routes: vec![], ..table(ListenerKind::Routed, Speaks::Detect, &[]) })
            .await;
    let mut client = bed.client().await;
    client.send("HEAD /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.head().await.expect("a head");
    assert!(head.status == 404 && head.headers["content-length"].parse::<usize>().unwrap() > 0, "{head:?}");
    assert_eq!(client.get("/y").await.status, 404, "what follows is the next answer");
}
