//! Many connections: what one client may have, and what becomes of those nobody uses when there is no room.

use crate::bed::{Bed, Client, Instance, until};
use gateway::{Limits, ListenerKind, Settings, Speaks};

const REFUSED: &str = "bramble_gateway_connections_refused_total";
const SHED: &str = "bramble_gateway_connections_shed_total";

#[tokio::test]
async fn a_client_has_only_so_many_connections() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], Limits { connections_per_client_max: 2, ..Limits::default() }).await;
    let (mut first, mut second) = (bed.client().await, bed.client().await);
    assert_eq!((first.get("/").await.status, second.get("/").await.status), (200, 200));
    let mut third = bed.client().await;
    assert!(third.rest().await.is_empty(), "it is closed at once");
    bed.counts(REFUSED, "", 1.0).await;
    assert_eq!(first.get("/").await.status, 200, "the others go on");
    drop(second);
    until(|| bed.counted("bramble_gateway_connections", "connections ") == 1.0).await;
    assert_eq!(bed.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_balancer_is_not_one_client_and_those_it_names_are() {
    let mirror = Instance::mirror().await;
    let limits = Limits { connections_per_client_max: 1, ..Limits::default() };
    let settings = Settings { limits, trusted: vec!["127.0.0.0/8".to_owned()], ..Settings::default() };
    let bed = Bed::start_with(settings, crate::bed::table(ListenerKind::Routed, Speaks::Detect, &["a"])).await;
    bed.doors.set("a", mirror.address);
    let mut unnamed = [bed.client().await, bed.client().await, bed.client().await];
    for client in &mut unnamed {
        assert_eq!(client.get("/").await.status, 200);
    }
    let named = async |client: &str| {
        let mut connection: Client = bed.client().await;
        connection.send(format!("PROXY TCP4 {client} 10.0.0.9 5000 80\r\n")).await;
        connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let status = connection.answer().await.map(|answer| answer.status);
        (connection, status)
    };
    let (_one, first) = named("10.0.0.1").await;
    let (_two, second) = named("10.0.0.1").await;
    let (_other, third) = named("10.0.0.2").await;
    assert_eq!((first, second, third), (Some(200), None, Some(200)));
}

#[tokio::test]
async fn connections_nobody_uses_make_room() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], Limits { connections_max: 3, ..Limits::default() }).await;
    // One had a request, one says nothing, one never ends its head: none of them ever leaves.
    let mut kept = bed.client().await;
    assert_eq!(kept.get("/").await.status, 200);
    let _silent = bed.client().await;
    let mut slow = bed.client().await;
    slow.send("GET / HTTP/1.1\r\nhost: a\r\n").await;
    let mut next = bed.client().await;
    assert_eq!(next.get("/").await.status, 200, "it need not wait for any of them");
    until(|| bed.counted(SHED, "") >= 1.0).await;
}

#[tokio::test]
async fn a_request_under_way_makes_no_room() {
    use tokio::io::AsyncWriteExt;
    let told = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = std::sync::Arc::clone(&told);
    let instance = Instance::raw(move |mut stream| {
        let told = std::sync::Arc::clone(&told);
        async move {
            crate::proxy::read_head(&mut stream).await;
            told.notified().await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    let bed = Bed::with(&[("a", &instance)], Limits { connections_max: 2, ..Limits::default() }).await;
    let mut asking = bed.client().await;
    asking.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
    let mut idle = bed.client().await;
    let mut next = bed.client().await;
    next.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(idle.rest().await.is_empty(), "the idle one goes");
    until(|| bed.gateway.in_flight("a") == 2).await;
    tell.notify_one();
    tell.notify_one();
    tell.notify_waiters();
    assert_eq!(asking.answer().await.expect("an answer").text(), "ok");
}

#[tokio::test]
async fn a_client_has_only_so_many_requests_under_way() {
    async fn never(_: http::Request<hyper::body::Incoming>) -> http::Response<crate::bed::Body> {
        std::future::pending().await
    }
    let instance = Instance::http(never).await;
    let bed = Bed::with(&[("a", &instance)], Limits { requests_per_client_max: 2, ..Limits::default() }).await;
    let mut waiting = [bed.client().await, bed.client().await];
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    }
    until(|| bed.gateway.in_flight("a") == 2).await;
    let mut third = bed.client().await;
    let refused = third.get("/").await;
    assert_eq!(refused.status, 429);
    assert!(refused.text().starts_with("B0629: "), "{}", refused.text());
    drop(waiting);
    until(|| bed.gateway.in_flight("a") == 0).await;
    third.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| bed.gateway.in_flight("a") == 1).await;
}

#[tokio::test]
async fn in_a_full_house_who_has_most_of_it_gets_no_more() {
    let mirror = Instance::mirror().await;
    let bed = Bed::with(&[("a", &mirror)], Limits { connections_max: 20, ..Limits::default() }).await;
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.push(bed.client().await);
    }
    until(|| bed.counted("bramble_gateway_connections", "connections ") == 20.0).await;
    assert!(bed.client().await.rest().await.is_empty(), "it is closed at once");
    bed.counts(REFUSED, "", 1.0).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = tokio::io::BufReader::new(socket.connect(bed.address).await.unwrap());
    assert_eq!(Client { stream }.get("/").await.status, 200, "another client is served");
}
