//! What a plan found of each instance, for the next one.
//!
//! A record that is the same one (not merely an equal one) needs no second look, and looking is what costs: a hundred
//! thousand of them are all over the memory. Promises that a plan with a memory is the plan without it.

use crate::census::Spot;
use crate::machine::Machine;
use std::collections::VecDeque;
use std::sync::Arc;
use wire::resource::{Instance, Phase, Status, Wanted};
use wire::spec::{Mode, RestartCondition};

/// Kept by whoever plans again and again; empty to begin with, and never wrong to throw away.
#[derive(Debug, Default)]
pub struct Memory {
    machines: Vec<String>,
    seen: VecDeque<Seen>,
    groups: usize,
}

/// What one instance with its status comes to. Holds both, so that nothing else can come to be at their addresses.
#[derive(Debug)]
pub(crate) struct Seen {
    instance: Arc<Instance>,
    pub(crate) status: Option<Arc<Status>>,
    /// Its service among those of the last plan.
    group: Option<usize>,
    pub(crate) spot: Option<Spot>,
    pub(crate) slot: u32,
    pub(crate) revision: u64,
    pub(crate) wanted: bool,
    pub(crate) says_ready: bool,
    pub(crate) done: bool,
    pub(crate) ended: bool,
    /// Has no mounts, takes no ports of the machine, and was not moved.
    pub(crate) plain: bool,
    pub(crate) share: Share,
}

/// What an instance takes of its machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_millis: u64,
    pub(crate) created_ms: u64,
}

/// A memory while it is renewed.
pub(crate) struct Recall<'m> {
    memory: &'m mut Memory,
    /// How many of the last plan are still in front; those of this one come behind.
    old: usize,
    /// For each service of the last plan which one it is now.
    groups: Vec<Option<usize>>,
}

impl Memory {
    pub(crate) fn recall(&mut self, machines: &[(&str, &Machine)]) -> Recall<'_> {
        let ids = || machines.iter().map(|(id, _)| *id);
        // Machines are known by their place among all: another set of them is another cluster.
        if !self.machines.iter().map(String::as_str).eq(ids()) {
            self.machines = ids().map(str::to_owned).collect();
            self.seen.clear();
        }
        let groups = vec![None; std::mem::take(&mut self.groups)];
        let old = self.seen.len();
        Recall { memory: self, old, groups }
    }
}

impl Recall<'_> {
    /// What is known of an instance, given that they are asked for in the order of their ids.
    pub(crate) fn instance(&mut self, id: &str, instance: &Arc<Instance>) -> Option<Seen> {
        loop {
            let next = self.memory.seen.front().filter(|_| self.old > 0)?;
            let same = Arc::ptr_eq(&next.instance, instance);
            if !same && next.instance.id.as_str() > id {
                return None;
            }
            let next = self.next();
            if same {
                return next;
            }
        }
    }

    fn next(&mut self) -> Option<Seen> {
        self.old = self.old.checked_sub(1)?;
        self.memory.seen.pop_front()
    }

    pub(crate) fn group(&self, seen: &Seen) -> Option<usize> {
        self.groups[seen.group?]
    }

    /// Its service is this one now.
    pub(crate) fn put(&mut self, seen: &mut Seen, group: usize) {
        if let Some(before) = seen.group.replace(group) {
            self.groups[before] = Some(group);
        }
        self.memory.groups = self.memory.groups.max(group + 1);
    }

    pub(crate) fn keep(&mut self, seen: Seen) {
        self.memory.seen.push_back(seen);
    }

    /// What is left was of instances that are there no longer.
    pub(crate) fn end(mut self) {
        while self.next().is_some() {}
    }
}

impl Seen {
    pub(crate) fn new(instance: &Arc<Instance>, status: Option<&Arc<Status>>, spot: Option<Spot>) -> Seen {
        let (spec, wants) = (&instance.spec, &instance.spec.resources);
        let wanted = match instance.wanted {
            Wanted::Running => true,
            Wanted::Stopped => false,
        };
        let ended = status.is_some_and(|status| match status.phase {
            Phase::Exited => true,
            Phase::Waiting
            | Phase::Pulling
            | Phase::Starting
            | Phase::Running
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Failed => false,
        });
        Seen {
            instance: Arc::clone(instance),
            status: status.map(Arc::clone),
            group: None,
            spot,
            slot: instance.slot,
            revision: instance.revision,
            wanted,
            says_ready: status.is_some_and(|status| status.ready),
            done: is_once(instance) && status.is_some_and(|status| completed(status)),
            ended,
            plain: spec.mounts.is_empty()
                && spec.placement.host_ports.is_empty()
                && instance.placed.moved_from.is_empty(),
            share: Share {
                memory_bytes: wants.memory_reserved_bytes,
                cpu_millis: wants.cpu_reserved_millis,
                created_ms: instance.created_ms,
            },
        }
    }

    /// Whether the next status is the one that was seen. One that has none now may have the next one's.
    pub(crate) fn has_status(&self, next: Option<&Arc<Status>>) -> bool {
        match (&self.status, next) {
            (Some(seen), Some(next)) => Arc::ptr_eq(seen, next),
            (Some(_), None) | (None, _) => false,
        }
    }
}

fn is_once(instance: &Instance) -> bool {
    match instance.spec.mode {
        Mode::ReplicatedJob => true,
        Mode::Replicated | Mode::Global => instance.spec.restart.condition != RestartCondition::Any,
    }
}

/// Ran to its end and said 0.
pub(crate) fn completed(status: &Status) -> bool {
    status.phase == Phase::Exited && status.exit.as_ref().is_some_and(|exit| exit.code == 0)
}
