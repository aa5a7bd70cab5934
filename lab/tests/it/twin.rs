//! Two machines with one key: a data folder was copied. One of them takes no part, says why, and the cluster goes on.

use crate::alerts::alert;
use crate::cluster::{machines, web};
use lab::machines::Verb;
use lab::{Machines, Node, wait};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a machine that ended by itself said.
fn refused(node: &mut Node) -> String {
    let deadline = world::clock::monotonic() + Duration::from_secs(40);
    while node.ended().is_none() {
        assert!(world::clock::monotonic() < deadline, "it does not end: {}", node.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(node.ended().and_then(|ended| ended.code()), Some(1), "{}", node.log());
    node.log()
}

fn places(node: &Node) -> BTreeSet<String> {
    let instances = node.instances();
    instances.iter().map(|one| one["instance"]["id"].to_string()).collect()
}

/// Something can be changed, at this machine.
fn decides(node: &Node, replicas: usize) {
    wait::until("a service can be changed", 40, || {
        let scaled = node.cli(&["service", "scale", "shop/web", &replicas.to_string(), "--detach"]);
        scaled.status.success().then_some(())
    });
    wait::until("it has as many instances", 60, || (machines(node).len() == replicas).then_some(()));
}

/// Three machines that all vote.
fn three() -> Option<Machines> {
    let cluster = Machines::in_network(3)?;
    let first = cluster.node(1);
    wait::until("three vote", 60, || first.log().contains("voters=3").then_some(()));
    first.deployed("shop", &web(3));
    Some(cluster)
}

#[test]
fn a_copy_of_the_only_machine_meets_it_and_stays_out() {
    let first = Node::start();
    first.join_token(&[]);
    let mut copy = Node::copy_of(first.data(), None);
    copy.launch_unready();
    let said = refused(&mut copy);
    let both = [&first, &copy].map(|node| node.peers.to_string());
    assert!(both.iter().all(|address| said.contains(address)) && said.contains("--data"), "{both:?}: {said}");
    first.deployed("shop", &web(1));
}

#[test]
fn a_copied_voter_is_refused_by_those_who_hear_the_first_and_when_it_has_lived_on() {
    let Some(mut cluster) = three() else { return };
    let before = places(cluster.node(1));
    cluster.act(Verb::Copy(2)).expect("a disk can be copied");
    // It does not reach the machine it is a copy of: the others tell it.
    cluster.act(Verb::Partition(2, Some(4))).expect("two are cut off from each other");
    let said = refused(cluster.begin(4));
    let both = [2, 4].map(|number| cluster.node(number).peers.to_string());
    assert!(both.iter().all(|address| said.contains(address)) && said.contains("runs already"), "{both:?}: {said}");
    let twin = wait::until("it is an alert", 30, || {
        [1, 3].into_iter().find_map(|number| alert(cluster.node(number), "machine_twin"))
    });
    assert_eq!(twin["labels"]["machine"], cluster.node(2).id(), "{twin}");
    assert_eq!(places(cluster.node(1)), before, "nothing was moved");
    decides(cluster.node(2), 4);
    // The first begins another life, and is gone: the copy has the state of before.
    cluster.act(Verb::Kill(2)).expect("it is killed");
    cluster.act(Verb::Rejoin(2)).expect("it is back");
    let id = cluster.node(2).id();
    wait::until("its new life is on record", 20, || {
        cluster.node(2).log().contains("record is up to date life=2").then_some(())
    });
    decides(cluster.node(2), 3);
    cluster.act(Verb::PowerCut(Some(2))).expect("its power is cut");
    cluster.act(Verb::Heal).expect("nobody is cut off");
    let said = refused(cluster.begin(4));
    assert!(said.contains("has lived on") && said.contains(&id), "{said}");
    decides(cluster.node(3), 4);
    cluster.act(Verb::Rejoin(2)).expect("the first comes back");
    decides(cluster.node(2), 3);
}

#[test]
fn of_two_that_begin_at_once_and_meet_nobody_one_goes_on() {
    let Some(mut cluster) = three() else { return };
    cluster.act(Verb::PowerCut(None)).expect("all are dark");
    cluster.act(Verb::Copy(3)).expect("a disk can be copied");
    cluster.act(Verb::Partition(3, Some(4))).expect("the two are cut off from each other");
    for number in [3, 4] {
        cluster.power(number).expect("it has power");
        cluster.begin(number);
    }
    for number in [3, 4] {
        wait::until("it has begun", 40, || cluster.node(number).answers().then_some(()));
    }
    cluster.act(Verb::Heal).expect("they reach each other");
    for number in [1, 2] {
        cluster.act(Verb::Rejoin(number)).expect("it is back");
    }
    let deadline = world::clock::monotonic() + Duration::from_secs(60);
    let ended = loop {
        if let Some(ended) = [3, 4].into_iter().find(|it| cluster.has_ended(*it)) {
            break ended;
        }
        assert!(world::clock::monotonic() < deadline, "{}\n{}", cluster.node(3).log(), cluster.node(4).log());
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = cluster.node(ended).log();
    let both = [3, 4].map(|number| cluster.node(number).peers.to_string());
    assert!(both.iter().all(|address| said.contains(address)), "{both:?}: {said}");
    let other = 7 - ended;
    decides(cluster.node(other), 4);
    assert!(!cluster.has_ended(other), "{}", cluster.node(other).log());
}
