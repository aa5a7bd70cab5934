//! What the simulation found, each by the shortest way there: made by hand, so that it stays when seeds come to mean something else.

use crate::sim::cluster::{Cluster, Machine};
use crate::sim::record::{Record, Renewal};
use crate::sim::verdict;
use control::{Space, SpaceError, Txn};
use std::time::Duration;
use world::random::Dice;

fn simulated(seed: u64, scenario: impl AsyncFn(Cluster, Record)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let record = Record::new(false);
        let cluster = Cluster::new(Dice::seeded(seed), record.clone(), None);
        cluster.found(3).await;
        scenario(cluster, record.clone()).await;
        assert_eq!(verdict::of(&record.read(), &[]), Vec::<String>::new());
    });
}

/// Waits for a leader other than `not`.
async fn leader_but(cluster: &Cluster, not: Option<u64>) -> u64 {
    loop {
        if let Some(led) = cluster.led().filter(|led| Some(led.node) != not) {
            return led.node;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ask<T, F>(cluster: &Cluster, node: u64, work: impl FnOnce(Space) -> F) -> Result<T, SpaceError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, SpaceError>> + Send + 'static,
{
    let Machine { host, space, .. } = cluster.machine(node).unwrap();
    host.spawn(work(space)).await.unwrap()
}

async fn held(cluster: &Cluster, record: &Record, node: u64, ttl_ms: u64) -> u64 {
    let asked_ms = record.now_ms();
    let lease = ask(cluster, node, |space| async move { space.grant(ttl_ms).await }).await.unwrap();
    let put = Txn::new().put_leased("held/it", *b"1", lease);
    ask(cluster, node, |space| async move { space.commit(put).await }).await.unwrap();
    record.renewed(Renewal { key: "held/it".to_owned(), asked_ms, ttl_ms });
    lease
}

/// Renews once if it can within a second, and writes it down.
async fn renew(cluster: &Cluster, record: &Record, node: u64, lease: u64) {
    let asked_ms = record.now_ms();
    let asked = ask(cluster, node, |space| async move { space.renew(lease).await });
    if let Ok(Ok(ttl_ms)) = tokio::time::timeout(Duration::from_secs(1), asked).await {
        record.renewed(Renewal { key: "held/it".to_owned(), asked_ms, ttl_ms });
    }
}

#[test]
fn a_leader_that_comes_back_reads_what_it_acknowledged() {
    for seed in 0..8 {
        simulated(seed, async |cluster, _| {
            for round in 0..10u8 {
                let leader = leader_but(&cluster, None).await;
                let put = move || Txn::new().put("k", vec![round]);
                // A lead may end at any time; then another one takes the write.
                while ask(&cluster, leader, |space| async move { space.commit(put()).await }).await.is_err() {}
                cluster.kill(leader);
                cluster.start(leader, replication::Start::Join).await;
                let entry = loop {
                    if let Ok(entry) = ask(&cluster, leader, |space| async move { space.get("k").await }).await {
                        break entry;
                    }
                };
                assert_eq!(entry.unwrap().value.as_ref(), [round], "seed {seed}");
            }
        });
    }
}

#[test]
fn a_leader_that_was_frozen_ends_no_lease_that_others_renewed() {
    for seed in 0..8 {
        simulated(seed, async |cluster, record| {
            let before = leader_but(&cluster, None).await;
            let lease = held(&cluster, &record, before, 8_000).await;
            cluster.machine(before).unwrap().host.freeze();
            let after = leader_but(&cluster, Some(before)).await;
            for round in 0..20 {
                tokio::time::sleep(Duration::from_millis(1_000)).await;
                if round == 10 {
                    cluster.machine(before).unwrap().host.thaw();
                }
                renew(&cluster, &record, after, lease).await;
            }
        });
    }
}

#[test]
fn who_leads_no_longer_renews_no_lease() {
    for seed in 0..8 {
        simulated(seed, async |cluster, record| {
            let before = leader_but(&cluster, None).await;
            let lease = held(&cluster, &record, before, 5_000).await;
            let others = cluster.members().into_iter().filter(|node| *node != before);
            cluster.net.cut(others.flat_map(|other| [(before, other), (other, before)]));
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(1_000)).await;
                renew(&cluster, &record, before, lease).await;
            }
        });
    }
}

#[test]
fn a_lease_that_is_being_ended_is_not_renewed() {
    for seed in 0..8 {
        simulated(seed, async |cluster, record| {
            let leader = leader_but(&cluster, None).await;
            let lease = held(&cluster, &record, leader, 2_000).await;
            for node in cluster.members() {
                cluster.machine(node).unwrap().host.set_blocking_max(Duration::from_millis(1_500));
            }
            tokio::time::sleep(Duration::from_millis(2_000)).await;
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                renew(&cluster, &record, leader, lease).await;
            }
            tokio::time::sleep(Duration::from_millis(5_000)).await;
        });
    }
}

#[test]
fn who_led_before_and_was_sent_a_snapshot_commits_again_when_it_leads() {
    for seed in 0..4 {
        simulated(seed, async |cluster, _| {
            let before = leader_but(&cluster, None).await;
            let others = cluster.members().into_iter().filter(|node| *node != before);
            cluster.net.cut(others.flat_map(|other| [(before, other), (other, before)]));
            let Machine { host, space, .. } = cluster.machine(before).unwrap();
            drop(host.spawn(async move { space.commit(Txn::new().put("to nobody", *b"1")).await }));
            let after = leader_but(&cluster, Some(before)).await;
            // Enough for the log of the others to begin after what was proposed in vain.
            for number in 0..400u64 {
                let put = Txn::new().put("k", number.to_le_bytes());
                ask(&cluster, after, |space| async move { space.commit(put).await }).await.unwrap();
            }
            cluster.net.mend_all();
            let revision = |node| cluster.machine(node).unwrap().space.revision();
            while revision(before) < revision(after) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            loop {
                let leader = leader_but(&cluster, None).await;
                if leader == before {
                    break;
                }
                cluster.machine(leader).unwrap().host.freeze();
                leader_but(&cluster, Some(leader)).await;
                cluster.machine(leader).unwrap().host.thaw();
            }
            let put = Txn::new().put("again", *b"1");
            ask(&cluster, before, |space| async move { space.commit(put).await }).await.unwrap();
        });
    }
}
