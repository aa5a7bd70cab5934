//! Several machines are one cloud: they join, share what is to be done, reach each other's instances, and when one is
//! gone the others go on. Here each machine is a node with an address of loopback of its own.

use crate::alerts::alert;
use lab::load::Load;
use lab::node::binary;
use lab::{Node, Settings, http, program, wait};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// A service that everybody reaches by its host name: published ports would be the same on all machines of this one.
pub fn web(replicas: usize) -> String {
    let service = program::service(&format!(
        "expose: ['8000']\nx-bramble: {{routes: [{{host: web.test, port: 8000}}]}}\n\
         deploy: {{replicas: {replicas}, update_config: {{monitor: 100ms}}}}"
    ));
    format!("services:\n  web:\n{service}")
}

fn ask(node: &Node) -> Option<String> {
    let answer = http::request(node.http, "GET", "/", &[("Host", "web.test")], b"").ok()?;
    (answer.status == 200).then(|| answer.text())
}

/// Where ready instances are, as `node` sees it.
pub fn machines(node: &Node) -> Vec<String> {
    let ready = |one: &Value| one["status"]["ready"] == true && one["instance"]["wanted"] == "running";
    let instances = node.instances();
    let on = instances.iter().filter(|one| ready(one)).filter_map(|one| one["instance"]["node"].as_str());
    on.map(str::to_owned).collect()
}

pub fn known(node: &Node) -> usize {
    node.json(&["node", "ls"]).as_array().map_or(0, Vec::len)
}

/// Whether each of two asks every instance of both.
pub fn all_answer(node: &Node, slots: usize) {
    let mut met = BTreeSet::new();
    wait::until("every instance answers through this machine", 30, || {
        met.extend(ask(node));
        (met.len() == slots).then_some(())
    });
}

#[test]
fn two_machines_share_services_and_one_goes_on_alone() {
    let mut first = Node::start();
    let mut second = first.join();
    for node in [&first, &second] {
        wait::until("both know both", 20, || (known(node) == 2).then_some(()));
    }
    // Deployed at one, known at both.
    second.deployed("shop", &web(4));
    let both: BTreeSet<String> = machines(&first).into_iter().collect();
    assert_eq!(both.len(), 2, "each machine has some: {:?}", machines(&first));
    all_answer(&first, 4);
    all_answer(&second, 4);
    second.cut_power();
    let all_here = || {
        let on = machines(&first);
        (on.len() == 4 && on.iter().collect::<BTreeSet<_>>().len() == 1).then_some(())
    };
    wait::until("everything runs on the machine that is left", 30, all_here);
    all_answer(&first, 4);
    let missed = wait::until("its loss is an alert", 20, || alert(&first, "machine_down"));
    assert_eq!(missed["firing"], true, "{missed}");
    // It comes back, with what it had: others have its place by now.
    second.launch();
    wait::until("what was moved is not there twice", 30, || {
        let wanted = first.instances().iter().filter(|one| one["instance"]["wanted"] == "running").count();
        (wanted == 4 && machines(&second).len() == 4).then_some(())
    });
    all_answer(&second, 4);
    // Whoever decides and begins anew does not take for lost what it has not heard of yet.
    assert!(first.cli(&["service", "scale", "shop/web", "8"]).status.success());
    wait::until("both machines have some", 20, || {
        (machines(&first).iter().collect::<BTreeSet<_>>().len() == 2).then_some(())
    });
    let before = ids(&first);
    first.kill();
    first.launch();
    wait::until("all are ready again", 30, || (machines(&first).len() == 8).then_some(()));
    assert_eq!(ids(&first), before, "nothing was moved");
}

fn ids(node: &Node) -> BTreeSet<String> {
    let instances = node.instances();
    instances.iter().filter_map(|one| one["instance"]["id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn three_machines_outlive_whoever_leads() {
    let mut first = Node::start();
    let (second, third) = (first.join(), first.join());
    for node in [&first, &second, &third] {
        wait::until("all know all", 20, || (known(node) == 3).then_some(()));
    }
    first.deployed("shop", &web(3));
    wait::until("three vote", 20, || first.log().contains("voters=3").then_some(()));
    first.cut_power();
    // What is written now is agreed on by the two that are left.
    wait::until("a service can be changed without the first machine", 30, || {
        second.cli(&["service", "scale", "shop/web", "4", "--detach"]).status.success().then_some(())
    });
    wait::until("all four run on the two that are left", 40, || {
        let on = machines(&third);
        (on.len() == 4 && on.iter().collect::<BTreeSet<_>>().len() == 2).then_some(())
    });
    all_answer(&third, 4);
    first.launch();
    wait::until("the first machine has learned what it missed", 30, || (machines(&first).len() == 4).then_some(()));
}

#[test]
fn who_has_no_good_token_stays_outside_and_is_told_why() {
    let node = Node::start();
    let once = node.join_token(&[]);
    let _second = Node::with(Settings { token: Some(once.clone()), ..Settings::default() });
    let stranger = Node::start();
    let foreign = stranger.join_token(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let joins = |token: &str, data: &str| {
        let data = folder.path().join(data);
        let tried = Command::new(binary("bramble"))
            .args(["join", token, "--peers", "127.0.0.1:0", "--data"])
            .arg(&data)
            .output()
            .expect("the binary runs");
        assert_eq!(tried.status.code(), Some(1));
        assert!(!data.join("control").exists(), "nothing was founded");
        String::from_utf8_lossy(&tried.stderr).into_owned()
    };
    let check = |token: &str, expected: &str| {
        let said = joins(token, "fresh");
        assert!(said.contains(expected) && said.contains("hint:"), "{token}: {said}");
    };
    check(&once, "for one machine, which has joined");
    check("bramble1.x", "cut off");
    check("hello", "no join token");
    check(&once[..once.len() - 9], "cut off");
    // Addresses of one cluster, authority of another: somebody in between.
    drop(stranger);
    check(&foreign, "reach a member");
    // A machine that has a cluster of its own keeps it.
    let second = node.join_token(&[]);
    let alone = Node::start();
    let tried = Command::new(binary("bramble"))
        .args(["join", &second, "--data"])
        .arg(alone.data())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&tried.stderr);
    assert!(said.contains("another bramble uses"), "{said}");
}

#[test]
fn a_machine_is_emptied_without_a_failed_request_and_removed_for_good() {
    let first = Node::start();
    let mut second = first.join();
    wait::until("both know both", 20, || (known(&first) == 2).then_some(()));
    first.deployed("shop", &web(4));
    let of_second = first
        .instances()
        .iter()
        .filter_map(|one| one["instance"]["node"].as_str().map(str::to_owned))
        .find(|node| second.id() == *node);
    let id = of_second.expect("the second machine has some of four");
    let load = Load::start(2, first.http, "web.test");
    let refused = first.refused(&["node", "rm", &id]);
    assert!(refused.contains("B0405") && refused.contains("drain"), "{refused}");
    assert!(first.cli(&["node", "drain", &id]).status.success());
    wait::until("everything has moved to the first machine", 40, || {
        let on = machines(&first);
        (on.len() == 4 && !on.contains(&id)).then_some(())
    });
    wait::until("nothing is left there", 20, || first.cli(&["node", "rm", &id]).status.success().then_some(()));
    wait::until("one machine is left", 20, || (known(&first) == 1).then_some(()));
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.answered() > 0);
    wait::until("it is told", 20, || second.log().contains("was removed from the cluster").then_some(()));
    // Nor does it come back by starting again.
    second.terminate();
    second.launch();
    let own = first.cli(&["cluster", "token"]);
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    assert_eq!(known(&first), 1);
    let itself = first.json(&["node", "ls"])[0]["node"]["id"].as_str().map(str::to_owned);
    let refused = first.refused(&["node", "rm", &itself.expect("it has an id")]);
    assert!(refused.contains("cannot remove itself"), "{refused}");
}

#[test]
fn of_two_machines_the_one_that_is_left_decides_alone_when_told_to() {
    let mut first = Node::start();
    let second = first.join();
    wait::until("both know both", 20, || (known(&second) == 2).then_some(()));
    first.deployed("shop", &web(2));
    wait::until("the second machine knows of both", 20, || (machines(&second).len() == 2).then_some(()));
    first.cut_power();
    assert!(ask(&second).is_some(), "what runs goes on");
    let scale = |to: &str| second.cli(&["service", "scale", "shop/web", to, "--detach"]).status.success();
    assert!(!scale("3"), "nobody may decide");
    let data = second.data().display().to_string();
    let unsure = second.refused(&["cluster", "force-leader", "--data", &data]);
    assert!(unsure.contains("--yes"), "{unsure}");
    let forced = second.cli(&["cluster", "force-leader", "--data", &data, "--yes"]);
    assert!(forced.status.success(), "{}\n{}", String::from_utf8_lossy(&forced.stderr), second.log());
    wait::until("the machine that is left decides", 20, || scale("3").then_some(()));
    wait::until("all three run on it", 30, || (machines(&second).len() == 3).then_some(()));
    // The other one is back, and follows.
    first.launch();
    wait::until("the first machine has learned what it missed", 30, || (machines(&first).len() == 3).then_some(()));
    wait::until("both are up", 20, || (known(&first) == 2).then_some(()));
}
