//! Machines of a simulated cluster: the real log, group, key space and space on a disk, a clock and a network that can be broken.

use crate::sim::careless::{self, Careless};
use crate::sim::network::Net;
use crate::sim::record::Record;
use control::{Keyspace, Space, WatchError};
use replication::{Group, Options, Overview, Start, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use storage::replicated::Proposer;
use wire::diagnostic::chain;
use world::disk::Simulated;
use world::random::Dice;
use world::simulated::Host;

/// Small, so that segments begin and end all the time.
const SEGMENT_BYTES: u64 = 256 * 1024;
/// And so few that snapshots are sent to whoever was away for a while.
const CHECKPOINT_COMMANDS: u64 = 150;
const KEPT_BYTES: u64 = 16 * 1024;
/// 2026-01-01, where every machine's clock begins.
const WALL_MS: u64 = 1_767_225_600_000;
/// How often a machine whose power goes while it starts is started again.
const STARTS: usize = 10;

/// A running machine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) group: Group,
    pub(crate) space: Space,
}

/// Clones are the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) net: Net,
    pub(crate) record: Record,
    dice: Arc<Dice>,
    timing: Timing,
    careless: Option<Careless>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    disks: BTreeMap<u64, Simulated>,
    up: BTreeMap<u64, Machine>,
    /// Whom clients and faults know.
    members: BTreeSet<u64>,
    next: u64,
}

impl Cluster {
    pub(crate) fn new(dice: Dice, record: Record, careless: Option<Careless>) -> Self {
        let state = State { next: 1, ..State::default() };
        let net = Net::new(dice.others());
        let timing = Timing::default();
        Self { net, record, dice: Arc::new(dice), timing, careless, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("changing the cluster never panics")
    }

    /// Founds a cluster of that many voters.
    pub(crate) async fn found(&self, voters: u64) {
        let first = self.add(Start::Found).await;
        let mut all = BTreeSet::from([first]);
        for _ in 1..voters {
            let node = self.add(Start::Join).await;
            self.on(first, move |machine| async move { machine.group.add_learner(node).await }).await;
            all.insert(node);
        }
        let set = all.clone();
        self.on(first, move |machine| async move { machine.group.set_voters(set).await }).await;
        self.state().members = all;
    }

    /// Has something done on a machine that is up and must do it.
    async fn on<T, E, F>(&self, node: u64, work: impl FnOnce(Machine) -> F)
    where
        T: Send + 'static,
        E: std::fmt::Debug + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let machine = self.machine(node).expect("the machine is up");
        machine.host.clone().spawn(work(machine)).await.expect("it is not killed").expect("it succeeds");
    }

    /// A new machine with an empty disk. Nobody knows it yet.
    pub(crate) async fn add(&self, start: Start) -> u64 {
        let node = {
            let mut state = self.state();
            let node = state.next;
            state.next += 1;
            state.disks.insert(node, Simulated::new(self.dice.roll()));
            node
        };
        self.start(node, start).await;
        node
    }

    pub(crate) fn know(&self, node: u64) {
        self.state().members.insert(node);
    }

    /// Takes a machine away for good.
    pub(crate) fn forget(&self, node: u64) {
        self.stop(node, |disk| disk.kill());
        let mut state = self.state();
        state.members.remove(&node);
        state.disks.remove(&node);
    }

    pub(crate) fn members(&self) -> Vec<u64> {
        self.state().members.iter().copied().collect()
    }

    pub(crate) fn machine(&self, node: u64) -> Option<Machine> {
        self.state().up.get(&node).cloned()
    }

    pub(crate) fn disk(&self, node: u64) -> Option<Simulated> {
        self.state().disks.get(&node).cloned()
    }

    /// How the group looks to whoever leads it in the latest term.
    pub(crate) fn led(&self) -> Option<Overview> {
        let up = self.state().up.values().cloned().collect::<Vec<_>>();
        let leading = up.iter().filter(|machine| machine.group.leading().is_some());
        leading.map(|machine| machine.group.overview()).max_by_key(|overview| overview.term)
    }

    /// The process ends at once; what it wrote to its disk is there.
    pub(crate) fn kill(&self, node: u64) {
        self.stop(node, Simulated::kill);
    }

    /// The machine is off at once; what it did not sync is lost in part or whole.
    pub(crate) fn cut_power(&self, node: u64) {
        self.stop(node, Simulated::power_cut);
    }

    fn stop(&self, node: u64, end: impl FnOnce(&Simulated)) {
        self.net.disconnect(node);
        let machine = self.state().up.remove(&node);
        if let Some(machine) = machine {
            machine.host.kill();
        }
        if let Some(disk) = self.disk(node) {
            end(&disk);
        }
    }

    /// Starts a machine that is down. Its disk may lose power while it starts; whatever else keeps it from starting is a defect.
    pub(crate) async fn start(&self, node: u64, start: Start) {
        for _ in 0..STARTS {
            let Some(disk) = self.disk(node) else { return };
            let host = Host::new(self.dice.roll(), WALL_MS);
            let loses_power = self.dice.roll().is_multiple_of(16);
            if loses_power {
                disk.lose_power_after(self.dice.roll() % 40);
            }
            let opened = host.spawn(self.clone().open(node, start, disk.clone())).await;
            match opened.expect("nobody kills a machine that starts") {
                Ok((group, space)) => {
                    disk.lose_power_after(u64::MAX);
                    self.net.connect(node, host.clone(), group.clone());
                    drop(host.spawn(watch(node, space.clone(), self.record.clone())));
                    self.state().up.insert(node, Machine { host, group, space });
                    return;
                }
                Err(error) => {
                    host.kill();
                    disk.power_cut();
                    if !loses_power {
                        return self.record.violated(format!("machine {node} does not start: {error}"));
                    }
                }
            }
        }
        self.record.violated(format!("machine {node} did not start in {STARTS} times"));
    }

    async fn open(self, node: u64, start: Start, disk: Simulated) -> Result<(Group, Space), String> {
        let disk = careless::disk(disk, self.careless);
        let opened = Keyspace::open(Arc::clone(&disk), Path::new("/control/state"));
        let keyspace = opened.map_err(|error| chain(&error))?;
        let log = storage::log::Options { segment_bytes: SEGMENT_BYTES };
        let log_at = Options::alone(Path::new("/control/log"));
        let timing = self.timing;
        let (checkpoint_commands, kept_bytes) = (CHECKPOINT_COMMANDS, KEPT_BYTES);
        let options = Options { disk, node, start, timing, log, checkpoint_commands, kept_bytes, ..log_at };
        let opened = Group::open(options, keyspace.clone(), self.net.line(node)).await;
        let group = opened.map_err(|error| chain(&error))?;
        let space = Space::start(keyspace, Arc::new(careless::Member(group.clone(), self.careless)));
        Ok((group, space))
    }

    /// Ends every fault: lines are mended, who is down is up.
    pub(crate) async fn heal(&self) {
        self.net.mend_all();
        self.net.set_weather(crate::sim::network::FAIR);
        for node in self.members() {
            match self.machine(node) {
                Some(machine) => {
                    machine.host.thaw();
                    machine.host.set_blocking_max(Duration::from_millis(1));
                }
                None => self.start(node, Start::Join).await,
            }
        }
    }
}

/// Follows all that a machine says happens, from where it stood when it was last up.
async fn watch(node: u64, space: Space, record: Record) {
    loop {
        let mut watch = space.watch("", record.followed(node) + 1);
        let ended = loop {
            match watch.next().await {
                Ok(events) => record.happened(node, events),
                Err(error) => break error,
            }
        };
        match ended {
            WatchError::Compacted { .. } | WatchError::Lagged => record.skipped(node, space.list_local("").revision),
            WatchError::Closed => return,
        }
    }
}
