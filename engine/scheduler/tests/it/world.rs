//! A little world that carries out the scheduler's steps and lets instances start, fail and die.

use scheduler::{Input, Machine, Memory, Plan, StackWanted, Step};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::resource::{Exit, Instance, Phase, Presence, Rollout, RolloutState, StackRevision, Status, Wanted};
use wire::spec::{Service, Stack, Volume};

/// A cluster that does what it is told.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) now_ms: u64,
    revision: u64,
    history: BTreeMap<u64, Stack>,
    pub(crate) stacks: BTreeMap<String, StackWanted>,
    pub(crate) instances: BTreeMap<String, Arc<Instance>>,
    pub(crate) statuses: BTreeMap<String, Arc<Status>>,
    pub(crate) rollouts: BTreeMap<(String, String), Rollout>,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) fenced: BTreeSet<String>,
    /// Images whose instances die as soon as they start.
    pub(crate) broken: Vec<&'static str>,
    /// Used in every plan beside one without it.
    memory: RefCell<Memory>,
    /// Of the next deploy.
    pub(crate) volumes: BTreeMap<String, Volume>,
    pub(crate) made: u32,
    /// Fences asked for, each time.
    pub(crate) demanded: Vec<String>,
    /// Fewest ready and most running instances seen while `watch` was set.
    pub(crate) ready_min: usize,
    pub(crate) running_max: usize,
}

impl World {
    pub(crate) fn new(machines: usize) -> World {
        let mut world = World::default();
        for number in 1..=machines {
            let mut machine = Machine { memory_usable_bytes: 1 << 30, cpu_usable_millis: 2000, ..Machine::default() };
            machine.node.id = format!("m{number}");
            machine.node.role = "manager".into();
            world.machines.insert(format!("m{number}"), machine);
        }
        world
    }

    pub(crate) fn deploy(&mut self, services: &[(&str, Service)]) {
        self.revision += 1;
        let services = services.iter().map(|(name, service)| ((*name).to_owned(), service.clone())).collect();
        let stack = Stack { name: "s".into(), services, volumes: self.volumes.clone(), ..Stack::default() };
        self.history.insert(self.revision, stack.clone());
        self.stacks.insert("s".into(), StackWanted { revision: revision(stack, self.revision), removing: false });
    }

    pub(crate) fn plan(&self) -> Plan {
        let plan = scheduler::plan(&self.input());
        let again = scheduler::plan_again(&self.input(), &mut self.memory.borrow_mut());
        assert_eq!(plan, again, "what was kept in memory makes no difference");
        plan
    }

    /// One round: the planner's steps, then one move of every instance, then time.
    pub(crate) fn step(&mut self) -> usize {
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

    pub(crate) fn carry_out(&mut self, step: Step) {
        match step {
            Step::Create(new) => {
                self.made += 1;
                let id = format!("{}.{}.{}.{:05}", new.stack, new.service, new.slot, self.made);
                let spec = Service::clone(&new.spec);
                let instance = new.instance(id.clone(), spec, self.now_ms);
                self.instances.insert(id, Arc::new(instance));
            }
            Step::Stop { instance, .. } => {
                Arc::make_mut(self.instances.get_mut(&instance).expect("stops what exists")).wanted = Wanted::Stopped;
                if let Some(status) = self.statuses.get_mut(&instance) {
                    Arc::make_mut(status).ready = false;
                }
            }
            Step::Fence { instance, .. } => self.demanded.push(instance),
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
        // What is on a machine that is away goes on there, and nobody hears of it.
        let away = self.machines.get(&instance.node).is_none_or(|machine| machine.presence != Presence::Up);
        if away {
            return;
        }
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

    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            now_ms: self.now_ms,
            stacks: &self.stacks,
            instances: &self.instances,
            statuses: &self.statuses,
            rollouts: &self.rollouts,
            machines: &self.machines,
            fenced: &self.fenced,
        }
    }

    /// Where the running instances of a service are, in order.
    pub(crate) fn nodes(&self, service: &str) -> Vec<&str> {
        let running = self.instances.values().filter(|one| one.service == service && one.wanted == Wanted::Running);
        let mut nodes: Vec<&str> = running.map(|one| one.node.as_str()).collect();
        nodes.sort_unstable();
        nodes
    }

    pub(crate) fn machine(&mut self, id: &str) -> &mut Machine {
        self.machines.get_mut(id).expect("the world has it")
    }

    /// Its verdict; what it last said stays as it was.
    pub(crate) fn down(&mut self, id: &str) {
        let now_ms = self.now_ms;
        self.machine(id).presence = Presence::Down { since_ms: now_ms };
    }

    /// Rounds until nothing moved for longer than any pause of these tests.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..300 {
            quiet = if self.step() == 0 { quiet + 1 } else { 0 };
            if quiet > 10 {
                return;
            }
        }
        panic!("does not settle: {:?}", self.plan());
    }

    pub(crate) fn watch(&mut self) {
        self.ready_min = usize::MAX;
        self.running_max = 0;
    }

    pub(crate) fn ready(&self) -> usize {
        self.statuses.values().filter(|status| status.ready).count()
    }

    pub(crate) fn images(&self) -> Vec<&str> {
        self.instances.values().map(|instance| instance.spec.image.as_str()).collect()
    }

    pub(crate) fn rollout(&self) -> &Rollout {
        &self.rollouts[&("s".to_owned(), "web".to_owned())]
    }
}

pub(crate) fn revision(stack: Stack, number: u64) -> Arc<StackRevision> {
    Arc::new(StackRevision { stack, number, created_ms: 0, source: String::new(), cause: String::new() })
}

pub(crate) fn web(image: &str, replicas: u32) -> Service {
    Service { image: image.into(), replicas, ..Service::default() }
}
