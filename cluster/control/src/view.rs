//! What is wanted and what is there, as one value that is always current: everybody who decides from the state of
//! record reads this instead of keeping a copy of their own.
//!
//! One task follows both spaces and publishes a new [`Snapshot`] per batch of changes. A snapshot is never altered;
//! its parts are shared, so that a new one costs a few pointers.

use crate::{Soft, Space, Watch, WatchError};
use membership::roles::{Assignment, Spec};
use scheduler::{Machine, Pressure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use wire::resource::{
    Address, Fence, Floating, Instance, LastBackup, Load, Member, Node, Presence, Rollout, RolloutState, StackHead,
    StackRevision, Status, Verdict,
};
use wire::run::Running;
use wire::spec::Service;

/// Share of a machine's memory that services may reserve: the rest is the system's and our own.
const MEMORY_USABLE_PERCENT: u64 = 90;

/// Everything, as of `revision` of the durable space and `reported_revision` of the soft one.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub revision: u64,
    pub reported_revision: u64,
    pub stacks: BTreeMap<String, Wanted>,
    pub revisions: BTreeMap<(String, u64), Arc<StackRevision>>,
    pub rollouts: BTreeMap<(String, String), Rollout>,
    pub instances: BTreeMap<String, Arc<Instance>>,
    pub addresses: BTreeMap<(String, String), Address>,
    pub statuses: BTreeMap<String, Arc<Status>>,
    pub machines: BTreeMap<String, Machine>,
    /// Those that have joined, by id; none on a machine that is on its own.
    pub members: BTreeMap<String, Member>,
    /// Who has which role, and where in the space's history that was written.
    pub roles: Arc<Assignment>,
    pub roles_revision: u64,
    /// How many of each role there are to be.
    pub roles_wanted: Spec,
    pub floating: Floating,
    /// Instances that are sure to run no longer.
    pub fenced: BTreeSet<String>,
    /// Those of whom that was asked, done or not.
    pub fences: BTreeMap<String, Fence>,
    pub last_backup: Option<LastBackup>,
    /// Grows with every change that may lead to another plan: not with a report of load that leaves its machine's pressure
    /// as it was, of which there is one every few seconds from each.
    pub plan_generation: u64,
    /// What machines have to do with code that is run, by id.
    pub runs: BTreeMap<String, Running>,
    verdicts: BTreeMap<String, Verdict>,
    loads: BTreeMap<String, Load>,
    declared: BTreeMap<String, Node>,
    reported: BTreeMap<String, Node>,
}

/// A stack's head, and where in the space's history it was written.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub head: StackHead,
    pub mod_revision: u64,
}

/// A handle on the current snapshot; clones see the same.
pub type View = watch::Receiver<Arc<Snapshot>>;

/// Starts following. The first snapshot is complete. The task ends when the spaces close or every handle is gone.
pub fn follow(space: Space, soft: Soft) -> (View, world::task::Task) {
    let (snapshot, durable, reported) = read(&space, &soft);
    let (publish, view) = watch::channel(Arc::new(snapshot.clone()));
    let task = world::task::spawn("view", keep(space, soft, snapshot, durable, reported, publish));
    (view, task)
}

async fn keep(
    space: Space,
    soft: Soft,
    mut snapshot: Snapshot,
    mut durable: Watch,
    mut reported: Watch,
    publish: watch::Sender<Arc<Snapshot>>,
) {
    loop {
        let ended = loop {
            let taken = tokio::select! {
                events = durable.next() => events.map(|events| {
                    for event in events {
                        snapshot.revision = snapshot.revision.max(event.revision);
                        snapshot.plan_generation += 1;
                        snapshot.learn(&event.key, event.value.as_deref(), event.revision);
                    }
                }),
                events = reported.next() => events.map(|events| {
                    for event in events {
                        snapshot.reported_revision = snapshot.reported_revision.max(event.revision);
                        snapshot.hear(&event.key, event.value.as_deref());
                    }
                }),
                () = publish.closed() => return,
            };
            match taken {
                Ok(()) => publish.send_replace(Arc::new(snapshot.clone())),
                Err(error) => break error,
            };
        };
        if matches!(ended, WatchError::Closed) {
            return;
        }
        // Fell behind what the space keeps of its history: start again from what is there now.
        let plan_generation = snapshot.plan_generation + 1;
        (snapshot, durable, reported) = read(&space, &soft);
        snapshot.plan_generation = plan_generation;
        publish.send_replace(Arc::new(snapshot.clone()));
    }
}

/// As this member knows it: what runs goes on where nobody leads, and what is newer comes by the watch.
fn read(space: &Space, soft: &Soft) -> (Snapshot, Watch, Watch) {
    let mut snapshot = Snapshot::default();
    let listing = space.list_own_local();
    snapshot.revision = listing.revision;
    for entry in listing.entries {
        snapshot.learn(&entry.key, Some(&entry.value), entry.mod_revision);
    }
    let durable = space.watch_own(listing.revision + 1);
    let listing = soft.list("");
    snapshot.reported_revision = listing.revision;
    for entry in listing.entries {
        snapshot.hear(&entry.key, Some(&entry.value));
    }
    let reported = soft.watch("", listing.revision + 1);
    (snapshot, durable, reported)
}

impl Snapshot {
    /// The wanted revision of a stack.
    pub fn current(&self, stack: &str) -> Option<&Arc<StackRevision>> {
        let wanted = self.stacks.get(stack)?;
        self.revisions.get(&(stack.to_owned(), wanted.head.revision))
    }

    /// A service as it is wanted now.
    pub fn service(&self, stack: &str, service: &str) -> Option<&Service> {
        self.current(stack)?.stack.services.get(service)
    }

    /// Every wanted service, with its stack's name and its own.
    pub fn services(&self) -> impl Iterator<Item = (&str, &str, &Service)> {
        self.stacks.keys().filter_map(|stack| self.current(stack)).flat_map(|revision| {
            let of = &revision.stack;
            of.services.iter().map(|(name, service)| (of.name.as_str(), name.as_str(), service))
        })
    }

    /// The member that replicated groups count by this number.
    pub fn member_of(&self, number: u64) -> Option<&Member> {
        self.members.values().find(|member| member.number == number)
    }

    /// Whether something that is wanted has no machine, or waits for something else: then all that is heard counts.
    pub fn waits_for_room(&self) -> bool {
        self.rollouts.values().any(|rollout| match rollout.state {
            RolloutState::Running | RolloutState::Done => !rollout.reason.is_empty(),
            RolloutState::Paused | RolloutState::Failed => false,
        })
    }

    /// Whether a machine is there, as those who watch the machines have agreed.
    pub fn presence(&self, machine: &str) -> Presence {
        self.verdicts.get(machine).map_or(Presence::Up, |verdict| verdict.presence)
    }

    /// The instances of a service.
    pub fn instances_of<'a>(&'a self, stack: &'a str, service: &'a str) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.instances.values().filter(move |instance| instance.stack == stack && instance.service == service)
    }

    /// A key of the durable space changed. What cannot be read is left out and said: one bad record must not stop
    /// what depends on all others.
    fn learn(&mut self, at: &str, value: Option<&[u8]>, revision: u64) {
        let parts: Vec<&str> = at.split('/').collect();
        match parts[..] {
            ["stack", name] => {
                let wanted = value
                    .map(|value| serde_json::from_slice(value).map(|head| Wanted { head, mod_revision: revision }));
                put(&mut self.stacks, name.to_owned(), at, wanted);
            }
            ["revision", stack, number] => {
                put(&mut self.revisions, (stack.to_owned(), number.parse().unwrap_or(0)), at, value.map(json));
            }
            ["rollout", stack, service] => {
                put(&mut self.rollouts, (stack.to_owned(), service.to_owned()), at, value.map(json));
            }
            ["address", stack, service] => {
                put(&mut self.addresses, (stack.to_owned(), service.to_owned()), at, value.map(json));
            }
            ["instance", id] => put(&mut self.instances, id.to_owned(), at, value.map(json)),
            ["member", id] => put(&mut self.members, id.to_owned(), at, value.map(json)),
            ["cluster", "backup"] => self.last_backup = value.and_then(|value| json(value).ok()),
            ["node", id] => {
                put(&mut self.declared, id.to_owned(), at, value.map(json));
                self.merge_machine(id);
            }
            ["verdict", id] => {
                put(&mut self.verdicts, id.to_owned(), at, value.map(json));
                self.merge_machine(id);
            }
            ["cluster", "roles"] => {
                self.roles_revision = revision;
                read_one(&mut self.roles, at, value);
            }
            ["cluster", "roles-wanted"] => read_one(&mut self.roles_wanted, at, value),
            ["cluster", "floating"] => read_one(&mut self.floating, at, value),
            ["fence", id] => {
                put(&mut self.fences, id.to_owned(), at, value.map(json));
                match self.fences.get(id) {
                    Some(fence) if fence.done => self.fenced.insert(id.to_owned()),
                    Some(_) | None => self.fenced.remove(id),
                };
            }
            _ => {}
        }
    }

    /// A machine reported something.
    fn hear(&mut self, at: &str, value: Option<&[u8]>) {
        let parts: Vec<&str> = at.split('/').collect();
        if let ["load", id] = parts[..] {
            put(&mut self.loads, id.to_owned(), at, value.map(json));
            self.plan_generation += u64::from(self.measure(id));
            return;
        }
        if let ["runs", id] = parts[..] {
            put(&mut self.runs, id.to_owned(), at, value.map(json));
            return;
        }
        self.plan_generation += 1;
        match parts[..] {
            ["status", id] => put(&mut self.statuses, id.to_owned(), at, value.map(json)),
            ["node", id] => {
                // What a machine is outlives its reports while it is under a verdict: what is there is still to be told to stop.
                if value.is_some() || !self.is_down(id) {
                    put(&mut self.reported, id.to_owned(), at, value.map(json));
                }
                self.merge_machine(id);
            }
            _ => {}
        }
    }

    fn is_down(&self, id: &str) -> bool {
        self.verdicts.get(id).is_some_and(|verdict| match verdict.presence {
            Presence::Up | Presence::Silent { .. } => false,
            Presence::Down { .. } => true,
        })
    }

    /// A machine is what it reports, with what was declared for it, and as present as the verdict says. One that is under
    /// a verdict is a machine although it reports nothing.
    fn merge_machine(&mut self, id: &str) {
        let verdict = self.verdicts.get(id);
        let known = self.reported.get(id).or_else(|| verdict.and_then(|_| self.declared.get(id)));
        let Some(known) = known.cloned().or_else(|| verdict.map(|_| Node { id: id.to_owned(), ..Node::default() }))
        else {
            self.machines.remove(id);
            return;
        };
        let mut node = known;
        if let Some(declared) = self.declared.get(id) {
            node.labels.extend(declared.labels.clone());
            node.drained |= declared.drained;
            node.cordoned |= declared.cordoned;
            node.faults.clone_from(&declared.faults);
            if !declared.zone.is_empty() {
                node.zone.clone_from(&declared.zone);
            }
            if declared.considerate.is_some() {
                node.considerate.clone_from(&declared.considerate);
            }
        }
        let before = self.machines.remove(id).unwrap_or_default();
        let machine = Machine {
            memory_usable_bytes: node.memory_bytes / 100 * MEMORY_USABLE_PERCENT,
            cpu_usable_millis: u64::from(node.cores) * 1000,
            presence: verdict.map_or(Presence::Up, |verdict| verdict.presence),
            node,
            ..before
        };
        self.machines.insert(id.to_owned(), machine);
        self.measure(id);
    }

    /// What is really used of a machine, and whether that is more than its owner allows. Answers whether that changed what
    /// may be there.
    fn measure(&mut self, id: &str) -> bool {
        let Some(machine) = self.machines.get_mut(id) else { return false };
        let load = self.loads.get(id).cloned();
        let before = machine.pressure;
        machine.pressure = match (&load, &machine.node.considerate) {
            (Some(_), Some(_)) if machine.load == load => before,
            (Some(load), Some(owner)) => before.next(load, owner),
            (None, _) | (_, None) => Pressure::Calm,
        };
        if machine.load != load {
            machine.load_heard_ms = world::clock::unix_ms();
            machine.load = load;
        }
        machine.pressure.differs_from(before)
    }
}

fn json<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(value)
}

fn read_one<T: Default + serde::de::DeserializeOwned>(into: &mut T, at: &str, value: Option<&[u8]>) {
    match value.map(json).unwrap_or_else(|| Ok(T::default())) {
        Ok(value) => *into = value,
        Err(error) => tracing::error!(key = at, %error, "a record cannot be read"),
    }
}

fn put<K: Ord, T>(map: &mut BTreeMap<K, T>, key: K, at: &str, value: Option<Result<T, serde_json::Error>>) {
    match value {
        None => {
            map.remove(&key);
        }
        Some(Ok(value)) => {
            map.insert(key, value);
        }
        Some(Err(error)) => tracing::error!(key = at, %error, "a record cannot be read"),
    }
}
