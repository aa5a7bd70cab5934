//! Placement and rollout: (wanted, present, machines, now) → steps.
//!
//! Pure: no clock, no randomness, no IO. The planner in `control` feeds it and carries the steps out. It goes by
//! level: asked twice with the same input it says the same, asked after only half of its steps were carried out it
//! says the rest. Every step is safe to lose.
//!
//! It knows neither how an instance is started nor how a request finds it; it sees statuses and decides.

mod census;
mod choice;
mod dependency;
mod hours;
mod loss;
mod machine;
mod memory;
mod moves;
mod pressure;
mod refusal;
mod rollout;
mod room;
mod shape;
mod slots;
mod volumes;
mod why;

pub use machine::Machine;
pub use memory::Memory;
pub use pressure::Pressure;
pub use shape::shape;
pub use why::explain;

use census::{Census, Seat};
use choice::For;
use room::Room;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use wire::resource::{Instance, Placed, Rollout, StackRevision, Status, Wanted};
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
    /// Machines of the cluster, by id, whether they are up or not.
    pub machines: &'a BTreeMap<String, Machine>,
    /// Instances that are sure to run no longer, whatever became of their machines: what [`Step::Fence`] asked for.
    pub fenced: &'a BTreeSet<String>,
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
    /// Make sure that it runs no longer, by revoking its lease or letting it run out: until the input says so, nothing is
    /// created in its place.
    Fence { instance: String, node: String, why: String },
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
    /// Shared by all that are created of one service.
    pub spec: Arc<Service>,
    pub placed: Placed,
}

impl New {
    /// The instance, with its id and with `spec` as it is for that.
    pub fn instance(self, id: String, spec: Service, created_ms: u64) -> Instance {
        Instance {
            id,
            stack: self.stack,
            service: self.service,
            slot: self.slot,
            revision: self.revision,
            node: self.node,
            wanted: Wanted::Running,
            shape: self.shape,
            spec,
            created_ms,
            placed: self.placed,
        }
    }
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
    plan_again(input, &mut Memory::default())
}

/// The same, faster when little changed since the last plan with that memory.
pub fn plan_again(input: &Input<'_>, memory: &mut Memory) -> Plan {
    let mut plan = Plan::default();
    let mut room = Room::new(input, memory);
    forget_ended(input, &room.census, &mut plan);
    stop_unwanted(input, &room.census, &mut plan);
    let pressed_out = moves::pressed_out(input, &room, &mut plan);
    for (name, wanted) in input.stacks {
        if wanted.removing {
            if !room.census.has_stack(name) {
                plan.steps.push(Step::ForgetStack { stack: name.clone() });
            }
            continue;
        }
        for (service, spec) in &wanted.revision.stack.services {
            let of = For { stack: &wanted.revision.stack, name, service, spec };
            rollout::service(input, &mut room, &mut plan, &rollout::Subject { of, wanted }, &pressed_out);
        }
    }
    moves::rebalance(input, &mut room, &mut plan);
    for machine in input.machines.values() {
        if let Some(at_ms) = machine.changes_at_ms(input.now_ms) {
            plan.wake(at_ms);
        }
    }
    plan
}

/// Stopped instances that have ended, or whose machine nobody knows any longer, are forgotten. One whose machine is down
/// is not: if it comes back, it is still to stop.
fn forget_ended(input: &Input<'_>, census: &Census<'_>, plan: &mut Plan) {
    for group in &census.groups {
        let stack = input.stacks.get(group.stack).filter(|stack| !stack.removing);
        let spec = stack.and_then(|stack| stack.revision.stack.services.get(group.service));
        for seat in &group.seats {
            let gone = seat.ended || seat.spot.is_none();
            if seat.wanted || !gone {
                continue;
            }
            let needed = stack.zip(spec).is_some_and(|(stack, spec)| {
                let of = &stack.revision.stack;
                remembers(of, spec, group, seat) || (!seat.ended && unfenced(input, spec, seat))
            });
            if needed {
                continue;
            }
            if !seat.ended && seat.instance.spec.disconnect.stop_after_ms.is_some() && !is_fenced(input, seat) {
                // Its service may be wanted again before it has stopped.
                plan.steps.push(slots::fence(seat, "its machine is no machine of the cluster any more"));
            } else {
                plan.steps.push(Step::Forget { instance: seat.instance.id.clone() });
            }
        }
    }
}

/// Whether it is the only record of where its slot's data is.
fn remembers(stack: &wire::spec::Stack, spec: &Service, group: &census::Group<'_>, seat: &Seat<'_>) -> bool {
    let slot = seat.slot;
    let wanted = spec.mode == wire::spec::Mode::Replicated && slot <= spec.replicas;
    let keeps = volumes::local(stack, spec).next().is_some() && volumes::pinned(stack, seat).is_some();
    let younger = |other: &Seat<'_>| {
        other.slot == slot
            && (other.instance.created_ms, &other.instance.id) > (seat.instance.created_ms, &seat.instance.id)
    };
    wanted && keeps && !group.seats.iter().any(younger)
}

fn unfenced(input: &Input<'_>, spec: &Service, seat: &Seat<'_>) -> bool {
    volumes::runs_once(spec, seat) && !is_fenced(input, seat)
}

fn is_fenced(input: &Input<'_>, seat: &Seat<'_>) -> bool {
    input.fenced.contains(&seat.instance.id)
}

/// Instances of stacks or services that are wanted no longer are stopped.
fn stop_unwanted(input: &Input<'_>, census: &Census<'_>, plan: &mut Plan) {
    for group in &census.groups {
        let why = match input.stacks.get(group.stack) {
            None => "its stack is gone",
            Some(stack) if stack.removing => "its stack is being removed",
            Some(stack) if !stack.revision.stack.services.contains_key(group.service) => {
                "its service is not in the stack"
            }
            Some(_) => continue,
        };
        for seat in group.seats.iter().filter(|seat| seat.wanted) {
            plan.steps.push(Step::Stop { instance: seat.instance.id.clone(), why: why.to_owned() });
        }
    }
}
