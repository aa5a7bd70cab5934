//! Placement and rollout: (wanted, present, machines, now) → steps.
//!
//! Pure: no clock, no randomness, no IO. The planner in `control` feeds it and carries the steps out. It goes by
//! level: asked twice with the same input it says the same, asked after only half of its steps were carried out it
//! says the rest. Every step is safe to lose.
//!
//! It knows neither how an instance is started nor how a request finds it; it sees statuses and decides.

mod dependency;
mod place;
mod rollout;
mod shape;

pub use place::{Machine, Unplaced};
pub use shape::shape;

use std::collections::BTreeMap;
use std::sync::Arc;
use wire::resource::{Instance, Rollout, StackRevision, Status};
use wire::spec::Service;

/// Everything a plan depends on.
#[derive(Debug)]
pub struct Input<'a> {
    pub now_ms: u64,
    /// Wanted stacks by name.
    pub stacks: &'a BTreeMap<String, StackWanted>,
    /// All instances by id.
    pub instances: &'a BTreeMap<String, Arc<Instance>>,
    /// Last known status by instance id.
    pub statuses: &'a BTreeMap<String, Arc<Status>>,
    /// Rollouts by (stack, service).
    pub rollouts: &'a BTreeMap<(String, String), Rollout>,
    /// Machines that are up, by id.
    pub machines: &'a BTreeMap<String, Machine>,
}

/// A stack as its head names it.
#[derive(Debug, Clone)]
pub struct StackWanted {
    pub revision: Arc<StackRevision>,
    /// Every instance is to be stopped, then the stack goes.
    pub removing: bool,
}

/// One thing to do. The planner writes it to control.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A new instance. Its id is still to be given, its templates still to be filled in.
    Create(Box<New>),
    /// Take out of traffic and stop.
    Stop { instance: String, why: String },
    /// It has ended and nobody wants it: forget it.
    Forget { instance: String },
    /// Record the state of a rollout.
    Record(Rollout),
    /// Make a new stack revision in which `service` is what it was at revision `to`.
    RollBack { stack: String, service: String, to: u64, reason: String },
    /// Nothing of the stack is left.
    ForgetStack { stack: String },
}

/// An instance to be.
#[derive(Debug, Clone, PartialEq)]
pub struct New {
    pub stack: String,
    pub service: String,
    pub slot: u32,
    pub revision: u64,
    pub node: String,
    pub shape: String,
    pub spec: Service,
}

/// The steps, and when to ask again although nothing changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub wake_at_ms: Option<u64>,
}

impl Plan {
    fn wake(&mut self, at_ms: u64) {
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }
}

/// Decides what is to be done now.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    forget_ended(input, &mut plan);
    stop_unwanted(input, &mut plan);
    let mut room = place::Room::new(input);
    for (name, wanted) in input.stacks {
        if wanted.removing {
            if !input.instances.values().any(|instance| instance.stack == *name) {
                plan.steps.push(Step::ForgetStack { stack: name.clone() });
            }
            continue;
        }
        for (service, spec) in &wanted.revision.stack.services {
            rollout::service(input, &mut room, &mut plan, &rollout::Subject { stack: name, wanted, service, spec });
        }
    }
    plan
}

/// Stopped instances that have ended, or whose machine is gone, are forgotten.
fn forget_ended(input: &Input<'_>, plan: &mut Plan) {
    use wire::resource::{Phase, Wanted};
    for (id, instance) in input.instances {
        let ended = input.statuses.get(id).is_some_and(|status| match status.phase {
            Phase::Exited => true,
            Phase::Waiting
            | Phase::Pulling
            | Phase::Starting
            | Phase::Running
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Failed => false,
        });
        let gone = !input.machines.contains_key(&instance.node);
        if instance.wanted == Wanted::Stopped && (ended || gone) {
            plan.steps.push(Step::Forget { instance: id.clone() });
        }
    }
}

/// Instances of stacks or services that are wanted no longer are stopped.
fn stop_unwanted(input: &Input<'_>, plan: &mut Plan) {
    for (id, instance) in input.instances {
        if instance.wanted == wire::resource::Wanted::Stopped {
            continue;
        }
        let stack = input.stacks.get(&instance.stack);
        let why = match stack {
            None => "its stack is gone",
            Some(stack) if stack.removing => "its stack is being removed",
            Some(stack) if !stack.revision.stack.services.contains_key(&instance.service) => {
                "its service is not in the stack"
            }
            Some(_) => continue,
        };
        plan.steps.push(Step::Stop { instance: id.clone(), why: why.to_owned() });
    }
}
