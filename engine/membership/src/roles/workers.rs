//! Workers: machines that run work, as many processes of it as they have cores. Others are empty, and kept for when one is
//! lost or load grows.

use super::spec::{Id, Role};
use super::step::Change;
use super::view::{Decision, View, set};

/// From here on one more machine works.
const LOAD_HIGH_PER_MILLE: u64 = 800;
/// One machine steps down when the rest would still be below this. Far enough from the other that the two never follow
/// one another on the same load.
const LOAD_LOW_PER_MILLE: u64 = 400;

/// Promotes all that are missing at once: they are in no one's way.
pub(super) fn fill(view: &View<'_>) -> Option<Decision> {
    if let Some(leaving) = view.assignment.workers.keys().find(|id| !view.stays(id)) {
        return Some(demote(leaving, format!("{leaving} is draining")));
    }
    let wanted = view.input.spec.workers.max(1);
    let present = counted(view);
    let mut reached = present;
    let mut chosen: Vec<&Id> = Vec::new();
    for id in candidates(view) {
        if reached >= wanted {
            break;
        }
        chosen.push(id);
        reached = reached.saturating_add(cores_of(view, id));
    }
    if chosen.is_empty() {
        return None;
    }
    let why = if wanted == u32::MAX {
        "every machine that may works".to_owned()
    } else {
        format!("{present} of {wanted} workers")
    };
    Some(Decision::new(Change::Promote { role: Role::Worker, machines: set(chosen) }, why))
}

/// What could as well stay: who orchestrates stops working where the spec keeps them apart, and the number of workers follows
/// the load, a machine at a time.
pub(super) fn tidy(view: &View<'_>) -> Option<Decision> {
    let orchestrates = |id: &&Id| view.assignment.orchestrates(id);
    if !together(view)
        && working(view).any(|id| !orchestrates(&id))
        && let Some(both) = working(view).find(orchestrates)
    {
        return Some(demote(both, format!("{both} orchestrates, and there are machines enough that need not")));
    }
    let (load, all) = (load(view), cores(view, working(view)));
    let mean = load.checked_div(u64::from(all)).unwrap_or(0);
    if mean >= LOAD_HIGH_PER_MILLE
        && let Some(next) = candidates(view).into_iter().find(|id| !view.assignment.orchestrates(id))
    {
        let why = format!("workers are busy to {} %", mean / 10);
        return Some(Decision::new(Change::Promote { role: Role::Worker, machines: set([next]) }, why));
    }
    let spare = working(view).max_by_key(|id| (orchestrates(id), *id))?;
    let rest = all.saturating_sub(cores_of(view, spare));
    let after = load.checked_div(u64::from(rest))?;
    let enough = rest >= view.input.spec.workers.max(1);
    let why = || format!("{rest} workers are enough: they would be busy to {} %", after / 10);
    (enough && after <= LOAD_LOW_PER_MILLE).then(|| demote(spare, why()))
}

pub(super) fn waits(view: &View<'_>) -> Option<String> {
    let (present, floor) = (counted(view), view.input.spec.workers);
    (present < floor && floor < u32::MAX).then(|| format!("{present} of {floor} workers: no other machine may work"))
}

/// What counts towards the floor: who orchestrates as well does not where it will soon stop working.
fn counted(view: &View<'_>) -> u32 {
    let both = together(view);
    cores(view, working(view).filter(|id| both || !view.assignment.orchestrates(id)))
}

/// Whether one machine may orchestrate and work.
fn together(view: &View<'_>) -> bool {
    !view.input.spec.apart || view.few()
}

fn working<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Id> {
    let workers = &view.assignment.workers;
    view.staying.clone().into_iter().filter(|id| workers.contains_key(*id))
}

/// Who could work too, best first: those without another role, then those who orchestrate if they may.
fn candidates<'a>(view: &View<'a>) -> Vec<&'a Id> {
    let both = together(view);
    let free = |id: &&Id| view.open(id) && !view.assignment.workers.contains_key(*id);
    let mut candidates: Vec<&Id> = view.staying.iter().copied().filter(free).collect();
    candidates.retain(|id| both || !view.assignment.orchestrates(id));
    candidates.sort_by_key(|id| {
        let asked = view.machine(id).and_then(|machine| machine.asked);
        let rather = match asked {
            Some(Role::Worker) => 0,
            None => 1,
            Some(Role::Gateway | Role::Monitor | Role::Assigner) => 2,
        };
        (view.assignment.orchestrates(id), rather, *id)
    });
    candidates
}

fn cores<'a>(view: &View<'_>, ids: impl Iterator<Item = &'a Id>) -> u32 {
    ids.fold(0, |sum, id| sum.saturating_add(cores_of(view, id)))
}

/// A machine that works runs at least one process.
fn cores_of(view: &View<'_>, id: &Id) -> u32 {
    view.machine(id).map_or(1, |machine| machine.cores.max(1))
}

/// What all workers have to do, in thousandths of a core.
fn load(view: &View<'_>) -> u64 {
    let of = |id: &Id| {
        let load = view.machine(id).map_or(0, |machine| machine.load_per_mille);
        u64::from(load) * u64::from(cores_of(view, id))
    };
    working(view).map(of).sum()
}

fn demote(machine: &Id, why: String) -> Decision {
    Decision::new(Change::Demote { role: Role::Worker, machine: machine.clone() }, why)
}
