//! The scheduler over whole lives: a little world carries out its steps and lets instances start, fail and die.

use proptest::prelude::*;
use scheduler::{Input, Machine, Plan, StackWanted, Step};
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::resource::{Exit, Health, Instance, Phase, Rollout, RolloutState, StackRevision, Status, Wanted};
use wire::spec::{
    Constraint, Dependency, DependencyCondition, Mount, MountSource, Service, Stack, UpdateOrder, UpdatePolicy,
};

/// A cluster that does what it is told.
#[derive(Default)]
struct World {
    now_ms: u64,
    revision: u64,
    history: BTreeMap<u64, Stack>,
    stacks: BTreeMap<String, StackWanted>,
    instances: BTreeMap<String, Arc<Instance>>,
    statuses: BTreeMap<String, Arc<Status>>,
    rollouts: BTreeMap<(String, String), Rollout>,
    machines: BTreeMap<String, Machine>,
    /// Images whose instances die as soon as they start.
    broken: Vec<&'static str>,
    made: u32,
    /// Fewest ready and most running instances seen while `watch` was set.
    ready_min: usize,
    running_max: usize,
}

impl World {
    fn new(machines: usize) -> World {
        let mut world = World::default();
        for number in 1..=machines {
            let mut machine = Machine { memory_usable_bytes: 1 << 30, cpu_usable_millis: 2000, ..Machine::default() };
            machine.node.id = format!("m{number}");
            machine.node.role = "manager".into();
            world.machines.insert(format!("m{number}"), machine);
        }
        world
    }

    fn deploy(&mut self, services: &[(&str, Service)]) {
        self.revision += 1;
        let services = services.iter().map(|(name, service)| ((*name).to_owned(), service.clone())).collect();
        let stack = Stack { name: "s".into(), services, ..Stack::default() };
        self.history.insert(self.revision, stack.clone());
        self.stacks.insert("s".into(), StackWanted { revision: revision(stack, self.revision), removing: false });
    }

    fn plan(&self) -> Plan {
        scheduler::plan(&Input {
            now_ms: self.now_ms,
            stacks: &self.stacks,
            instances: &self.instances,
            statuses: &self.statuses,
            rollouts: &self.rollouts,
            machines: &self.machines,
        })
    }

    /// One round: the planner's steps, then one move of every instance, then time.
    fn step(&mut self) -> usize {
        let plan = self.plan();
        let count = plan.steps.len();
        for step in plan.steps {
            self.carry_out(step);
        }
        let ids: Vec<String> = self.instances.keys().cloned().collect();
        for id in ids {
            self.advance(&id);
        }
        self.now_ms += 1_000;
        let ready = self.statuses.values().filter(|status| status.ready).count();
        self.ready_min = self.ready_min.min(ready);
        let running = self.statuses.values().filter(|status| status.phase == Phase::Running).count();
        self.running_max = self.running_max.max(running);
        count
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Create(new) => {
                self.made += 1;
                let id = format!("{}.{}.{}.{:05}", new.stack, new.service, new.slot, self.made);
                let instance = Instance {
                    id: id.clone(),
                    stack: new.stack,
                    service: new.service,
                    slot: new.slot,
                    revision: new.revision,
                    node: new.node,
                    wanted: Wanted::Running,
                    shape: new.shape,
                    spec: new.spec,
                    created_ms: self.now_ms,
                };
                self.instances.insert(id, Arc::new(instance));
            }
            Step::Stop { instance, .. } => {
                Arc::make_mut(self.instances.get_mut(&instance).expect("stops what exists")).wanted = Wanted::Stopped;
                if let Some(status) = self.statuses.get_mut(&instance) {
                    Arc::make_mut(status).ready = false;
                }
            }
            Step::Forget { instance } => {
                self.instances.remove(&instance);
                self.statuses.remove(&instance);
            }
            Step::Record(rollout) => {
                self.rollouts.insert((rollout.stack.clone(), rollout.service.clone()), rollout);
            }
            Step::RollBack { stack, service, to, reason } => {
                let old = self.history[&to].services[&service].clone();
                let shape = scheduler::shape(&old);
                self.revision += 1;
                let wanted = self.stacks.get_mut(&stack).expect("rolls back what exists");
                let mut undone = wanted.revision.stack.clone();
                undone.services.insert(service.clone(), old);
                self.history.insert(self.revision, undone.clone());
                wanted.revision = revision(undone, self.revision);
                let rollout = self.rollouts.get_mut(&(stack, service)).expect("rolls back what was rolled out");
                rollout.shape = shape;
                rollout.revision = self.revision;
                rollout.state = RolloutState::Running;
                rollout.rolling_back = true;
                rollout.reason = reason;
                rollout.failed.clear();
            }
            Step::ForgetStack { stack } => {
                self.stacks.remove(&stack);
            }
        }
    }

    fn advance(&mut self, id: &str) {
        let instance = &self.instances[id];
        let broken = self.broken.contains(&instance.spec.image.as_str());
        let status = Arc::make_mut(self.statuses.entry(id.to_owned()).or_default());
        if instance.wanted == Wanted::Stopped {
            status.phase = if status.phase == Phase::Stopping { Phase::Exited } else { Phase::Stopping };
            status.ready = false;
            return;
        }
        match status.phase {
            Phase::Waiting => status.phase = Phase::Starting,
            Phase::Starting if broken => {
                status.phase = Phase::BackingOff;
                status.exit = Some(Exit { code: 1, reason: "exited with 1".into(), at_ms: self.now_ms });
            }
            Phase::Starting => {
                status.phase = Phase::Running;
                status.ready = true;
                status.started_ms = self.now_ms;
                status.changed_ms = self.now_ms;
            }
            Phase::BackingOff => {
                status.phase = Phase::Starting;
                status.restarts += 1;
            }
            Phase::Pulling | Phase::Running | Phase::Stopping | Phase::Exited | Phase::Failed => {}
        }
    }

    /// Rounds until nothing moved for longer than any pause of these tests.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..300 {
            quiet = if self.step() == 0 { quiet + 1 } else { 0 };
            if quiet > 10 {
                return;
            }
        }
        panic!("does not settle: {:?}", self.plan());
    }

    fn watch(&mut self) {
        self.ready_min = usize::MAX;
        self.running_max = 0;
    }

    fn ready(&self) -> usize {
        self.statuses.values().filter(|status| status.ready).count()
    }

    fn images(&self) -> Vec<&str> {
        self.instances.values().map(|instance| instance.spec.image.as_str()).collect()
    }

    fn rollout(&self) -> &Rollout {
        &self.rollouts[&("s".to_owned(), "web".to_owned())]
    }
}

fn revision(stack: Stack, number: u64) -> Arc<StackRevision> {
    Arc::new(StackRevision { stack, number, created_ms: 0, source: String::new(), cause: String::new() })
}

fn web(image: &str, replicas: u32) -> Service {
    Service { image: image.into(), replicas, ..Service::default() }
}

#[test]
fn a_new_service_fills_all_slots_at_once() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 5))]);
    world.step();
    assert_eq!(world.instances.len(), 5);
    world.settle();
    assert_eq!((world.ready(), world.rollout().state), (5, RolloutState::Done));
}

#[test]
fn scaling_restarts_nothing_and_takes_the_highest_slots() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.deploy(&[("web", web("a", 5))]);
    world.settle();
    assert_eq!((world.made, world.ready()), (5, 5));
    world.deploy(&[("web", web("a", 1))]);
    world.settle();
    let left: Vec<u32> = world.instances.values().map(|instance| instance.slot).collect();
    assert_eq!((left, world.made), (vec![1], 5));
}

#[test]
fn a_rolling_update_never_serves_with_fewer() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.deploy(&[("web", web("b", 3))]);
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.running_max), (3, 4));
    assert_eq!(world.images(), ["b", "b", "b"]);
}

#[test]
fn one_instance_with_a_volume_is_stopped_first() {
    let mut world = World::new(1);
    let mount = Mount { source: MountSource::Volume { name: "v".into() }, target: "/v".into(), read_only: false };
    let with_data = |image| Service { mounts: vec![mount.clone()], ..web(image, 1) };
    world.deploy(&[("web", with_data("a"))]);
    world.settle();
    world.deploy(&[("web", with_data("b"))]);
    world.watch();
    world.settle();
    assert_eq!((world.running_max, world.images()), (1, vec!["b"]));
}

#[test]
fn stop_first_keeps_to_its_parallelism() {
    let mut world = World::new(1);
    let update = UpdatePolicy { order: Some(UpdateOrder::StopFirst), parallelism: 2, ..UpdatePolicy::default() };
    let service = |image| Service { update: update.clone(), ..web(image, 5) };
    world.deploy(&[("web", service("a"))]);
    world.settle();
    world.deploy(&[("web", service("b"))]);
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.running_max), (3, 5));
    assert_eq!(world.images(), ["b"; 5]);
}

#[test]
fn a_failing_update_goes_back_and_old_instances_serve_throughout() {
    let mut world = World::new(1);
    world.broken = vec!["bad"];
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.deploy(&[("web", web("bad", 3))]);
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.images()), (3, vec!["a", "a", "a"]));
    assert_eq!((world.rollout().state, world.rollout().rolling_back), (RolloutState::Done, true));
    assert_eq!(world.stacks["s"].revision.number, 3);
}

#[test]
fn a_bad_update_right_after_a_deploy_goes_back_too() {
    let mut world = World::new(1);
    world.broken = vec!["bad"];
    world.deploy(&[("web", web("a", 2))]);
    for _ in 0..3 {
        world.step();
    }
    assert_eq!((world.ready(), world.rollout().state), (2, RolloutState::Running));
    world.deploy(&[("web", web("bad", 2))]);
    world.settle();
    assert_eq!(world.images(), ["a", "a"]);
}

#[test]
fn a_first_deploy_that_fails_says_so_and_goes_on_trying() {
    let mut world = World::new(1);
    world.broken = vec!["bad"];
    world.deploy(&[("web", web("bad", 1))]);
    for _ in 0..20 {
        world.step();
    }
    assert_eq!(
        (world.rollout().state, world.rollout().reason.as_str()),
        (RolloutState::Failed, "web.1: exited with 1")
    );
    world.broken.clear();
    world.settle();
    assert_eq!((world.rollout().state, world.ready()), (RolloutState::Done, 1));
}

#[test]
fn an_unhealthy_new_instance_counts_as_failed() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 1))]);
    world.settle();
    world.deploy(&[("web", web("b", 1))]);
    world.step();
    let new = world.instances.values().find(|instance| instance.spec.image == "b").expect("it was made").id.clone();
    let sick =
        Status { phase: Phase::Running, health: Health::Unhealthy, message: "exit 7".into(), ..Status::default() };
    world.statuses.insert(new, Arc::new(sick));
    world.settle();
    assert_eq!(world.images(), ["a"]);
}

#[test]
fn what_no_machine_can_take_waits_with_the_reason() {
    let mut world = World::new(2);
    let mut service = web("a", 1);
    service.placement.constraints =
        vec![Constraint { field: "node.labels.disk".into(), equal: true, value: "ssd".into() }];
    world.deploy(&[("web", service)]);
    world.step();
    assert_eq!(world.rollout().reason, "no machine fits: 2 of 2 not node.labels.disk==ssd");
    let mut big = web("a", 1);
    big.resources.memory_reserved_bytes = 2 << 30;
    world.deploy(&[("web", big)]);
    world.step();
    assert!(world.rollout().reason.contains("short of memory (2048 MiB reserved by the service, 1024 MiB unreserved)"));
}

#[test]
fn instances_spread_over_machines_and_move_from_a_lost_one() {
    let mut world = World::new(3);
    world.deploy(&[("web", web("a", 6))]);
    world.settle();
    for machine in ["m1", "m2", "m3"] {
        assert_eq!(world.instances.values().filter(|instance| instance.node == machine).count(), 2);
    }
    world.machines.remove("m2");
    world.settle();
    assert_eq!(world.ready(), 6);
    assert!(world.instances.values().all(|instance| instance.node != "m2"));
}

#[test]
fn a_dependent_waits_until_its_dependency_is_healthy() {
    let mut world = World::new(1);
    let mut app = web("a", 1);
    let dependency = Dependency { condition: DependencyCondition::Healthy, restart: false, required: true };
    app.depends_on.insert("db".into(), dependency);
    world.deploy(&[("web", app), ("db", web("d", 1))]);
    world.step();
    assert_eq!(world.images(), ["d"]);
    assert_eq!(world.rollout().reason, "waits for db to be healthy");
    world.settle();
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_removed_stack_leaves_nothing() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.stacks.get_mut("s").expect("deployed").removing = true;
    for _ in 0..10 {
        world.step();
    }
    assert!(world.stacks.is_empty() && world.instances.is_empty());
}

#[test]
fn stacking_constraints_share_and_separate_machines() {
    let mut world = World::new(2);
    let mut apart = web("b", 1);
    apart.placement.without = vec!["web".into()];
    let mut together = web("c", 1);
    together.placement.with = vec!["web".into()];
    world.deploy(&[("web", web("a", 1)), ("apart", apart), ("together", together)]);
    world.settle();
    let node = |service: &str| world.instances.values().find(|i| i.service == service).map(|i| i.node.clone());
    assert_ne!(node("apart"), node("web"));
    assert_eq!(node("together"), node("web"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever is deployed in whatever order, with lost steps and dying instances, it settles on what was asked last.
    #[test]
    fn settles_on_the_last_wish(wishes in prop::collection::vec((0usize..3, 0u32..6, 0usize..6), 1..6)) {
        let mut world = World::new(2);
        for (image, replicas, rounds) in &wishes {
            world.deploy(&[("web", web(["a", "b", "c"][*image], *replicas))]);
            for _ in 0..*rounds {
                world.step();
            }
        }
        world.settle();
        let (image, replicas, _) = wishes[wishes.len() - 1];
        prop_assert_eq!(world.ready(), replicas as usize);
        prop_assert!(world.images().iter().all(|found| *found == ["a", "b", "c"][image]));
    }
}
