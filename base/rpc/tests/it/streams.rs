//! Watches and tunnels: their ends, their breaks, and that who sends waits for who reads.

use crate::room::{Event, LONG, Pair, connection, until};
use rpc::{CallError, Code, Terms, Tunnel};
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn tunnel(pair: &Pair, method: &'static str) -> Tunnel {
    pair.peers.tunnel(pair.server.node(), method, "opening;", Terms::within(LONG)).await.unwrap()
}

#[tokio::test]
async fn a_watch_brings_messages_as_they_come() {
    let pair = Pair::new().await;
    let mut watch = pair.peers.watch(pair.server.node(), "test/count", "", Terms::within(LONG)).await.unwrap();
    for expected in 1..=3_u32 {
        assert_eq!(watch.next().await.unwrap().unwrap(), expected.to_be_bytes().to_vec());
    }
    pair.stage.count_to.send_replace(5);
    for expected in 4..=5_u32 {
        assert_eq!(watch.next().await.unwrap().unwrap(), expected.to_be_bytes().to_vec());
    }
    assert_eq!(watch.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_that_fails_says_why_after_its_messages() {
    let pair = Pair::new().await;
    pair.stage.count_to.send_replace(10);
    let mut watch = pair.peers.watch(pair.server.node(), "test/count", "", Terms::within(LONG)).await.unwrap();
    for _ in 0..10 {
        watch.next().await.unwrap().unwrap();
    }
    let error = watch.next().await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Code::FailedPrecondition, "cannot count any further"));
}

#[tokio::test]
async fn a_watch_let_go_ends_its_method() {
    let mut pair = Pair::new().await;
    let watch = pair.peers.watch(pair.server.node(), "test/endless", "", Terms::within(LONG)).await.unwrap();
    drop(watch);
    assert_eq!(pair.event().await, Event::Dropped("test/endless"));
}

#[tokio::test]
async fn a_watch_nobody_reads_stops_its_method_and_nothing_else() {
    let mut pair = Pair::new().await;
    let mut watch = pair.peers.watch(pair.server.node(), "test/flood", "", Terms::within(LONG)).await.unwrap();
    // It sends until the windows are full, and calls go by.
    let mut sent = 0;
    loop {
        pair.call("test/echo", "passing").await.unwrap();
        let before = sent;
        while let Ok(Event::Sent(count)) = pair.events.try_recv() {
            sent = count;
        }
        if sent > 0 && sent == before {
            break;
        }
    }
    assert!(sent < 100, "{sent} messages of 64 KiB went nowhere");
    for _ in 0..sent + 10 {
        assert_eq!(watch.next().await.unwrap().unwrap().len(), 64 << 10);
    }
}

#[tokio::test]
async fn a_watch_asked_in_passing_loses_nothing() {
    let pair = Pair::new().await;
    let mut watch = pair.peers.watch(pair.server.node(), "test/flood", "", Terms::within(LONG)).await.unwrap();
    let mut heard = 0;
    let mut in_vain = 0;
    while heard < 200 {
        tokio::select! {
            biased;
            message = watch.next() => {
                assert_eq!(message.unwrap().unwrap().len(), 64 << 10);
                heard += 1;
            }
            () = tokio::task::yield_now() => in_vain += 1,
        }
    }
    assert!(in_vain > 0, "each message was there at once");
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_ends_by_halves() {
    let mut pair = Pair::new().await;
    let mut tunnel = tunnel(&pair, "test/loop").await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let mut heard = Vec::new();
    let expected = [b"opening;".as_slice(), &sent].concat();
    let (mut reader, mut writer) = tokio::io::split(&mut tunnel);
    let (written, read) = tokio::join!(
        async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        },
        reader.read_to_end(&mut heard)
    );
    written.unwrap();
    read.unwrap();
    assert!(heard == expected, "{} bytes came back of {}", heard.len(), expected.len());
    assert_eq!(pair.event().await, Event::Dropped("test/loop"));
}

#[tokio::test]
async fn the_other_end_may_close_its_half_first() {
    let mut pair = Pair::new().await;
    let mut tunnel = tunnel(&pair, "test/half").await;
    let mut heard = String::new();
    tunnel.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "all I have to say");
    tunnel.write_all(b"and this is mine").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(pair.event().await, Event::Read(Ok(b"and this is mine".to_vec())));
}

#[tokio::test]
async fn a_tunnel_that_is_refused_says_why() {
    let pair = Pair::new().await;
    let refused = pair.peers.tunnel(pair.server.node(), "test/refuse", "", Terms::within(LONG)).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, CallError::Failed { .. }), "{error:?}");
    let words = (error.code(), error.to_string(), error.hint().to_owned());
    assert_eq!(words, (Code::Unavailable, "nobody listens at web:80".to_owned(), "later".to_owned()));
}

#[tokio::test]
async fn a_tunnel_dropped_here_is_reset_there() {
    let mut pair = Pair::new().await;
    let mut tunnel = tunnel(&pair, "test/sink").await;
    assert_eq!(pair.event().await, Event::Began("test/sink"));
    tunnel.write_all(b"half a wo").await.unwrap();
    drop(tunnel);
    // The method is told by its read, or dropped where it waits.
    pair.stage.release.notify_one();
    let event = pair.event().await;
    assert!(matches!(event, Event::Dropped(_) | Event::Read(Err(ErrorKind::ConnectionReset))), "{event:?}");
}

#[tokio::test]
async fn a_tunnel_dropped_there_is_reset_here() {
    let pair = Pair::new().await;
    let mut tunnel = tunnel(&pair, "test/drop").await;
    let mut heard = vec![0; 9];
    tunnel.read_exact(&mut heard).await.unwrap();
    pair.stage.release.notify_one();
    let error = tunnel.read(&mut heard).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error:?}");
    let (_reader, mut writer) = tunnel.into_split();
    writer.closed().await;
    assert_eq!(writer.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_writes_waits_for_who_reads() {
    let mut pair = Pair::new().await;
    let mut tunnel = tunnel(&pair, "test/sink").await;
    assert_eq!(pair.event().await, Event::Began("test/sink"));
    let piece = vec![7; 64 << 10];
    let mut written = 0;
    // Until a write would have to wait, over and over while other calls come and go.
    let mut stuck = 0;
    while stuck < 20 {
        tokio::select! {
            biased;
            done = tunnel.write_all(&piece) => {
                done.unwrap();
                written += piece.len();
                stuck = 0;
            }
            answer = pair.call("test/echo", "passing") => {
                answer.unwrap();
                stuck += 1;
            }
        }
        assert!(written < 4 << 20, "four MiB have gone to somebody who does not read");
    }
    pair.stage.release.notify_one();
    tunnel.shutdown().await.unwrap();
    let Event::Read(Ok(heard)) = pair.event().await else { panic!("the tunnel ended well") };
    assert!(heard.len() >= written && heard.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_connection_is_carried_with_its_halves() {
    let pair = Pair::new().await;
    let tunnel = tunnel(&pair, "test/loop").await;
    let (mut app, carried) = connection().await;
    let carrying = world::task::spawn("test", tunnel.carry(carried));
    app.write_all(b"hello").await.unwrap();
    app.shutdown().await.unwrap();
    let mut heard = String::new();
    app.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "opening;hello");
    carrying.join().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broken_tunnel_resets_the_connection_it_carries() {
    let pair = Pair::new().await;
    let tunnel = tunnel(&pair, "test/drop").await;
    let (mut app, carried) = connection().await;
    let carrying = world::task::spawn("test", tunnel.carry(carried));
    let mut heard = vec![0; 9];
    app.read_exact(&mut heard).await.unwrap();
    pair.stage.release.notify_one();
    assert!(carrying.join().await.unwrap().is_err());
    assert_eq!(app.read(&mut heard).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Whoever leaves in the midst of much that comes resets its connection, and what it said last is before that.
#[tokio::test]
async fn the_last_words_of_a_connection_that_is_reset_arrive() {
    let mut pair = Pair::new().await;
    for _ in 0..20 {
        let tunnel = tunnel(&pair, "test/carry").await;
        let (mut app, carried) = connection().await;
        let carrying = world::task::spawn("test", tunnel.carry(carried));
        app.read_exact(&mut [0; 1 << 16]).await.unwrap();
        app.write_all(b"that is all").await.unwrap();
        app.set_zero_linger().unwrap();
        drop(app);
        assert_eq!(pair.event().await, Event::Heard { heard: b"that is all".to_vec(), broke: true });
        assert!(carrying.join().await.unwrap().is_err());
        assert_eq!(pair.event().await, Event::Dropped("test/carry"));
    }
}

#[tokio::test]
async fn tunnels_beyond_a_connections_bound_take_another() {
    let pair = Pair::new().await;
    let opening = (0..600).map(|_| tunnel(&pair, "test/loop"));
    let mut tunnels = futures::future::join_all(opening).await;
    let connections = || pair.server.counted("bramble_rpc_connections", &[("side", "server")]);
    assert!((connections() - 2.0).abs() < 0.1, "{}", connections());
    for tunnel in &mut tunnels {
        let mut heard = [0; 8];
        tunnel.read_exact(&mut heard).await.unwrap();
    }
    let labels = [("side", "client"), ("method", "test/loop")];
    assert!((pair.client.counted("bramble_rpc_open", &labels) - 600.0).abs() < 0.1);
    drop(tunnels);
    assert!(pair.client.counted("bramble_rpc_open", &labels).abs() < 0.1);
    let labels = [("side", "server"), ("method", "test/loop")];
    until(|| pair.server.counted("bramble_rpc_open", &labels).abs() < 0.1, "all are closed").await;
}
