//! Assigners in pairs of buddies: each pair is two machines that share their work, so that one carries on mid-stream when
//! the other is lost. Of a pair that is whole, one member changes at a time, and time is left to hand over.

use super::assignment::Pair;
use super::spec::{Id, Role};
use super::step::Change;
use super::view::{Decision, View, set};

/// Names buddies for those that have lost theirs, and new pairs.
pub(super) fn fill(view: &View<'_>) -> Option<Decision> {
    let (pairs, wanted) = (&view.assignment.pairs, view.pairs_wanted());
    let alone = || pairs.iter().filter(|(_, pair)| pair.members.len() == 1);
    if pairs.len() > wanted
        && let Some((number, _)) =
            alone().filter(|(number, _)| others_stay(view, **number)).max_by_key(|(number, _)| **number)
    {
        let why = format!("{} pairs where there are machines for {wanted}", pairs.len());
        return Some(Decision::new(Change::Unpair { pair: *number }, why));
    }
    for (number, pair) in alone() {
        let members: Vec<&Id> = pair.members.keys().collect();
        if let (Some(buddy), Some(first)) = (candidate(view, &members), members.first()) {
            return Some(name(*number, &[first, buddy], format!("assigner {first} has no buddy")));
        }
    }
    if pairs.len() >= wanted {
        return None;
    }
    let first = candidate(view, &[])?;
    let number = (0..).find(|number| !pairs.contains_key(number))?;
    let missing = format!("{} of {wanted} pairs of assigners", pairs.len());
    match best(view, &[first], |id| id != first) {
        Some(buddy) => Some(name(number, &[first, buddy], missing)),
        None if pairs.is_empty() => {
            Some(name(number, &[first], format!("{missing}; no other machine can be its buddy")))
        }
        None => None,
    }
}

/// What could as well stay: draining members go, surplus pairs end, assigners that are monitors too or may not vote are
/// replaced where there is a machine without such a role.
pub(super) fn tidy(view: &View<'_>) -> Option<Decision> {
    if let Some(decision) = drain(view) {
        return Some(decision);
    }
    let (pairs, wanted) = (&view.assignment.pairs, view.pairs_wanted());
    if pairs.len() > wanted {
        let stacked = |pair: &Pair| pair.members.keys().filter(|id| view.assignment.monitors.contains_key(*id)).count();
        let spare = pairs.iter().filter(|(number, _)| others_stay(view, **number));
        let (number, _) = spare.max_by_key(|(number, pair)| (stacked(pair), **number))?;
        let why = format!("{} pairs where {wanted} are enough", pairs.len());
        return Some(Decision::new(Change::Unpair { pair: *number }, why));
    }
    pairs.iter().find_map(|(number, pair)| {
        pair.members.keys().find_map(|member| {
            let others: Vec<&Id> = pair.members.keys().filter(|id| *id != member).collect();
            let idle = |id: &Id| !view.assignment.orchestrates(id);
            let stacked = view.assignment.monitors.contains_key(member);
            let voteless = !view.may_vote(member);
            let better = match (stacked, voteless) {
                (true, _) => best(view, &others, idle)?,
                (false, true) => best(view, &others, |id| idle(id) && view.may_vote(id))?,
                (false, false) => return None,
            };
            let why = if stacked {
                format!("{member} is a monitor and {better} is free")
            } else {
                format!("the disk of {better} may hold a vote, that of {member} may not")
            };
            Some(name(*number, &[others.as_slice(), &[better]].concat(), why))
        })
    })
}

pub(super) fn waits(view: &View<'_>) -> Option<String> {
    let whole = view.assignment.pairs.values().filter(|pair| pair.members.len() == 2).count();
    let floor = view.input.spec.pairs;
    (whole < floor).then(|| format!("{whole} of {floor} pairs of assigners: too few machines may be one"))
}

/// A draining member goes when another takes its place, or its buddy can do without.
fn drain(view: &View<'_>) -> Option<Decision> {
    view.assignment.pairs.iter().find_map(|(number, pair)| {
        let leaving = pair.members.keys().find(|id| !view.stays(id))?;
        let others: Vec<&Id> = pair.members.keys().filter(|id| *id != leaving).collect();
        let why = format!("{leaving} is draining");
        match candidate(view, &others) {
            // A new buddy learns first what an assigner on its own has under way: `fill` has named one.
            Some(next) if !others.is_empty() => Some(name(*number, &[others.as_slice(), &[next]].concat(), why)),
            None if !others.is_empty() => Some(name(*number, &others, why)),
            None if view.assignment.pairs.len() > 1 => Some(Decision::new(Change::Unpair { pair: *number }, why)),
            Some(_) | None => None,
        }
    })
}

/// Without this pair there is still an assigner that stays: pairs that drain are none to rely on.
fn others_stay(view: &View<'_>, number: u32) -> bool {
    let mut others = view.assignment.pairs.iter().filter(|(other, _)| **other != number);
    others.any(|(_, pair)| pair.members.keys().any(|id| view.stays(id)))
}

/// The best machine that is in no pair: empty ones, then workers, then monitors; in another zone than `beside`.
fn candidate<'a>(view: &View<'a>, beside: &[&'a Id]) -> Option<&'a Id> {
    best(view, beside, |_| true)
}

fn best<'a>(view: &View<'a>, beside: &[&'a Id], fits: impl Fn(&Id) -> bool) -> Option<&'a Id> {
    let free = |id: &&Id| view.open(id) && view.assignment.pair_of(id).is_none() && fits(id);
    view.best(Role::Assigner, view.staying.iter().copied().filter(free), beside)
}

fn name(pair: u32, members: &[&Id], why: String) -> Decision {
    Decision::new(Change::Pair { pair, members: set(members.iter().copied()) }, why)
}
