//! Which machine one service's next instance goes to: filters that say why not, then a ranking that spreads.
//!
//! Exactly the machine that comparing all of them would find, for much less: while one service is placed, only the
//! machine that was just taken changes, and only for the worse. So the machines lie in heaps, one for each zone (or
//! whatever else the service is spread over) under one for the zones themselves, as swarm's tree of preferences. What
//! is on top is looked at again before it is believed; a machine that refuses is dropped until the plan is made. No
//! sampling: its answers would depend on what was drawn, and spread is a promise.

use crate::census::{Seat, Spot};
use crate::machine::ZONE;
use crate::refusal::{Refusal, Tally};
use crate::room::{Room, Standing};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use wire::resource::Placed;
use wire::spec::{Service, Stack};

/// Preferences that rank, with the zone: further ones would divide what is a machine each by now.
const LEVELS_MAX: usize = 4;

/// The service an instance is placed for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct For<'a> {
    pub(crate) stack: &'a Stack,
    pub(crate) name: &'a str,
    pub(crate) service: &'a str,
    pub(crate) spec: &'a Service,
}

pub(crate) struct Choice<'a> {
    of: For<'a>,
    /// Instances per machine that are there, and of these the ones that are to stay.
    there: Vec<u32>,
    staying: Vec<u32>,
    apart: Vec<(&'a str, Vec<bool>)>,
    together: Vec<(&'a str, Vec<bool>)>,
    tree: Option<Tree<'a>>,
}

/// A machine, and how it stood.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) spot: Spot,
    pub(crate) placed: Placed,
}

struct Tree<'a> {
    branches: Vec<Branch>,
    /// The branch each machine hangs on.
    leaves: Vec<u32>,
    depth: usize,
    tally: Tally<'a>,
}

#[derive(Default)]
struct Branch {
    parent: u32,
    /// Instances that are to stay, on all machines below.
    count: u32,
    below: BinaryHeap<Reverse<Entry>>,
}

/// A branch or, at the end, a machine. Its rank may have become worse since it was written down, never better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    rank: Rank,
    child: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    counts: [u32; LEVELS_MAX],
    standing: Standing,
}

const ROOT: u32 = 0;

impl<'a> Choice<'a> {
    /// `staying` are the machines of those instances that will be there when all is done.
    pub(crate) fn new(room: &Room<'a>, of: For<'a>, staying: impl Iterator<Item = Spot>) -> Choice<'a> {
        let count = |spots: &mut dyn Iterator<Item = Spot>| {
            let mut counts = vec![0; room.machines()];
            spots.for_each(|spot| counts[spot as usize] += 1);
            counts
        };
        let occupied = |other: &'a str| {
            let mut there = vec![false; room.machines()];
            room.runs(of.name, other).for_each(|spot| there[spot as usize] = true);
            (other, there)
        };
        let placement = &of.spec.placement;
        // What must be apart from this one says so itself; this one need not.
        let shy = of.stack.services.iter().filter(|(name, other)| {
            *name != of.service && other.placement.without.iter().any(|apart| apart == of.service)
        });
        let apart = placement.without.iter().chain(shy.map(|(name, _)| name));
        Choice {
            of,
            there: count(&mut room.runs(of.name, of.service)),
            staying: count(&mut { staying }),
            apart: apart.map(|other| occupied(other)).collect(),
            together: placement.with.iter().map(|other| occupied(other)).collect(),
            tree: None,
        }
    }

    /// The best machine for one more instance; takes the room.
    pub(crate) fn anywhere(&mut self, room: &mut Room<'a>) -> Result<Chosen, String> {
        let mut tree = match self.tree.take() {
            Some(tree) => tree,
            None => self.grow(room),
        };
        let best = tree.best(self, room, ROOT, 0);
        let chosen = match best {
            Some(rank) => {
                let spread = rank.counts[..tree.depth].to_vec();
                let spot = rank.standing.spot();
                tree.count(spot);
                Ok(self.settle(room, spot, spread))
            }
            None => Err(tree.tally.sentence(room.machines(), self.of.spec)),
        };
        self.tree = Some(tree);
        chosen
    }

    /// The best of a few machines, because of a volume or because the service is everywhere; takes the room.
    pub(crate) fn among(
        &mut self,
        room: &mut Room<'a>,
        spots: impl Iterator<Item = Spot>,
    ) -> Result<Chosen, Tally<'a>> {
        let mut tally = Tally::default();
        let mut best: Option<Standing> = None;
        for spot in spots {
            match self.refuse(room, spot).or_else(|| self.refuse_now(room, spot)) {
                Some(refusal) => tally.add(refusal),
                None => {
                    let standing = room.standing(spot, self.staying[spot as usize]);
                    best = Some(best.map_or(standing, |other| other.min(standing)));
                }
            }
        }
        let Some(best) = best else { return Err(tally) };
        if let Some(tree) = &mut self.tree {
            tree.count(best.spot());
        }
        Ok(self.settle(room, best.spot(), Vec::new()))
    }

    fn settle(&mut self, room: &mut Room<'a>, spot: Spot, spread: Vec<u32>) -> Chosen {
        let placed = room.placed(spot, self.staying[spot as usize], spread);
        self.there[spot as usize] += 1;
        self.staying[spot as usize] += 1;
        room.take(self.of.name, self.of.service, self.of.spec, spot);
        Chosen { spot, placed }
    }

    /// Every machine asked: those that fit, best first, and why the others do not.
    pub(crate) fn survey(&mut self, room: &mut Room<'a>) -> (Vec<Spot>, Tally<'a>) {
        let mut tally = Tally::default();
        let tree = self.grow(room);
        let mut fitting: Vec<(Rank, Spot)> = Vec::new();
        for spot in (0..).take(room.machines()) {
            match self.refuse(room, spot).or_else(|| self.refuse_now(room, spot)) {
                Some(refusal) => tally.add(refusal),
                None => {
                    let standing = room.standing(spot, self.staying[spot as usize]);
                    fitting.push((Rank { counts: tree.counts(spot), standing }, spot));
                }
            }
        }
        fitting.sort_unstable();
        (fitting.into_iter().map(|(_, spot)| spot).collect(), tally)
    }

    /// How crowded each machine is with the service: its zone first, then itself.
    pub(crate) fn crowded(&self, room: &mut Room<'a>) -> Vec<([u32; LEVELS_MAX], u32)> {
        let tree = self.grow(room);
        (0..).take(room.machines()).map(|spot| (tree.counts(spot), self.staying[spot as usize])).collect()
    }

    /// A machine where an instance that is at `own`, and not counted there, would make for a better spread.
    pub(crate) fn better(&mut self, room: &mut Room<'a>, own: Spot) -> Option<Chosen> {
        let mut tree = self.grow(room);
        let best = tree.best(self, room, ROOT, 0)?;
        let gains = (best.counts, best.standing.same) < (tree.counts(own), self.staying[own as usize]);
        gains.then(|| self.settle(room, best.standing.spot(), best.counts[..tree.depth].to_vec()))
    }

    /// A machine where it would be spread no worse, and of which less would be reserved than of its own without it.
    pub(crate) fn lighter(&mut self, room: &mut Room<'a>, own: Spot, own_per_mille: u32) -> Option<Chosen> {
        let mut tree = self.grow(room);
        let best = tree.best(self, room, ROOT, 0)?;
        let spot = best.standing.spot();
        let no_worse = (best.counts, best.standing.same) <= (tree.counts(own), self.staying[own as usize]);
        let after = room.burden(spot).saturating_add(room.share(spot, self.of.spec));
        (no_worse && after <= own_per_mille).then(|| self.settle(room, spot, best.counts[..tree.depth].to_vec()))
    }

    /// Whether one more would fit where one of these is, once that one is gone.
    pub(crate) fn fits_after(&self, room: &Room<'a>, going: &[Seat<'a>]) -> bool {
        going.iter().any(|seat| {
            seat.spot.is_some_and(|spot| {
                let most = self.of.spec.placement.replicas_per_node_max;
                self.refuse(room, spot).is_none()
                    && most.is_none_or(|most| self.there[spot as usize] <= most)
                    && room.fits_without(spot, self.of.spec, &seat.instance.spec)
            })
        })
    }

    /// Why a machine is out of the question however much room it has.
    pub(crate) fn refuse(&self, room: &Room<'a>, spot: Spot) -> Option<Refusal<'a>> {
        if let Some(shut) = room.shut(spot) {
            return Some(Refusal::Shut(shut));
        }
        let machine = room.machine(spot);
        let placement = &self.of.spec.placement;
        if let Some(broken) = placement.constraints.iter().find(|constraint| !machine.meets(constraint)) {
            return Some(Refusal::Mismatch(broken));
        }
        if let Some(device) = placement.devices.iter().find(|device| !machine.node.devices.contains(device)) {
            return Some(Refusal::Device(device));
        }
        if let Some((other, _)) = self.apart.iter().find(|(_, there)| there[spot as usize]) {
            return Some(Refusal::Beside(other));
        }
        self.together.iter().find(|(_, there)| !there[spot as usize]).map(|(other, _)| Refusal::Without(other))
    }

    /// What may be otherwise after the next instance.
    fn refuse_now(&self, room: &Room<'a>, spot: Spot) -> Option<Refusal<'a>> {
        let most = self.of.spec.placement.replicas_per_node_max;
        if let Some(most) = most.filter(|most| self.there[spot as usize] >= *most) {
            return Some(Refusal::AtMost(most));
        }
        room.full(spot, self.of.spec)
    }

    /// What the service is spread over, outermost first.
    fn levels(&self) -> Vec<&'a str> {
        let mut levels: Vec<&str> = Vec::new();
        for field in self.of.spec.placement.spread.iter().map(String::as_str).chain([ZONE]) {
            let field = if field == "node.labels.zone" || field == "engine.labels.zone" { ZONE } else { field };
            if !levels.contains(&field) && levels.len() < LEVELS_MAX {
                levels.push(field);
            }
        }
        levels
    }

    fn grow(&self, room: &mut Room<'a>) -> Tree<'a> {
        let levels: Vec<_> = self.levels().into_iter().map(|field| room.values(field)).collect();
        let mut tree = Tree {
            branches: vec![Branch::default()],
            leaves: Vec::with_capacity(room.machines()),
            depth: levels.len(),
            tally: Tally::default(),
        };
        // By branch and value; values are numbered from 0.
        let mut known: Vec<Vec<u32>> = Vec::new();
        let mut below: Vec<Vec<Reverse<Entry>>> = Vec::new();
        for spot in (0..).take(room.machines()) {
            let mut branch = ROOT;
            for values in &levels {
                let value = values[spot as usize];
                branch = tree.grown(&mut known, branch, value);
            }
            tree.leaves.push(branch);
            below.resize_with(tree.branches.len(), Vec::new);
            for _ in 0..self.staying[spot as usize] {
                tree.count(spot);
            }
            match self.refuse(room, spot) {
                Some(refusal) => tree.tally.add(refusal),
                None => {
                    let standing = room.standing(spot, self.staying[spot as usize]);
                    let rank = Rank { standing, ..Rank::default() };
                    below[branch as usize].push(Reverse(Entry { rank, child: spot }));
                }
            }
        }
        for (branch, entries) in below.into_iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
            tree.branches[branch].below = BinaryHeap::from(entries);
        }
        tree
    }
}

impl<'a> Tree<'a> {
    /// The branch of a value on `parent`, new if need be.
    fn grown(&mut self, known: &mut Vec<Vec<u32>>, parent: u32, value: u32) -> u32 {
        let (at, value) = (parent as usize, value as usize);
        if known.len() <= at {
            known.resize_with(at + 1, Vec::new);
        }
        if known[at].len() <= value {
            known[at].resize(value + 1, ROOT);
        }
        if known[at][value] == ROOT {
            known[at][value] = self.branch(parent);
        }
        known[at][value]
    }

    /// A new branch on `parent`, ranked too well: it is looked at before it is believed.
    fn branch(&mut self, parent: u32) -> u32 {
        let child = u32::try_from(self.branches.len()).unwrap_or(u32::MAX);
        self.branches.push(Branch { parent, ..Branch::default() });
        self.branches[parent as usize].below.push(Reverse(Entry { rank: Rank::default(), child }));
        child
    }

    /// One more instance is on that machine.
    fn count(&mut self, spot: Spot) {
        let mut branch = self.leaves[spot as usize];
        while branch != ROOT {
            let at = &mut self.branches[branch as usize];
            at.count += 1;
            branch = at.parent;
        }
    }

    fn counts(&self, spot: Spot) -> [u32; LEVELS_MAX] {
        let mut counts = [0; LEVELS_MAX];
        let mut branch = self.leaves[spot as usize];
        for level in (0..self.depth).rev() {
            counts[level] = self.branches[branch as usize].count;
            branch = self.branches[branch as usize].parent;
        }
        counts
    }

    /// Brings what is best below a branch to its top and says how it ranks.
    fn best(&mut self, choice: &Choice<'a>, room: &Room<'a>, branch: u32, level: usize) -> Option<Rank> {
        loop {
            let Reverse(top) = *self.branches[branch as usize].below.peek()?;
            let actual = if level == self.depth {
                match choice.refuse_now(room, top.child) {
                    None => {
                        let standing = room.standing(top.child, choice.staying[top.child as usize]);
                        Some(Rank { standing, ..Rank::default() })
                    }
                    Some(refusal) => {
                        self.tally.add(refusal);
                        None
                    }
                }
            } else {
                self.best(choice, room, top.child, level + 1).map(|mut rank| {
                    rank.counts[level] = self.branches[top.child as usize].count;
                    rank
                })
            };
            let below = &mut self.branches[branch as usize].below;
            match actual {
                Some(rank) if rank == top.rank => return Some(rank),
                Some(rank) => {
                    if let Some(mut first) = below.peek_mut() {
                        first.0.rank = rank;
                    }
                }
                None => {
                    below.pop();
                }
            }
        }
    }
}
