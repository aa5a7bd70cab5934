//! Moves nobody asked for: away from a machine whose owner needs it, and, slowly, to where a service is spread better.
//!
//! Both go by what is recorded: a moved instance says where it came from, so that the next move can wait for its turn
//! whoever plans it. What keeps data is never moved for balance.

use crate::census::{Group, Seat, Spot};
use crate::choice::{Choice, Chosen, For};
use crate::machine::Leave;
use crate::room::Room;
use crate::{Input, New, Plan, StackWanted, Step, volumes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::resource::{Placed, RolloutState};
use wire::spec::Mode;

/// Moves for balance at the same time, in the whole cluster.
const REBALANCE_MOVES_MAX: usize = 2;
/// From one of them to the next: a machine that comes back gets its share over minutes, and one that comes and goes
/// sets little in motion.
const REBALANCE_PAUSE_MS: u64 = 60_000;
/// Difference in what is reserved, in thousandths of a machine, that is worth a move.
const UNEVEN_PER_MILLE: u32 = 250;

const SPREAD_BETTER: &str = "its service is spread better";
const LIGHTER: &str = "far less is reserved of the other machine";

/// The instances that are to leave machines under pressure: from each the one that reserves most, and the next when
/// that one serves elsewhere and the bound has been passed for as long again.
pub(crate) fn pressed_out<'a>(input: &Input<'a>, room: &Room<'a>, plan: &mut Plan) -> BTreeSet<&'a str> {
    let pressed: Vec<Spot> =
        (0..).take(room.machines()).filter(|spot| room.leave(*spot) == Some(Leave::Pressed)).collect();
    let mut out = BTreeSet::new();
    if pressed.is_empty() {
        return out;
    }
    let mut candidates: BTreeMap<Spot, Vec<&Seat<'a>>> = BTreeMap::new();
    // When the youngest of those that left each machine was made, and whether it serves.
    let mut left: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for seat in &room.census.moved {
        let last = left.entry(&seat.instance.placed.moved_from).or_default();
        *last = (last.0.max(seat.instance.created_ms), last.1 | !seat.settled());
    }
    for group in &room.census.groups {
        for seat in group.seats.iter().filter(|seat| seat.wanted) {
            if let Some(spot) = seat.spot
                && pressed.contains(&spot)
                && is_movable(input, group, seat)
            {
                candidates.entry(spot).or_default().push(seat);
            }
        }
    }
    for spot in pressed {
        let hold_ms = room.machine(spot).node.considerate.as_ref().map_or(0, |owner| owner.hold_ms);
        match left.get(room.id(spot)) {
            Some((_, true)) => continue,
            Some((made_ms, false)) if input.now_ms < made_ms.saturating_add(hold_ms) => {
                plan.wake(made_ms.saturating_add(hold_ms));
                continue;
            }
            Some((_, false)) | None => {}
        }
        let seats = candidates.remove(&spot).unwrap_or_default();
        let most = seats.into_iter().max_by_key(|seat| {
            let wants = &seat.instance.spec.resources;
            (wants.cpu_reserved_millis, wants.memory_reserved_bytes, &seat.instance.id)
        });
        out.extend(most.map(|seat| seat.instance.id.as_str()));
    }
    out
}

fn is_movable(input: &Input<'_>, group: &Group<'_>, seat: &Seat<'_>) -> bool {
    let stack = input.stacks.get(group.stack);
    seat.instance.spec.mode == Mode::Replicated
        && stack.is_some_and(|stack| volumes::pinned(&stack.revision.stack, seat).is_none())
}

/// Moves for balance, when nothing else is to do.
pub(crate) fn rebalance<'a>(input: &Input<'a>, room: &mut Room<'a>, plan: &mut Plan) {
    if !plan.steps.is_empty() {
        return;
    }
    let (mut under_way, mut not_before_ms) = (0, 0);
    for seat in &room.census.moved {
        under_way += usize::from(!seat.settled());
        not_before_ms = not_before_ms.max(seat.instance.created_ms.saturating_add(REBALANCE_PAUSE_MS));
    }
    let budget = REBALANCE_MOVES_MAX.saturating_sub(under_way);
    let open: Vec<Spot> = (0..).take(room.machines()).filter(|spot| room.shut(*spot).is_none()).collect();
    let mut moves = Vec::new();
    for (name, wanted) in input.stacks.iter().filter(|(_, wanted)| !wanted.removing) {
        for (service, spec) in &wanted.revision.stack.services {
            let of = For { stack: &wanted.revision.stack, name, service, spec };
            if moves.len() < budget && may_move(input, room, &of) && is_uneven(room, &of, &open) {
                moves.extend(spread(room, &of, wanted));
            }
        }
    }
    if moves.is_empty() && budget > 0 {
        moves.extend(lighten(input, room));
    }
    if moves.is_empty() {
        return;
    }
    if input.now_ms < not_before_ms {
        plan.wake(not_before_ms);
        return;
    }
    plan.steps.extend(moves);
}

/// Only what is rolled out and whole is moved, and nothing that keeps data for itself.
fn may_move(input: &Input<'_>, room: &Room<'_>, of: &For<'_>) -> bool {
    let at = (of.name.to_owned(), of.service.to_owned());
    let done = input.rollouts.get(&at).is_some_and(|rollout| match rollout.state {
        RolloutState::Done => rollout.reason.is_empty(),
        RolloutState::Running | RolloutState::Paused | RolloutState::Failed => false,
    });
    let keeps = volumes::is_single(of.spec) || volumes::local(of.stack, of.spec).next().is_some();
    let seats = room.census.seats(of.name, of.service);
    done && of.spec.mode == Mode::Replicated
        && !keeps
        && seats.len() == of.spec.replicas as usize
        && seats.iter().all(|seat| seat.wanted && seat.ready)
}

/// A first look, without asking which machines fit: whether zones or machines differ by two.
fn is_uneven(room: &mut Room<'_>, of: &For<'_>, open: &[Spot]) -> bool {
    let spots: Vec<Spot> = room.census.seats(of.name, of.service).iter().filter_map(|seat| seat.spot).collect();
    if spots.len() < 2 || open.is_empty() {
        return false;
    }
    let of_one: Vec<u32> = (0..).take(room.machines()).collect();
    let fields = of.spec.placement.spread.iter().map(String::as_str).chain([crate::machine::ZONE]);
    differ(&spots, open, &of_one) || fields.into_iter().any(|field| differ(&spots, open, &room.values(field)))
}

/// Whether one value has two instances more than another that machines have to which something may come.
fn differ(spots: &[Spot], open: &[Spot], values: &[u32]) -> bool {
    // Values are numbered from 0, and never more than machines.
    let mut counts = vec![0_u32; values.len()];
    spots.iter().for_each(|spot| counts[values[*spot as usize] as usize] += 1);
    let least = open.iter().map(|spot| counts[values[*spot as usize] as usize]).min().unwrap_or(0);
    counts.into_iter().max().unwrap_or(0) >= least + 2
}

/// The one instance whose going does most, if there is a place where it does more.
fn spread<'a>(room: &mut Room<'a>, of: &For<'a>, wanted: &StackWanted) -> Option<Step> {
    let seats = room.census.seats(of.name, of.service).to_vec();
    let all = Choice::new(room, *of, seats.iter().filter_map(|seat| seat.spot));
    let ranked = all.crowded(room);
    let worst =
        seats.iter().enumerate().max_by_key(|(_, seat)| (seat.spot.map(|spot| ranked[spot as usize]), seat.slot))?;
    let (at, seat) = worst;
    let others = seats.iter().enumerate().filter(|(other, _)| *other != at);
    let mut choice = Choice::new(room, *of, others.filter_map(|(_, seat)| seat.spot));
    let chosen = choice.better(room, seat.spot?)?;
    Some(moved(room, of, wanted, seat, chosen, SPREAD_BETTER))
}

/// From the machine of which most is reserved, one instance to where far less is, if its service is spread no worse.
fn lighten<'a>(input: &Input<'a>, room: &mut Room<'a>) -> Option<Step> {
    let open = || (0..).take(room.machines()).filter(|spot| room.shut(*spot).is_none());
    let heaviest = open().max_by_key(|spot| (room.burden(*spot), *spot))?;
    let least = open().map(|spot| room.burden(spot)).min()?;
    let most = room.burden(heaviest);
    if most < least.saturating_add(UNEVEN_PER_MILLE) {
        return None;
    }
    let on_it = |group: &Group<'a>| -> Vec<Seat<'a>> {
        group.seats.iter().filter(|seat| seat.spot == Some(heaviest) && seat.wanted).copied().collect()
    };
    let mut seats: Vec<(&'a str, &'a str, Seat<'a>)> = Vec::new();
    for group in &room.census.groups {
        seats.extend(on_it(group).into_iter().map(|seat| (group.stack, group.service, seat)));
    }
    for (stack, service, seat) in seats {
        let Some((name, wanted)) = input.stacks.get_key_value(stack).filter(|(_, wanted)| !wanted.removing) else {
            continue;
        };
        let services = &wanted.revision.stack.services;
        let Some((service, spec)) = services.get_key_value(service) else { continue };
        let of = For { stack: &wanted.revision.stack, name, service, spec };
        let share = room.share(heaviest, spec);
        // One that is nearly all of the difference would only carry it elsewhere.
        if share == 0 || share > (most - least) / 2 || !may_move(input, room, &of) {
            continue;
        }
        let others = room.census.seats(stack, service).to_vec();
        let others = others.iter().filter(|other| other.instance.id != seat.instance.id);
        let mut choice = Choice::new(room, of, others.filter_map(|seat| seat.spot));
        if let Some(chosen) = choice.lighter(room, heaviest, most - share) {
            return Some(moved(room, &of, wanted, &seat, chosen, LIGHTER));
        }
    }
    None
}

fn moved<'a>(
    room: &Room<'a>,
    of: &For<'a>,
    wanted: &StackWanted,
    seat: &Seat<'a>,
    chosen: Chosen,
    cause: &str,
) -> Step {
    Step::Create(Box::new(New {
        stack: of.name.to_owned(),
        service: of.service.to_owned(),
        slot: seat.slot,
        revision: wanted.revision.number,
        node: room.id(chosen.spot).to_owned(),
        shape: seat.instance.shape.clone(),
        spec: Arc::new(volumes::instance_spec(of.stack, of.spec)),
        placed: Placed { moved_from: seat.instance.node.clone(), cause: cause.to_owned(), ..chosen.placed },
    }))
}
