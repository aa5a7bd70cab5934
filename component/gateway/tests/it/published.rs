//! Published ports: whoever speaks first decides what it is.

use crate::bed::{Bed, Client, HANG, Instance, until};
use gateway::Speaks;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Says back everything, then `end`.
async fn echo() -> Instance {
    Instance::raw(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.write_all(b"end").await);
    })
    .await
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let instance = Instance::raw(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(b"bye").await.unwrap();
    })
    .await;
    for speaks in [Speaks::Detect, Speaks::Tcp] {
        let bed = Bed::published(&[("a", &instance)], speaks).await;
        let mut client = bed.client().await;
        assert_eq!(client.exactly(11).await.unwrap(), b"220 ready\r\n");
        client.send("QUIT\r\n").await;
        assert_eq!(client.rest().await, b"bye");
        drop(client);
        until(|| bed.gateway.in_flight("a") == 0).await;
    }
}

#[tokio::test]
async fn bytes_that_are_not_http_go_through_untouched() {
    let instance = echo().await;
    let first_bytes: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET key\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0",
        b"GET /half a line",
    ];
    let bed = Bed::published(&[("a", &instance)], Speaks::Detect).await;
    for bytes in first_bytes {
        let mut client = bed.client().await;
        client.send(bytes).await;
        // Half-closing: the other half still carries what comes back.
        client.stream.get_mut().shutdown().await.unwrap();
        assert_eq!(client.rest().await, [bytes, b"end"].concat(), "{}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn a_request_line_makes_it_http() {
    let mirror = Instance::mirror().await;
    let bed = Bed::published(&[("a", &mirror)], Speaks::Detect).await;
    for path in ["/first", "/second"] {
        let mut client = bed.client().await;
        // In pieces, so that it is not plain at once.
        for piece in ["G", "ET ", path, " HTTP/1.", "1\r\nhost: a\r\n"] {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let said = client.ask("\r\n").await.text();
        assert!(said.starts_with(&format!("GET {path}\n")) && said.contains("x-forwarded-for: 127.0.0.1"), "{said}");
        let again = client.get("/again").await.text();
        assert!(again.starts_with("GET /again\n"));
    }
    bed.counts("bramble_gateway_requests_total", "shop/web", 4.0).await;
}

#[tokio::test]
async fn a_port_that_spoke_http_still_serves_other_protocols() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let instance = Instance::raw(move |mut stream| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            if number > 0 {
                stream.write_all(b"hello").await.unwrap();
                return;
            }
            let head = crate::proxy::read_head(&mut stream).await;
            assert!(head.starts_with("GET / "), "{head}");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let bed = Bed::published(&[("a", &instance)], Speaks::Detect).await;
    assert_eq!(bed.client().await.get("/").await.status, 200);
    assert_eq!(bed.client().await.rest().await, b"hello");
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_forced_protocol_is_not_guessed() {
    let mirror = Instance::mirror().await;
    let bed = Bed::published(&[("a", &mirror)], Speaks::Http).await;
    assert_eq!(bed.client().await.ask("nonsense\r\n\r\n").await.status, 400);
    let instance = echo().await;
    let bed = Bed::published(&[("a", &instance)], Speaks::Tcp).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.exactly(18).await.unwrap(), b"GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn a_tunnel_carries_much_both_ways_at_once() {
    let instance = echo().await;
    let bed = Bed::published(&[("a", &instance)], Speaks::Tcp).await;
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|number| (number % 251) as u8).collect();
    let expected = [sent.as_slice(), b"end"].concat();
    let sending = world::task::spawn("sends", async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        write
    });
    let mut got = Vec::new();
    tokio::time::timeout(HANG, read.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    drop(sending.join().await);
    until(|| bed.counted("bramble_gateway_bytes_total", "out") >= 8_000_003.0).await;
    bed.counts("bramble_gateway_tunnels_total", "shop/web", 1.0).await;
}

#[tokio::test]
async fn either_end_breaking_ends_the_tunnel() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let instance = Instance::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            if word == *b"dead" {
                return;
            }
            assert_eq!(stream.read(&mut word).await.unwrap_or(0), 0);
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let bed = Bed::published(&[("a", &instance)], Speaks::Tcp).await;
    let mut client = bed.client().await;
    client.send("dead").await;
    assert!(client.rest().await.is_empty());
    let mut client = bed.client().await;
    client.send("live").await;
    drop(client);
    until(|| ended.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_tunnel_waits_for_an_instance() {
    let bed = Bed::published(&[("a", &echo().await)], Speaks::Detect).await;
    bed.doors.remove("a");
    let mut client = bed.client().await;
    client.send("\x01").await;
    until(|| bed.doors.dials("a") > 0).await;
    let instance = echo().await;
    bed.doors.set("a", instance.address);
    assert_eq!(client.exactly(1).await.unwrap(), b"\x01");
}

#[tokio::test]
async fn tunnels_outlive_their_endpoint_being_taken_out() {
    let instance = echo().await;
    let bed = Bed::published(&[("a", &instance)], Speaks::Tcp).await;
    let mut client = bed.client().await;
    client.send("1").await;
    assert_eq!(client.exactly(1).await.unwrap(), b"1");
    let gone = crate::bed::table(crate::bed::published(), Speaks::Tcp, &[]);
    bed.gateway.apply(gone).await;
    client.send("2").await;
    assert_eq!(client.exactly(1).await.unwrap(), b"2");
    assert_eq!(bed.gateway.in_flight("a"), 1);
    drop(client);
    tokio::time::timeout(HANG, bed.gateway.drained("a")).await.unwrap();
}

#[tokio::test]
async fn connections_spread_over_instances() {
    let instances = [echo().await, echo().await, echo().await];
    let named: Vec<(&str, &Instance)> = ["a", "b", "c"].into_iter().zip(&instances).collect();
    let bed = Bed::published(&named, Speaks::Tcp).await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = Client::connect(bed.address).await;
        client.send("x").await;
        client.exactly(1).await.unwrap();
        clients.push(client);
    }
    for (id, _) in named {
        assert!((8..=12).contains(&bed.gateway.in_flight(id)), "{id}: {}", bed.gateway.in_flight(id));
    }
}
