//! The node dies, its services do not: what runs is found again, what was wanted goes on.

use crate::deploying::{address, web};
use lab::{Node, Settings, http, node, process, wait};
use serde_json::Value;

fn pids(node: &Node) -> Vec<u64> {
    let mut pids: Vec<u64> = node.instances().iter().filter_map(|one| one["status"]["pid"].as_u64()).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn services_outlive_a_killed_node_and_are_found_again() {
    let mut node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 2));
    let before = pids(&node);
    assert_eq!(before.len(), 2);
    node.kill();
    for pid in &before {
        let pid = u32::try_from(*pid).expect("a pid");
        assert!(process::all().contains(&pid), "process {pid} goes on without the node");
    }
    node.launch();
    let answer = wait::until("the port answers again", 10, || http::get(address(port), "/").ok());
    assert_eq!(answer.status, 200);
    wait::until("both are ready again", 10, || (pids(&node).len() == 2).then_some(()));
    assert_eq!(pids(&node), before, "nothing was restarted");
    let restarts: Vec<Value> = node.instances().iter().map(|one| one["status"]["restarts"].clone()).collect();
    assert_eq!(restarts, [0, 0]);
}

#[test]
fn whoever_connects_while_the_node_is_gone_waits_and_is_answered() {
    let mut node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    node.kill();
    let client = std::thread::spawn(move || http::get(address(port), "/"));
    node.launch();
    let answer = client.join().expect("the client does not panic").expect("the connection was never refused");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(node.cli(&["stack", "rm", "shop"]).status.success());
    wait::until("nobody holds the port any more", 10, || http::get(address(port), "/").is_err().then_some(()));
}

#[test]
fn ctrl_c_stops_instances_and_the_next_start_brings_them_back() {
    let mut node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    node.interrupt();
    node.gone();
    node.launch();
    let answer = wait::until("the port answers again", 20, || http::get(address(port), "/").ok());
    assert_eq!(answer.status, 200);
}

/// Somebody without any rights on the machine.
const NOBODY_IN_PARTICULAR: u32 = 12_345;

#[test]
fn an_ordinary_user_has_the_same_cloud() {
    if !process::is_root() {
        eprintln!("skipped: only root can become another user; the other tests have run as one");
        return;
    }
    let mut node = Node::with(Settings { user: Some(NOBODY_IN_PARTICULAR), ..Settings::default() });
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 2));
    assert_eq!(http::get(address(port), "/").expect("the published port answers").status, 200);
    let before = pids(&node);
    node.kill();
    node.launch();
    wait::until("both are found again", 10, || (pids(&node) == before).then_some(()));
    node.interrupt();
    node.gone();
}
