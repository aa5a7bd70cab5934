//! What the role engine asks to be done. Plain data.

use super::spec::{Id, Role};
use std::collections::BTreeSet;
use std::fmt;

/// One change of the assignment: a compare-and-swap in control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Of the leader that planned it; under any other it is refused. The revision alone would not do: the second step of an old
    /// plan names the revision that the new leader's own first change has made.
    pub term: u64,
    /// Of the assignment it changes; at any other it is refused.
    pub revision: u64,
    pub at_ms: u64,
    pub change: Change,
    /// For people, a sentence without its full stop.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// A leader begins: no plan made before counts any more.
    Lead {
        term: u64,
    },
    /// A machine loses every role and its copy of the log. A vote it keeps until it is replaced.
    Vacate {
        machine: Id,
    },
    /// Machines become monitors or workers, all at once.
    Promote {
        role: Role,
        machines: BTreeSet<Id>,
    },
    /// A machine is monitor or worker no more.
    Demote {
        role: Role,
        machine: Id,
    },
    /// Who the assigners of a pair are, from now on. Members that stay go on in their epoch.
    Pair {
        pair: u32,
        members: BTreeSet<Id>,
    },
    Unpair {
        pair: u32,
    },
    /// A machine gets a copy of the log, without a vote.
    AddLearner {
        machine: Id,
    },
    RemoveLearner {
        machine: Id,
    },
    /// The voters, all of them: one joint consensus. Who loses the vote stays as learner if it orchestrates.
    SetVoters {
        voters: BTreeSet<Id>,
    },
    /// A machine becomes the gateway. Epochs only rise.
    Grant {
        machine: Id,
        epoch: u64,
    },
    /// The gateway is to stop and say so, that another may begin.
    HandOver,
}

/// Why a step was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Another machine leads by now, or this one has not begun to.
    Term { planned: u64, present: u64 },
    /// The assignment has changed since the step was planned: plan again.
    Revision { planned: u64, present: u64 },
    /// It would leave an assignment that must never be.
    Broken(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Term { planned, present } => {
                write!(f, "change the roles: planned in term {planned}, the present one is {present}")
            }
            Refused::Revision { planned, present } => {
                write!(f, "change the roles: planned at revision {planned}, the present one is {present}")
            }
            Refused::Broken(what) => write!(f, "change the roles: {what}"),
        }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Lead { term } => write!(f, "lead in term {term}"),
            Change::Vacate { machine } => write!(f, "take all roles from {machine}"),
            Change::Promote { role, machines } => write!(f, "make {} {role}", names(machines)),
            Change::Demote { role, machine } => write!(f, "{machine} steps down as {role}"),
            Change::Pair { pair, members } => write!(f, "pair {pair} of assigners is {}", names(members)),
            Change::Unpair { pair } => write!(f, "pair {pair} of assigners ends"),
            Change::AddLearner { machine } => write!(f, "give {machine} a copy of the log"),
            Change::RemoveLearner { machine } => write!(f, "take its copy of the log from {machine}"),
            Change::SetVoters { voters } => write!(f, "let {} vote", names(voters)),
            Change::Grant { machine, epoch } => write!(f, "make {machine} the gateway, epoch {epoch}"),
            Change::HandOver => write!(f, "ask the gateway to hand over"),
        }
    }
}

fn names(machines: &BTreeSet<Id>) -> String {
    machines.iter().map(|id| &**id).collect::<Vec<_>>().join(", ")
}
