//! What each slot of a service holds, and which slots there are to be.

use crate::census::{Seat, Spot};
use crate::choice::For;
use crate::loss::{self, Fate};
use crate::refusal;
use crate::room::Room;
use crate::{Input, Plan, Step, volumes};
use std::collections::{BTreeMap, BTreeSet};
use wire::spec::{Mode, Reconcile};

/// A slot to be filled, for a service that is everywhere with its machine.
pub(crate) type Wish = (u32, Option<Spot>);

/// What one slot holds.
#[derive(Default)]
pub(crate) struct Slot<'a> {
    pub(crate) new: Vec<Seat<'a>>,
    /// Of another shape.
    pub(crate) old: Vec<Seat<'a>>,
    /// Of the right shape, and to leave their machines.
    pub(crate) moving: Vec<(Seat<'a>, String)>,
    /// Why nothing is started here although nothing runs.
    pub(crate) held: Option<String>,
    /// Until when at the most, where that is known and no part of a plan.
    pub(crate) held_until_ms: Option<u64>,
    /// Why what runs here stays although its machine is to be left.
    pub(crate) kept: Option<String>,
    /// Told to stop and not ended yet.
    pub(crate) leaving: u32,
}

impl<'a> Slot<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.old.is_empty() && self.moving.is_empty() && self.held.is_none()
    }

    /// What is to go once a new one serves.
    pub(crate) fn going(&self) -> impl Iterator<Item = (&Seat<'a>, &str)> {
        let old = self.old.iter().map(|seat| (seat, "replaced by a new one"));
        old.chain(self.moving.iter().map(|(seat, why)| (seat, why.as_str())))
    }
}

/// How many instances are wanted, and for a service that is everywhere on which machines.
///
/// There, a machine keeps the slot it has: one that joins must not renumber all that come after it.
pub(crate) fn wishes(room: &Room<'_>, of: &For<'_>) -> Vec<Wish> {
    match of.spec.mode {
        Mode::Replicated | Mode::ReplicatedJob => (1..=of.spec.replicas).map(|slot| (slot, None)).collect(),
        Mode::Global => {
            let seats = room.census.seats(&of.stack.name, of.service).iter().filter(|seat| seat.wanted);
            let mut of_machine: BTreeMap<Spot, u32> = BTreeMap::new();
            let mut used: BTreeSet<u32> = BTreeSet::new();
            for seat in seats {
                used.insert(seat.slot);
                if let Some(spot) = seat.spot {
                    of_machine.entry(spot).or_insert(seat.slot);
                }
            }
            let mut free = (1..).filter(|slot| !used.contains(slot));
            let eligible = (0..).take(room.machines()).filter(|spot| wanted_on(room, of, *spot, &of_machine));
            let numbered = eligible.filter_map(|spot| {
                let slot = of_machine.get(&spot).copied().or_else(|| free.next())?;
                Some((slot, Some(spot)))
            });
            let mut wishes: Vec<Wish> = numbered.collect();
            wishes.sort_unstable();
            wishes
        }
    }
}

/// Whether a service that is everywhere is wanted there: to begin with, or to go on.
fn wanted_on(room: &Room<'_>, of: &For<'_>, spot: Spot, present: &BTreeMap<Spot, u32>) -> bool {
    let placement = &of.spec.placement;
    let machine = room.machine(spot);
    let fits = placement.constraints.iter().all(|constraint| machine.meets(constraint))
        && placement.devices.iter().all(|device| machine.node.devices.contains(device));
    let taken = if present.contains_key(&spot) {
        room.leave(spot).is_none_or(|leave| leave == crate::machine::Leave::Pressed)
    } else {
        room.shut(spot).is_none()
    };
    fits && taken
}

/// Sorts a service's instances into slots, and says what must happen to those on machines that are away.
pub(crate) fn observe<'a>(
    input: &Input<'a>,
    room: &Room<'a>,
    plan: &mut Plan,
    of: &For<'a>,
    shape: &str,
    pressed_out: &BTreeSet<&str>,
) -> BTreeMap<u32, Slot<'a>> {
    let mut present: BTreeMap<u32, Slot<'a>> = BTreeMap::new();
    for seat in room.census.seats(&of.stack.name, of.service) {
        let instance = seat.instance;
        let slot = present.entry(instance.slot).or_default();
        if !seat.wanted {
            leaving(input, room, plan, of, seat, slot);
            continue;
        }
        match loss::fate(input, &room.census, of, seat) {
            Fate::Stays => {}
            Fate::StoodIn => continue,
            Fate::Replaced => {
                plan.steps.push(Step::Stop { instance: instance.id.clone(), why: "its machine is gone".to_owned() });
                continue;
            }
            Fate::Waits { until_ms, why } => {
                if let Some(until_ms) = until_ms {
                    plan.wake(until_ms);
                }
                slot.held = Some(why);
                continue;
            }
            Fate::Fenced { until_ms, why } => {
                plan.steps.push(fence(seat, &why));
                (slot.held, slot.held_until_ms) = (Some(why), until_ms);
                continue;
            }
        }
        if instance.shape != shape {
            slot.old.push(*seat);
        } else if let Some(why) = leaves(room, of, seat, pressed_out) {
            match volumes::pinned(of.stack, seat) {
                // Data that is nowhere else cannot move; stopping it would help nobody.
                Some(volume) => {
                    slot.kept = Some(format!("{why}, but its volume {volume} is nowhere else"));
                    slot.new.push(*seat);
                }
                None => slot.moving.push((*seat, why)),
            }
        } else {
            slot.new.push(*seat);
        }
    }
    for slot in present.values_mut() {
        slot.new.sort_by_key(|seat| (!seat.ready, seat.instance.created_ms));
        follow_moves(slot, of);
    }
    present
}

/// Told to stop: its slot may have to wait until it has.
fn leaving<'a>(
    input: &Input<'a>,
    room: &Room<'a>,
    plan: &mut Plan,
    of: &For<'a>,
    seat: &Seat<'a>,
    slot: &mut Slot<'a>,
) {
    if seat.ended {
        return;
    }
    if seat.reachable {
        slot.leaving += 1;
        return;
    }
    // Nobody hears it end any more. One that must not run twice is as dangerous as if it had never been told.
    if let Fate::Fenced { until_ms, why } = loss::fate(input, &room.census, of, seat) {
        plan.steps.push(fence(seat, &why));
        (slot.held, slot.held_until_ms) = (Some(why), until_ms);
    }
}

pub(crate) fn fence(seat: &Seat<'_>, why: &str) -> Step {
    Step::Fence { instance: seat.instance.id.clone(), node: seat.instance.node.clone(), why: why.to_owned() }
}

/// Why an instance of the right shape is to run elsewhere.
fn leaves(room: &Room<'_>, of: &For<'_>, seat: &Seat<'_>, pressed_out: &BTreeSet<&str>) -> Option<String> {
    let spot = seat.spot?;
    match of.spec.mode {
        Mode::Replicated => {}
        // A job moves by being run again from its start: it is left to its end. What is everywhere has nowhere to go.
        Mode::ReplicatedJob | Mode::Global => return None,
    }
    match room.leave(spot) {
        Some(crate::machine::Leave::Pressed) if !pressed_out.contains(seat.instance.id.as_str()) => {}
        Some(leave) => return Some(leave.why().to_owned()),
        None => {}
    }
    let machine = room.machine(spot);
    let broken = of.spec.placement.constraints.iter().find(|constraint| !machine.meets(constraint))?;
    Some(format!("its machine is {}", refusal::unmet(broken)))
}

/// Of two of the right shape in one slot the younger may have been made so that the older can leave, or stand in for
/// it while its machine was away.
fn follow_moves<'a>(slot: &mut Slot<'a>, of: &For<'a>) {
    let from: Vec<(String, u64, String)> = slot
        .new
        .iter()
        .filter(|seat| !seat.instance.placed.moved_from.is_empty())
        .map(|seat| {
            let placed = &seat.instance.placed;
            (placed.moved_from.clone(), seat.instance.created_ms, placed.cause.clone())
        })
        .collect();
    for (node, since_ms, cause) in from {
        let moved = |seat: &mut Seat<'_>| seat.instance.node == node && seat.instance.created_ms < since_ms;
        let moved: Vec<Seat<'a>> = slot.new.extract_if(.., moved).collect();
        slot.moving.extend(moved.into_iter().map(|seat| (seat, cause.clone())));
    }
    let original_first = match of.spec.disconnect.reconcile {
        Reconcile::KeepReplacement => false,
        Reconcile::KeepOriginal => slot.new.len() > 1,
    };
    if original_first {
        let failed = |seat: &Seat<'_>| seat.status.is_some_and(|status| status.phase == wire::resource::Phase::Failed);
        slot.new.sort_by_key(|seat| (failed(seat), seat.instance.created_ms));
        // The one that stood in goes when the original serves again, not before.
        if !slot.new[0].settled() {
            let stands_in = slot.new.split_off(1);
            let ready = stands_in.into_iter().filter(|seat| seat.ready);
            slot.moving.extend(ready.map(|seat| (seat, "its machine is back".to_owned())));
        }
    }
}
