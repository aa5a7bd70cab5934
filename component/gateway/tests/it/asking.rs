//! Bodies that come slowly: an instance is not asked too early by a client who has much of that.

use crate::bed::{Bed, Client, Instance, text, until};
use gateway::Limits;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many requests of a client may be at instances of which less than [`ENOUGH_BYTES`] is there.
const BEGUN_MAX: usize = 16;
const ENOUGH_BYTES: usize = 16 << 10;

/// An instance that takes whole bodies, and how many it has been asked by.
async fn taking() -> (Instance, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let instance = Instance::http(move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let whole = request.into_body().collect().await.expect("the whole body").to_bytes();
            Response::new(text(whole.len().to_string()))
        }
    })
    .await;
    (instance, asked)
}

/// Somebody who has begun to send so much.
async fn begins(bed: &Bed, bytes: usize, of: usize) -> Client {
    let mut client = bed.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {of}\r\n\r\n")).await;
    client.send("x".repeat(bytes)).await;
    client
}

async fn ends(client: &mut Client, bytes: usize, of: usize) {
    client.send("x".repeat(bytes)).await;
    let answer = client.answer().await.expect("it is answered");
    assert_eq!((answer.status, answer.text()), (200, of.to_string()));
}

#[tokio::test]
async fn an_instance_is_not_kept_busy_by_bodies_that_do_not_come() {
    let (instance, asked) = taking().await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut begun = Vec::new();
    for _ in 0..BEGUN_MAX {
        begun.push(begins(&bed, 1, 10).await);
    }
    until(|| asked.load(Ordering::Relaxed) == BEGUN_MAX).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(begins(&bed, 1, 10).await);
    }
    bed.counts("bramble_gateway_gathering", "", 4.0).await;
    // Whoever has nothing left to say is served, and so is one of those that wait, once it is whole.
    assert_eq!(bed.client().await.get("/").await.text(), "0");
    ends(&mut waiting[0], 9, 10).await;
    assert_eq!(asked.load(Ordering::Relaxed), BEGUN_MAX + 2, "the others wait still");
    // Those that were there first go on as ever, and make room.
    ends(&mut begun[0], 9, 10).await;
    let mut next = begins(&bed, 1, 10).await;
    until(|| asked.load(Ordering::Relaxed) == BEGUN_MAX + 3).await;
    ends(&mut next, 9, 10).await;
    for client in begun.iter_mut().skip(1).chain(waiting.iter_mut().skip(1)) {
        ends(client, 9, 10).await;
    }
}

#[tokio::test]
async fn what_waits_in_many_pieces_comes_whole() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut begun = Vec::new();
    for _ in 0..BEGUN_MAX {
        begun.push(begins(&bed, 1, 10).await);
    }
    until(|| bed.gateway.in_flight("a") == BEGUN_MAX).await;
    let mut client = bed.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let whole: String = ('a'..='z').cycle().take(1_000).collect();
    for piece in whole.chars() {
        client.send(format!("1\r\n{piece}\r\n")).await;
    }
    bed.counts("bramble_gateway_gathering", "", 1.0).await;
    client.send("0\r\n\r\n").await;
    let answer = client.answer().await.expect("it is served");
    assert!(answer.text().ends_with(&format!("\n{whole}")), "{}", answer.text());
}

#[tokio::test]
async fn files_are_sent_on_while_they_come() {
    let (instance, asked) = taking().await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut files = Vec::new();
    for _ in 0..BEGUN_MAX + 4 {
        files.push(begins(&bed, ENOUGH_BYTES, 100_000).await);
    }
    until(|| asked.load(Ordering::Relaxed) == files.len()).await;
    let mut small = begins(&bed, 1, 10).await;
    until(|| asked.load(Ordering::Relaxed) == files.len() + 1).await;
    ends(&mut small, 9, 10).await;
    for file in &mut files {
        ends(file, 100_000 - ENOUGH_BYTES, 100_000).await;
    }
}

#[tokio::test]
async fn who_waits_to_be_told_to_go_on_is_not_told_before_there_is_an_instance() {
    let bed = Bed::with(&[], Limits { hold_deadline: Duration::from_millis(50), ..Limits::default() }).await;
    let mut client = bed.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    assert_eq!(client.head().await.expect("an answer").status, 503);
}
