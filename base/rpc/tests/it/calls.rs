//! Calls: answers, failures, deadlines, and what becomes of the method.

use crate::room::{Event, LONG, Pair};
use rpc::{CallError, Code, Failure, MESSAGE_BYTES_MAX, Patience, Terms, Trace};
use std::time::Duration;

#[tokio::test]
async fn bytes_come_back_with_their_trace() {
    let pair = Pair::new().await;
    assert_eq!(pair.call("test/echo", "hello").await.unwrap().bytes, "hello");
    assert_eq!(pair.call("test/echo", "").await.unwrap().bytes, "");
    let trace = Trace::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let terms = Terms { deadline: LONG, trace: trace.clone() };
    let answer = pair.peers.call(pair.server.node(), "test/echo", "hello", terms).await.unwrap();
    assert_eq!(answer.trace, trace);
}

#[tokio::test]
async fn a_method_knows_who_calls() {
    let pair = Pair::new().await;
    let who = pair.call("test/who", "").await.unwrap().bytes;
    assert_eq!(who, pair.client.node().to_string());
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let pair = Pair::new().await;
    let calls = (0..1_000_u32).map(|number| pair.call("test/echo", number.to_be_bytes().to_vec()));
    let answers = futures::future::join_all(calls).await;
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(answer.unwrap().bytes, u32::to_be_bytes(number).to_vec());
    }
    assert!((pair.server.counted("bramble_rpc_connections", &[("side", "server")]) - 1.0).abs() < 0.1);
    let labels = [("side", "server"), ("method", "test/echo"), ("code", "ok")];
    assert!((pair.server.counted("bramble_rpc_calls_total", &labels) - 1_000.0).abs() < 0.1);
}

#[tokio::test]
async fn a_failure_arrives_with_its_code_and_hint() {
    let pair = Pair::new().await;
    let error = pair.call("test/fail", "").await.unwrap_err();
    let expected = Failure::new(Code::NotFound, "there is no such thing: ü").with_hint("look elsewhere");
    assert!(matches!(&error, CallError::Failed { failure } if *failure == expected), "{error:?}");
    assert_eq!((error.code(), error.hint(), error.may_have_arrived()), (Code::NotFound, "look elsewhere", true));
    let check = |error: CallError, code: Code, text: &str| {
        assert!(error.code() == code && error.to_string().contains(text), "{error:?}");
    };
    check(pair.call("test/nothing", "").await.unwrap_err(), Code::Unimplemented, "no method test/nothing");
    check(pair.call("test/panic", "").await.unwrap_err(), Code::Internal, "failed in a way it should not");
    check(pair.call("test/count", "").await.unwrap_err(), Code::InvalidArgument, "is a watch, not a call");
    assert_eq!(pair.call("test/echo", "still there").await.unwrap().bytes, "still there");
}

#[tokio::test]
async fn messages_have_a_bound() {
    let pair = Pair::new().await;
    let largest = vec![1; MESSAGE_BYTES_MAX];
    assert_eq!(pair.call("test/echo", largest.clone()).await.unwrap().bytes, largest);
    assert_eq!(pair.call("test/large", "").await.unwrap().bytes.len(), MESSAGE_BYTES_MAX);
    let error = pair.call("test/echo", vec![1; MESSAGE_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { what: "the request", .. }) && !error.may_have_arrived(), "{error:?}");
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_the_method() {
    let mut pair = Pair::new().await;
    // The connection is there, so that all of the deadline is the method's.
    pair.call("test/echo", "").await.unwrap();
    let terms = Terms::within(Duration::from_millis(500));
    let error = pair.peers.call(pair.server.node(), "test/hold", "", terms).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(error.may_have_arrived());
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    assert_eq!(pair.event().await, Event::Dropped("test/hold"));
}

#[tokio::test]
async fn who_leaves_takes_the_method_along() {
    let mut pair = Pair::new().await;
    let (node, peers) = (pair.server.node(), pair.peers.clone());
    let calling =
        world::task::spawn("test", async move { peers.call(node, "test/hold", "", Terms::within(LONG)).await });
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    calling.cancel().await;
    assert_eq!(pair.event().await, Event::Dropped("test/hold"));
    let labels = [("side", "server"), ("method", "test/hold"), ("code", "cancelled")];
    crate::room::until(|| pair.server.counted("bramble_rpc_calls_total", &labels) > 0.0, "it is counted").await;
    assert_eq!(pair.call("test/echo", "next").await.unwrap().bytes, "next");
}

#[tokio::test]
async fn a_server_that_stops_lets_calls_end() {
    let mut pair = Pair::new().await;
    let (node, peers) = (pair.server.node(), pair.peers.clone());
    let calling =
        world::task::spawn("test", async move { peers.call(node, "test/hold", "", Terms::within(LONG)).await });
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    let stopping = pair.serving.stop(LONG);
    pair.stage.release.notify_one();
    let (has_stopped, answer) = tokio::join!(stopping, calling.join());
    assert!(has_stopped);
    answer.unwrap().unwrap();
    let error = pair.peers.call(node, "test/echo", "", Terms::within(LONG)).await.unwrap_err();
    assert!(error.code() == Code::Unavailable && !error.may_have_arrived(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_dropped_cuts_calls_off() {
    let mut pair = Pair::new().await;
    let (node, peers) = (pair.server.node(), pair.peers.clone());
    let calling =
        world::task::spawn("test", async move { peers.call(node, "test/hold", "", Terms::within(LONG)).await });
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    drop(pair.serving);
    let error = calling.join().await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }) && error.may_have_arrived(), "{error:?}");
    assert_eq!(pair.events.recv().await, Some(Event::Dropped("test/hold")));
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_made_again() {
    let patience = Patience { idle: Duration::from_millis(40), ..Patience::default() };
    let pair = Pair::patient(patience).await;
    pair.call("test/echo", "one").await.unwrap();
    let gone = || pair.server.counted("bramble_rpc_connections", &[("side", "server")]).abs() < 0.1;
    crate::room::until(gone, "it is closed").await;
    pair.call("test/echo", "two").await.unwrap();
}
