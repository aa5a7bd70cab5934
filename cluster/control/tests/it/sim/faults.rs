//! What happens to the cluster: machines killed, cut off, frozen, without power, slow, with wrong clocks; members added and taken away.

use crate::sim::clients::Load;
use crate::sim::cluster::Cluster;
use crate::sim::network::Weather;
use replication::Start;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use world::random::Dice;

/// How long one change of members may take before it is left as it is.
const CHANGED_WITHIN: Duration = Duration::from_secs(20);
const MACHINES_MAX: usize = 7;

fn ms(from: u64, to: u64, dice: &Dice) -> Duration {
    Duration::from_millis(from + dice.roll() % (to - from))
}

fn one_of(nodes: &[u64], dice: &Dice) -> Option<u64> {
    nodes.get((dice.roll() % nodes.len().max(1) as u64) as usize).copied()
}

/// Breaks one thing after the other until the end; each mends by itself, and a few overlap.
pub(crate) async fn all(load: Load, dice: Dice) {
    let mut under_way = tokio::task::JoinSet::new();
    while !load.ended.load(Ordering::Relaxed) {
        tokio::time::sleep(ms(500, 8_000, &dice)).await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() < 3 {
            under_way.spawn(one(load.cluster.clone(), dice.others()));
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn one(cluster: Cluster, dice: Dice) {
    let members = cluster.members();
    // Whoever leads is hit more often than the others.
    let leader = cluster.led().map(|led| led.node).filter(|leader| members.contains(leader));
    let Some(node) = leader.filter(|_| dice.roll().is_multiple_of(3)).or_else(|| one_of(&members, &dice)) else {
        return;
    };
    match dice.roll() % 100 {
        0..14 => split(&cluster, &dice, &members).await,
        14..24 => isolate(&cluster, &dice, node, &members).await,
        24..38 => down(&cluster, &dice, node, false).await,
        38..52 => down(&cluster, &dice, node, true).await,
        52..66 => freeze(&cluster, &dice, node).await,
        66..72 => slow_disk(&cluster, &dice, node).await,
        72..80 => storm(&cluster, &dice).await,
        80..84 => step(&cluster, &dice, node),
        84..88 => blackout(&cluster, &dice).await,
        _ => change_members(&cluster, &dice).await,
    }
}

/// Two halves that do not hear each other, or of which only one hears the other.
async fn split(cluster: &Cluster, dice: &Dice, members: &[u64]) {
    let (left, right): (Vec<u64>, Vec<u64>) = members.iter().partition(|_| dice.roll().is_multiple_of(2));
    cut(cluster, dice, &left, &right, "split").await;
}

async fn isolate(cluster: &Cluster, dice: &Dice, node: u64, members: &[u64]) {
    let others = members.iter().copied().filter(|other| *other != node).collect::<Vec<_>>();
    cut(cluster, dice, &[node], &others, "isolate").await;
}

async fn cut(cluster: &Cluster, dice: &Dice, left: &[u64], right: &[u64], kind: &'static str) {
    let ways = dice.roll() % 4;
    let mut lines = Vec::new();
    for (one, other) in left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other))) {
        if ways != 1 {
            lines.push((one, other));
        }
        if ways != 2 {
            lines.push((other, one));
        }
    }
    cluster.record.fault(kind, &format!("{lines:?}"));
    cluster.net.cut(lines.iter().copied());
    tokio::time::sleep(ms(500, 20_000, dice)).await;
    cluster.net.mend(&lines);
    cluster.record.say(&format!("mended {lines:?}"));
}

/// A process killed, or a machine without power, at once or in the middle of what it writes; and started again.
async fn down(cluster: &Cluster, dice: &Dice, node: u64, power: bool) {
    let Some(disk) = cluster.disk(node).filter(|_| cluster.machine(node).is_some()) else { return };
    cluster.record.fault(if power { "power cut" } else { "kill" }, &node.to_string());
    if power && dice.roll().is_multiple_of(2) {
        disk.lose_power_after(dice.roll() % 12);
        tokio::time::sleep(ms(1, 2_000, dice)).await;
    }
    match power {
        true => cluster.cut_power(node),
        false => cluster.kill(node),
    }
    tokio::time::sleep(ms(50, 12_000, dice)).await;
    up(cluster, node).await;
}

async fn up(cluster: &Cluster, node: u64) {
    if cluster.machine(node).is_none() {
        cluster.start(node, Start::Join).await;
        cluster.record.say(&format!("up {node}"));
    }
}

async fn freeze(cluster: &Cluster, dice: &Dice, node: u64) {
    let Some(machine) = cluster.machine(node) else { return };
    cluster.record.fault("freeze", &node.to_string());
    machine.host.freeze();
    tokio::time::sleep(ms(300, 12_000, dice)).await;
    machine.host.thaw();
    cluster.record.say(&format!("thawed {node}"));
}

async fn slow_disk(cluster: &Cluster, dice: &Dice, node: u64) {
    let Some(machine) = cluster.machine(node) else { return };
    cluster.record.fault("slow disk", &node.to_string());
    machine.host.set_blocking_max(ms(20, 2_000, dice));
    tokio::time::sleep(ms(1_000, 15_000, dice)).await;
    machine.host.set_blocking_max(Duration::from_millis(1));
}

/// Everything late and out of order, some of it lost.
async fn storm(cluster: &Cluster, dice: &Dice) {
    let weather = Weather {
        delay_max_us: 10_000 + dice.roll() % 600_000,
        lost_percent: dice.roll() % 25,
        repeated_percent: dice.roll() % 20,
    };
    cluster.record.fault("storm", &format!("{weather:?}"));
    cluster.net.set_weather(weather);
    tokio::time::sleep(ms(1_000, 15_000, dice)).await;
    cluster.net.set_weather(crate::sim::network::FAIR);
}

/// A wall clock that jumps by up to a year, either way.
fn step(cluster: &Cluster, dice: &Dice, node: u64) {
    let Some(machine) = cluster.machine(node) else { return };
    let by_ms = (dice.roll() % 63_072_000_000) as i64 - 31_536_000_000;
    cluster.record.fault("clock step", &format!("{node} by {by_ms} ms"));
    machine.host.step_clock(by_ms);
}

/// Every machine loses power at the same moment, each somewhere in what it writes.
pub(crate) async fn blackout(cluster: &Cluster, dice: &Dice) {
    let members = cluster.members();
    cluster.record.fault("blackout", &format!("{members:?}"));
    for node in &members {
        if let Some(disk) = cluster.disk(*node).filter(|_| cluster.machine(*node).is_some()) {
            disk.lose_power_after(dice.roll() % 8);
        }
    }
    tokio::time::sleep(ms(1, 60, dice)).await;
    members.iter().for_each(|node| cluster.cut_power(*node));
    tokio::time::sleep(ms(100, 3_000, dice)).await;
    for node in members {
        up(cluster, node).await;
    }
}

/// One machine for another, or two voters more or fewer. Whatever does not succeed in time is left as it is.
async fn change_members(cluster: &Cluster, dice: &Dice) {
    let Some(led) = cluster.led() else { return };
    let voters = led.voters.clone();
    cluster.record.fault("members", &format!("{voters:?} and {:?}", led.learners));
    // Whoever was left behind by a change that did not succeed becomes a learner, which a later change takes away.
    for stray in cluster.members() {
        if !voters.contains(&stray) && !led.learners.contains(&stray) {
            at(cluster, led.node, move |group| async move { group.add_learner(stray).await }).await;
        }
    }
    let mut wanted = voters.clone();
    if voters.len() == 5 && dice.roll().is_multiple_of(2) {
        for _ in 0..2 {
            wanted.remove(&one_of(&wanted.iter().copied().collect::<Vec<_>>(), dice).unwrap_or_default());
        }
    } else if cluster.members().len() < MACHINES_MAX {
        let grows = voters.len() == 3 && dice.roll().is_multiple_of(2);
        for _ in 0..if grows { 2 } else { 1 } {
            let node = cluster.add(Start::Join).await;
            cluster.know(node);
            if !at(cluster, led.node, move |group| async move { group.add_learner(node).await }).await {
                return cluster.record.say(&format!("machine {node} was not added"));
            }
            wanted.insert(node);
        }
        if !grows && let Some(leaves) = one_of(&voters.iter().copied().collect::<Vec<_>>(), dice) {
            wanted.remove(&leaves);
        }
    }
    let set = wanted.clone();
    if wanted != voters && !at(cluster, led.node, move |group| async move { group.set_voters(set).await }).await {
        return cluster.record.say("voters were not changed");
    }
    let gone = voters.difference(&wanted).chain(&led.learners).copied().collect::<BTreeSet<_>>();
    for node in gone.difference(&wanted) {
        let node = *node;
        if at(cluster, led.node, move |group| async move { group.remove_learner(node).await }).await {
            cluster.forget(node);
            cluster.record.say(&format!("machine {node} has left"));
        }
    }
}

/// Has a member change the group; false when it did not, or nobody knows.
async fn at<F>(cluster: &Cluster, node: u64, change: impl FnOnce(replication::Group) -> F) -> bool
where
    F: Future<Output = Result<(), replication::MembersError>> + Send + 'static,
{
    let Some(machine) = cluster.machine(node) else { return false };
    let change = machine.host.spawn(change(machine.group));
    matches!(tokio::time::timeout(CHANGED_WITHIN, change).await, Ok(Ok(Ok(()))))
}
