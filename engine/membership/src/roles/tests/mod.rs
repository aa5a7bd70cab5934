//! The role engine, checked: how roles are stacked, rule by rule; every state that small clusters can reach; long random
//! histories of larger ones.

mod explore;
mod histories;
mod promises;
mod rules;
mod sizes;
mod world;

use super::{Assignment, Id, Input, Lease, Machine, Plan, SETTLE_MS, Spec, plan};
use std::collections::BTreeMap;

/// A cluster that does at once what it is told: machines that are up catch up, the gateway takes and keeps its lease.
pub(super) struct Quiet {
    pub(super) spec: Spec,
    pub(super) machines: BTreeMap<Id, Machine>,
    pub(super) assignment: Assignment,
    pub(super) lease: Lease,
    pub(super) now_ms: u64,
}

/// `m1`, `m2`, …, padded so that they sort as they count.
pub(super) fn id(number: usize) -> Id {
    Id::from(if number < 10 { format!("m{number}") } else { format!("m9{number:03}") })
}

impl Quiet {
    /// `count` machines that are up, of which the first has begun the cluster.
    pub(super) fn of(count: usize, spec: Spec) -> Quiet {
        Quiet {
            spec,
            machines: (1..=count).map(|number| (id(number), Machine::default())).collect(),
            assignment: Assignment::founded_by(id(1)),
            lease: Lease::Held,
            now_ms: SETTLE_MS,
        }
    }

    /// The same after everything was done that was to do.
    pub(super) fn settled(count: usize, spec: Spec) -> Quiet {
        let mut quiet = Quiet::of(count, spec);
        quiet.settle();
        quiet
    }

    pub(super) fn input(&self) -> Input<'_> {
        Input {
            now_ms: self.now_ms,
            term: 1,
            spec: &self.spec,
            machines: &self.machines,
            assignment: &self.assignment,
            lease: self.lease,
        }
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.input())
    }

    /// Carries one whole plan out; what it did, as people read it.
    pub(super) fn carry(&mut self) -> Vec<String> {
        let plan = self.plan();
        for step in &plan.steps {
            self.assignment.apply(step).expect("a plan is carried out in its order");
            if matches!(step.change, super::Change::Grant { .. }) {
                self.lease = Lease::Held;
            }
        }
        assert_eq!(self.assignment, plan.next, "the plan tells where it leads");
        plan.steps.iter().map(|step| step.change.to_string()).collect()
    }

    /// Lets time pass and carries plans out until there is nothing to do; what was done.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..200 {
            let steps = self.carry();
            let mut changed = !steps.is_empty();
            done.extend(steps);
            for (id, machine) in &mut self.machines {
                let catches_up = self.assignment.learners.contains(id) && machine.verdict == super::Verdict::Up;
                changed |= catches_up && !machine.caught_up;
                machine.caught_up = catches_up || self.assignment.voters.contains(id);
            }
            if let Some(gateway) = &self.assignment.gateway
                && self.lease == Lease::Held
            {
                let up = self.machines.get(&gateway.holder).is_some_and(|it| it.verdict == super::Verdict::Up);
                self.lease = match (up, gateway.hand_over) {
                    (true, true) => Lease::Released,
                    (false, _) => Lease::Expired,
                    (true, false) => Lease::Held,
                };
                changed |= self.lease != Lease::Held;
            }
            let wakes = self.plan().wake_at_ms.is_some();
            self.now_ms += SETTLE_MS;
            if !changed && !wakes {
                return done;
            }
        }
        panic!("no end of it: {done:#?}");
    }

    pub(super) fn machine(&mut self, number: usize) -> &mut Machine {
        self.machines.entry(id(number)).or_default()
    }

    pub(super) fn down(&mut self, number: usize) {
        self.machine(number).verdict = super::Verdict::Down;
    }

    pub(super) fn up(&mut self, number: usize) {
        self.machine(number).verdict = super::Verdict::Up;
    }

    /// `m1 GMv, m2 Wl, …`: gateway, monitor, assigner, worker; voter, learner.
    pub(super) fn table(&self) -> String {
        let letters = |id: &Id| {
            let mut letters: String =
                self.assignment.roles(id).iter().filter_map(|role| role.to_string().chars().next()).collect();
            letters = letters.to_uppercase();
            letters.extend(self.assignment.voters.contains(id).then_some('v'));
            letters.extend(self.assignment.learners.contains(id).then_some('l'));
            if letters.is_empty() { "-".to_owned() } else { letters }
        };
        self.machines.keys().map(letters).collect::<Vec<_>>().join(" ")
    }
}
