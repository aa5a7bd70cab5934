//! Monitors: their floor, and how it is held when one is lost.
//!
//! Cut off one head and two grow: an assigner and its buddy become monitors together, since they know the work and hold the
//! log already. They stay assigners until others have taken that over, and the one monitor too many steps down later.

use super::spec::{Id, Role};
use super::step::Change;
use super::view::{Decision, View, set};
use std::cmp::Reverse;

/// Promotes when there are fewer than there are to be.
pub(super) fn fill(view: &View<'_>) -> Option<Decision> {
    let (present, wanted) = (view.monitors(), view.monitors_wanted());
    if present.len() >= wanted {
        return None;
    }
    let missing = format!("{} of {wanted} monitors", present.len());
    if let Some(heads) = heads(view) {
        let why = match heads.as_slice() {
            [one, other] => format!("{missing}: assigner {one} and its buddy {other} become monitors"),
            _ => format!("{missing}: an assigner becomes one"),
        };
        return Some(promote(&heads, why));
    }
    let candidates = view.staying.iter().copied();
    let candidates = candidates.filter(|id| view.open(id) && !view.assignment.monitors.contains_key(*id));
    let best = view.best(Role::Monitor, candidates, &present)?;
    Some(promote(&[best], format!("{missing}: {best} is the best of those that may")))
}

/// What could as well stay: a draining monitor goes, one that may vote comes for one that may not, surplus steps down.
pub(super) fn tidy(view: &View<'_>) -> Option<Decision> {
    let (present, wanted) = (view.monitors(), view.monitors_wanted());
    if let Some(leaving) = view.assignment.monitors.keys().find(|id| !view.stays(id)) {
        let why = format!("{leaving} is draining");
        return (!present.is_empty()).then(|| demote(leaving, why));
    }
    if present.len() > wanted {
        let surplus = present.iter().copied().max_by_key(|id| {
            let machine = view.machine(id);
            let considerate = machine.is_some_and(|machine| machine.considerate);
            let stacked = view.assignment.pair_of(id).is_some();
            (!view.may_vote(id), stacked, considerate, !view.assignment.voters.contains(*id), *id)
        })?;
        return Some(demote(surplus, format!("{} monitors where {wanted} are enough", present.len())));
    }
    let voteless = present.iter().copied().find(|id| !view.may_vote(id))?;
    let idle = view.staying.iter().copied().filter(|id| view.open(id) && view.may_vote(id));
    let better = view.best(Role::Monitor, idle.filter(|id| !view.assignment.orchestrates(id)), &present)?;
    Some(promote(&[better], format!("its disk may hold a vote, that of monitor {voteless} may not")))
}

pub(super) fn waits(view: &View<'_>) -> Option<String> {
    let (present, floor) = (view.monitors().len(), view.input.spec.monitors);
    (present < floor).then(|| format!("{present} of {floor} monitors: no other machine may be one"))
}

/// The assigners that become monitors: a whole pair if there is one, first of those that may vote.
fn heads<'a>(view: &View<'a>) -> Option<Vec<&'a Id>> {
    let monitors = &view.assignment.monitors;
    let pairs = view.assignment.pairs.iter().map(|(number, pair)| {
        let heads: Vec<&Id> = pair.members.keys().filter(|id| view.open(id) && !monitors.contains_key(*id)).collect();
        let voters = heads.iter().filter(|id| view.may_vote(id)).count();
        (Reverse(voters), Reverse(heads.len()), number, heads)
    });
    let (_, _, _, heads) = pairs.min()?;
    (!heads.is_empty()).then_some(heads)
}

fn promote(machines: &[&Id], why: String) -> Decision {
    Decision::new(Change::Promote { role: Role::Monitor, machines: set(machines.iter().copied()) }, why)
}

fn demote(machine: &Id, why: String) -> Decision {
    Decision::new(Change::Demote { role: Role::Monitor, machine: machine.clone() }, why)
}
