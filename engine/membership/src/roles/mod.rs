//! Which machine has which role: (spec, machines, assignment) → the next assignment and the steps that lead there.
//!
//! Pure: no clock, no randomness, no IO. Whoever leads the control group feeds it and carries the steps out, one after the
//! other. It goes by level: asked twice with the same input it says the same, asked after only half of its steps were
//! carried out it says the rest. Every step is safe to lose, to come late and to come twice, since it names the leader's term
//! and the revision it changes, and is refused at any other.
//!
//! What it leans on, and cannot see for itself:
//! - A step is committed by the control group, so a leader without a majority carries nothing out. [`Change::SetVoters`] is
//!   one joint consensus.
//! - A leader renews the gateway's lease only after its own [`Change::Lead`] was committed and while a majority answers it,
//!   never renews one that it has called [`Lease::Expired`], and calls it so only when the holder's own count of it, which
//!   begins earlier, has surely ended. A new leader counts a whole lease from its `Lead`.
//! - A machine acts in a role only by what control said last, and tells the role's epoch; who knows a later one refuses it.
//!
//! The tests check exactly these: break one, and they show two gateways.
//!
//! It never knows how silence becomes a verdict, how a role is acted, or how Raft moves votes.

mod assignment;
mod gateway;
mod monitors;
mod pairs;
mod spec;
mod step;
#[cfg(test)]
mod tests;
mod view;
mod voters;
mod why;
mod workers;

pub use assignment::{Assignment, Gateway, Given, Pair};
pub use spec::{Duty, FSYNC_P99_US_MAX, Id, Lease, Machine, Role, Spec, Verdict};
pub use step::{Change, Refused, Step};
pub use why::why;

use std::collections::BTreeMap;
use view::{Decision, View};

/// How long nothing must have changed before something is changed that could as well stay: surplus steps down, stacked
/// roles part. Long enough for machines to take up what they were given and for a pair to hand its streams over, and several
/// times as long as a verdict takes: a machine that flaps moves what could stay at most once in it.
pub const SETTLE_MS: u64 = 10_000;

/// More steps than any input asks for: a plan ends whatever happens, and the next goes on.
const STEPS_MAX: usize = 64;

/// Everything a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub now_ms: u64,
    /// The Raft term in which the caller leads.
    pub term: u64,
    pub spec: &'a Spec,
    /// Every machine that belongs to the cluster, up or not. One that is missing was removed for good.
    pub machines: &'a BTreeMap<Id, Machine>,
    pub assignment: &'a Assignment,
    /// Of the gateway's present epoch.
    pub lease: Lease,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order. Each builds on the one before; when one is refused or lost, drop the rest and ask again.
    pub steps: Vec<Step>,
    /// The assignment after the last of them.
    pub next: Assignment,
    /// What cannot be done yet or at all, a sentence each.
    pub waits: Vec<String>,
    /// When to ask again although nothing changed.
    pub wake_at_ms: Option<u64>,
}

/// Decides what is to be done now.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan { next: input.assignment.clone(), ..Plan::default() };
    if input.term < plan.next.term {
        plan.waits.push("another machine leads by now".to_owned());
        return plan;
    }
    while plan.steps.len() < STEPS_MAX {
        let Some(decision) = decide(input, &plan.next) else { break };
        let step = Step {
            term: input.term,
            revision: plan.next.revision,
            at_ms: input.now_ms,
            change: decision.change,
            why: decision.why,
        };
        // What would be refused when carried out is not told: the same would be decided again and again.
        if let Err(refused) = plan.next.apply(&step) {
            plan.waits.push(refused.to_string());
            break;
        }
        plan.steps.push(step);
    }
    let view = View::new(input, &plan.next);
    plan.waits.extend(waits(&view));
    if !settled(input, &plan.next) && at_leisure(&view).is_some() {
        plan.wake_at_ms = Some(plan.next.changed_at_ms.saturating_add(SETTLE_MS));
    }
    plan
}

/// The one next thing. The order is that of urgency: whoever may decide, what is lost, the way in, then the floors from
/// the top, then votes for those who now have a role.
fn decide(input: &Input<'_>, assignment: &Assignment) -> Option<Decision> {
    let view = View::new(input, assignment);
    if assignment.term < input.term {
        // Plans of earlier leaders name an earlier revision from here on, whatever they knew.
        let why = "a new leader begins; what earlier ones planned is refused from here on";
        return Some(Decision::new(Change::Lead { term: input.term }, why));
    }
    vacate(&view)
        .or_else(|| gateway::grant(&view))
        .or_else(|| monitors::fill(&view))
        .or_else(|| pairs::fill(&view))
        .or_else(|| workers::fill(&view))
        .or_else(|| voters::learn(&view))
        .or_else(|| voters::replace(&view))
        .or_else(|| voters::grow(&view))
        .or_else(|| if settled(input, assignment) { at_leisure(&view) } else { None })
}

/// What could as well stay as it is for a while. Pairs are refilled before surplus monitors step down.
fn at_leisure(view: &View<'_>) -> Option<Decision> {
    pairs::tidy(view)
        .or_else(|| monitors::tidy(view))
        .or_else(|| workers::tidy(view))
        .or_else(|| voters::tidy(view))
        .or_else(|| gateway::tidy(view))
}

/// A clock that was far ahead when something changed holds nothing up either.
fn settled(input: &Input<'_>, assignment: &Assignment) -> bool {
    input.now_ms.abs_diff(assignment.changed_at_ms) >= SETTLE_MS
}

/// Roles of a machine that is lost are nobody's before they are another's: when it returns it has none.
fn vacate(view: &View<'_>) -> Option<Decision> {
    let lost = view.assignment.holders().into_iter().find(|id| !view.up(id))?;
    let why = if view.input.machines.contains_key(&lost) {
        format!("{lost} is down; if it returns it begins as empty")
    } else {
        format!("{lost} was removed from the cluster")
    };
    Some(Decision::new(Change::Vacate { machine: lost }, why))
}

fn waits(view: &View<'_>) -> Vec<String> {
    let mut told = Vec::new();
    told.extend(gateway::waits(view));
    told.extend(monitors::waits(view));
    told.extend(pairs::waits(view));
    told.extend(workers::waits(view));
    told.extend(voters::waits(view));
    told
}
