//! A cluster as the model check sees it: what machines do and believe, what the leader knows, what control holds, and a step
//! that is under way. Small values only, so that hundreds of thousands of them are compared and kept.
//!
//! What is not modelled: the log itself (a step is committed at once when a majority of the voters, and of those to be, can be
//! reached, or not at all), more than one step under way, and more than two sides of a partition.

use crate::roles::{
    Assignment, Change, Duty, Gateway, Given, Id, Input, Lease, Machine, Pair, Refused, SETTLE_MS, Spec, Step, Verdict,
    plan,
};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;

/// Present revision of every assignment: only whether a step's is the same matters.
const REVISION: u64 = 1_000;
const NOBODY: u8 = u8::MAX;
const PAIRS_MAX: usize = 4;

/// A set of machines, a bit each.
pub(super) type Set = u32;

pub(super) fn has(set: Set, machine: u8) -> bool {
    machine < 32 && set & (1 << machine) != 0
}

fn put(set: &mut Set, machine: u8, there: bool) {
    *set = if there { *set | 1 << machine } else { *set & !(1 << machine) };
}

/// A map by a hash that is quick without optimization too: most of a check is looking worlds up.
pub(super) type Hashed<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// What the Rust compiler hashes with: a rotation and a multiplication for each word.
#[derive(Debug, Default)]
pub(super) struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let word = word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.write_u64(word);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// The assignment without revisions, epochs and sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Roles {
    pub(super) monitors: Set,
    pub(super) workers: Set,
    pub(super) voters: Set,
    pub(super) learners: Set,
    /// The members of each pair; an empty set is no pair.
    pub(super) pairs: [Set; PAIRS_MAX],
    pub(super) gateway: u8,
    pub(super) hand_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) running: Set,
    /// They do nothing, but believe what they believed.
    pub(super) frozen: Set,
    /// Who is on the other side of the partition.
    pub(super) beyond: Set,
    /// Who acts as the gateway: it answers at the address.
    pub(super) active: Set,
    /// What the verdicts say.
    pub(super) up: Set,
    pub(super) draining: Set,
    pub(super) caught_up: Set,
    pub(super) leader: u8,
    /// The leader's `Lead` is committed.
    pub(super) leads: bool,
    pub(super) lease: Lease,
    pub(super) settled: bool,
    pub(super) roles: Roles,
    pub(super) late: Option<Late>,
    /// Failures still to come.
    pub(super) failures: u8,
}

/// A step that was planned and is still under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Late {
    change: u32,
    /// How its revision compares with the present one.
    revision: Ordering,
    /// It is of an earlier leader.
    old: bool,
    /// The gateway was granted since.
    granted: bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Die(u8),
    Freeze(u8),
    Part(u8),
    Drain(u8),
    Return(u8),
    Thaw(u8),
    Join(u8),
    Undrain(u8),
    Verdict(u8),
    Elect(u8),
    CatchUp(u8),
    /// Nothing changes for a while.
    Settle,
    /// The machine is active as the gateway, or goes on being so.
    Take(u8),
    /// Its lease has run out by its own count; of a frozen one the kernel takes the address.
    Stop(u8),
    /// The gateway stops as it was asked to, and says so.
    HandBack,
    /// The leader's count of the lease ends.
    Expire,
    /// The first step of a plan is carried out, the rest is lost.
    Carry,
    /// The first step of a plan comes late.
    Delay,
    /// The first is lost, the second comes late.
    DelaySecond,
    /// What was late arrives.
    Arrive,
}

/// A promise of those around the engine that the model breaks, to see that the check notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    None,
    /// Control carries steps out whatever their revision.
    AnyRevision,
    /// Control carries steps of earlier leaders out.
    AnyTerm,
    /// The leader calls the lease expired while the holder still counts on it.
    EarlyExpiry,
    /// A new leader renews the lease before its `Lead` is committed.
    RenewsBeforeLead,
    /// The leader renews a lease that it has called expired.
    RenewsExpired,
}

/// What does not change while a model runs.
pub(super) struct Model {
    pub(super) spec: Spec,
    pub(super) machines: u8,
    /// Those whose disks hold no vote.
    pub(super) slow: Set,
    /// The zone of each machine; more machines than zones begin again.
    pub(super) zones: Vec<&'static str>,
    pub(super) lie: Lie,
    /// Steps that can never be carried out any more stay under way too: half of all states, in which nothing happens.
    pub(super) keeps_void: bool,
    ids: Vec<Id>,
    plans: RefCell<Hashed<Known, Rc<[Planned]>>>,
    changes: RefCell<(Vec<Change>, HashMap<Change, u32>)>,
}

/// What a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Known {
    up: Set,
    draining: Set,
    caught_up: Set,
    leads: bool,
    leader: u8,
    lease: Lease,
    settled: bool,
    roles: Roles,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) change: u32,
    pub(super) after: Roles,
}

impl Model {
    pub(super) fn new(machines: u8, spec: Spec) -> Model {
        Model {
            spec,
            machines,
            slow: 0,
            zones: Vec::new(),
            lie: Lie::None,
            keeps_void: false,
            ids: (0..machines).map(|machine| Id::from(format!("m{machine:02}"))).collect(),
            plans: RefCell::default(),
            changes: RefCell::default(),
        }
    }

    /// One machine has begun the cluster, the others have joined, and nothing was done yet.
    pub(super) fn founded(&self, failures: u8) -> World {
        let all = self.all();
        World {
            running: all,
            frozen: 0,
            beyond: 0,
            active: 0,
            up: all,
            draining: 0,
            caught_up: 0,
            leader: 0,
            leads: false,
            lease: Lease::Held,
            settled: true,
            roles: self.encode(&Assignment::founded_by(Arc::clone(&self.ids[0]))),
            late: None,
            failures,
        }
    }

    pub(super) fn all(&self) -> Set {
        ((1u64 << self.machines) - 1) as Set
    }

    /// Those the machine can reach, itself among them, if it runs.
    pub(super) fn reached_from(&self, world: &World, machine: u8) -> Set {
        let side = if has(world.beyond, machine) { world.beyond } else { !world.beyond };
        if has(world.running, machine) { world.running & side } else { 0 }
    }

    fn majority(set: Set, of: Set) -> bool {
        (set & of).count_ones() * 2 > of.count_ones()
    }

    /// Those the leader reaches; none when it cannot commit.
    pub(super) fn reached(&self, world: &World) -> Set {
        let reached = if world.leader == NOBODY { 0 } else { self.reached_from(world, world.leader) };
        if Model::majority(reached, world.roles.voters) { reached } else { 0 }
    }

    pub(super) fn may_lead(&self, world: &World, machine: u8) -> bool {
        has(world.roles.voters, machine) && Model::majority(self.reached_from(world, machine), world.roles.voters)
    }

    fn may_take(&self, world: &World, machine: u8) -> bool {
        let leads = world.leads || self.lie == Lie::RenewsBeforeLead;
        let runs = world.lease == Lease::Held || (self.lie == Lie::RenewsExpired && world.lease == Lease::Expired);
        world.roles.gateway == machine && !world.roles.hand_over && leads && runs && has(self.reached(world), machine)
    }

    /// Everything that can happen now.
    pub(super) fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::with_capacity(32);
        let reached = self.reached(world);
        for machine in 0..self.machines {
            self.failures(world, machine, &mut actions);
            if reached != 0 && has(world.up, machine) != has(reached, machine) {
                actions.push(Action::Verdict(machine));
            }
            if machine != world.leader && (reached == 0 || world.failures > 0) && self.may_lead(world, machine) {
                actions.push(Action::Elect(machine));
            }
            if has(world.roles.learners & reached & !world.caught_up, machine) {
                actions.push(Action::CatchUp(machine));
            }
            let takes = self.may_take(world, machine);
            if takes && !has(world.active, machine) {
                actions.push(Action::Take(machine));
            }
            if !takes && has(world.active, machine) {
                actions.push(Action::Stop(machine));
            }
            let asked = world.roles.gateway == machine && world.roles.hand_over && world.lease == Lease::Held;
            if asked && has(reached, machine) {
                actions.push(Action::HandBack);
            }
        }
        if !world.settled {
            actions.push(Action::Settle);
        }
        let counted = !has(world.active, world.roles.gateway) || self.lie == Lie::EarlyExpiry;
        if reached != 0 && world.leads && world.lease == Lease::Held && world.roles.gateway != NOBODY && counted {
            actions.push(Action::Expire);
        }
        if world.leader != NOBODY && has(world.running, world.leader) {
            actions.extend([Action::Delay, Action::DelaySecond]);
            if reached != 0 {
                actions.push(Action::Carry);
            }
        }
        if reached != 0 && world.late.is_some() {
            actions.push(Action::Arrive);
        }
        actions
    }

    /// What breaks, while something may, and what is mended, at any time.
    fn failures(&self, world: &World, machine: u8, actions: &mut Vec<Action>) {
        let runs = has(world.running, machine);
        let frozen = has(world.frozen, machine);
        if world.failures > 0 {
            if runs {
                actions.extend([Action::Die(machine), Action::Freeze(machine)]);
            }
            if !has(world.beyond, machine) {
                actions.push(Action::Part(machine));
            }
            if !has(world.draining, machine) {
                actions.push(Action::Drain(machine));
            }
        }
        if !runs && !frozen {
            actions.push(Action::Return(machine));
        }
        if frozen {
            actions.push(Action::Thaw(machine));
        }
        if has(world.beyond, machine) {
            actions.push(Action::Join(machine));
        }
        if has(world.draining, machine) {
            actions.push(Action::Undrain(machine));
        }
    }

    /// The world after it happened; `None` when it comes to nothing.
    pub(super) fn act(&self, world: &World, action: Action) -> Option<World> {
        let mut next = *world;
        match action {
            Action::Die(machine) => {
                next.failures -= 1;
                put(&mut next.running, machine, false);
                put(&mut next.active, machine, false);
                next.caught_up &= !(1 << machine) | next.roles.voters;
            }
            Action::Freeze(machine) => {
                next.failures -= 1;
                put(&mut next.running, machine, false);
                put(&mut next.frozen, machine, true);
                next.caught_up &= !(1 << machine) | next.roles.voters;
            }
            Action::Part(machine) => {
                next.failures -= 1;
                put(&mut next.beyond, machine, true);
                next.caught_up &= !(1 << machine) | next.roles.voters;
            }
            Action::Drain(machine) => {
                next.failures -= 1;
                put(&mut next.draining, machine, true);
            }
            Action::Return(machine) => put(&mut next.running, machine, true),
            Action::Thaw(machine) => {
                put(&mut next.frozen, machine, false);
                put(&mut next.running, machine, true);
            }
            Action::Join(machine) => put(&mut next.beyond, machine, false),
            Action::Undrain(machine) => put(&mut next.draining, machine, false),
            Action::Verdict(machine) => next.up ^= 1 << machine,
            Action::Elect(machine) => {
                next.failures -= u8::from(self.reached(world) != 0);
                next.leader = machine;
                next.leads = false;
                if let Some(late) = &mut next.late {
                    late.old = true;
                }
                // What the last leader knew of the lease, it knew in memory.
                next.lease = Lease::Held;
            }
            Action::CatchUp(machine) => put(&mut next.caught_up, machine, true),
            Action::Settle => next.settled = true,
            Action::Take(machine) => put(&mut next.active, machine, true),
            Action::Stop(machine) => put(&mut next.active, machine, false),
            Action::HandBack => {
                put(&mut next.active, world.roles.gateway, false);
                next.lease = Lease::Released;
            }
            Action::Expire => next.lease = Lease::Expired,
            Action::Carry => self.carry(&mut next, *self.plan(world).first()?)?,
            Action::Delay => next.late = Some(self.delay(*self.plan(world).first()?, Ordering::Equal)?),
            Action::DelaySecond => next.late = Some(self.delay(*self.plan(world).get(1)?, Ordering::Greater)?),
            Action::Arrive => self.arrive(&mut next)?,
        }
        let void = |late: &Late| late.revision == Ordering::Less || (late.old && next.leads);
        if !self.keeps_void && next.late.as_ref().is_some_and(void) {
            next.late = None;
        }
        (next != *world).then_some(next)
    }

    /// The steps of a plan, and the assignment after each.
    pub(super) fn plan(&self, world: &World) -> Rc<[Planned]> {
        let known = Known {
            up: world.up,
            draining: world.draining,
            caught_up: world.caught_up & world.roles.learners,
            leads: world.leads,
            leader: world.leader,
            lease: world.lease,
            settled: world.settled,
            roles: world.roles,
        };
        if let Some(planned) = self.plans.borrow().get(&known) {
            return Rc::clone(planned);
        }
        let machines = self.machines(&known);
        let mut assignment = self.decode(&known.roles, known.leads);
        let input = Input {
            now_ms: if known.settled { SETTLE_MS } else { 0 },
            term: 1,
            spec: &self.spec,
            machines: &machines,
            assignment: &assignment,
            lease: known.lease,
        };
        let plan = plan(&input);
        assert_eq!(plan, crate::roles::plan(&input), "the same input says the same");
        let mut planned = Vec::new();
        for step in &plan.steps {
            assignment.apply(step).expect("a plan is carried out in its order");
            planned.push(Planned { change: self.intern(&step.change), after: self.encode(&assignment) });
        }
        let planned: Rc<[Planned]> = planned.into();
        self.plans.borrow_mut().insert(known, Rc::clone(&planned));
        planned
    }

    fn machines(&self, known: &Known) -> BTreeMap<Id, Machine> {
        let machine = |number: u8| Machine {
            verdict: if has(known.up, number) { Verdict::Up } else { Verdict::Down },
            duty: if has(known.draining, number) { Duty::Draining } else { Duty::Open },
            zone: self.zones.get(usize::from(number) % self.zones.len().max(1)).map(|zone| Arc::from(*zone)),
            durable: !has(self.slow, number),
            caught_up: has(known.caught_up, number),
            leads: number == known.leader,
            ..Machine::default()
        };
        self.ids.iter().zip(0..).map(|(id, number)| (Arc::clone(id), machine(number))).collect()
    }

    pub(super) fn change(&self, number: u32) -> Change {
        self.changes.borrow().0[number as usize].clone()
    }

    fn intern(&self, change: &Change) -> u32 {
        let (list, numbers) = &mut *self.changes.borrow_mut();
        *numbers.entry(change.clone()).or_insert_with(|| {
            list.push(change.clone());
            u32::try_from(list.len() - 1).expect("few changes")
        })
    }

    /// A `Lead` that comes late only moves the revision, which others do as well.
    fn delay(&self, planned: Planned, revision: Ordering) -> Option<Late> {
        let lead = matches!(self.change(planned.change), Change::Lead { .. });
        (!lead).then_some(Late { change: planned.change, revision, old: false, granted: false })
    }

    /// Commits a step, if that can be.
    pub(super) fn carry(&self, world: &mut World, planned: Planned) -> Option<()> {
        self.commit(world, &self.change(planned.change), planned.after)
    }

    fn commit(&self, world: &mut World, change: &Change, after: Roles) -> Option<()> {
        let reached = self.reached(world);
        if reached == 0 || !Model::majority(reached, after.voters) {
            return None;
        }
        match change {
            Change::Lead { .. } => world.leads = true,
            Change::Grant { .. } => world.lease = Lease::Held,
            Change::AddLearner { .. } => world.caught_up &= !(after.learners & !world.roles.learners),
            Change::SetVoters { .. } => world.caught_up |= world.roles.voters | after.voters,
            Change::Vacate { .. }
            | Change::Promote { .. }
            | Change::Demote { .. }
            | Change::Pair { .. }
            | Change::Unpair { .. }
            | Change::RemoveLearner { .. }
            | Change::HandOver => {}
        }
        world.roles = after;
        world.settled = false;
        if let Some(late) = &mut world.late {
            late.revision = if late.revision == Ordering::Greater { Ordering::Equal } else { Ordering::Less };
            late.granted |= matches!(change, Change::Grant { .. });
        }
        if !has(after.voters, world.leader) {
            world.leader = NOBODY;
        }
        Some(())
    }

    /// The late step, through the same compare-and-swap as any.
    fn arrive(&self, world: &mut World) -> Option<()> {
        let late = world.late?;
        let mut change = self.change(late.change);
        if let Change::Grant { epoch, .. } = &mut change {
            *epoch -= u64::from(late.granted);
        }
        let revision = match late.revision {
            _ if self.lie == Lie::AnyRevision => REVISION,
            Ordering::Less => REVISION - 1,
            Ordering::Equal => REVISION,
            Ordering::Greater => REVISION + 1,
        };
        // Before the present leader's `Lead` is committed, the term is still that of the one before.
        let present = u64::from(world.leads);
        let term = if late.old && world.leads && self.lie != Lie::AnyTerm { present - 1 } else { present };
        let step = Step { term, revision, at_ms: 0, change, why: String::new() };
        let mut assignment = self.decode(&world.roles, world.leads);
        match assignment.apply(&step) {
            Ok(()) => {}
            Err(Refused::Term { .. } | Refused::Revision { .. } | Refused::Broken(_)) => return None,
        }
        world.late = None;
        self.commit(world, &step.change, self.encode(&assignment))
    }

    fn ids(&self, set: Set) -> impl Iterator<Item = Id> {
        self.ids.iter().zip(0..).filter(move |(_, number)| has(set, *number)).map(|(id, _)| Arc::clone(id))
    }

    fn set<'a>(&self, ids: impl IntoIterator<Item = &'a Id>) -> Set {
        ids.into_iter().map(|id| 1 << self.number(id)).sum()
    }

    fn number(&self, id: &Id) -> u8 {
        let at = self.ids.binary_search(id).expect("a machine of the model");
        u8::try_from(at).expect("few machines")
    }

    fn decode(&self, roles: &Roles, leads: bool) -> Assignment {
        let given = |set: Set| self.ids(set).map(|id| (id, Given { epoch: 1, why: String::new() })).collect();
        let pairs = (0..).zip(roles.pairs).filter(|(_, members)| *members != 0);
        Assignment {
            revision: REVISION,
            term: u64::from(leads),
            changed_at_ms: 0,
            gateway: (roles.gateway != NOBODY).then(|| Gateway {
                holder: Arc::clone(&self.ids[usize::from(roles.gateway)]),
                epoch: 1,
                hand_over: roles.hand_over,
                why: String::new(),
            }),
            monitors: given(roles.monitors),
            pairs: pairs.map(|(number, members)| (number, Pair { members: given(members) })).collect(),
            workers: given(roles.workers),
            voters: self.ids(roles.voters).collect(),
            learners: self.ids(roles.learners).collect(),
        }
    }

    fn encode(&self, assignment: &Assignment) -> Roles {
        let mut pairs = [0; PAIRS_MAX];
        for (number, pair) in &assignment.pairs {
            pairs[*number as usize] = self.set(pair.members.keys());
        }
        Roles {
            monitors: self.set(assignment.monitors.keys()),
            workers: self.set(assignment.workers.keys()),
            voters: self.set(&assignment.voters),
            learners: self.set(&assignment.learners),
            pairs,
            gateway: assignment.gateway.as_ref().map_or(NOBODY, |gateway| self.number(&gateway.holder)),
            hand_over: assignment.gateway.as_ref().is_some_and(|gateway| gateway.hand_over),
        }
    }
}
