//! How fast the scheduler decides for a large cluster, on one core: everything from nothing, and what one lost machine
//! makes necessary.

use super::figures::{median, milliseconds};
use super::report::{Goal, Row};
use super::{Measured, Options};
use scheduler::{Input, Machine, Memory, StackWanted, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::resource::{Instance, Load, Phase, Presence, Rollout, RolloutState, StackRevision, Status};
use wire::spec::{Constraint, Service, Stack};

const MACHINES: usize = 5_000;
const ZONES: usize = 5;
const SERVICES: usize = 200;
const REPLICAS: u32 = 500;
const TIMES: usize = 7;
/// 50,000 placements a second.
const PLACEMENT_US: f64 = 20.0;
const LOST_MS: f64 = 50.0;

pub(super) fn run(_options: &Options) -> Measured {
    let mut cluster = Cluster::new();
    let mut seconds = Vec::new();
    let mut placed = 0;
    for _ in 0..TIMES {
        cluster.memory = Memory::default();
        let (plan, took_ms) = cluster.decided();
        placed = plan.steps.iter().filter(|step| matches!(step, Step::Create(_))).count();
        seconds.push(took_ms / 1000.0);
    }
    assert_eq!(placed, SERVICES * REPLICAS as usize, "there is room for all");
    cluster.carry_out();
    // Whoever plans has planned before, and keeps what it found.
    cluster.memory = Memory::default();
    let (_, first_ms) = cluster.decided();
    let calm: Vec<f64> = (0..TIMES)
        .map(|_| {
            let (plan, took_ms) = cluster.decided();
            assert!(plan.steps.is_empty(), "nothing to do, and yet {:?}", plan.steps.first());
            took_ms
        })
        .collect();
    let lost: Vec<f64> = (0..TIMES).map(|time| cluster.lose(&name_of(time * 700))).collect();
    let each = median(&seconds) / placed as f64;
    Measured::Rows(vec![
        Row::new("100,000 instances on 5,000 machines: each", "us", each * 1e6, Goal::Below(PLACEMENT_US)),
        Row::new("placements on one core", "per s", 1.0 / each, Goal::None),
        Row::new("the first plan of that cluster", "ms", first_ms, Goal::None),
        Row::new("a plan of that cluster, nothing to do", "ms", median(&calm), Goal::None),
        Row::new("a plan of it, one machine lost", "ms", median(&lost), Goal::Below(LOST_MS)),
    ])
}

struct Cluster {
    stacks: BTreeMap<String, StackWanted>,
    instances: BTreeMap<String, Arc<Instance>>,
    statuses: BTreeMap<String, Arc<Status>>,
    rollouts: BTreeMap<(String, String), Rollout>,
    machines: BTreeMap<String, Machine>,
    fenced: BTreeSet<String>,
    memory: Memory,
}

fn name_of(number: usize) -> String {
    format!("machine-{number:04}")
}

impl Cluster {
    fn new() -> Cluster {
        let services = (0..SERVICES).map(|number| (format!("service-{number:03}"), service(number))).collect();
        let stack = Stack { name: "large".into(), services, ..Stack::default() };
        let revision = StackRevision { stack, number: 1, created_ms: 0, source: String::new(), cause: String::new() };
        let wanted = StackWanted { revision: Arc::new(revision), removing: false };
        Cluster {
            stacks: BTreeMap::from([("large".to_owned(), wanted)]),
            instances: BTreeMap::new(),
            statuses: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            machines: (0..MACHINES).map(|number| (name_of(number), machine(number))).collect(),
            fenced: BTreeSet::new(),
            memory: Memory::default(),
        }
    }

    fn decided(&mut self) -> (scheduler::Plan, f64) {
        let input = Input {
            now_ms: 1_000_000,
            stacks: &self.stacks,
            instances: &self.instances,
            statuses: &self.statuses,
            rollouts: &self.rollouts,
            machines: &self.machines,
            fenced: &self.fenced,
        };
        let started = world::clock::monotonic();
        let plan = scheduler::plan_again(&input, &mut self.memory);
        let took = started.elapsed();
        (plan, milliseconds(took))
    }

    /// Everything that was decided is there and serves.
    fn carry_out(&mut self) {
        let (plan, _) = self.decided();
        for step in plan.steps {
            match step {
                Step::Create(new) => {
                    let id = format!("{}.{}.{}.abcdef", new.stack, new.service, new.slot);
                    let status =
                        Status { instance: id.clone(), phase: Phase::Running, ready: true, ..Status::default() };
                    self.statuses.insert(id.clone(), Arc::new(status));
                    let spec = Service::clone(&new.spec);
                    let instance = new.instance(id.clone(), spec, 900_000);
                    self.instances.insert(id, Arc::new(instance));
                }
                Step::Record(rollout) => {
                    let at = (rollout.stack.clone(), rollout.service.clone());
                    self.rollouts.insert(at, Rollout { state: RolloutState::Done, reason: String::new(), ..rollout });
                }
                Step::Stop { .. }
                | Step::Fence { .. }
                | Step::Forget { .. }
                | Step::RollBack { .. }
                | Step::ForgetStack { .. } => panic!("nothing is there yet"),
            }
        }
    }

    /// Milliseconds to decide what is to be done about a machine that is down; it is up again afterwards.
    fn lose(&mut self, id: &str) -> f64 {
        let there = self.instances.values().filter(|one| one.node == id).count();
        self.machines.get_mut(id).expect("it is one of them").presence = Presence::Down { since_ms: 990_000 };
        let (plan, took_ms) = self.decided();
        let made = plan.steps.iter().filter(|step| matches!(step, Step::Create(_))).count();
        assert_eq!(made, there, "each is replaced");
        self.machines.get_mut(id).expect("it is one of them").presence = Presence::Up;
        took_ms
    }
}

fn machine(number: usize) -> Machine {
    let mut machine = Machine { memory_usable_bytes: 58 << 30, cpu_usable_millis: 32_000, ..Machine::default() };
    machine.node.id = name_of(number);
    machine.node.hostname = name_of(number);
    machine.node.memory_bytes = 64 << 30;
    machine.node.cores = 32;
    machine.node.zone = format!("zone-{}", number % ZONES);
    machine.node.arch = if number.is_multiple_of(4) { "aarch64" } else { "x86_64" }.to_owned();
    let labels = [("rack", format!("rack-{}", number / 50)), ("disk", ["ssd", "hdd"][number % 2].to_owned())];
    machine.node.labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    machine.load = Some(Load {
        at_ms: 950_000,
        cpu_busy_millis: (number as u64 * 7919) % 8_000,
        memory_available_bytes: (48 << 30) + ((number as u64 * 104_729) % 10) * (1 << 30),
        ..Load::default()
    });
    machine
}

/// A tenth each wants something else; the rest is plain.
fn service(number: usize) -> Service {
    let mut service =
        Service { image: format!("example.org/image:{number}"), replicas: REPLICAS, ..Service::default() };
    service.environment = (0..5).map(|key| (format!("KEY_{key}"), format!("value {key}"))).collect();
    service.resources.memory_reserved_bytes = [0, 64, 256, 512][number % 4] << 20;
    service.resources.cpu_reserved_millis = [0, 100, 250][number % 3];
    let only = |field: &str, value: &str| Constraint { field: field.to_owned(), equal: true, value: value.to_owned() };
    let placement = &mut service.placement;
    match number % 10 {
        0 => placement.constraints = vec![only("node.labels.disk", "ssd")],
        1 => placement.constraints = vec![only("node.platform.arch", "aarch64")],
        2 => placement.spread = vec!["node.labels.rack".to_owned()],
        3 => placement.replicas_per_node_max = Some(1),
        4 => placement.without = vec![format!("service-{:03}", number - 1)],
        _ => {}
    }
    service
}
