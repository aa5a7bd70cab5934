//! Why a service's instances are where they are: the plan's own judgements, told for one service.

use crate::choice::For;
use crate::machine::Leave;
use crate::memory::Memory;
use crate::rollout::{self, Subject};
use crate::room::Room;
use crate::slots::{self, Slot};
use crate::{Input, Plan, moves, shape};
use std::collections::BTreeMap;
use wire::api::{ServiceWhy, SlotWhy};

/// Machines that fit, by name.
const NAMED_MAX: usize = 10;

/// Explains every slot of a service and what would become of one more instance; `None` if there is no such service.
pub fn explain(input: &Input<'_>, stack: &str, service: &str) -> Option<ServiceWhy> {
    let (name, wanted) = input.stacks.get_key_value(stack)?;
    let (service, spec) = wanted.revision.stack.services.get_key_value(service)?;
    let subject = Subject { of: For { stack: &wanted.revision.stack, name, service, spec }, wanted };
    let mut room = Room::new(input, &mut Memory::default());
    let mut aside = Plan::default();
    let pressed_out = moves::pressed_out(input, &room, &mut aside);
    let shape = shape(spec);
    let present = slots::observe(input, &room, &mut aside, &subject.of, &shape, &pressed_out);
    let wishes = slots::wishes(&room, &subject.of);

    let mut slots = told(&room, &present, input.now_ms);
    let filled: Vec<u32> = slots.iter().map(|slot| slot.slot).collect();
    let (fitting, refused) = rollout::survey(&mut room, &subject, &present);
    for (slot, outcome) in rollout::foresee(input, &mut room, &subject, &present, &wishes) {
        if filled.contains(&slot) {
            continue;
        }
        let note = match outcome {
            Ok(node) => format!("about to start on {node}"),
            Err(reason) => reason,
        };
        slots.push(SlotWhy { slot, note, ..SlotWhy::default() });
    }
    slots.sort_by(|one, other| (one.slot, &one.instance).cmp(&(other.slot, &other.instance)));
    let machines = u32::try_from(room.machines()).unwrap_or(u32::MAX);
    Some(ServiceWhy {
        stack: name.clone(),
        service: service.clone(),
        slots,
        machines,
        fitting_count: u32::try_from(fitting.len()).unwrap_or(u32::MAX),
        fitting: fitting.iter().take(NAMED_MAX).map(|spot| room.census.called(room.id(*spot)).to_owned()).collect(),
        refused,
    })
}

/// What is there.
fn told(room: &Room<'_>, present: &BTreeMap<u32, Slot<'_>>, now_ms: u64) -> Vec<SlotWhy> {
    let mut told = Vec::new();
    for (number, slot) in present {
        let held =
            slot.held.as_ref().map(|why| match slot.held_until_ms.map(|until_ms| until_ms.saturating_sub(now_ms)) {
                Some(left_ms) if left_ms > 0 => format!("waits {why}, at the latest in {} s", left_ms.div_ceil(1_000)),
                Some(_) => format!("waits {why}: any moment now"),
                None => why.clone(),
            });
        let note = slot.kept.clone().or(held).unwrap_or_default();
        let staying = slot.new.iter().map(|seat| (seat, note.clone()));
        let old = slot.old.iter().map(|seat| (seat, "of an earlier revision".to_owned()));
        let moving = slot.moving.iter().map(|(seat, why)| (seat, format!("to be moved: {why}")));
        for (seat, note) in staying.chain(old).chain(moving) {
            let pressed = seat.spot.and_then(|spot| room.leave(spot)) == Some(Leave::Pressed);
            let note = if note.is_empty() && pressed { "its machine is under pressure".to_owned() } else { note };
            told.push(SlotWhy {
                slot: *number,
                instance: seat.instance.id.clone(),
                node: room.census.called(&seat.instance.node).to_owned(),
                placed: Some(seat.instance.placed.clone()),
                note,
            });
        }
        if slot.new.is_empty() && slot.old.is_empty() && slot.moving.is_empty() && slot.held.is_some() {
            told.push(SlotWhy { slot: *number, note, ..SlotWhy::default() });
        }
    }
    told
}
