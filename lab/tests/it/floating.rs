//! An address that is always the gateway's, whichever machine that is: it outlives the machine, and is never on two.

use crate::alerts::alert;
use crate::cluster::web;
use lab::machines::Verb;
use lab::{Machines, Node, http, wait};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 200);

/// The number of the machine that is the gateway, as `by` sees it.
fn gateway(cluster: &Machines, by: usize) -> Option<usize> {
    let all = cluster.node(by).json(&["cluster", "address", "ls"]);
    cluster.number(all[0]["gateway"].as_str()?)
}

/// A request through the address is answered.
fn answers(port: u16) -> bool {
    let to = SocketAddr::from((FLOATING, port));
    http::quick(to, "web.test").is_ok_and(|answer| answer.status == 200)
}

/// Asks one request after the other; how many, and why those failed that did.
fn ask_until(ends: &AtomicBool, port: u16) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    while !ends.load(Ordering::Relaxed) {
        asked += 1;
        match http::quick(SocketAddr::from((FLOATING, port)), "web.test") {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failed.push(answer.status.to_string()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (asked, failed)
}

/// The machines that have it, of those that run. A program can only listen at an address that is there.
fn holders(cluster: &Machines) -> Vec<usize> {
    let there = |number: &usize| {
        let place = cluster.node(*number).place().expect("it has a network of its own");
        place.inside(|| std::net::UdpSocket::bind((FLOATING, 0)).is_ok())
    };
    (1..=cluster.count()).filter(there).collect()
}

/// It moved away from machine `from`; where to.
fn moved(cluster: &Machines, by: usize, from: usize, port: u16) -> usize {
    let to = wait::until("another machine is the gateway", 20, || gateway(cluster, by).filter(|now| *now != from));
    wait::until("the address answers again", 20, || answers(port).then_some(()));
    wait::until("one machine has it", 10, || (holders(cluster) == [to]).then_some(()));
    to
}

#[test]
fn the_address_outlives_the_machine_that_had_it() {
    let Some(mut cluster) = Machines::in_network(4) else { return };
    let first = cluster.node(1);
    let port = first.http.port();
    first.deployed("shop", &web(4));
    assert!(first.cli(&["cluster", "address", "add", &FLOATING.to_string()]).status.success());
    wait::until("the address answers", 20, || answers(port).then_some(()));
    // Whoever leads and the gateway part when all is quiet.
    let had = wait::until("another than who leads is the gateway", 40, || {
        gateway(&cluster, 1).filter(|number| *number != 1 && holders(&cluster) == [*number])
    });
    cluster.act(Verb::PowerCut(Some(had))).expect("its power is cut");
    let then = moved(&cluster, 1, had, port);
    cluster.act(Verb::Rejoin(had)).expect("it comes back");
    wait::until("it does not take it back", 20, || (cluster.count_up() == 4).then_some(()));
    assert_eq!(gateway(&cluster, 1), Some(then));
    cluster.act(Verb::Freeze(then)).expect("it stands still");
    let last = moved(&cluster, 1, then, port);
    cluster.act(Verb::Thaw(then)).expect("it goes on");
    wait::until("all are up", 30, || (cluster.count_up() == 4).then_some(()));
    assert_eq!(holders(&cluster), [last], "who was frozen does not have it any more");
    // Given away on purpose, nobody who asks meanwhile is left without an answer.
    let ends = AtomicBool::new(false);
    let (asked, failed) = std::thread::scope(|scope| {
        let (ends, place) = (&ends, cluster.place().expect("it has a network"));
        let asking = scope.spawn(move || place.inside(|| ask_until(ends, port)));
        assert!(cluster.node(1).cli(&["node", "drain", &cluster.node(last).id()]).status.success());
        moved(&cluster, 1, last, port);
        ends.store(true, Ordering::Relaxed);
        asking.join().expect("it only asks")
    });
    assert!(asked > 0 && failed.is_empty(), "{} of {asked} failed: {failed:?}", failed.len());
    assert!(cluster.node(1).cli(&["cluster", "address", "rm", &FLOATING.to_string()]).status.success());
    wait::until("nobody has it", 10, || holders(&cluster).is_empty().then_some(()));
}

#[test]
fn an_address_that_cannot_be_held_is_an_alert_and_bad_ones_are_refused() {
    let first = Node::start();
    let said = first.refused(&["cluster", "address", "add", "192.0.2.80"]);
    assert!(said.contains("on its own"), "{said}");
    let second = first.join();
    wait::until("both know both", 20, || {
        (first.json(&["node", "ls"]).as_array().map_or(0, Vec::len) == 2).then_some(())
    });
    for (address, told) in [("nowhere", "no floating address"), ("127.0.0.1", "not an address of one machine")] {
        let said = first.refused(&["cluster", "address", "add", address]);
        assert!(said.contains(told), "{said}");
    }
    let own: IpAddr = second.peers.ip();
    assert!(own.is_loopback());
    let said = first.refused(&["cluster", "address", "rm", "192.0.2.80"]);
    assert!(said.contains("does not float"), "{said}");
    // An interface that no machine has.
    let add = ["cluster", "address", "add", "192.0.2.80", "--interface", "lab-none"];
    assert!(first.cli(&add).status.success());
    let is_told = || [&first, &second].into_iter().find_map(|node| alert(node, "floating_address_lost"));
    let told = wait::until("that nobody can hold it is an alert", 40, is_told);
    assert_eq!(told["firing"], true, "{told}");
    assert!(first.cli(&["cluster", "address", "rm", "192.0.2.80"]).status.success());
    wait::until("the alert ends", 60, || is_told().is_none_or(|told| told["firing"] == false).then_some(()));
}
