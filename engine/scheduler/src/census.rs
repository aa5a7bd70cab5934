//! What is there, sorted once for a whole plan: every instance with its status and its machine, by service.
//!
//! A plan over a hundred thousand instances is a walk over them: each is looked at once, and nothing searches the
//! input again. Those that the last plan saw just so are not even looked at: see [`crate::Memory`].

use crate::Input;
use crate::machine::Machine;
use crate::memory::{Memory, Seen, Share};
use std::collections::{BTreeSet, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use wire::resource::{Instance, Status};
use wire::spec::MountSource;

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

impl Seat<'_> {
    /// Serves, or has done what it was to do once.
    pub(crate) fn settled(&self) -> bool {
        self.ready || self.done
    }
}

/// The instances of one service.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) stack: &'a str,
    pub(crate) service: &'a str,
    pub(crate) seats: Vec<Seat<'a>>,
    /// All are of the first one's shape.
    pub(crate) alike: bool,
    /// The first one's.
    revision: Option<u64>,
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
    /// Tells `occupied` of each instance that takes room on a machine, or still does. What `memory` has of an instance
    /// is not looked up again, and what was is kept in it.
    pub(crate) fn take(
        input: &Input<'a>,
        memory: &mut Memory,
        mut occupied: impl FnMut(Spot, &Share, &[u16]),
    ) -> Census<'a> {
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
        let mut recall = memory.recall(&census.machines);
        // Both maps are sorted by the same ids: one walk over both instead of a search for each.
        let mut statuses = input.statuses.iter().peekable();
        let mut last = usize::MAX;
        for (id, instance) in input.instances {
            let known = recall.instance(id, instance);
            let known = known.filter(|seen| seen.has_status(statuses.peek().map(|(_, status)| *status)));
            let (mut seen, status) = match known {
                Some(seen) => (seen, statuses.next().map(|(_, status)| status)),
                None => {
                    let status = beside(&mut statuses, id);
                    (Seen::new(instance, status, census.spot(&instance.node)), status)
                }
            };
            last = match recall.group(&seen) {
                Some(group) => group,
                // The next one is nearly always of the same service.
                None if census.groups.get(last).is_some_and(|group| group.has(id, instance)) => last,
                None => census.group_of(&instance.stack, &instance.service),
            };
            recall.put(&mut seen, last);
            let seat = census.seat(&seen, last, instance, status.map(Arc::as_ref));
            if let Some(spot) = seat.spot
                && (seat.wanted || !seat.ended)
            {
                let ports = if seen.plain { &[][..] } else { &instance.spec.placement.host_ports };
                occupied(spot, &seen.share, ports);
            }
            recall.keep(seen);
        }
        recall.end();
        census
    }

    fn group_of(&mut self, stack: &'a str, service: &'a str) -> usize {
        let next = self.groups.len();
        let at = *self.index.entry((stack, service)).or_insert(next);
        if at == next {
            self.stacks.insert(stack);
            self.groups.push(Group { stack, service, seats: Vec::new(), alike: true, revision: None });
        }
        at
    }

    fn seat(&mut self, seen: &Seen, group: usize, instance: &'a Instance, status: Option<&'a Status>) -> Seat<'a> {
        let reachable = seen.spot.is_some_and(|spot| !self.machines[spot as usize].1.is_down());
        let seat = Seat {
            instance,
            status,
            spot: seen.spot,
            slot: seen.slot,
            reachable,
            wanted: seen.wanted,
            ready: reachable && seen.says_ready,
            done: seen.done,
            ended: seen.ended,
        };
        if !seen.plain {
            for mount in &instance.spec.mounts {
                if let (MountSource::Volume { name }, Some(spot)) = (&mount.source, seat.spot) {
                    self.homes.entry(name).or_default().insert(spot);
                }
            }
            if seat.wanted && !instance.placed.moved_from.is_empty() {
                self.moved.push(seat);
            }
        }
        let group = &mut self.groups[group];
        // One revision of a service has one shape.
        let first = *group.revision.get_or_insert(seen.revision);
        group.alike &= first == seen.revision || group.seats[0].instance.shape == instance.shape;
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

/// The status of `id`, given that ids are asked for in their order.
fn beside<'a, S>(statuses: &mut Peekable<S>, id: &str) -> Option<&'a Arc<Status>>
where
    S: Iterator<Item = (&'a String, &'a Arc<Status>)>,
{
    while statuses.next_if(|(other, _)| other.as_str() < id).is_some() {}
    statuses.next_if(|(other, _)| other.as_str() == id).map(|(_, status)| status)
}
