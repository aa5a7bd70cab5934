//! What is there, sorted once for a whole plan: every instance with its status and its machine, by service.
//!
//! A plan over a hundred thousand instances is a walk over them: each is looked at once, and nothing searches the
//! input again.

use crate::Input;
use crate::machine::Machine;
use std::collections::{BTreeSet, HashMap};
use std::iter::Peekable;
use wire::resource::{Instance, Phase, Status, Wanted};
use wire::spec::{Mode, MountSource, RestartCondition};

/// Instances whose records are fetched together: their part of the first cache is small.
const BATCH: usize = 64;

/// A machine by its place among all, in the order of ids.
pub(crate) type Spot = u32;

/// An instance, what its machine says of it, and where that machine stands among all; `None`: nobody knows the machine.
///
/// What nearly every decision asks is copied out: an instance with its service is a kilobyte, and walking over all of
/// them twice is what a plan of a large cluster would be made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) status: Option<&'a Status>,
    pub(crate) spot: Option<Spot>,
    pub(crate) slot: u32,
    /// Its machine is there, or only silent so far.
    pub(crate) reachable: bool,
    pub(crate) wanted: bool,
    /// Serves. What a machine said before it was lost does not count.
    pub(crate) ready: bool,
    /// Has done what it was to do once, and is not to do it again.
    pub(crate) done: bool,
    pub(crate) ended: bool,
}

impl<'a> Seat<'a> {
    fn new(instance: &'a Instance, status: Option<&'a Status>, spot: Option<Spot>, reachable: bool) -> Seat<'a> {
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
        let ready = reachable && status.is_some_and(|status| status.ready);
        let done = ended && is_once(instance) && status.is_some_and(completed);
        Seat { instance, status, spot, slot: instance.slot, reachable, wanted, ready, done, ended }
    }

    /// Serves, or has done what it was to do once.
    pub(crate) fn settled(&self) -> bool {
        self.ready || self.done
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

/// The instances of one service.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) stack: &'a str,
    pub(crate) service: &'a str,
    pub(crate) seats: Vec<Seat<'a>>,
    /// All are of the first one's shape.
    pub(crate) alike: bool,
}

impl Group<'_> {
    /// Whether an instance is of this service. Its id, which is at hand, begins with both names: looking there leaves
    /// theirs, which are elsewhere in memory, alone.
    fn has(&self, id: &str, instance: &Instance) -> bool {
        if self.stack.len() != instance.stack.len() || self.service.len() != instance.service.len() {
            return false;
        }
        let rest = id.strip_prefix(self.stack).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.and_then(|rest| rest.strip_prefix(self.service));
        rest.is_some_and(|rest| rest.starts_with('.'))
            || (self.service == instance.service && self.stack == instance.stack)
    }
}

#[derive(Debug)]
pub(crate) struct Census<'a> {
    /// Machines by id, sorted by it.
    pub(crate) machines: Vec<(&'a str, &'a Machine)>,
    spots: HashMap<&'a str, Spot>,
    pub(crate) groups: Vec<Group<'a>>,
    index: HashMap<(&'a str, &'a str), usize>,
    stacks: BTreeSet<&'a str>,
    /// Those that were moved to where they are.
    pub(crate) moved: Vec<Seat<'a>>,
    /// Named volumes, and the machines on which an instance has or had them or which report them.
    homes: HashMap<&'a str, BTreeSet<Spot>>,
}

impl<'a> Census<'a> {
    /// Tells `occupied` of each instance that takes room on a machine, or still does.
    pub(crate) fn take(input: &Input<'a>, mut occupied: impl FnMut(Spot, &Instance)) -> Census<'a> {
        let machines: Vec<(&str, &Machine)> =
            input.machines.iter().map(|(id, machine)| (id.as_str(), machine)).collect();
        let spots = machines.iter().zip(0..).map(|((id, _), spot)| (*id, spot)).collect();
        let mut census = Census {
            machines,
            spots,
            groups: Vec::new(),
            index: HashMap::new(),
            stacks: BTreeSet::new(),
            moved: Vec::new(),
            homes: HashMap::new(),
        };
        for (spot, (_, machine)) in (0..).zip(&census.machines) {
            for volume in &machine.node.volumes {
                census.homes.entry(volume).or_default().insert(spot);
            }
        }
        // Both maps are sorted by the same ids: one walk over both instead of a search for each.
        let mut statuses = input.statuses.iter().peekable();
        let mut instances = input.instances.iter();
        let mut last = usize::MAX;
        loop {
            let batch: Vec<(&'a String, &'a Instance)> =
                instances.by_ref().take(BATCH).map(|(id, instance)| (id, instance.as_ref())).collect();
            if batch.is_empty() {
                break;
            }
            warm(&batch, statuses.clone());
            for (id, instance) in batch {
                let status = beside(&mut statuses, id);
                // The next one is nearly always of the same service.
                let same = census.groups.get(last).is_some_and(|group| group.has(id, instance));
                if !same {
                    last = census.group_of(&instance.stack, &instance.service);
                }
                let seat = census.seat(last, instance, status);
                if let Some(spot) = seat.spot
                    && (seat.wanted || !seat.ended)
                {
                    occupied(spot, instance);
                }
            }
        }
        census
    }

    fn group_of(&mut self, stack: &'a str, service: &'a str) -> usize {
        let next = self.groups.len();
        let at = *self.index.entry((stack, service)).or_insert(next);
        if at == next {
            self.stacks.insert(stack);
            self.groups.push(Group { stack, service, seats: Vec::new(), alike: true });
        }
        at
    }

    fn seat(&mut self, group: usize, instance: &'a Instance, status: Option<&'a Status>) -> Seat<'a> {
        let spot = self.spots.get(instance.node.as_str()).copied();
        let reachable = spot.is_some_and(|spot| !self.machines[spot as usize].1.is_down());
        for mount in &instance.spec.mounts {
            if let (MountSource::Volume { name }, Some(spot)) = (&mount.source, spot) {
                self.homes.entry(name).or_default().insert(spot);
            }
        }
        let seat = Seat::new(instance, status, spot, reachable);
        if seat.wanted && !instance.placed.moved_from.is_empty() {
            self.moved.push(seat);
        }
        let group = &mut self.groups[group];
        // One revision of a service has one shape.
        group.alike &= group
            .seats
            .first()
            .is_none_or(|first| first.instance.revision == instance.revision || first.instance.shape == instance.shape);
        group.seats.push(seat);
        seat
    }

    pub(crate) fn group(&self, stack: &str, service: &str) -> Option<&Group<'a>> {
        self.index.get(&(stack, service)).map(|at| &self.groups[*at])
    }

    pub(crate) fn seats(&self, stack: &str, service: &str) -> &[Seat<'a>] {
        self.group(stack, service).map_or(&[], |group| &group.seats)
    }

    pub(crate) fn has_stack(&self, stack: &str) -> bool {
        self.stacks.contains(stack)
    }

    pub(crate) fn spot(&self, id: &str) -> Option<Spot> {
        self.spots.get(id).copied()
    }

    /// Where a volume's folder is.
    pub(crate) fn homes(&self, volume: &str) -> Option<&BTreeSet<Spot>> {
        self.homes.get(volume)
    }

    /// A machine as people call it.
    pub(crate) fn called(&self, id: &'a str) -> &'a str {
        let hostname = self.spot(id).map_or("", |spot| self.machines[spot as usize].1.node.hostname.as_str());
        if hostname.is_empty() { id } else { hostname }
    }
}

/// Reads of each what is going to be asked of it, and does nothing with it: the records are all over the memory, and
/// the processor waits for many of them at once only while nothing depends on what it reads.
fn warm<'a>(
    batch: &[(&'a String, &'a Instance)],
    statuses: impl Iterator<Item = (&'a String, &'a std::sync::Arc<Status>)>,
) {
    let mut sum = 0;
    for (_, instance) in batch {
        let (spec, placed) = (&instance.spec, &instance.placed);
        sum ^= instance.slot as usize ^ placed.moved_from.len() ^ spec.mounts.len() ^ spec.placement.host_ports.len();
        sum ^= spec.replicas as usize ^ spec.resources.memory_limit_bytes.map_or(0, |_| 1) ^ instance.node.len();
    }
    for ((id, instance), (other, status)) in batch.iter().zip(statuses) {
        sum ^= usize::from(status.ready) ^ id.bytes().map(usize::from).next_back().unwrap_or(0);
        sum ^= other.bytes().map(usize::from).next_back().unwrap_or(0);
        sum ^= instance.node.bytes().map(usize::from).next_back().unwrap_or(0);
    }
    std::hint::black_box(sum);
}

/// The status of `id`, given that ids are asked for in their order.
fn beside<'a, S>(statuses: &mut Peekable<S>, id: &str) -> Option<&'a Status>
where
    S: Iterator<Item = (&'a String, &'a std::sync::Arc<Status>)>,
{
    while let Some((other, status)) = statuses.peek() {
        match other.as_str().cmp(id) {
            std::cmp::Ordering::Less => statuses.next(),
            std::cmp::Ordering::Equal => return Some(status),
            std::cmp::Ordering::Greater => return None,
        };
    }
    None
}
