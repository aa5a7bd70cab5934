//! Who has which role, as control keeps it, and how a step changes it.
//!
//! Promises that no step, whoever planned it, leaves an even number of voters, a pair of one machine with itself, or a gateway
//! whose epoch did not rise.

use super::spec::{Id, Role};
use super::step::{Change, Refused, Step};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Who has which role. One value in control, replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignment {
    /// Rises with every change; the epoch of every role given by that change.
    pub revision: u64,
    /// In which the last leader that changed anything leads.
    pub term: u64,
    pub changed_at_ms: u64,
    /// `None` only before the first was named.
    pub gateway: Option<Gateway>,
    pub monitors: BTreeMap<Id, Given>,
    pub pairs: BTreeMap<u32, Pair>,
    pub workers: BTreeMap<Id, Given>,
    /// As Raft has them.
    pub voters: BTreeSet<Id>,
    pub learners: BTreeSet<Id>,
}

/// A role a machine was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Given {
    /// The revision that gave it. Whoever names an earlier one acts by what is over.
    pub epoch: u64,
    pub why: String,
}

/// Two assigners that share their work; one while the other is lost, or on a cluster of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// One or two.
    pub members: BTreeMap<Id, Given>,
}

/// The one machine that may be the active gateway, while its lease runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    pub holder: Id,
    pub epoch: u64,
    /// It was asked to stop and say so. It does not begin again in this epoch.
    pub hand_over: bool,
    pub why: String,
}

impl Assignment {
    /// Of a cluster that one machine begins.
    pub fn founded_by(machine: Id) -> Assignment {
        Assignment { voters: BTreeSet::from([machine]), ..Assignment::default() }
    }

    /// The roles of a machine; none is what *empty* means.
    pub fn roles(&self, machine: &str) -> Vec<Role> {
        let mut roles = Vec::new();
        if self.gateway.as_ref().is_some_and(|gateway| *gateway.holder == *machine) {
            roles.push(Role::Gateway);
        }
        if self.monitors.contains_key(machine) {
            roles.push(Role::Monitor);
        }
        if self.pair_of(machine).is_some() {
            roles.push(Role::Assigner);
        }
        if self.workers.contains_key(machine) {
            roles.push(Role::Worker);
        }
        roles
    }

    /// The pair a machine belongs to.
    pub fn pair_of(&self, machine: &str) -> Option<(u32, &Pair)> {
        self.pairs.iter().find(|(_, pair)| pair.members.contains_key(machine)).map(|(id, pair)| (*id, pair))
    }

    /// The other assigner of its pair.
    pub fn buddy_of(&self, machine: &str) -> Option<&Id> {
        self.pair_of(machine)?.1.members.keys().find(|id| ***id != *machine)
    }

    /// Monitors and assigners: who may hold votes and copies of the log.
    pub fn orchestrates(&self, machine: &str) -> bool {
        self.monitors.contains_key(machine) || self.pair_of(machine).is_some()
    }

    /// Everybody who has a role that can be taken, or a copy of the log.
    pub(super) fn holders(&self) -> BTreeSet<Id> {
        let assigners = self.pairs.values().flat_map(|pair| pair.members.keys());
        self.monitors.keys().chain(assigners).chain(self.workers.keys()).chain(&self.learners).cloned().collect()
    }

    /// Carries a step out, or leaves everything as it was and says why.
    pub fn apply(&mut self, step: &Step) -> Result<(), Refused> {
        let leads = matches!(step.change, Change::Lead { .. });
        if step.term != self.term && !leads {
            return Err(Refused::Term { planned: step.term, present: self.term });
        }
        if step.revision != self.revision {
            return Err(Refused::Revision { planned: step.revision, present: self.revision });
        }
        self.check(&step.change)?;
        let given = Given { epoch: self.revision + 1, why: step.why.clone() };
        match &step.change {
            Change::Lead { term } => self.term = *term,
            Change::Vacate { machine } => self.vacate(machine),
            Change::Promote { role, machines } => {
                let holders = if *role == Role::Monitor { &mut self.monitors } else { &mut self.workers };
                for machine in machines {
                    holders.entry(machine.clone()).or_insert_with(|| given.clone());
                }
            }
            Change::Demote { role, machine } => {
                let holders = if *role == Role::Monitor { &mut self.monitors } else { &mut self.workers };
                holders.remove(machine);
            }
            Change::Pair { pair, members } => {
                let pair = self.pairs.entry(*pair).or_default();
                pair.members.retain(|id, _| members.contains(id));
                for machine in members {
                    pair.members.entry(machine.clone()).or_insert_with(|| given.clone());
                }
            }
            Change::Unpair { pair } => {
                self.pairs.remove(pair);
            }
            Change::AddLearner { machine } => {
                self.learners.insert(machine.clone());
            }
            Change::RemoveLearner { machine } => {
                self.learners.remove(machine);
            }
            Change::SetVoters { voters } => {
                let old = std::mem::replace(&mut self.voters, voters.clone());
                self.learners.retain(|id| !voters.contains(id));
                let leaving = old.into_iter().filter(|id| !voters.contains(id) && self.orchestrates(id));
                let leaving: Vec<Id> = leaving.collect();
                self.learners.extend(leaving);
            }
            Change::Grant { machine, epoch } => {
                let why = given.why;
                self.gateway = Some(Gateway { holder: machine.clone(), epoch: *epoch, hand_over: false, why });
            }
            Change::HandOver => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.hand_over = true;
                }
            }
        }
        self.revision += 1;
        self.changed_at_ms = step.at_ms;
        Ok(())
    }

    fn vacate(&mut self, machine: &Id) {
        self.monitors.remove(machine);
        self.workers.remove(machine);
        self.learners.remove(machine);
        for pair in self.pairs.values_mut() {
            pair.members.remove(machine);
        }
        self.pairs.retain(|_, pair| !pair.members.is_empty());
    }

    /// What must never be, whatever planned it.
    fn check(&self, change: &Change) -> Result<(), Refused> {
        let broken = match change {
            Change::Lead { term } if *term <= self.term => Some("the term is not later than the last leader's"),
            Change::SetVoters { voters } if voters.len() % 2 == 0 => Some("the number of voters would be even"),
            Change::SetVoters { voters } if voters.iter().any(|id| !self.copies(id)) => {
                Some("a voter would have no copy of the log")
            }
            Change::Pair { pair, members } if !self.can_pair(*pair, members) => {
                Some("a pair is one or two machines that are in no other")
            }
            Change::Grant { epoch, .. } if self.gateway.as_ref().is_some_and(|last| *epoch <= last.epoch) => {
                Some("the gateway's epoch would not rise")
            }
            Change::Promote { role, .. } | Change::Demote { role, .. } => match role {
                Role::Monitor | Role::Worker => None,
                Role::Gateway | Role::Assigner => Some("gateways are granted and assigners paired"),
            },
            Change::Lead { .. }
            | Change::Vacate { .. }
            | Change::Pair { .. }
            | Change::Unpair { .. }
            | Change::AddLearner { .. }
            | Change::RemoveLearner { .. }
            | Change::SetVoters { .. }
            | Change::Grant { .. }
            | Change::HandOver => None,
        };
        broken.map_or(Ok(()), |what| Err(Refused::Broken(what)))
    }

    fn copies(&self, machine: &Id) -> bool {
        self.voters.contains(machine) || self.learners.contains(machine)
    }

    fn can_pair(&self, pair: u32, members: &BTreeSet<Id>) -> bool {
        let elsewhere = |id: &Id| self.pair_of(id).is_some_and(|(other, _)| other != pair);
        matches!(members.len(), 1 | 2) && !members.iter().any(elsewhere)
    }
}
