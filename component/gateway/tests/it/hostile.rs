//! Clients that mean harm or know no better.

use crate::bed::{Bed, Client, Instance, in_a_hurry, until};
use gateway::Limits;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Sends `request` and wants an answer with `status`, after which nothing more is read.
async fn refused(bed: &Bed, request: impl AsRef<[u8]>, status: u16) {
    let request = request.as_ref();
    let mut client = bed.client().await;
    client.send(request).await;
    let shown = request[..request.len().min(200)].escape_ascii().to_string();
    let answer = client.answer().await.unwrap_or_else(|| panic!("no answer to {shown}"));
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    let more = client.rest().await;
    assert!(more.is_empty(), "{shown} was followed by {}", more.escape_ascii());
}

#[tokio::test]
async fn requests_that_two_readers_may_read_differently_are_refused() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for headers in [
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer\x0bEncoding: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: a\0b\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "Bad Name: x\r\n",
        "B\u{e4}d: x\r\n",
        ": x\r\n",
        "NoColon\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "X: y\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
    ] {
        refused(&bed, format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n{smuggled}"), 400).await;
    }
    assert_eq!(bed.gateway.in_flight("a"), 0);
}

#[tokio::test]
async fn hosts_must_be_one_plain_name() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    for headers in ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: a\"\r\n", "Host: a/b\r\n", "Host: u@a\r\n"] {
        refused(&bed, format!("GET / HTTP/1.1\r\n{headers}\r\n"), 400).await;
    }
    refused(&bed, format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(300)), 400).await;
    refused(&bed, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400).await;
}

#[tokio::test]
async fn the_gateway_is_no_forward_proxy() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    refused(&bed, "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n", 405).await;
}

#[tokio::test]
async fn no_other_http_is_tunnelled_past_the_routes() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    for protocol in ["h2c", "H2C", "foo, h2c", "HTTP/2.0"] {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
        let answer = bed.client().await.ask(head).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("upgrade"), "{}", answer.text());
    }
}

#[tokio::test]
async fn what_is_not_http_1_is_refused() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    for request in ["GET /\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "\x16\x03\x01\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n"] {
        refused(&bed, request, 400).await;
    }
    refused(&bed, "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400).await;
}

#[tokio::test]
async fn chunks_that_lie_break_the_request() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    for body in
        ["zz\r\nabc\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "3\r\nabcdef\r\n0\r\n\r\n", "-1\r\n", "3 x\r\nabc\r\n"]
    {
        let mut client = bed.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}")).await;
        if let Some(answer) = client.answer().await {
            assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        }
        assert!(client.rest().await.is_empty());
        until(|| bed.gateway.in_flight("a") == 0).await;
    }
    assert_eq!(bed.counted("bramble_gateway_upstream_failures_total", ""), 0.0, "no instance is to blame");
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    refused(&bed, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(40_000)), 431).await;
    let many: String = (0..120).map(|number| format!("x-{number}: y\r\n")).collect();
    refused(&bed, format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431).await;
    refused(&bed, format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(40_000)), 431).await;
    // Just below the bounds is fine.
    let most: String = (0..90).map(|number| format!("x-{number}: {}\r\n", "y".repeat(200))).collect();
    let mut client = bed.client().await;
    assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{most}\r\n")).await.status, 200);
}

#[tokio::test]
async fn an_instance_that_sends_too_much_head_is_a_502() {
    let instance = Instance::raw(|mut stream| async move {
        crate::proxy::read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(300_000));
        drop(stream.write_all(head.as_bytes()).await);
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    assert_eq!(bed.client().await.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.status, 502);
}

fn impatient() -> Limits {
    let short = Duration::from_millis(30);
    Limits { head_deadline: short, idle_deadline: short, stall_deadline: short, ..Limits::default() }
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], impatient()).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n").await;
    assert!(client.rest().await.is_empty());
    let mut silent = bed.client().await;
    assert!(silent.rest().await.is_empty(), "nor is one that never begins");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], impatient()).await;
    let mut client = bed.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert!(client.rest().await.is_empty());
    until(|| bed.gateway.in_flight("a") == 0).await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_not_waited_for() {
    let mirror = Instance::mirror().await;
    // Never silent for long.
    let bed = Bed::with(&[("a", &mirror)], in_a_hurry()).await;
    let mut client = bed.client().await;
    let head = |bytes: usize| format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n");
    client.send(head(1_000_000)).await;
    while client.stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(|| bed.gateway.in_flight("a") == 0).await;
    let mut client = bed.client().await;
    client.send(head(8 << 20)).await;
    client.send(vec![b'x'; 8 << 20]).await;
    assert_eq!(client.answer().await.unwrap().status, 200, "one that hurries has all the time it takes");
}

#[tokio::test]
async fn a_reader_that_never_reads_is_not_waited_for() {
    let big = Instance::http(|_| async { http::Response::new(crate::bed::text(vec![b'x'; 128 << 20])) }).await;
    let bed = Bed::with(&[("a", &big)], impatient()).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
    until(|| bed.gateway.in_flight("a") == 0).await;
    assert!(client.rest().await.len() < 128 << 20);
}

#[tokio::test]
async fn a_quiet_instance_is_not_a_slow_client() {
    // Server-sent events: nothing for many times the client's deadlines.
    let instance = Instance::raw(|mut stream| async move {
        crate::proxy::read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(b"bcd").await.unwrap();
    })
    .await;
    let bed = Bed::with(&[("a", &instance)], impatient()).await;
    assert_eq!(bed.client().await.get("/").await.text(), "abcd");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], Limits { connections_max: 2, ..Limits::default() }).await;
    let mut first = bed.client().await;
    let mut second = bed.client().await;
    assert_eq!(first.get("/").await.status, 200);
    assert_eq!(second.get("/").await.status, 200);
    let mut third = Client::connect(bed.address).await;
    third.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    drop(first);
    assert_eq!(third.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn random_bytes_never_reach_an_instance_or_hurt() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut state = 1_u64;
    let mut roll = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let valid = b"POST /a/b?c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..300 {
        let mut bytes = valid.to_vec();
        for _ in 0..1 + roll() % 4 {
            let at = roll() % bytes.len();
            match roll() % 3 {
                0 => bytes[at] = (roll() % 256) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"\r\n :,0\0x"[roll() % 8]),
            }
        }
        let mut client = bed.client().await;
        client.send(&bytes).await;
        drop(client);
    }
    let mut client = bed.client().await;
    assert_eq!(client.get("/").await.status, 200);
    until(|| bed.gateway.in_flight("a") == 0).await;
}
