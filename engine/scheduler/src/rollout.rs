//! One service from what is there to what is wanted: fill slots, replace old shapes a few at a time, watch the new
//! ones, and go back when they fail.

use crate::place::{self, Room, Unplaced};
use crate::{Input, New, Plan, StackWanted, Step, dependency, shape};
use std::collections::{BTreeMap, BTreeSet};
use wire::resource::{Health, Instance, Phase, Rollout, RolloutState, Status, Wanted};
use wire::spec::{Mode, MountSource, OnFailure, RestartCondition, Service, UpdateOrder, UpdatePolicy};

/// Restarts of a service that never ran before that count as failure: its first starts may well wait for a
/// database that is starting too.
const FIRST_RESTARTS_MAX: u32 = 3;

/// The service being decided.
pub(crate) struct Subject<'a> {
    pub(crate) stack: &'a str,
    pub(crate) wanted: &'a StackWanted,
    pub(crate) service: &'a str,
    pub(crate) spec: &'a Service,
}

/// What one slot holds.
#[derive(Default)]
struct Slot<'a> {
    new: Vec<&'a Instance>,
    old: Vec<&'a Instance>,
    /// Told to stop and not ended yet.
    leaving: u32,
}

pub(crate) fn service(input: &Input<'_>, room: &mut Room<'_>, plan: &mut Plan, subject: &Subject<'_>) {
    let shape = shape(subject.spec);
    let before = input.rollouts.get(&(subject.stack.to_owned(), subject.service.to_owned()));
    let mut rollout = current_rollout(input, subject, before, &shape);
    let slots = place::slots(room, subject.spec);
    let mut present = observe(input, subject, &shape);

    stop_surplus(input, plan, &slots, &mut present);
    if judge(input, plan, subject, &mut rollout, &slots, &present) {
        return;
    }
    let waiting = fill(input, room, plan, subject, &rollout, &slots, &present);
    let waiting = replace(input, room, plan, subject, &rollout, &slots, &present).or(waiting);
    conclude(input, plan, &mut rollout, subject, &slots, &present, waiting);
    if before != Some(&rollout) {
        rollout.changed_ms = input.now_ms;
        plan.steps.push(Step::Record(rollout));
    }
}

/// The rollout on record, or a new one when the wanted shape is another.
fn current_rollout(input: &Input<'_>, subject: &Subject<'_>, before: Option<&Rollout>, shape: &str) -> Rollout {
    if let Some(same) = before.filter(|rollout| rollout.shape == shape) {
        return same.clone();
    }
    let good_revision = before.and_then(|rollout| match rollout.state {
        RolloutState::Done => Some(rollout.revision),
        // Whoever deploys again within the watch has seen it serve: that is as good as done.
        RolloutState::Running if rollout.failed.is_empty() && serves(input, subject, rollout) => Some(rollout.revision),
        RolloutState::Running | RolloutState::Paused | RolloutState::Failed => rollout.good_revision,
    });
    Rollout {
        stack: subject.stack.to_owned(),
        service: subject.service.to_owned(),
        revision: subject.wanted.revision.number,
        state: RolloutState::Running,
        reason: String::new(),
        started_ms: input.now_ms,
        changed_ms: input.now_ms,
        shape: shape.to_owned(),
        failed: Vec::new(),
        good_revision,
        rolling_back: false,
    }
}

/// Whether every instance a rollout made is ready.
fn serves(input: &Input<'_>, subject: &Subject<'_>, rollout: &Rollout) -> bool {
    let mut made = input.instances.values().filter(|instance| {
        instance.stack == subject.stack && instance.service == subject.service && instance.shape == rollout.shape
    });
    made.next().is_some_and(|first| ready(input, first) && made.all(|instance| ready(input, instance)))
}

fn observe<'a>(input: &Input<'a>, subject: &Subject<'_>, shape: &str) -> BTreeMap<u32, Slot<'a>> {
    let mut present: BTreeMap<u32, Slot<'a>> = BTreeMap::new();
    for instance in input.instances.values() {
        if instance.stack != subject.stack || instance.service != subject.service {
            continue;
        }
        let slot = present.entry(instance.slot).or_default();
        if instance.wanted == Wanted::Stopped {
            slot.leaving += u32::from(input.machines.contains_key(&instance.node) && !ended(input, instance));
        } else if instance.shape == shape {
            slot.new.push(instance);
        } else {
            slot.old.push(instance);
        }
    }
    for slot in present.values_mut() {
        slot.new.sort_by_key(|instance| (!ready(input, instance), instance.created_ms));
    }
    present
}

/// Stops what no slot wants: scaled down, twice in one slot, or on a machine that is gone.
fn stop_surplus(
    input: &Input<'_>,
    plan: &mut Plan,
    slots: &[(u32, Option<String>)],
    present: &mut BTreeMap<u32, Slot<'_>>,
) {
    let wanted: BTreeSet<u32> = slots.iter().map(|(slot, _)| *slot).collect();
    for (number, slot) in present.iter_mut() {
        let lost = |instance: &&Instance| !input.machines.contains_key(&instance.node);
        for instance in slot.new.extract_if(.., |instance| lost(instance)) {
            plan.steps.push(stop(instance, "its machine is gone"));
        }
        for instance in slot.old.extract_if(.., |instance| lost(instance)) {
            plan.steps.push(stop(instance, "its machine is gone"));
        }
        if !wanted.contains(number) {
            for instance in slot.new.drain(..).chain(slot.old.drain(..)) {
                plan.steps.push(stop(instance, "scaled down"));
            }
            continue;
        }
        for instance in slot.new.drain(1.min(slot.new.len())..) {
            plan.steps.push(stop(instance, "its slot is taken"));
        }
    }
}

/// Counts failures of new instances; true when the service goes back and nothing else is to be decided now.
fn judge(
    input: &Input<'_>,
    plan: &mut Plan,
    subject: &Subject<'_>,
    rollout: &mut Rollout,
    slots: &[(u32, Option<String>)],
    present: &BTreeMap<u32, Slot<'_>>,
) -> bool {
    if rollout.state != RolloutState::Running {
        return false;
    }
    let policy = policy(subject.spec, rollout);
    for instance in present.values().filter_map(|slot| slot.new.first()) {
        if rollout.failed.contains(&instance.id) {
            continue;
        }
        let Some(status) = input.statuses.get(&instance.id) else { continue };
        if let Some(reason) = failure(status, rollout, policy) {
            rollout.failed.push(instance.id.clone());
            rollout.reason = format!("{}.{}: {reason}", instance.service, instance.slot);
        }
    }
    let failed = rollout.failed.len() as f64 / slots.len().max(1) as f64;
    if rollout.failed.is_empty() || failed <= policy.failure_ratio_max {
        return false;
    }
    match policy.on_failure {
        OnFailure::Continue => false,
        OnFailure::Pause => {
            rollout.state = RolloutState::Paused;
            false
        }
        OnFailure::Rollback => match rollout.good_revision.filter(|_| !rollout.rolling_back) {
            None => {
                rollout.state = RolloutState::Failed;
                false
            }
            Some(to) => {
                plan.steps.push(Step::RollBack {
                    stack: subject.stack.to_owned(),
                    service: subject.service.to_owned(),
                    to,
                    reason: rollout.reason.clone(),
                });
                true
            }
        },
    }
}

fn policy<'a>(spec: &'a Service, rollout: &Rollout) -> &'a UpdatePolicy {
    if rollout.rolling_back { &spec.rollback } else { &spec.update }
}

/// Why a new instance counts as failed.
fn failure(status: &Status, rollout: &Rollout, policy: &UpdatePolicy) -> Option<String> {
    let exit = || status.exit.as_ref().map_or_else(|| status.message.clone(), |exit| exit.reason.clone());
    if status.health == Health::Unhealthy {
        return Some(format!("unhealthy: {}", status.message));
    }
    let restarts_max = if rollout.good_revision.is_some() { 0 } else { FIRST_RESTARTS_MAX };
    match status.phase {
        Phase::Failed => Some(status.message.clone()),
        Phase::BackingOff if status.restarts >= restarts_max => Some(exit()),
        Phase::Running
            if status.restarts > restarts_max && status.changed_ms < status.started_ms + policy.monitor_ms =>
        {
            Some(exit())
        }
        Phase::Exited if !dependency::completed(status) => Some(exit()),
        Phase::Waiting
        | Phase::Pulling
        | Phase::Starting
        | Phase::Running
        | Phase::BackingOff
        | Phase::Stopping
        | Phase::Exited => None,
    }
}

/// Creates instances for empty slots, all at once. The first thing that keeps one from starting is returned.
fn fill(
    input: &Input<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    subject: &Subject<'_>,
    rollout: &Rollout,
    slots: &[(u32, Option<String>)],
    present: &BTreeMap<u32, Slot<'_>>,
) -> Option<String> {
    let fresh = present.values().all(|slot| slot.new.is_empty() && slot.old.is_empty());
    if let Some(reason) = dependency::unmet(input, subject.stack, subject.spec).filter(|_| fresh) {
        return Some(reason);
    }
    let stop_first = order(subject.spec, rollout, slots.len()) == UpdateOrder::StopFirst;
    let mut waiting = None;
    for (number, node) in slots {
        let slot = present.get(number);
        if slot.is_some_and(|slot| !slot.new.is_empty() || !slot.old.is_empty()) {
            continue;
        }
        if stop_first && slot.is_some_and(|slot| slot.leaving > 0) {
            continue;
        }
        match room.place(subject.stack, subject.service, subject.spec, node.as_deref()) {
            Ok(node) => plan.steps.push(create(subject, rollout, *number, node)),
            Err(Unplaced(reason)) => waiting = waiting.or(Some(reason)),
        }
    }
    waiting
}

/// Replaces old instances within the policy's parallelism and delay.
fn replace(
    input: &Input<'_>,
    room: &mut Room<'_>,
    plan: &mut Plan,
    subject: &Subject<'_>,
    rollout: &Rollout,
    slots: &[(u32, Option<String>)],
    present: &BTreeMap<u32, Slot<'_>>,
) -> Option<String> {
    let policy = policy(subject.spec, rollout);
    let order = order(subject.spec, rollout, slots.len());
    let mut changing = 0;
    let mut candidates = Vec::new();
    for (number, node) in slots {
        // An empty slot is being filled: it counts against the parallelism like any other that does not serve.
        let Some(slot) = present.get(number) else {
            changing += 1;
            continue;
        };
        let new_ready = slot.new.first().is_some_and(|instance| settled(input, instance));
        if new_ready {
            plan.steps.extend(slot.old.iter().map(|instance| stop(instance, "replaced by a new one")));
            continue;
        }
        let any_old_ready = slot.old.iter().any(|instance| ready(input, instance));
        // Of several old ones only those that serve are worth keeping while the new one starts.
        let idle = slot.old.iter().filter(|instance| any_old_ready && !ready(input, instance));
        plan.steps.extend(idle.map(|instance| stop(instance, "replaced by a new one")));
        if slot.new.is_empty() && !slot.old.is_empty() {
            candidates.push((*number, node, slot));
        } else {
            changing += 1;
        }
    }
    if rollout.state != RolloutState::Running || candidates.is_empty() {
        return None;
    }
    let not_before = last_start(input, present).map_or(0, |started_ms| started_ms + policy.delay_ms);
    if policy.delay_ms > 0 && input.now_ms < not_before {
        plan.wake(not_before);
        return None;
    }
    let parallel = if policy.parallelism == 0 { usize::MAX } else { policy.parallelism as usize };
    let mut waiting = None;
    for (number, node, slot) in candidates.into_iter().take(parallel.saturating_sub(changing)) {
        match order {
            UpdateOrder::StopFirst => {
                plan.steps.extend(slot.old.iter().map(|instance| stop(instance, "makes room for a new one")));
            }
            UpdateOrder::StartFirst => {
                match room.place(subject.stack, subject.service, subject.spec, node.as_deref()) {
                    Ok(node) => plan.steps.push(create(subject, rollout, number, node)),
                    Err(Unplaced(reason)) => waiting = waiting.or(Some(reason)),
                }
            }
        }
    }
    waiting
}

/// When the youngest new instance started.
fn last_start(input: &Input<'_>, present: &BTreeMap<u32, Slot<'_>>) -> Option<u64> {
    let new = present.values().filter_map(|slot| slot.new.first());
    new.filter_map(|instance| input.statuses.get(&instance.id)).map(|status| status.started_ms).max()
}

/// Says whether the rollout is done, and what it waits for if not.
fn conclude(
    input: &Input<'_>,
    plan: &mut Plan,
    rollout: &mut Rollout,
    subject: &Subject<'_>,
    slots: &[(u32, Option<String>)],
    present: &BTreeMap<u32, Slot<'_>>,
    waiting: Option<String>,
) {
    let whole = slots.iter().all(|(number, _)| {
        present.get(number).is_some_and(|slot| {
            slot.old.is_empty() && slot.new.first().is_some_and(|instance| settled(input, instance))
        })
    });
    if !whole {
        match rollout.state {
            RolloutState::Running => rollout.reason = waiting.unwrap_or_else(|| kept_reason(rollout)),
            RolloutState::Paused | RolloutState::Failed | RolloutState::Done => {}
        }
        return;
    }
    if rollout.state == RolloutState::Done {
        return;
    }
    let watched_until = last_start(input, present).map_or(0, |ms| ms + policy(subject.spec, rollout).monitor_ms);
    if input.now_ms < watched_until {
        plan.wake(watched_until);
        return;
    }
    rollout.state = RolloutState::Done;
    rollout.reason.clear();
}

/// A reason that came from a failure stays; one that came from waiting has passed.
fn kept_reason(rollout: &Rollout) -> String {
    if rollout.failed.is_empty() { String::new() } else { rollout.reason.clone() }
}

fn order(spec: &Service, rollout: &Rollout, slots: usize) -> UpdateOrder {
    let holds_data = spec.mounts.iter().any(|mount| match mount.source {
        MountSource::Bind { .. } | MountSource::Volume { .. } => !mount.read_only,
        MountSource::Anonymous | MountSource::Tmpfs { .. } => false,
    });
    let careful = if slots == 1 && holds_data { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
    policy(spec, rollout).order.unwrap_or(careful)
}

fn create(subject: &Subject<'_>, rollout: &Rollout, slot: u32, node: String) -> Step {
    Step::Create(Box::new(New {
        stack: subject.stack.to_owned(),
        service: subject.service.to_owned(),
        slot,
        revision: subject.wanted.revision.number,
        node,
        shape: rollout.shape.clone(),
        spec: subject.spec.clone(),
    }))
}

fn stop(instance: &Instance, why: &str) -> Step {
    Step::Stop { instance: instance.id.clone(), why: why.to_owned() }
}

fn ready(input: &Input<'_>, instance: &Instance) -> bool {
    input.statuses.get(&instance.id).is_some_and(|status| status.ready)
}

/// Serves, or has done what it was to do once.
fn settled(input: &Input<'_>, instance: &Instance) -> bool {
    let once = match instance.spec.mode {
        Mode::ReplicatedJob => true,
        Mode::Replicated | Mode::Global => instance.spec.restart.condition != RestartCondition::Any,
    };
    input.statuses.get(&instance.id).is_some_and(|status| status.ready || (once && dependency::completed(status)))
}

fn ended(input: &Input<'_>, instance: &Instance) -> bool {
    input.statuses.get(&instance.id).is_some_and(|status| status.phase == Phase::Exited)
}
