//! Every machine has another address, all at once: a machine is its key, and they find each other again.

use crate::cluster::{machines, web};
use lab::machines::Verb;
use lab::{Machines, Node, wait};

/// Machines that all know what they share.
fn cluster(count: usize) -> Option<Machines> {
    let cluster = Machines::anywhere(count)?;
    let first = cluster.node(1);
    wait::until("all vote", 60, || first.log().contains(&format!("voters={count}")).then_some(()));
    first.deployed("shop", &web(count));
    for number in 1..=count {
        let secret = cluster.node(number).data().join("cluster/discovery.key");
        wait::until("it has the secret of the announcements", 40, || secret.exists().then_some(()));
    }
    Some(cluster)
}

fn renumber(cluster: &mut Machines, first: u8) {
    for number in 1..=cluster.count() {
        let last = first + u8::try_from(number).expect("a few");
        cluster.renumber(number, last).expect("it has another address");
    }
}

/// All are up where they are now, and decide.
fn found_each_other(cluster: &Machines, replicas: usize) {
    let all: Vec<&Node> = (1..=cluster.count()).map(|number| cluster.node(number)).collect();
    wait::until("something can be decided", 90, || {
        let scaled = all[0].cli(&["service", "scale", "shop/web", &replicas.to_string(), "--detach"]);
        scaled.status.success().then_some(())
    });
    wait::until("all are up", 60, || (cluster.count_up() == all.len()).then_some(()));
    for node in all {
        wait::until("each knows what was decided", 60, || (machines(node).len() == replicas).then_some(()));
    }
}

fn comes_back_elsewhere(count: usize) {
    let Some(mut cluster) = cluster(count) else { return };
    cluster.act(Verb::PowerCut(None)).expect("all are dark");
    renumber(&mut cluster, 100);
    for number in 1..=count {
        cluster.act(Verb::Rejoin(number)).expect("it starts again");
    }
    found_each_other(&cluster, count + 1);
}

#[test]
fn three_machines_that_were_off_find_each_other_at_other_addresses() {
    comes_back_elsewhere(3);
}

#[test]
fn five_machines_that_were_off_find_each_other_at_other_addresses() {
    comes_back_elsewhere(5);
}

#[test]
fn machines_that_run_find_each_other_when_their_addresses_change() {
    let Some(mut cluster) = cluster(3) else { return };
    renumber(&mut cluster, 100);
    found_each_other(&cluster, 4);
}

#[test]
fn where_nothing_is_heard_on_the_link_one_address_is_enough() {
    let Some(mut cluster) = cluster(3) else { return };
    cluster.act(Verb::PowerCut(None)).expect("all are dark");
    renumber(&mut cluster, 100);
    cluster.mute_groups().expect("groups are not heard");
    for number in 2..=3 {
        cluster.start_with(number, &["--find", "10.77.1.101:7701"]);
    }
    for number in 1..=3 {
        cluster.act(Verb::Rejoin(number)).expect("it starts again");
    }
    found_each_other(&cluster, 4);
}
