//! Machines in a network of their own that freeze, that lose some of what they say, and that are cut off from the others.

use crate::cluster::{all_answer, known, machines, web};
use lab::machines::Verb;
use lab::{Machines, Node, wait};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a verdict takes at the most, on machines that share two cores.
const VERDICT: u64 = 20;
/// For watching that nothing happens: several times as long as five heartbeats.
const CALM: Duration = Duration::from_secs(8);

/// What `by` says of how a machine is: `up`, `down` and what there is besides.
fn presence(by: &Node, id: &str) -> String {
    let nodes = by.json(&["node", "ls"]);
    let of = nodes.as_array().expect("a list").iter().find(|one| one["node"]["id"] == id);
    of.map(|one| one["presence"].to_string()).unwrap_or_default()
}

fn is_down(by: &Node, id: &str) -> bool {
    presence(by, id).contains("down")
}

/// Five machines with two instances of a service each.
fn five() -> Option<Machines> {
    let cluster = Machines::in_network(5)?;
    let first = cluster.node(1);
    wait::until("five vote", 60, || first.log().contains("voters=5").then_some(()));
    first.deployed("shop", &web(10));
    wait::until("each machine has some", 40, || {
        let on = machines(first);
        (on.len() == 10 && on.iter().collect::<BTreeSet<_>>().len() == 5).then_some(())
    });
    Some(cluster)
}

/// `lost` is judged down, what it had runs elsewhere.
fn moves_from(by: &Node, lost: &str) {
    wait::until("it is judged to be down", VERDICT, || is_down(by, lost).then_some(()));
    wait::until("what it had runs elsewhere", 60, || {
        let on = machines(by);
        (on.len() == 10 && !on.iter().any(|machine| machine == lost)).then_some(())
    });
}

/// The machine is back, and knows that what was moved is not its own any more.
fn comes_back(cluster: &Machines, number: usize, lost: &str) {
    let first = cluster.node(1);
    wait::until("it is up again", 40, || presence(first, lost).contains("up").then_some(()));
    let node = cluster.node(number);
    // What is wanted, and where what is ready runs: ten, and the same ten for both.
    let sees = |node: &Node| {
        let instances = node.instances();
        let mut seen: Vec<String> = instances
            .iter()
            .map(|one| format!("{} {} {}", one["instance"]["id"], one["instance"]["wanted"], one["status"]["ready"]))
            .collect();
        seen.sort();
        seen
    };
    let wanted = |seen: &[String]| seen.iter().filter(|one| one.ends_with("\"running\" true")).count();
    let deadline = world::clock::monotonic() + Duration::from_secs(60);
    loop {
        let (by_first, by_itself) = (sees(first), sees(node));
        if wanted(&by_first) == 10
            && by_first.iter().filter(|one| one.contains("\"running\"")).count() == 10
            && by_first == by_itself
        {
            break;
        }
        assert!(world::clock::monotonic() < deadline, "{by_first:#?}\n{by_itself:#?}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    all_answer(node, 10);
}

#[test]
fn a_machine_that_is_cut_off_is_judged_down_and_stops_what_was_moved_when_it_is_back() {
    let Some(mut cluster) = five() else { return };
    let fifth = cluster.node(5).id();
    cluster.act(Verb::Partition(5, None)).expect("it is cut off");
    moves_from(cluster.node(1), &fifth);
    cluster.act(Verb::Heal).expect("it is back");
    comes_back(&cluster, 5, &fifth);
}

#[test]
fn a_machine_that_hears_and_is_not_heard_is_judged_down() {
    let Some(mut cluster) = five() else { return };
    let fifth = cluster.node(5).id();
    for other in 1..=4 {
        cluster.act(Verb::OneWay(5, other)).expect("it is not heard");
    }
    moves_from(cluster.node(1), &fifth);
    cluster.act(Verb::Heal).expect("it is back");
    comes_back(&cluster, 5, &fifth);
}

#[test]
fn a_freeze_of_a_second_is_nothing_and_one_of_five_does_no_harm() {
    let Some(mut cluster) = five() else { return };
    let (first, fifth) = (cluster.node(1).id(), cluster.node(5).id());
    let before = instances(cluster.node(1));
    cluster.act(Verb::Freeze(5)).expect("it stands still");
    std::thread::sleep(Duration::from_secs(1));
    cluster.act(Verb::Thaw(5)).expect("it goes on");
    stays_up(&cluster, &[&first, &fifth]);
    assert_eq!(instances(cluster.node(1)), before, "nothing was moved");
    cluster.act(Verb::Freeze(5)).expect("it stands still");
    std::thread::sleep(Duration::from_secs(5));
    cluster.act(Verb::Thaw(5)).expect("it goes on");
    comes_back(&cluster, 5, &fifth);
}

#[test]
fn what_is_lost_of_ten_frames_one_does_no_harm() {
    let Some(mut cluster) = five() else { return };
    let before = instances(cluster.node(1));
    for number in 1..=5 {
        // On both sides of a way: a tenth is lost of what goes from one to another.
        cluster.act(Verb::Loss(number, 51)).expect("frames are lost");
    }
    let all: Vec<String> = (1..=5).map(|number| cluster.node(number).id()).collect();
    stays_up(&cluster, &all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(instances(cluster.node(1)), before, "nothing was moved");
    assert_eq!(known(cluster.node(1)), 5);
}

#[test]
fn power_is_lost_by_all_at_once_and_everything_is_there_again() {
    let Some(mut cluster) = Machines::in_network(3) else { return };
    cluster.node(1).deployed("shop", &web(3));
    cluster.act(Verb::PowerCut(None)).expect("all are dark");
    let refused = cluster.act(Verb::Kill(2)).expect_err("there is nothing to kill");
    assert!(refused.contains("without power"), "{refused}");
    for number in 1..=3 {
        cluster.act(Verb::Rejoin(number)).expect("it starts again");
    }
    wait::until("the service is there again", 60, || (machines(cluster.node(1)).len() == 3).then_some(()));
    all_answer(cluster.node(2), 3);
}

/// For a while nobody is judged to be down.
fn stays_up(cluster: &Machines, all: &[&str]) {
    let until = world::clock::monotonic() + CALM;
    while world::clock::monotonic() < until {
        for id in all {
            assert!(!is_down(cluster.node(1), id), "{id} was judged to be down");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn instances(by: &Node) -> BTreeSet<String> {
    let all = by.instances();
    let wanted = all.iter().filter(|one| one["instance"]["wanted"] == "running");
    wanted.filter_map(|one| one["instance"]["id"].as_str().map(str::to_owned)).collect()
}
