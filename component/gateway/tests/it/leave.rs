//! A gateway whose place another one takes: whoever has connected is answered once more, then asked to connect again.

use crate::bed::{Bed, Client, Instance, until};
use gateway::{Gateway, Left, Settings};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn who_has_connected_is_answered_once_more_and_whoever_comes_next_by_the_next_gateway() {
    let instance = Instance::named("a").await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut kept = Client::connect(bed.address).await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut silent = Client::connect(bed.address).await;
    until(|| bed.gateway.connections() == 2).await;
    let inherited = bed.gateway.sockets().await;
    let next =
        Gateway::start(Settings { inherited, ..Settings::default() }, Arc::clone(&bed.doors) as _, meter::Meter::new());
    bed.gateway.leave().await;
    for client in [&mut kept, &mut silent] {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
        assert_eq!(answer.headers.get("connection").map(String::as_str), Some("close"));
    }
    assert_eq!(bed.gateway.finish(LONG, LONG).await, Left::default(), "nobody is left");
    // The next one has the socket, and with it whoever connects from now on.
    let waiting = Client::connect(bed.address).await;
    drop((waiting, next));
}

#[tokio::test]
async fn clients_are_asked_to_connect_again_and_the_same_gateway_goes_on() {
    let instance = Instance::named("a").await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let (mut kept, mut idle) = (Client::connect(bed.address).await, Client::connect(bed.address).await);
    for client in [&mut kept, &mut idle] {
        assert_eq!(client.get("/").await.status, 200);
    }
    let renewing = bed.gateway.renew(LONG);
    let asking = async {
        let answer = kept.get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
        assert!(idle.head().await.is_none(), "it has nothing under way and is closed");
    };
    tokio::join!(renewing, asking);
    let mut next = Client::connect(bed.address).await;
    for _ in 0..2 {
        let answer = next.get("/").await;
        assert_eq!((answer.status, answer.headers.get("connection")), (200, None), "it goes on");
    }
    bed.gateway.close(LONG).await;
    assert!(next.head().await.is_none(), "it ends with its gateway");
}

#[tokio::test]
async fn what_does_not_end_in_its_time_is_cut_and_counted() {
    let instance = Instance::raw(|stream| async move {
        // Never answers.
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = Client::connect(bed.address).await;
    client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
    bed.gateway.leave().await;
    let left = bed.gateway.finish(Duration::from_millis(20), LONG).await;
    assert_eq!(left, Left { requests: 1, tunnels: 0 });
    assert!(client.head().await.is_none(), "the connection is closed");
}
