//! Who votes in the control group: orchestrators with durable, fast disks, always an odd number of them; the other
//! orchestrators with such disks are learners.
//!
//! Votes change by whole sets. A set differs from the one before by one machine replaced, two more or two fewer, so that
//! a verdict that was wrong costs no more than one machine's vote; and a majority of both is up.

use super::spec::{Duty, Id, Verdict};
use super::step::Change;
use super::view::{Decision, View};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Copies of the log for those who may vote; none for the others.
pub(super) fn learn(view: &View<'_>) -> Option<Decision> {
    let (voters, learners) = (&view.assignment.voters, &view.assignment.learners);
    let new = view.staying.iter().find(|id| good(view, id) && !voters.contains(**id) && !learners.contains(**id));
    if let Some(new) = new {
        let why = format!("{new} orchestrates and its disk is durable and fast");
        return Some(Decision::new(Change::AddLearner { machine: (*new).clone() }, why));
    }
    let old = learners.iter().find(|id| !good(view, id))?;
    let why = format!("{old} does not orchestrate any more, or its disk is too slow");
    Some(Decision::new(Change::RemoveLearner { machine: old.clone() }, why))
}

/// One voter that is down or has to go, for one that has the whole log.
pub(super) fn replace(view: &View<'_>) -> Option<Decision> {
    let old = &view.assignment.voters;
    // Who is down first: it votes for nothing.
    let worst = old.iter().filter(|id| !good(view, id)).min_by_key(|id| (view.up(id), *id))?;
    let next = newcomers(view).into_iter().next()?;
    let mut voters = old.clone();
    voters.remove(worst);
    voters.insert(next.clone());
    carried(view, &voters).then(|| {
        let why = format!("{next} has the whole log and votes for {worst}, which {}", fault(view, worst));
        Decision::new(Change::SetVoters { voters }, why)
    })
}

/// Two more.
pub(super) fn grow(view: &View<'_>) -> Option<Decision> {
    let old = &view.assignment.voters;
    if most(view) < old.len() + 2 {
        return None;
    }
    let newcomers = newcomers(view);
    let [one, other, ..] = newcomers.as_slice() else { return None };
    let mut voters = old.clone();
    voters.extend([(*one).clone(), (*other).clone()]);
    let why =
        format!("{one} and {other} have the whole log: {} voters bear the loss of {}", voters.len(), old.len() / 2 + 1);
    carried(view, &voters).then(|| Decision::new(Change::SetVoters { voters }, why))
}

/// What could as well stay: two fewer where machines have left for good; a vote moved out of a zone that has most of them.
pub(super) fn tidy(view: &View<'_>) -> Option<Decision> {
    shrink(view).or_else(|| spread(view))
}

pub(super) fn waits(view: &View<'_>) -> Vec<String> {
    let voters = &view.assignment.voters;
    let bad = voters.iter().filter(|id| !good(view, id));
    let mut told: Vec<String> =
        bad.map(|id| format!("{id} {} and keeps its vote: no other can take it", fault(view, id))).collect();
    let coming = view.assignment.learners.iter().filter(|id| coming(view, id));
    told.extend(coming.map(|id| format!("{id} is catching up with the log")));
    told
}

/// It may vote and orchestrates, so it should have a vote or at least a copy.
pub(super) fn good(view: &View<'_>, id: &str) -> bool {
    view.stays(id) && view.may_vote(id) && view.assignment.orchestrates(id)
}

/// A learner that could vote but for what it lacks of the log.
pub(super) fn coming(view: &View<'_>, id: &str) -> bool {
    // What is told of a copy that this very plan begins was told of another.
    let before = view.input.assignment;
    let had = before.learners.contains(id) || before.voters.contains(id);
    let caught_up = had && view.machine(id).is_some_and(|machine| machine.caught_up);
    good(view, id) && view.assignment.learners.contains(id) && !caught_up
}

/// Learners that could vote at once, best first: from zones with few votes.
fn newcomers<'a>(view: &View<'a>) -> Vec<&'a Id> {
    let (voters, learners) = (&view.assignment.voters, &view.assignment.learners);
    let ready = learners.iter().filter(|id| good(view, id) && !coming(view, id));
    let mut ready: Vec<&Id> = ready.collect();
    ready.sort_by_key(|id| {
        let considerate = view.machine(id).is_some_and(|machine| machine.considerate);
        (considerate, view.zone_mates(id, voters.iter()), *id)
    });
    ready
}

/// How many could vote now.
fn most(view: &View<'_>) -> usize {
    let ready = view.assignment.voters.iter().filter(|id| good(view, id)).count() + newcomers(view).len();
    odd(ready.min(view.input.spec.voters_max.max(1)))
}

/// A machine that is only down keeps its seat, and one that is about to catch up has it in view: what counts is who is
/// left in the cluster. To give up seats of machines that are down would trade what is on two disks for what is on one.
fn shrink(view: &View<'_>) -> Option<Decision> {
    let old = &view.assignment.voters;
    let down = |id: &&Id| {
        view.machine(id).is_some_and(|it| it.verdict == Verdict::Down && it.duty != Duty::Draining && it.may_vote())
    };
    let seats = old.iter().filter(|id| good(view, id) || down(id)).count()
        + view.assignment.learners.iter().filter(|id| good(view, id)).count();
    let bound = view.input.spec.voters_max.max(1).min(old.len());
    let wanted = most(view).max(odd(seats.min(bound)));
    if wanted == 0 || wanted + 2 > old.len() {
        return None;
    }
    let mut leaving: Vec<&Id> = old.iter().collect();
    leaving.sort_by_key(|id| {
        let worth = if good(view, id) { 2 } else { u8::from(down(id)) };
        (worth, Reverse(view.zone_mates(id, old.iter())), Reverse(*id))
    });
    let mut voters = old.clone();
    for id in leaving.iter().take(2) {
        voters.remove(*id);
    }
    let why = format!("{seats} machines are left that may vote, for {} voters", old.len());
    carried(view, &voters).then(|| Decision::new(Change::SetVoters { voters }, why))
}

/// Losing a zone that has most votes loses the cluster. Only a move that leaves the zones more even counts, so moves end.
fn spread(view: &View<'_>) -> Option<Decision> {
    let old = &view.assignment.voters;
    let mut zones: BTreeMap<_, Vec<&Id>> = BTreeMap::new();
    for id in old {
        zones.entry(view.zone(id)).or_default().push(id);
    }
    let (crowded, inside) = zones.iter().find(|(_, inside)| old.len() > 1 && inside.len() * 2 > old.len())?;
    let next = newcomers(view).into_iter().find(|id| {
        let there = zones.get(&view.zone(id)).map_or(0, Vec::len);
        view.zone(id) != *crowded && there + 1 < inside.len()
    })?;
    let leaving = inside.last()?;
    let mut voters = old.clone();
    voters.remove(*leaving);
    voters.insert(next.clone());
    let why = format!("most votes are in the zone of {leaving}; {next} is in another");
    carried(view, &voters).then(|| Decision::new(Change::SetVoters { voters }, why))
}

/// A majority of the voters that are, and of those that are to be, is up: the change can be committed, and so can the next.
fn carried(view: &View<'_>, voters: &BTreeSet<Id>) -> bool {
    let majority = |set: &BTreeSet<Id>| set.iter().filter(|id| view.up(id)).count() * 2 > set.len();
    majority(&view.assignment.voters) && majority(voters)
}

fn odd(number: usize) -> usize {
    number.checked_sub(1).map_or(0, |less| less | 1)
}

/// The end of "m1 …".
fn fault(view: &View<'_>, id: &str) -> &'static str {
    match view.machine(id) {
        None => "was removed",
        Some(machine) if machine.verdict == Verdict::Down => "is down",
        Some(machine) if !machine.may_vote() => "has a disk that is slow or not durable",
        Some(_) if !view.stays(id) => "is draining",
        Some(_) => "does not orchestrate",
    }
}
