//! Changes while people use the service: nobody notices, and data is never held by two.

use crate::deploying::{address, web};
use crate::probe;
use lab::load::{Load, Report};
use lab::{Node, node, wait};
use serde_json::Value;
use std::collections::BTreeSet;

/// Clients of each way in.
const CLIENTS: usize = 2;

/// Both ways in under load, for as long as this lives.
struct Rush {
    by_port: Load,
    by_host: Load,
}

impl Rush {
    fn start(node: &Node, port: u16) -> Rush {
        Rush {
            by_port: Load::start(CLIENTS, address(port), "localhost"),
            by_host: Load::start(CLIENTS, node.http, "web.shop.localhost"),
        }
    }

    /// Waits until both ways in answer with `text`.
    fn sees(&self, text: &str) {
        for load in [&self.by_port, &self.by_host] {
            let seen = |report: Report| report.answers.keys().any(|answer| answer.starts_with(text));
            wait::until(&format!("an answer with {text}"), 20, || seen(load.so_far()).then_some(()));
        }
    }

    /// Ends it; not one request may have failed.
    fn ended(self, node: &Node) {
        for (load, way) in [(self.by_port, "port"), (self.by_host, "host name")] {
            let report = load.stop();
            let (answered, failures) = (report.answered(), &report.failures);
            assert!(failures.is_empty(), "{answered} answered by {way}, failed: {failures:?}\n{}", node.log());
            assert!(answered > 0, "nothing was asked by {way}");
        }
    }
}

fn quick(port: u16, text: &str, replicas: u32) -> String {
    web(port, text, replicas).replace("{monitor: 1s}", "{monitor: 100ms}")
}

#[test]
fn no_request_fails_while_a_service_is_updated_and_reverted() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &quick(port, "one", 2));
    let rush = Rush::start(&node, port);
    rush.sees("one ");
    node.deployed("shop", &quick(port, "two", 2));
    rush.sees("two ");
    node.json(&["stack", "revert", "shop"]);
    let broken = quick(port, "broken", 2).replace("serve_forever()", "no_such_method()");
    assert!(!node.deploy("shop", &broken).status.success(), "what cannot start fails");
    rush.ended(&node);
}

#[test]
fn no_request_fails_while_a_service_is_restarted_and_scaled() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &quick(port, "one", 2));
    let rush = Rush::start(&node, port);
    rush.sees("one ");
    let before: BTreeSet<String> = ids(&node);
    node.json(&["service", "restart", "shop/web"]);
    assert!(before.is_disjoint(&ids(&node)), "every instance is another one");
    for replicas in ["4", "1", "2"] {
        node.json(&["service", "scale", "shop/web", replicas]);
    }
    rush.ended(&node);
    wait::until("two are left", 20, || (node.instances().len() == 2).then_some(()));
}

fn ids(node: &Node) -> BTreeSet<String> {
    let running = node.instances().into_iter().filter(|one| one["instance"]["wanted"] == "running");
    running.filter_map(|one| one["instance"]["id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_request_under_way_is_finished_by_whom_it_reached() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &format!("services:\n  web:\n{}", probe::service(port, "environment: {SLOT: '1'}")));
    for change in [["service", "restart", "shop/web"].as_slice(), &["service", "scale", "shop/web", "0"]] {
        let word = change[1];
        let slow = format!("import time\nprint('busy {word}', flush=True)\ntime.sleep(1.5)\nsay('done {word}')");
        let asked = std::thread::spawn(move || probe::run(port, &slow));
        node.says("shop", "web", &format!("busy {word}"));
        let output = node.cli(&[change, &["--detach"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(asked.join().expect("it is answered"), format!("done {word}"));
    }
    wait::until("none is left", 20, || node.instances().is_empty().then_some(()));
}

/// Held for as long as the process lives; whoever finds it held says so in the volume.
const KEEPER: &str = "
import fcntl, os
held = open('/data/lock', 'w')
try: fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: open('/data/two', 'w').write('at once')
open('/data/starts', 'a').write(os.environ['TEXT'] + ' ')
builtins = __import__('builtins')
builtins.held = held
";

#[test]
fn two_instances_never_hold_one_volume_and_its_data_stays() {
    let node = Node::start();
    let port = node::free_port();
    let file = |text: &str| {
        let more = format!(
            "volumes: ['data:/data']\nenvironment: {{TEXT: {text}, SLOT: '1'}}\ndeploy: {{update_config: {{monitor: 100ms}}}}"
        );
        format!("services:\n  web:\n{}volumes: {{data: {{}}}}\n", probe::service_after(KEEPER, port, &more))
    };
    node.deployed("shop", &file("one"));
    let rush = Rush::start(&node, port);
    rush.sees("slot 1");
    node.deployed("shop", &file("two"));
    node.json(&["service", "restart", "shop/web"]);
    rush.ended(&node);
    assert_eq!(probe::run(port, "say(open('/data/starts').read())"), "one two two ");
    assert!(probe::run(port, "open('/data/two')").starts_with("FileNotFoundError"), "never two at once");
    assert!(node.cli(&["stack", "rm", "shop"]).status.success());
    node.deployed("shop", &file("three"));
    assert_eq!(
        probe::run(port, "say(open('/data/starts').read())"),
        "one two two three ",
        "volumes outlive their stack"
    );
}

const BATCH_DELAY_MS: u64 = 700;

#[test]
fn batches_have_their_size_and_their_pause_and_all_old_ones_serve_until_then() {
    let node = Node::start();
    let port = node::free_port();
    let paced = |text: &str| {
        let pace = format!("{{monitor: 100ms, parallelism: 2, delay: {BATCH_DELAY_MS}ms}}");
        web(port, text, 4).replace("{monitor: 1s}", &pace)
    };
    node.deployed("shop", &paced("one"));
    let file = node.file("shop.yml", paced("two"));
    assert!(node.cli(&["deploy", "-f", &file.to_string_lossy(), "shop", "--detach"]).status.success());
    wait::until("the update is done", 30, || {
        let ready = node.instances().iter().filter(|one| one["status"]["ready"] == true).count();
        assert!(ready >= 4, "only {ready} serve");
        (node.json(&["service", "show", "shop/web"])["rollout"]["state"] == "done" && ready == 4).then_some(())
    });
    let running = node.instances().into_iter().filter(|one| one["instance"]["wanted"] == "running");
    let mut made: Vec<u64> = running.filter_map(|one: Value| one["instance"]["created_ms"].as_u64()).collect();
    made.sort_unstable();
    assert_eq!(made.len(), 4);
    assert!(made[2] - made[1] >= BATCH_DELAY_MS, "two, a pause, two: {made:?}");
}
