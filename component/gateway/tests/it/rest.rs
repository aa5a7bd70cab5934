//! Connections on which nobody says anything: they are put away, and nobody notices.

use crate::bed::{Bed, Client, Instance, published, table, until};
use gateway::{Limits, Speaks, Table};
use std::time::Duration;

const RESTING: &str = "bramble_gateway_resting_connections";

/// A connection that has been used, and is at rest since.
async fn at_rest(bed: &Bed) -> Client {
    let mut client = bed.client().await;
    assert_eq!(client.get("/").await.status, 200);
    bed.counts(RESTING, "", 1.0).await;
    client
}

#[tokio::test]
async fn a_connection_at_rest_is_served_again_as_often_as_it_likes() {
    let mirror = Instance::mirror().await;
    for bed in [Bed::new(&[("a", &mirror)]).await, Bed::published(&[("a", &mirror)], Speaks::Detect).await] {
        let mut client = at_rest(&bed).await;
        for _ in 0..2 {
            // In pieces: the first wakes it.
            client.send("POST /again HTTP/1.1\r\nhost: a\r\ncontent-le").await;
            until(|| bed.counted(RESTING, "") < 0.5).await;
            client.send("ngth: 4\r\n\r\nbo").await;
            client.send("dy").await;
            let answer = client.answer().await.expect("it is served");
            assert!(answer.status == 200 && answer.text().contains("/again") && answer.text().ends_with("body"));
            bed.counts(RESTING, "", 1.0).await;
        }
        drop(client);
        until(|| bed.counted("bramble_gateway_connections", "connections ") < 0.5).await;
        assert!(bed.counted(RESTING, "") < 0.5, "it is not counted when it has gone");
    }
}

#[tokio::test]
async fn one_that_has_never_said_anything_may_begin_with_http_2() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = bed.client().await;
    bed.counts(RESTING, "", 1.0).await;
    // A preface, and settings of none.
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let frame = client.exactly(9).await.expect("settings");
    assert_eq!(frame.get(3), Some(&4), "{frame:?}");
}

#[tokio::test]
async fn one_at_rest_ends_with_its_listener() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = at_rest(&bed).await;
    bed.gateway.apply(Table::default()).await;
    assert!(client.rest().await.is_empty());
    until(|| bed.counted(RESTING, "") < 0.5).await;
}

#[tokio::test]
async fn one_at_rest_ends_when_the_gateway_closes() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let mut client = at_rest(&bed).await;
    bed.gateway.close(Duration::from_secs(20)).await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn one_at_rest_is_answered_once_more_while_another_gateway_takes_over() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let (mut asking, mut silent) = (at_rest(&bed).await, bed.client().await);
    bed.counts(RESTING, "", 2.0).await;
    bed.gateway.leave().await;
    let answer = asking.get("/").await;
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    let left = bed.gateway.finish(Duration::from_millis(50), Duration::from_secs(20)).await;
    assert_eq!((left.requests, left.tunnels), (1, 0), "who says nothing is let go when the time for requests is over");
    assert!(silent.rest().await.is_empty());
}

#[tokio::test]
async fn one_at_rest_for_too_long_is_closed() {
    let mirror = Instance::mirror().await;
    let limits = Limits { idle_deadline: Duration::from_millis(400), ..Limits::default() };
    let bed = Bed::start(limits, table(published(), Speaks::Http, &["a"])).await;
    bed.doors.set("a", mirror.address);
    let mut client = bed.client().await;
    assert_eq!(client.get("/").await.status, 200);
    assert!(client.rest().await.is_empty());
}
