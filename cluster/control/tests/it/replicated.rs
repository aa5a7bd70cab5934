//! The space as the program runs it: over a replicated group, on one machine and on three.

use control::{Compare, Keyspace, Space, SpaceError, Txn};
use replication::{Group, Network, Nowhere, Options, Start, Switchboard, Timing};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use storage::replicated::Proposer;
use world::disk::{Disk, Real, Simulated};

const TIMING: Timing = Timing { heartbeat_ms: 50, election_ms_min: 250, election_ms_max: 500 };

pub(crate) struct Machine {
    pub(crate) space: Space,
    pub(crate) group: Group,
}

impl Machine {
    async fn open(disk: Arc<dyn Disk>, directory: &Path, node: u64, start: Start, network: Arc<dyn Network>) -> Self {
        let keyspace = Keyspace::open(Arc::clone(&disk), &directory.join("state")).unwrap();
        let options = Options { disk, node, start, timing: TIMING, ..Options::alone(&directory.join("log")) };
        let group = Group::open(options, keyspace.clone(), network).await.unwrap();
        Self { space: Space::start(keyspace, Arc::new(group.clone())), group }
    }

    pub(crate) async fn close(self) {
        self.space.close();
        self.group.close().await;
    }
}

pub(crate) async fn alone(disk: Arc<dyn Disk>, directory: &Path) -> Machine {
    Machine::open(disk, directory, 1, Start::Found, Arc::new(Nowhere)).await
}

#[tokio::test]
async fn the_program_opens_a_space_in_four_lines() {
    let directory = tempfile::tempdir().unwrap();
    let keyspace = Keyspace::open(Arc::new(Real), &directory.path().join("control/state")).unwrap();
    let options = Options::alone(&directory.path().join("control/log"));
    let group = Group::open(options, keyspace.clone(), Arc::new(Nowhere)).await.unwrap();
    let space = Space::start(keyspace, Arc::new(group.clone()));
    assert!(space.commit(Txn::new().put("k", *b"1")).await.unwrap().succeeded);
    Machine { space, group }.close().await;
}

#[tokio::test]
async fn one_machine_keeps_everything_over_restarts_in_order_and_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut expected = 1;
    for round in 0..4u64 {
        let machine = alone(Arc::new(Real), directory.path()).await;
        assert_eq!(machine.space.revision(), expected);
        for number in 0..10u64 {
            let txn =
                Txn::new().when(Compare::absent(format!("{round}/{number}"))).put(format!("{round}/{number}"), *b"x");
            let committed = machine.space.commit(txn).await.unwrap();
            assert!(committed.succeeded);
            expected = committed.revision;
        }
        assert_eq!(machine.space.list("").await.unwrap().entries.len() as u64, 10 * (round + 1));
        let mut watch = machine.space.watch("0/", 2);
        assert_eq!(watch.next().await.unwrap()[0].revision, 2);
        // Every other time as after kill -9: no last checkpoint, only what was synced.
        if round % 2 == 0 {
            machine.close().await;
        } else {
            std::mem::drop(machine);
        }
        released(&Real, directory.path()).await;
    }
}

/// Waits for the tasks of a closed or dropped machine to end, and with them its hold on the files.
pub(crate) async fn released(disk: &dyn Disk, directory: &Path) {
    let free = |name: &str| disk.open(&directory.join(name)).unwrap().try_lock().unwrap();
    while !["log/lock", "state/space.redb"].into_iter().all(free) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_on_one_machine_share_syncs() {
    let disk = Simulated::new(1);
    let machine = alone(Arc::new(disk.clone()), Path::new("/data")).await;
    let before = disk.syncs();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..100u64 {
        let space = machine.space.clone();
        writers.spawn(async move {
            for number in 0..5u64 {
                space.commit(Txn::new().put(format!("{writer}/{number}"), *b"1")).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    assert_eq!(machine.space.revision(), 501);
    let meter = meter::Meter::new();
    let registrations = (machine.space.measure(&meter), machine.group.measure(&meter, "control"));
    let text = meter.encode();
    drop(registrations);
    assert!(text.contains("bramble_space_keys{space=\"durable\"} 500"), "{text}");
    assert!(text.contains("bramble_group_leads{group=\"control\"} 1"), "{text}");
    assert!(disk.syncs() - before < 250, "{} syncs for 500 commits", disk.syncs() - before);
    machine.close().await;
}

#[tokio::test]
async fn leases_that_end_together_share_syncs() {
    let disk = Simulated::new(1);
    let machine = alone(Arc::new(disk.clone()), Path::new("/data")).await;
    let mut grants = tokio::task::JoinSet::new();
    for number in 0..1_000u64 {
        let space = machine.space.clone();
        grants.spawn(async move {
            let lease = space.grant(60_000).await.unwrap();
            space.commit(Txn::new().put_leased(format!("held/{number}"), *b"1", lease)).await.unwrap();
        });
    }
    grants.join_all().await;
    let before = disk.syncs();
    let later = world::clock::monotonic() + std::time::Duration::from_secs(120);
    assert_eq!(machine.space.expire_leases(later).await.unwrap(), 1_000);
    assert!(machine.space.list("held/").await.unwrap().entries.is_empty());
    assert!(disk.syncs() - before < 100, "{} syncs for 1,000 leases", disk.syncs() - before);
    machine.close().await;
}

#[tokio::test]
async fn a_full_disk_is_told_with_advice_and_reading_goes_on() {
    let disk = Simulated::new(1);
    let machine = alone(Arc::new(disk.clone()), Path::new("/data")).await;
    disk.set_capacity(Some(disk.taken_bytes()));
    let mut written = 0;
    let refused = loop {
        match machine.space.commit(Txn::new().put(format!("{written}"), vec![1; 500_000])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpaceError::DiskFull));
    assert_eq!(machine.space.list("").await.unwrap().entries.len(), written);
    disk.set_capacity(None);
    machine.space.commit(Txn::new().put("after", *b"1")).await.unwrap();
    machine.close().await;
    released(&disk, Path::new("/data")).await;
    let machine = alone(Arc::new(disk), Path::new("/data")).await;
    assert_eq!(machine.space.list("").await.unwrap().entries.len(), written + 1);
    machine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_machines_are_one_space_and_leases_end_at_the_leader() {
    let board = Switchboard::new();
    let mut machines = Vec::new();
    for node in 1..=3 {
        let start = if node == 1 { Start::Found } else { Start::Join };
        let disk = Arc::new(Simulated::new(node));
        let machine = Machine::open(disk, Path::new("/data"), node, start, board.line(node)).await;
        board.connect(node, machine.group.clone());
        machines.push(machine);
    }
    machines[0].group.add_learner(2).await.unwrap();
    machines[0].group.add_learner(3).await.unwrap();
    machines[0].group.set_voters(BTreeSet::from([1, 2, 3])).await.unwrap();
    let mut watch = machines[2].space.watch("", 2);
    for (number, machine) in machines.iter().enumerate() {
        let revision = machine.space.commit(Txn::new().put("k", vec![number as u8])).await.unwrap().revision;
        assert!(machine.space.revision() >= revision, "whoever was acknowledged reads it where it asked");
        assert_eq!(watch.next().await.unwrap()[0].revision, revision);
    }
    let lease = machines[1].space.grant(2_000).await.unwrap();
    machines[1].space.commit(Txn::new().put_leased("held", *b"1", lease)).await.unwrap();
    assert_eq!(machines[2].space.renew(lease).await.unwrap(), 2_000);
    let later = world::clock::monotonic() + std::time::Duration::from_secs(60);
    let mut ended = 0;
    for machine in &machines {
        ended += machine.space.expire_leases(later).await.unwrap();
    }
    assert!(ended <= 1 && machines.iter().filter(|machine| machine.group.leading().is_some()).count() == 1);
    while machines[0].space.get("held").await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    for (node, machine) in (1..).zip(machines) {
        board.disconnect(node);
        machine.close().await;
    }
}
