//! The node killed at any point of a deploy, again and again: nothing is lost, nothing is left over, everything ends
//! as it was last asked for.

use crate::deploying::{address, web};
use lab::{Node, http, node, process, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How often the node is killed.
const KILLS: u32 = 200;
/// A deploy of two instances takes about this long; the kill falls anywhere into it and a little beyond.
const DEPLOY_MS: u64 = 400;

fn put(node: &Node, name: &str, file: &str) -> u16 {
    let body = json!({"source": file, "directory": "/"}).to_string();
    node.call("PUT", &format!("/v1/stacks/{name}"), &body).status
}

fn pids_of(node: &Node, stack: &str) -> BTreeSet<u64> {
    let of_stack = node.instances().into_iter().filter(|one| one["instance"]["stack"] == stack);
    of_stack.filter_map(|one| one["status"]["pid"].as_u64()).collect()
}

/// Control groups of instances whose id starts with `prefix`, anywhere in the hierarchy.
fn control_groups(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            found.insert(name);
        } else {
            control_groups(&entry.path(), prefix, found);
        }
    }
}

#[test]
fn a_node_killed_anywhere_loses_nothing_and_leaves_nothing() {
    let mut node = Node::start();
    // Names of its own, so that control groups of other tests are not mistaken for its.
    let (steady, churn) = (format!("steady{}", node.api.port()), format!("churn{}", node.api.port()));
    let (steady_port, churn_port) = (node::free_port(), node::free_port());
    node.deployed(&steady, &web(steady_port, "steady", 2));
    let steady_pids = pids_of(&node, &steady);
    assert_eq!(steady_pids.len(), 2);

    for round in 0..KILLS {
        let replicas = 1 + round % 3;
        assert_eq!(put(&node, &churn, &web(churn_port, &format!("round{round}"), replicas)), 200, "round {round}");
        std::thread::sleep(Duration::from_millis(world::random::number() % DEPLOY_MS));
        node.kill();
        let running = process::all();
        for pid in &steady_pids {
            let alive = u32::try_from(*pid).is_ok_and(|pid| running.contains(&pid));
            assert!(alive, "round {round}: a service that nobody touched died\n{}", node.log());
        }
        node.launch();
        if round % 20 == 0 {
            let answer = wait::until("the steady port answers", 10, || http::get(address(steady_port), "/").ok());
            assert_eq!(answer.status, 200);
        }
    }

    node.deployed(&churn, &web(churn_port, "last", 2));
    let answer = http::get(address(churn_port), "/").expect("the last deploy answers");
    assert!(answer.text().starts_with("last "), "{}", answer.text());
    wait::until("only what is wanted runs", 20, || (node.instances().len() == 4).then_some(()));
    assert_eq!(pids_of(&node, &steady), steady_pids, "the steady service was never restarted");
    nothing_left_over(&node, &[&steady, &churn]);

    assert!(node.cli(&["stack", "rm", &steady, &churn]).status.success());
    node.interrupt();
    node.gone();
    for stack in [&steady, &churn] {
        let mut left = BTreeSet::new();
        control_groups(Path::new("/sys/fs/cgroup"), &format!("{stack}."), &mut left);
        assert_eq!(left, BTreeSet::new(), "no control group is left");
    }
    let runs = std::fs::read_dir(node.data().join("run")).map_or(0, Iterator::count);
    assert_eq!(runs, 0, "no run folder is left");
}

/// Boxes, control groups, run folders and mounts are those of the instances there are.
fn nothing_left_over(node: &Node, stacks: &[&String]) {
    let wanted: BTreeSet<String> =
        node.instances().iter().filter_map(|one| one["instance"]["id"].as_str().map(str::to_owned)).collect();
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(node.data().join(folder)).expect("the folder is there");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    wait::until("run folders are those of instances", 10, || (names("run") == wanted).then_some(()));
    assert_eq!(names("boxes").difference(&wanted).count(), 0, "no box folder is left over");
    let mut groups = BTreeSet::new();
    for stack in stacks {
        control_groups(Path::new("/sys/fs/cgroup"), &format!("{stack}."), &mut groups);
    }
    let strange: Vec<_> =
        groups.iter().filter(|group| !wanted.iter().any(|id| group.starts_with(id.as_str()))).collect();
    assert!(strange.is_empty(), "no control group is left over: {strange:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    assert!(!mounts.contains(&node.data().display().to_string()), "no mount shows outside of a box");
}
