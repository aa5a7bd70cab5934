//! A node is replaced by another process while it is used: nobody notices, and whatever goes wrong, it is never worse
//! than before.

use crate::alerts::alert;
use crate::deploying::address;
use lab::mixed::{Clients, Tally, Ways};
use lab::{Node, http, node, process, program, wait};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const WEB: &str = "web.shop.localhost";
/// Upgrades take some fifty milliseconds to a few hundred: kills fall into all of it.
const KILL_STEP_MS: u64 = 7;
const KILLS: u64 = 20;

/// A node with one service that speaks everything, and a port that it is published at.
fn shop() -> (Node, u16) {
    let node = Node::start();
    let port = node::free_port();
    let more = format!("ports: ['127.0.0.1:{port}:8000']\ndeploy: {{replicas: 2}}");
    node.deployed("shop", &format!("services:\n  web:\n{}", program::service(&more)));
    (node, port)
}

/// Clients of every kind, for as long as this lives.
fn rush(node: &Node, port: u16) -> (Clients, Arc<Tally>) {
    let tally = Arc::new(Tally::new());
    let ways = Ways { shared: node.http, published: address(port), tls: None, web: WEB, still: WEB };
    let clients = Clients::start(&ways, &tally);
    wait::until("requests are answered", 20, || (tally.requests() > 50).then_some(()));
    (clients, tally)
}

/// Lets every request end; not one may have failed.
fn ended((clients, tally): (Clients, Arc<Tally>), node: &Node) {
    clients.stop();
    let (failures, excused) = tally.failures();
    assert!(failures.is_empty() && excused.is_empty(), "{failures:#?} {excused:#?}\n{}", node.log());
    for kind in ["http/1 kept", "http/1 fresh", "http/2", "upload", "slow answer", "tunnel", "long tunnel", "grpc"] {
        assert!(tally.well(kind) > 0, "nothing was asked by {kind}");
    }
}

/// Somebody who follows the access log, of which nothing is for them: no reason for an upgrade to wait.
fn follower(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.api).expect("the API listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has a timeout");
    let head = format!(
        "GET /v1/gateway/requests?follow=true&client=192.0.2.1 HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
        node.api,
        node.token()
    );
    stream.write_all(head.as_bytes()).expect("it takes a request");
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).expect("it answers");
    assert_eq!(&begin, b"HTTP/1.1 200");
    stream
}

fn script(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.file(name, format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    path
}

/// What runs serves and is the same as before.
fn serves(node: &Node, port: u16, pids: &[u64]) {
    let answer = http::get(address(port), "/").expect("the port answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Whoever attends them now has to find them first.
    wait::until("all instances are found", 10, || (instances(node).len() == pids.len()).then_some(()));
    assert_eq!(instances(node), pids, "no instance was restarted\n{}", node.log());
}

fn instances(node: &Node) -> Vec<u64> {
    let mut pids: Vec<u64> = node.instances().iter().filter_map(|one| one["status"]["pid"].as_u64()).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn no_request_fails_while_a_node_is_replaced_three_times() {
    let (mut node, port) = shop();
    let pids = instances(&node);
    let rush = rush(&node, port);
    let mut follower = follower(&node);
    let mut processes = vec![node.pid()];
    for _ in 0..3 {
        let before = rush.1.requests();
        node.upgrade(None, &[]).unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
        processes.push(node.pid());
        wait::until("requests go on", 20, || (rush.1.requests() > before + 200).then_some(()));
        serves(&node, port, &pids);
    }
    let mut rest = String::new();
    follower.read_to_string(&mut rest).expect("its stream ends as streams do");
    assert!(!node.log().contains("calls of the API did not end in time"), "{}", node.log());
    processes.dedup();
    assert_eq!(processes.len(), 4, "each time it is another process");
    ended(rush, &node);
    let serving = node.pid();
    let others = || processes.iter().filter(|pid| **pid != serving && process::runs(**pid)).count();
    wait::until("those before have ended", 20, || (others() == 0).then_some(()));
    node.deployed("next", &format!("services:\n  web:\n{}", program::service("")));
}

#[test]
fn a_binary_that_cannot_take_over_changes_nothing() {
    let (mut node, port) = shop();
    let pids = instances(&node);
    let rush = rush(&node, port);
    let serving = node.pid();
    let own = node::binary("bramble").display().to_string();
    let mut check = |name: &str, text: &str, expected: &str| {
        let broken = script(&node, name, text);
        let said = node.upgrade(Some(&broken), &["--ready", "2"]).expect_err("it cannot take over");
        assert!(said.contains(expected) && said.contains("goes on"), "{name}: {said}");
        assert_eq!(node.pid(), serving);
        serves(&node, port, &pids);
    };
    check("ends", "exit 7", "ended with exit status: 7");
    check("silent", "exec sleep 60", "not ready within 2000 ms");
    // Another's command line.
    check("strange", &format!("exec {own} ps"), "ended with exit status");
    // It takes everything, and then cannot open what it was given.
    check("homeless", &format!("shift\nexec {own} up --data /proc/none --take-over"), "ended with exit status");
    let none = node.file("none", "not a program");
    std::fs::set_permissions(&none, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    let said = node.upgrade(Some(&none), &[]).expect_err("it is no program");
    assert!(said.contains("start ") && said.contains("\"B0001\"") && said.contains("goes on"), "{said}");
    let alert = wait::until("the failures raise an alert", 20, || alert(&node, "upgrade_failing"));
    assert_eq!((&alert["firing"], &alert["value"]), (&true.into(), &5.0.into()), "{alert}");
    assert!(alert["summary"].as_str().is_some_and(|summary| summary.contains("B0001")), "{alert}");
    let missing = node.upgrade(Some(Path::new("/none/such")), &[]).expect_err("there is no such file");
    assert!(missing.contains("find /none/such"), "{missing}");
    node.upgrade(None, &[]).expect("one that can is taken");
    assert_ne!(node.pid(), serving);
    ended(rush, &node);
}

/// The node's own binary, with a `kill -9` of `whom` so many milliseconds after its start.
fn killing(node: &Node, whom: &str, after_ms: u64) -> PathBuf {
    let own = node::binary("bramble").display().to_string();
    let text = format!("(sleep {:.3}; kill -9 {whom}) &\nexec {own} \"$@\"", after_ms as f64 / 1_000.0);
    script(node, &format!("killing{after_ms}"), &text)
}

#[test]
fn a_new_process_killed_at_any_point_is_as_if_it_had_never_been() {
    let (mut node, port) = shop();
    let pids = instances(&node);
    let rush = rush(&node, port);
    let mut failed = 0;
    for round in 0_u64.. {
        assert!(round < 500, "upgrades end, well or not");
        let serving = node.pid();
        let program = killing(&node, "$$", round * KILL_STEP_MS);
        let Err(said) = node.upgrade(Some(&program), &[]) else { break };
        assert!(said.contains("goes on"), "{said}");
        assert_eq!(node.pid(), serving);
        serves(&node, port, &pids);
        let (failures, _) = rush.1.failures();
        assert!(failures.is_empty(), "round {round}: {failures:#?}\n{}", node.log());
        failed += 1;
    }
    println!("killed {failed} times before it served");
    assert!(failed > 2, "some were killed before they served");
    node.kill();
    node.launch();
    // Not before: the last kill may have left nobody who answers the clients.
    drop(rush);
    wait::until("both instances are found", 20, || (instances(&node) == pids).then_some(()));
}

/// The process with the highest number that could be the node's, if it is not the one that serves.
fn newest(node: &Node, serving: u32) -> Option<u32> {
    let of_node = process::of_data(node.data()).into_iter();
    let taking = of_node.filter(|pid| process::command_line(*pid).contains("--take-over") && *pid != serving);
    taking.max()
}

#[test]
fn a_node_killed_in_the_middle_of_an_upgrade_comes_back() {
    let (mut node, port) = shop();
    let pids = instances(&node);
    let (mut taken, mut lost) = (0, 0);
    for round in 0..KILLS {
        let serving = node.pid();
        let program = killing(&node, "$PPID", round * KILL_STEP_MS);
        // Killed, it cannot say what became of it.
        let _ = node.upgrade(Some(&program), &[]);
        wait::until("the process before is gone", 10, || (!process::runs(serving)).then_some(()));
        // Either the new process has everything and goes on, or nobody is left and the next start finds it all.
        if goes_on(&node) {
            taken += 1;
            node.adopt(newest(&node, serving).expect("whoever answers is a process"));
        } else {
            lost += 1;
            node.kill();
            node.launch();
        }
        wait::until("the port answers", 20, || http::get(address(port), "/").ok().filter(|one| one.status == 200));
        wait::until("both instances are found", 20, || (instances(&node) == pids).then_some(()));
    }
    println!("{taken} went on, {lost} were started again");
    assert!(taken > 0, "the new process goes on when it has everything\n{}", node.log());
}

/// Whether the API answers although the process that served was killed.
fn goes_on(node: &Node) -> bool {
    let deadline = world::clock::monotonic() + Duration::from_secs(10);
    while world::clock::monotonic() < deadline {
        if http::get(node.api, "/healthz").is_ok_and(|answer| answer.status == 200) {
            return true;
        }
        if process::of_data(node.data()).iter().all(|pid| !process::command_line(*pid).contains(" up ")) {
            return false;
        }
    }
    false
}

#[test]
fn a_signal_replaces_a_node_too() {
    let (mut node, port) = shop();
    let pids = instances(&node);
    let before = node.pid();
    process::signal(before, Signal::USR2);
    wait::until("the process before has ended", 20, || (!process::runs(before)).then_some(()));
    node.adopt(newest(&node, before).expect("another process has its place"));
    serves(&node, port, &pids);
}

#[test]
fn ill_instances_among_ten_are_left_out() {
    let seconds = lab::ill::run(8, |line| println!("{line}"));
    // How late answers are is the machine's affair; errors are the balancer's.
    let later = &seconds[3..];
    let errors: usize = later.iter().map(|one| one.errors).sum();
    let requests: usize = later.iter().map(|one| one.requests).sum();
    assert!(requests > 500, "{seconds:?}");
    assert!(errors * 200 < requests, "{errors} errors in {requests} requests: {seconds:?}");
}

#[test]
fn everything_at_once_while_everything_changes() {
    let plan = lab::mixed::Plan { seconds: 30.0, pause: Duration::from_secs(2) };
    let outcome = lab::mixed::run(plan, |line| println!("{line}"));
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(outcome.stuck.is_empty(), "{:#?}", outcome.stuck);
    assert!(outcome.requests > 1_000, "{outcome:?}");
}
