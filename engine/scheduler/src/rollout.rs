//! One service from what is there to what is wanted: fill slots, replace old shapes a few at a time, watch the new
//! ones, and go back when they fail.

use crate::census::{Seat, Spot};
use crate::choice::{Choice, Chosen, For};
use crate::memory::completed;
use crate::room::Room;
use crate::slots::{self, Slot, Wish};
use crate::volumes::{self, Pin};
use crate::{Input, New, Plan, StackWanted, Step, dependency, shape};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::api::Refused;
use wire::resource::{Health, Phase, Placed, Rollout, RolloutState, Status};
use wire::spec::{Mode, MountSource, OnFailure, Service, UpdateOrder, UpdatePolicy};

/// Restarts of a service that never ran before that count as failure: its first starts may well wait for a
/// database that is starting too.
const FIRST_RESTARTS_MAX: u32 = 3;

/// The service being decided.
pub(crate) struct Subject<'a> {
    pub(crate) of: For<'a>,
    pub(crate) wanted: &'a StackWanted,
}

/// What is at hand while one service is decided.
struct Work<'w, 'a> {
    input: &'w Input<'a>,
    room: &'w mut Room<'a>,
    plan: &'w mut Plan,
    subject: &'w Subject<'a>,
    choice: Choice<'a>,
    /// Of every instance that is made.
    spec: Arc<Service>,
    wishes: Vec<Wish>,
}

pub(crate) fn service<'a>(
    input: &Input<'a>,
    room: &mut Room<'a>,
    plan: &mut Plan,
    subject: &Subject<'a>,
    pressed_out: &BTreeSet<&str>,
) {
    let shape = shape(subject.of.spec);
    let at = (subject.of.name.to_owned(), subject.of.service.to_owned());
    let before = input.rollouts.get(&at);
    if before.is_some_and(|rollout| at_rest(input, room, &subject.of, rollout, &shape, pressed_out)) {
        return;
    }
    let mut rollout = current_rollout(input, room, subject, before, &shape);
    let wishes = slots::wishes(room, &subject.of);
    let mut present = slots::observe(input, room, plan, &subject.of, &shape, pressed_out);

    stop_surplus(plan, &subject.of, &wishes, &mut present);
    if judge(plan, subject, &mut rollout, wishes.len(), &present) {
        return;
    }
    let staying = present.values().filter_map(|slot| slot.new.first()?.spot);
    let choice = Choice::new(room, subject.of, staying);
    let spec = Arc::new(volumes::instance_spec(subject.of.stack, subject.of.spec));
    let mut work = Work { input, room, plan, subject, choice, spec, wishes };
    let waiting = work.fill(&rollout, &present);
    let waiting = work.replace(&rollout, &present).or(waiting);
    let waiting = waiting.or_else(|| stuck(&work.wishes, &present));
    conclude(input, work.plan, &mut rollout, subject, &work.wishes, &present, waiting);
    if before != Some(&rollout) {
        rollout.changed_ms = input.now_ms;
        work.plan.steps.push(Step::Record(rollout));
    }
}

/// What would become of one more instance: the machines that fit, the best first, and why the others do not.
pub(crate) fn survey<'a>(
    room: &mut Room<'a>,
    subject: &Subject<'a>,
    present: &BTreeMap<u32, Slot<'a>>,
) -> (Vec<Spot>, Vec<Refused>) {
    let staying = present.values().filter_map(|slot| slot.new.first()?.spot);
    let (fitting, refused) = Choice::new(room, subject.of, staying).survey(room);
    (fitting, refused.told(subject.of.spec))
}

/// For each empty slot the machine it would get, or why it gets none.
pub(crate) fn foresee<'a>(
    input: &Input<'a>,
    room: &mut Room<'a>,
    subject: &Subject<'a>,
    present: &BTreeMap<u32, Slot<'a>>,
    wishes: &[Wish],
) -> Vec<(u32, Result<String, String>)> {
    let fresh = present.values().all(Slot::is_empty);
    let unmet = dependency::unmet(input, &room.census, subject.of.name, subject.of.spec).filter(|_| fresh);
    let staying = present.values().filter_map(|slot| slot.new.first()?.spot);
    let choice = Choice::new(room, subject.of, staying);
    let spec = Arc::new(volumes::instance_spec(subject.of.stack, subject.of.spec));
    let mut plan = Plan::default();
    let mut work = Work { input, room, plan: &mut plan, subject, choice, spec, wishes: Vec::new() };
    let empty = wishes.iter().filter(|(number, _)| present.get(number).is_none_or(Slot::is_empty));
    empty
        .map(|(number, machine)| {
            let placed = match &unmet {
                Some(reason) => Err(reason.clone()),
                None => work.place(*number, *machine),
            };
            let called = |chosen: Chosen| work.room.census.called(work.room.id(chosen.spot)).to_owned();
            (*number, placed.map(called))
        })
        .collect()
}

/// Whether there is nothing to do for a service, seen without sorting its instances into slots: in a large cluster that
/// is so for nearly all of them nearly always.
fn at_rest(
    input: &Input<'_>,
    room: &Room<'_>,
    of: &For<'_>,
    rollout: &Rollout,
    shape: &str,
    pressed_out: &BTreeSet<&str>,
) -> bool {
    let quiet = rollout.state == RolloutState::Done && rollout.reason.is_empty() && rollout.shape == shape;
    let constraints = &of.spec.placement.constraints;
    let Some(group) = room.census.group(of.name, of.service).filter(|_| quiet && of.spec.mode == Mode::Replicated)
    else {
        return false;
    };
    let whole = group.seats.len() == of.spec.replicas as usize;
    if !whole || !group.alike || group.seats.first().is_some_and(|first| first.instance.shape != shape) {
        return false;
    }
    let mut filled = vec![false; group.seats.len()];
    group.seats.iter().all(|seat| {
        let slot = (seat.slot as usize).checked_sub(1);
        let first = slot.and_then(|slot| filled.get_mut(slot)).is_some_and(|filled| !std::mem::replace(filled, true));
        let stays = seat.spot.is_some_and(|spot| {
            room.leave(spot).is_none()
                && (constraints.is_empty() || constraints.iter().all(|one| room.machine(spot).meets(one)))
        });
        first
            && stays
            && seat.wanted
            && seat.reachable
            && (input.fenced.is_empty() || !crate::is_fenced(input, seat))
            && seat.settled()
            && (pressed_out.is_empty() || !pressed_out.contains(seat.instance.id.as_str()))
    })
}

/// Why a slot that cannot be filled stays as it is.
fn stuck(wishes: &[Wish], present: &BTreeMap<u32, Slot<'_>>) -> Option<String> {
    let slots = || wishes.iter().filter_map(|(number, _)| Some((number, present.get(number)?)));
    let held = slots().find_map(|(number, slot)| Some(format!("slot {number} waits: {}", slot.held.as_ref()?)));
    held.or_else(|| slots().find_map(|(number, slot)| Some(format!("slot {number} stays: {}", slot.kept.as_ref()?))))
}

/// The rollout on record, or a new one when the wanted shape is another.
fn current_rollout(
    input: &Input<'_>,
    room: &Room<'_>,
    subject: &Subject<'_>,
    before: Option<&Rollout>,
    shape: &str,
) -> Rollout {
    if let Some(same) = before.filter(|rollout| rollout.shape == shape) {
        return same.clone();
    }
    let good_revision = before.and_then(|rollout| match rollout.state {
        RolloutState::Done => Some(rollout.revision),
        // Whoever deploys again within the watch has seen it serve: that is as good as done.
        RolloutState::Running if rollout.failed.is_empty() && serves(room, subject, rollout) => Some(rollout.revision),
        RolloutState::Running | RolloutState::Paused | RolloutState::Failed => rollout.good_revision,
    });
    Rollout {
        stack: subject.of.name.to_owned(),
        service: subject.of.service.to_owned(),
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
fn serves(room: &Room<'_>, subject: &Subject<'_>, rollout: &Rollout) -> bool {
    let seats = room.census.seats(subject.of.name, subject.of.service).iter();
    let mut made = seats.filter(|seat| seat.instance.shape == rollout.shape);
    made.next().is_some_and(|first| first.ready && made.all(|seat| seat.ready))
}

/// Stops what no slot wants: scaled down, twice in one slot, or where the service is wanted no longer.
fn stop_surplus(plan: &mut Plan, of: &For<'_>, wishes: &[Wish], present: &mut BTreeMap<u32, Slot<'_>>) {
    let wanted: BTreeSet<u32> = wishes.iter().map(|(slot, _)| *slot).collect();
    let unwanted = match of.spec.mode {
        Mode::Replicated | Mode::ReplicatedJob => "scaled down",
        Mode::Global => "not wanted on its machine",
    };
    for (number, slot) in present.iter_mut() {
        if !wanted.contains(number) {
            let moving = slot.moving.drain(..).map(|(seat, _)| seat);
            for seat in slot.new.drain(..).chain(slot.old.drain(..)).chain(moving) {
                plan.steps.push(stop(&seat, unwanted));
            }
            continue;
        }
        for seat in slot.new.drain(1.min(slot.new.len())..) {
            plan.steps.push(stop(&seat, "its slot is taken"));
        }
    }
}

/// Counts failures of new instances; true when the service goes back and nothing else is to be decided now.
fn judge(
    plan: &mut Plan,
    subject: &Subject<'_>,
    rollout: &mut Rollout,
    slots: usize,
    present: &BTreeMap<u32, Slot<'_>>,
) -> bool {
    if rollout.state != RolloutState::Running {
        return false;
    }
    let policy = policy(subject.of.spec, rollout);
    for seat in present.values().filter_map(|slot| slot.new.first()) {
        let instance = seat.instance;
        if rollout.failed.contains(&instance.id) {
            continue;
        }
        let Some(status) = seat.status else { continue };
        if let Some(reason) = failure(status, rollout, policy) {
            rollout.failed.push(instance.id.clone());
            rollout.reason = format!("{}.{}: {reason}", instance.service, instance.slot);
        }
    }
    let failed = rollout.failed.len() as f64 / slots.max(1) as f64;
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
                    stack: subject.of.name.to_owned(),
                    service: subject.of.service.to_owned(),
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
        Phase::Exited if !completed(status) => Some(exit()),
        Phase::Waiting
        | Phase::Pulling
        | Phase::Starting
        | Phase::Running
        | Phase::BackingOff
        | Phase::Stopping
        | Phase::Exited => None,
    }
}

impl<'a> Work<'_, 'a> {
    /// Creates instances for empty slots, all at once. The first thing that keeps one from starting is returned.
    fn fill(&mut self, rollout: &Rollout, present: &BTreeMap<u32, Slot<'a>>) -> Option<String> {
        let of = self.subject.of;
        let fresh = present.values().all(Slot::is_empty);
        let census = &self.room.census;
        if let Some(reason) = dependency::unmet(self.input, census, of.name, of.spec).filter(|_| fresh) {
            return Some(reason);
        }
        let stop_first = order(of.spec, rollout, self.wishes.len()) == UpdateOrder::StopFirst;
        let mut waiting = None;
        for (number, machine) in self.wishes.clone() {
            let slot = present.get(&number);
            if slot.is_some_and(|slot| !slot.is_empty() || (stop_first && slot.leaving > 0)) {
                continue;
            }
            match self.place(number, machine) {
                Ok(chosen) => self.create(rollout, number, chosen, None),
                Err(reason) => waiting = waiting.or(Some(reason)),
            }
        }
        waiting
    }

    /// Replaces old instances, and those that are to leave their machines, within the policy's parallelism and delay.
    fn replace(&mut self, rollout: &Rollout, present: &BTreeMap<u32, Slot<'a>>) -> Option<String> {
        let policy = policy(self.subject.of.spec, rollout);
        let mut changing = 0;
        let mut candidates = Vec::new();
        for (number, machine) in &self.wishes {
            // An empty slot is being filled: it counts against the parallelism like any other that does not serve.
            let Some(slot) = present.get(number) else {
                changing += 1;
                continue;
            };
            if slot.new.first().is_some_and(Seat::settled) {
                self.plan.steps.extend(slot.going().map(|(seat, why)| stop(seat, why)));
                continue;
            }
            let any_old_ready = slot.going().any(|(seat, _)| seat.ready);
            // Of several old ones only those that serve are worth keeping while the new one starts.
            let idle = slot.old.iter().filter(|seat| any_old_ready && !seat.ready);
            self.plan.steps.extend(idle.map(|seat| stop(seat, "replaced by a new one")));
            if slot.new.is_empty() && slot.going().next().is_some() {
                // While a rollout is stopped, what is of its shape may still move, and nothing else becomes of it.
                if rollout.state == RolloutState::Running || slot.old.is_empty() {
                    candidates.push((*number, *machine, slot));
                }
            } else if slot.held.is_none() {
                changing += 1;
            }
        }
        if candidates.is_empty() {
            return None;
        }
        let not_before = last_start(present).map_or(0, |started_ms| started_ms + policy.delay_ms);
        if policy.delay_ms > 0 && self.input.now_ms < not_before {
            self.plan.wake(not_before);
            return None;
        }
        let parallel = if policy.parallelism == 0 { usize::MAX } else { policy.parallelism as usize };
        let mut waiting = None;
        let mut left = parallel.saturating_sub(changing);
        for (number, machine, slot) in candidates {
            if left == 0 {
                break;
            }
            match self.change(rollout, number, machine, slot) {
                Ok(()) => left -= 1,
                // One that has nowhere to go is no reason for the others to stay.
                Err(reason) => waiting = waiting.or(Some(reason)),
            }
        }
        waiting
    }

    /// Brings one slot on its way.
    fn change(&mut self, rollout: &Rollout, number: u32, machine: Option<Spot>, slot: &Slot<'a>) -> Result<(), String> {
        let spec = self.subject.of.spec;
        let moved = slot.moving.first().filter(|_| slot.old.is_empty());
        match order(spec, rollout, self.wishes.len()) {
            UpdateOrder::StopFirst if moved.is_none() => self.make_room(slot),
            UpdateOrder::StopFirst => {
                // Stopped only for a machine that is there: its room is taken in this plan, and found again in the next.
                self.place(number, machine)?;
                self.plan.steps.extend(slot.going().map(|(seat, why)| stop(seat, why)));
            }
            UpdateOrder::StartFirst => match self.place(number, machine) {
                Ok(chosen) => self.create(rollout, number, chosen, moved),
                // Its own place would do: better for a moment without it than for ever the old one.
                Err(_) if self.may_stop_first(rollout, slot) => self.make_room(slot),
                Err(reason) => return Err(reason),
            },
        }
        Ok(())
    }

    /// Unless the file says otherwise.
    fn may_stop_first(&self, rollout: &Rollout, slot: &Slot<'a>) -> bool {
        let asked = policy(self.subject.of.spec, rollout).order;
        asked.is_none() && !slot.old.is_empty() && self.choice.fits_after(self.room, &slot.old)
    }

    fn make_room(&mut self, slot: &Slot<'a>) {
        self.plan.steps.extend(slot.going().map(|(seat, _)| stop(seat, "makes room for a new one")));
    }

    fn place(&mut self, number: u32, machine: Option<Spot>) -> Result<Chosen, String> {
        let of = self.subject.of;
        if let Some(spot) = machine {
            let refused = self.choice.among(self.room, [spot].into_iter());
            return refused.map_err(|tally| tally.sentence(self.room.machines(), of.spec));
        }
        match volumes::pin(&self.room.census, of.stack, of.service, of.spec, number) {
            Pin::Anywhere => self.choice.anywhere(self.room),
            Pin::To(volume, homes) => self.choice.among(self.room, homes.iter().copied()).map_err(|tally| {
                let names: Vec<&str> = homes.iter().map(|home| self.room.census.called(self.room.id(*home))).collect();
                let why = tally.told(of.spec).into_iter().map(|refused| refused.reason).collect::<Vec<_>>().join("; ");
                format!("its volume {volume} is on {}: {why}", names.join(", "))
            }),
            Pin::Lost(volume, node) => Err(format!(
                "its volume {volume} was on {node}, which is no machine of the cluster; \
                 scale the service to 0 and back to begin with an empty one"
            )),
        }
    }

    fn create(&mut self, rollout: &Rollout, slot: u32, chosen: Chosen, moved: Option<&(Seat<'a>, String)>) {
        let Chosen { spot, placed } = chosen;
        let placed = match moved {
            Some((seat, cause)) => Placed { moved_from: seat.instance.node.clone(), cause: cause.clone(), ..placed },
            None => placed,
        };
        self.plan.steps.push(Step::Create(Box::new(New {
            stack: self.subject.of.name.to_owned(),
            service: self.subject.of.service.to_owned(),
            slot,
            revision: self.subject.wanted.revision.number,
            node: self.room.id(spot).to_owned(),
            shape: rollout.shape.clone(),
            spec: Arc::clone(&self.spec),
            placed,
        })));
    }
}

/// When the youngest new instance started.
fn last_start(present: &BTreeMap<u32, Slot<'_>>) -> Option<u64> {
    let new = present.values().filter_map(|slot| slot.new.first());
    new.filter_map(|seat| seat.status).map(|status| status.started_ms).max()
}

/// Says whether the rollout is done, and what it waits for if not.
fn conclude(
    input: &Input<'_>,
    plan: &mut Plan,
    rollout: &mut Rollout,
    subject: &Subject<'_>,
    slots: &[Wish],
    present: &BTreeMap<u32, Slot<'_>>,
    waiting: Option<String>,
) {
    let whole = slots.iter().all(|(number, _)| {
        present
            .get(number)
            .is_some_and(|slot| slot.going().next().is_none() && slot.new.first().is_some_and(Seat::settled))
    });
    if !whole {
        match rollout.state {
            RolloutState::Running => rollout.reason = waiting.unwrap_or_else(|| kept_reason(rollout)),
            // It was rolled out; since then a machine was lost, or something is on the move.
            RolloutState::Done => rollout.reason = waiting.unwrap_or_default(),
            RolloutState::Paused | RolloutState::Failed => {}
        }
        return;
    }
    if rollout.state == RolloutState::Done {
        rollout.reason = waiting.unwrap_or_default();
        return;
    }
    let watched_until = last_start(present).map_or(0, |ms| ms + policy(subject.of.spec, rollout).monitor_ms);
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

fn stop(seat: &Seat<'_>, why: &str) -> Step {
    Step::Stop { instance: seat.instance.id.clone(), why: why.to_owned() }
}
