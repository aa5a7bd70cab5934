//! One moment of a plan: the input and the assignment as far as it is planned, with the questions every rule asks.

use super::Input;
use super::assignment::Assignment;
use super::spec::{Duty, Id, Machine, Role, Verdict};
use super::step::Change;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One thing to do, before it has its place in a plan.
#[derive(Debug)]
pub(super) struct Decision {
    pub change: Change,
    pub why: String,
}

impl Decision {
    pub(super) fn new(change: Change, why: impl Into<String>) -> Decision {
        Decision { change, why: why.into() }
    }
}

pub(super) struct View<'a> {
    pub input: &'a Input<'a>,
    pub assignment: &'a Assignment,
    /// Who may keep what they have, sorted.
    pub staying: Vec<&'a Id>,
    /// All are draining: then none is, for somebody must do it.
    all_drain: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(input: &'a Input<'a>, assignment: &'a Assignment) -> View<'a> {
        let up = || input.machines.iter().filter(|(_, machine)| machine.verdict == Verdict::Up);
        let staying: Vec<&Id> = up().filter(|(_, machine)| machine.duty != Duty::Draining).map(|(id, _)| id).collect();
        let all_drain = staying.is_empty();
        let staying = if all_drain { up().map(|(id, _)| id).collect() } else { staying };
        View { input, assignment, staying, all_drain }
    }

    pub(super) fn machine(&self, id: &str) -> Option<&'a Machine> {
        self.input.machines.get(id)
    }

    pub(super) fn up(&self, id: &str) -> bool {
        self.machine(id).is_some_and(|machine| machine.verdict == Verdict::Up)
    }

    /// It is up and may keep what it has.
    pub(super) fn stays(&self, id: &str) -> bool {
        self.up(id) && (self.all_drain || self.machine(id).is_some_and(|machine| machine.duty != Duty::Draining))
    }

    /// It is up and may be given more.
    pub(super) fn open(&self, id: &str) -> bool {
        self.up(id) && (self.all_drain || self.machine(id).is_some_and(|machine| machine.duty == Duty::Open))
    }

    pub(super) fn may_vote(&self, id: &str) -> bool {
        self.machine(id).is_some_and(Machine::may_vote)
    }

    pub(super) fn zone(&self, id: &str) -> Option<&'a Arc<str>> {
        self.machine(id)?.zone.as_ref()
    }

    /// How many of `others` share its zone.
    pub(super) fn zone_mates<'b>(&self, id: &str, others: impl Iterator<Item = &'b Id>) -> usize {
        others.filter(|other| ***other != *id && self.zone(other) == self.zone(id)).count()
    }

    /// Monitors that stay: what counts towards their floor.
    pub(super) fn monitors(&self) -> Vec<&'a Id> {
        self.assignment.monitors.keys().filter(|id| self.stays(id)).collect()
    }

    /// How many monitors there are to be: the spec's floor, as far as there are machines.
    pub(super) fn monitors_wanted(&self) -> usize {
        self.input.spec.monitors.max(1).min(self.staying.len())
    }

    /// How many pairs there are to be. A machine is in one only.
    pub(super) fn pairs_wanted(&self) -> usize {
        self.input.spec.pairs.max(1).min((self.staying.len() / 2).max(1)).min(self.staying.len())
    }

    /// Every machine is needed to orchestrate, so nobody would be left to work.
    pub(super) fn few(&self) -> bool {
        self.staying.len() <= self.input.spec.monitors.max(1) + 2 * self.input.spec.pairs.max(1)
    }

    /// The best of those to orchestrate in `role`, spread away from those that do already.
    pub(super) fn best(&self, role: Role, among: impl Iterator<Item = &'a Id>, beside: &[&'a Id]) -> Option<&'a Id> {
        among.min_by_key(|id| self.rank(role, id, beside))
    }

    fn rank(&self, role: Role, id: &'a Id, beside: &[&'a Id]) -> Rank<'a> {
        let Some(machine) = self.machine(id) else { return Rank::last(id) };
        let asked = match machine.asked {
            Some(asked) if asked == role => 0,
            None | Some(Role::Monitor | Role::Assigner) => 1,
            Some(Role::Gateway | Role::Worker) => 2,
        };
        let busy = self.assignment.monitors.contains_key(id) || self.assignment.pair_of(id).is_some();
        let works = self.assignment.workers.contains_key(id);
        let gateway = self.assignment.gateway.as_ref().is_some_and(|gateway| gateway.holder == *id);
        Rank {
            stacked: busy,
            voteless: !machine.may_vote(),
            considerate: machine.considerate,
            asked,
            gateway: gateway && role == Role::Assigner,
            newcomer: !self.assignment.voters.contains(id),
            zone_mates: self.zone_mates(id, beside.iter().copied()),
            works,
            // In tenths: a load that was measured a moment later should rarely choose another.
            load: machine.load_per_mille / 100,
            id,
        }
    }
}

/// In order of weight; less is better.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    /// It orchestrates already.
    stacked: bool,
    voteless: bool,
    considerate: bool,
    asked: u8,
    /// Both carry what clients send.
    gateway: bool,
    /// It has no vote: one that has would have to give it away.
    newcomer: bool,
    zone_mates: usize,
    /// Empty machines first.
    works: bool,
    load: u32,
    id: &'a Id,
}

impl<'a> Rank<'a> {
    fn last(id: &'a Id) -> Rank<'a> {
        Rank {
            stacked: true,
            voteless: true,
            considerate: true,
            asked: u8::MAX,
            gateway: true,
            newcomer: true,
            zone_mates: usize::MAX,
            works: true,
            load: u32::MAX,
            id,
        }
    }
}

/// What a step takes of names.
pub(super) fn set<'a>(ids: impl IntoIterator<Item = &'a Id>) -> BTreeSet<Id> {
    ids.into_iter().cloned().collect()
}
