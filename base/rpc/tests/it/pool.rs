//! The connections of a machine: found by who the peer is, kept while they are of use, made anew when they are not.

use crate::room::{Cluster, Event, LONG, Pair, Stage, now_s, until};
use rpc::{CallError, Code, Patience, Terms, Versions};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[tokio::test]
async fn a_machine_is_found_at_its_new_address() {
    let pair = Pair::new().await;
    pair.call("test/echo", "here").await.unwrap();
    let before = pair.serving.address();
    let moved = pair.server.serve(Arc::clone(&pair.stage) as _).await;
    drop(pair.serving);
    until(|| pair.peers.connected(pair.server.node()).is_none(), "it is noticed").await;
    pair.peers.set_addresses(pair.server.node(), &[moved.address()]);
    let answer = pair.peers.call(pair.server.node(), "test/echo", "there", Terms::within(LONG)).await;
    assert_eq!(answer.unwrap().bytes, "there");
    assert_eq!(pair.peers.connected(pair.server.node()), Some(moved.address()));
    assert_ne!(before, moved.address());
}

#[tokio::test]
async fn an_address_that_is_another_machines_now_is_passed_over() {
    let pair = Pair::new().await;
    let other = pair.cluster.machine();
    let (stage, mut events) = Stage::new();
    let occupied = other.serve(stage).await;
    let node = pair.server.node();
    pair.peers.set_addresses(node, &[occupied.address()]);
    let error = pair.call("test/hold", "").await.unwrap_err();
    let CallError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    let expected = format!("{}: the machine is {}, not {node}", occupied.address(), other.node());
    assert_eq!(source.to_string(), expected);
    assert_eq!(error.hint(), "another machine has this address now");
    assert!(pair.client.failed("client", "other-node") > 0.0);
    pair.peers.set_addresses(node, &[occupied.address(), pair.serving.address()]);
    assert_eq!(pair.call("test/echo", "found").await.unwrap().bytes, "found");
    assert!(events.try_recv().is_err(), "the other machine has heard nothing");
}

#[tokio::test]
async fn who_cannot_be_reached_fails_calls_at_once_until_it_is_tried_again() {
    let cluster = Cluster::new();
    let (server, client) = (cluster.machine(), cluster.machine());
    let peers = client.peers();
    let call = || peers.call(server.node(), "test/echo", "", Terms::within(LONG));
    assert!(matches!(call().await.unwrap_err(), CallError::NoAddress { .. }));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    peers.set_addresses(server.node(), &[address]);
    let error = call().await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }) && error.code() == Code::Unavailable, "{error:?}");
    let error = call().await.unwrap_err();
    assert!(matches!(error, CallError::Waiting { .. }) && !error.may_have_arrived(), "{error:?}");
    let (stage, _events) = Stage::new();
    let _serving = server.serve_at(TcpListener::bind(address).await.unwrap(), stage);
    let mut answer = call().await;
    while let Err(CallError::Waiting { again_in, .. }) = answer {
        tokio::time::sleep(again_in).await;
        answer = call().await;
    }
    answer.unwrap();
}

#[tokio::test]
async fn who_is_revoked_is_cut_off_at_once() {
    let mut pair = Pair::new().await;
    let (node, peers) = (pair.server.node(), pair.peers.clone());
    let mut tunnel = peers.tunnel(node, "test/loop", "", Terms::within(LONG)).await.unwrap();
    let calling =
        world::task::spawn("test", async move { peers.call(node, "test/hold", "", Terms::within(LONG)).await });
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    pair.server.revoked.set([pair.client.node()]);
    let error = calling.join().await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error:?}");
    assert!(tunnel.read(&mut [0]).await.is_err());
    let dropped = [pair.event().await, pair.event().await];
    assert!(dropped.iter().all(|event| matches!(event, Event::Dropped(_))), "{dropped:?}");
    let error = pair.call("test/echo", "").await.unwrap_err();
    let CallError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().ends_with("turned this machine away: it has been removed from the cluster"), "{source}");
    assert_eq!(error.hint(), "have the machine join again");
    pair.server.until_failed("server", "revoked").await;
}

#[tokio::test]
async fn one_that_revokes_its_peer_hangs_up() {
    let mut pair = Pair::new().await;
    let (node, peers) = (pair.server.node(), pair.peers.clone());
    let calling =
        world::task::spawn("test", async move { peers.call(node, "test/hold", "", Terms::within(LONG)).await });
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    pair.client.revoked.set([node]);
    assert!(calling.join().await.unwrap().is_err());
    assert_eq!(pair.event().await, Event::Dropped("test/hold"));
    let error = pair.call("test/echo", "").await.unwrap_err();
    assert!(matches!(error, CallError::Revoked { .. }), "{error:?}");
}

#[tokio::test]
async fn a_renewed_certificate_disturbs_nothing() {
    let mut pair = Pair::new().await;
    let (node, peers) = (pair.server.node(), pair.peers.clone());
    let mut tunnel = peers.tunnel(node, "test/loop", "", Terms::within(LONG)).await.unwrap();
    let calling =
        world::task::spawn("test", async move { peers.call(node, "test/hold", "", Terms::within(LONG)).await });
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    for machine in [&pair.client, &pair.server] {
        machine.identity.renew(pair.cluster.credentials(&machine.key, now_s())).unwrap();
    }
    // The next calls go over a new connection, once there is one.
    let connections = || pair.server.counted("bramble_rpc_connections", &[("side", "server")]);
    while connections() < 2.9 {
        pair.call("test/echo", "on and on").await.unwrap();
    }
    tunnel.write_all(b"still open").await.unwrap();
    let mut heard = [0; 10];
    tunnel.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still open");
    pair.stage.release.notify_one();
    calling.join().await.unwrap().unwrap();
    // The old one has served its last call.
    until(|| connections() < 2.1, "the old connection is closed").await;
}

#[tokio::test]
async fn a_machine_cannot_be_renewed_into_another() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.machine(), cluster.machine());
    let error = one.identity.renew(cluster.credentials(&other.key, now_s())).unwrap_err();
    assert!(error.to_string().contains("this machine is"), "{error}");
    let elsewhere = Cluster { id: "othercluster".parse().unwrap(), authority: cluster.authority };
    let error = one.identity.renew(elsewhere.credentials(&one.key, now_s())).unwrap_err();
    assert!(error.to_string().contains("of cluster othercluster"), "{error}");
}

#[tokio::test]
async fn versions_that_do_not_meet_are_named() {
    let cluster = Cluster::new();
    let (mut server, mut client) = (cluster.machine(), cluster.machine());
    let (stage, _events) = Stage::new();
    let mut check = async |ours: Versions, theirs: Versions, expected: Option<&str>| {
        client.patience.versions = ours;
        server.patience.versions = theirs;
        let serving = server.serve(Arc::clone(&stage) as _).await;
        let peers = client.peers_with(&server, serving.address());
        let called = peers.call(server.node(), "test/echo", "", Terms::within(LONG)).await;
        match (called, expected) {
            (Ok(_), None) => {}
            (Err(CallError::Unreachable { source, .. }), Some(expected)) => {
                assert!(source.to_string().ends_with(expected), "{source}");
            }
            (other, expected) => panic!("{other:?} {expected:?}"),
        }
    };
    let versions = |min, max| Versions { min, max };
    check(versions(1, 1), versions(1, 1), None).await;
    check(versions(1, 2), versions(2, 5), None).await;
    let later = "this peer speaks a later version (3 to 4) than this program knows (1 to 2)";
    check(versions(1, 2), versions(3, 4), Some(later)).await;
    let earlier = "this peer speaks an earlier version (1) than this program knows (2 to 3)";
    check(versions(2, 3), versions(1, 1), Some(earlier)).await;
}

/// Passes bytes on until it is told to stop, and keeps the connection then: what a machine looks like that froze.
async fn frozen(target: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (freeze, is_frozen) = watch::channel(false);
    let relaying = async move {
        let mut kept = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut is_frozen = is_frozen.clone();
            kept.push(world::task::spawn("test", async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                    _ = is_frozen.wait_for(|frozen| *frozen) => {}
                }
                std::future::pending::<()>().await;
            }));
        }
    };
    world::task::spawn("test", relaying).detach();
    (address, freeze)
}

#[tokio::test]
async fn a_peer_that_froze_is_noticed() {
    let quick = Duration::from_millis(100);
    let patience = Patience { ping_every: quick, pong_within: quick, ..Patience::default() };
    let pair = Pair::patient(patience).await;
    let (address, freeze) = frozen(pair.serving.address()).await;
    pair.peers.set_addresses(pair.server.node(), &[address]);
    let mut tunnel = pair.peers.tunnel(pair.server.node(), "test/loop", "", Terms::within(LONG)).await.unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.read_exact(&mut [0; 5]).await.unwrap();
    freeze.send_replace(true);
    let read = tokio::time::timeout(LONG, tunnel.read(&mut [0])).await.expect("it is noticed");
    assert!(read.is_err());
    // Its machine sees to it too, and lets the method go.
    let gone = || pair.server.counted("bramble_rpc_connections", &[("side", "server")]).abs() < 0.1;
    until(gone, "the server has let go").await;
}

#[tokio::test]
async fn a_peer_that_is_forgotten_is_not_called_any_more() {
    let pair = Pair::new().await;
    pair.call("test/echo", "").await.unwrap();
    pair.peers.forget(pair.server.node());
    assert!(matches!(pair.call("test/echo", "").await.unwrap_err(), CallError::NoAddress { .. }));
    let gone = || pair.server.counted("bramble_rpc_connections", &[("side", "server")]).abs() < 0.1;
    until(gone, "the connection is closed").await;
}

#[tokio::test]
async fn with_the_last_of_them_all_connections_go() {
    let mut pair = Pair::new().await;
    let tunnel = pair.peers.tunnel(pair.server.node(), "test/loop", "", Terms::within(LONG)).await.unwrap();
    let Pair { peers, .. } = pair;
    drop(peers);
    assert_eq!(pair.events.recv().await, Some(Event::Dropped("test/loop")));
    drop(tunnel);
}
