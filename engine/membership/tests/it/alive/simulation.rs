//! Machines that gossip over a network that loses, delays and cuts off, in simulated time. The same seed gives the same
//! bytes.
//!
//! Shared by the tests and the example `gossip`, which makes the long measurements.

use membership::alive::{Effect, Event, Gossip, NodeId, Pressure, Record, Settings};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr};

/// What a socket keeps for a process that does not read: Linux's `rmem_default`.
const INBOX_BYTES_MAX: usize = 212_992;
/// How often a machine's record changes: load and pressure do all the time.
const RECORD_MS: u64 = 1_000;
/// When everything begins, by a wall clock.
const UNIX_MS: u64 = 1_795_000_000_000;

/// A stream of random numbers that is the same in every run.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.roll() % below
    }
}

/// What a run is of.
#[derive(Clone)]
pub struct Plan {
    pub machines: usize,
    pub seed: u64,
    pub loss_percent: u64,
    /// Datagrams take between one and so many milliseconds, and may overtake one another.
    pub delay_ms_max: u64,
    /// The process is kept waiting for up to so long before it ticks.
    pub late_ms_max: u64,
    pub settings: Settings,
}

impl Plan {
    pub fn new(machines: usize, seed: u64, loss_percent: u64) -> Plan {
        Plan { machines, seed, loss_percent, delay_ms_max: 20, late_ms_max: 20, settings: Settings::default() }
    }
}

/// An event, and who had it when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub at_ms: u64,
    pub by: usize,
    pub event: Event,
}

pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    /// None while it is switched off.
    pub gossip: Option<Gossip>,
    /// Its monotonic clock began at another time and runs a little faster or slower.
    clock_ms: u64,
    clock_ppm: u64,
    /// How wrong its wall clock is.
    pub wall_ms: i64,
    frozen: bool,
    inbox: Vec<(SocketAddr, Vec<u8>)>,
    /// Ticks asked for by an earlier state are no longer wanted.
    tick: u64,
    record_ms: u64,
    pub bytes_sent: u64,
    pub datagrams_sent: u64,
}

/// What happens at some time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Tick { node: usize, tick: u64 },
    Deliver { to: SocketAddr, from: SocketAddr, datagram: Vec<u8> },
    Thaw { node: usize },
}

pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub now_ms: u64,
    pub nodes: Vec<Node>,
    pub told: Vec<Told>,
    /// From whom to whom nothing arrives.
    pub cut: BTreeSet<(usize, usize)>,
    /// A digest of all that was sent.
    pub trace: DefaultHasher,
    /// The longest silence of a machine that was alive, in any other's eyes; looked at with each tick.
    pub silence_ms_max: u64,
    pub watch_silence: bool,
    places: BTreeMap<SocketAddr, usize>,
    /// By when they are due, and in the order they were planned in.
    steps: BinaryHeap<Reverse<(u64, u64, Step)>>,
    sequence: u64,
    addresses: u32,
}

impl World {
    /// Machines that are switched on, each of which knows the first one's address.
    pub fn new(plan: Plan) -> World {
        let mut world = World {
            dice: Dice::new(plan.seed),
            now_ms: 0,
            nodes: Vec::new(),
            told: Vec::new(),
            cut: BTreeSet::new(),
            trace: DefaultHasher::new(),
            silence_ms_max: 0,
            watch_silence: false,
            places: BTreeMap::new(),
            steps: BinaryHeap::new(),
            sequence: 0,
            addresses: 0,
            plan,
        };
        for _ in 0..world.plan.machines {
            world.add();
        }
        world
    }

    /// Switches on a new machine.
    pub fn add(&mut self) -> usize {
        let mut id = [0; 32];
        for chunk in id.chunks_mut(8) {
            chunk.copy_from_slice(&self.dice.roll().to_be_bytes());
        }
        self.add_as(NodeId(id))
    }

    /// Switches on a machine that has this key.
    pub fn add_as(&mut self, id: NodeId) -> usize {
        let address = self.new_address();
        let node = Node {
            id,
            address,
            gossip: None,
            clock_ms: self.dice.below(1_000_000_000),
            clock_ppm: self.dice.below(200),
            wall_ms: 0,
            frozen: false,
            inbox: Vec::new(),
            tick: 0,
            record_ms: 0,
            bytes_sent: 0,
            datagrams_sent: 0,
        };
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.places.insert(address, index);
        self.start(index);
        index
    }

    fn new_address(&mut self) -> SocketAddr {
        self.addresses += 1;
        SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + self.addresses), 7_946))
    }

    /// Switches a machine on; it begins a new life.
    pub fn start(&mut self, index: usize) {
        let generation = (UNIX_MS + self.now_ms).saturating_add_signed(self.nodes[index].wall_ms);
        self.start_as(index, generation);
    }

    pub fn start_as(&mut self, index: usize, generation: u64) {
        let record = self.record(index);
        let contact = self.nodes[0].address;
        let node = &mut self.nodes[index];
        let settings = self.plan.settings.clone();
        let mut gossip = Gossip::new(settings, node.id, generation, record).expect("it is short enough");
        if contact != node.address {
            gossip.contact(contact);
        }
        node.gossip = Some(gossip);
        node.frozen = false;
        node.inbox.clear();
        let wait_ms = self.dice.below(250);
        self.tick_in(index, wait_ms);
    }

    /// The power is gone.
    pub fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.gossip = None;
        node.tick += 1;
    }

    /// Its process stands still; what arrives waits.
    pub fn freeze(&mut self, index: usize, for_ms: u64) {
        self.nodes[index].frozen = true;
        self.nodes[index].tick += 1;
        self.step(self.now_ms + for_ms, Step::Thaw { node: index });
    }

    pub fn leave(&mut self, index: usize) {
        let mut effects = Vec::new();
        let now_ms = self.local_ms(index);
        self.nodes[index].gossip.as_mut().expect("it is on").leave(now_ms, &mut effects);
        self.act(index, effects);
    }

    /// Gives a machine another address, which it notices.
    pub fn readdress(&mut self, index: usize) {
        let address = self.new_address();
        self.places.remove(&self.nodes[index].address);
        self.places.insert(address, index);
        self.nodes[index].address = address;
        let record = self.record(index);
        if let Some(gossip) = &mut self.nodes[index].gossip {
            gossip.set_record(record).expect("it is short enough");
        }
    }

    pub fn contact(&mut self, index: usize, address: SocketAddr) {
        self.nodes[index].gossip.as_mut().expect("it is on").contact(address);
    }

    /// Cuts the way from some machine to another, and not the way back.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn gossip(&self, index: usize) -> &Gossip {
        self.nodes[index].gossip.as_ref().expect("it is on")
    }

    pub fn local_ms(&self, index: usize) -> u64 {
        let node = &self.nodes[index];
        node.clock_ms + self.now_ms + self.now_ms * node.clock_ppm / 1_000_000
    }

    /// Lets time pass.
    pub fn run(&mut self, for_ms: u64) {
        let until_ms = self.now_ms + for_ms;
        while self.steps.peek().is_some_and(|next| next.0.0 <= until_ms) {
            let Some(Reverse((at_ms, _, step))) = self.steps.pop() else { break };
            self.now_ms = at_ms;
            match step {
                Step::Tick { node, tick } if self.nodes[node].tick == tick => self.tick(node),
                Step::Tick { .. } => {}
                Step::Deliver { to, from, datagram } => self.deliver(to, from, datagram),
                Step::Thaw { node } => self.thaw(node),
            }
        }
        self.now_ms = until_ms;
    }

    /// How many machines each machine that is on takes for alive, itself included: the fewest and the most.
    pub fn alive(&self) -> (usize, usize) {
        let counts = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let gossip = node.gossip.as_ref()?;
            let now_ms = self.local_ms(index);
            let alive = gossip.peers(now_ms).filter(|seen| seen.standing == membership::alive::Standing::Alive);
            Some(1 + alive.count())
        });
        let counts: Vec<usize> = counts.collect();
        (counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0))
    }

    /// Events since `from_ms` that this says something about.
    pub fn told_since(&self, from_ms: u64, matching: impl Fn(&Event) -> bool) -> Vec<Told> {
        let since = self.told.iter().filter(|told| told.at_ms >= from_ms && matching(&told.event));
        since.cloned().collect()
    }

    fn record(&mut self, index: usize) -> Record {
        let node = &self.nodes[index];
        Record {
            zone: "room-1".to_owned(),
            roles: vec!["worker".to_owned()],
            addresses: vec![node.address],
            cores: 8,
            memory_free_bytes: 4_000_000_000 + self.dice.below(1_000_000_000),
            load_percent: u32::try_from(self.dice.below(800)).expect("small"),
            pressure: Pressure {
                cpu_permille: u32::try_from(self.dice.below(500)).expect("small"),
                memory_permille: 0,
                io_permille: u32::try_from(self.dice.below(50)).expect("small"),
            },
            runs_in_flight: u32::try_from(self.dice.below(8)).expect("small"),
            agent_version: "0.1.0".to_owned(),
            started_unix_ms: UNIX_MS,
        }
    }

    fn step(&mut self, at_ms: u64, step: Step) {
        self.sequence += 1;
        self.steps.push(Reverse((at_ms, self.sequence, step)));
    }

    fn tick_in(&mut self, index: usize, wait_ms: u64) {
        self.nodes[index].tick += 1;
        let tick = self.nodes[index].tick;
        let late_ms = self.dice.below(self.plan.late_ms_max + 1);
        self.step(self.now_ms + wait_ms + late_ms, Step::Tick { node: index, tick });
    }

    fn tick(&mut self, index: usize) {
        let now_ms = self.local_ms(index);
        let random = self.dice.roll();
        if now_ms >= self.nodes[index].record_ms {
            self.nodes[index].record_ms = now_ms + RECORD_MS;
            let record = self.record(index);
            if let Some(gossip) = &mut self.nodes[index].gossip {
                gossip.set_record(record).expect("it is short enough");
            }
        }
        if self.watch_silence {
            self.watch(index);
        }
        let Some(gossip) = &mut self.nodes[index].gossip else { return };
        let mut effects = Vec::new();
        gossip.tick(now_ms, random, &mut effects);
        let next_ms = gossip.next_tick_ms();
        self.act(index, effects);
        if next_ms < u64::MAX {
            self.tick_in(index, next_ms.saturating_sub(now_ms).max(1));
        }
    }

    /// Everybody is meant to be on.
    fn watch(&mut self, index: usize) {
        let now_ms = self.local_ms(index);
        let Some(gossip) = &self.nodes[index].gossip else { return };
        let longest_ms = gossip.peers(now_ms).map(|seen| seen.silence_ms).max();
        self.silence_ms_max = self.silence_ms_max.max(longest_ms.unwrap_or(0));
    }

    fn deliver(&mut self, to: SocketAddr, from: SocketAddr, datagram: Vec<u8>) {
        // Nobody may be there any more.
        let Some(index) = self.places.get(&to).copied() else { return };
        let node = &mut self.nodes[index];
        if node.frozen {
            let held: usize = node.inbox.iter().map(|(_, datagram)| datagram.len()).sum();
            if held + datagram.len() <= INBOX_BYTES_MAX {
                node.inbox.push((from, datagram));
            }
            return;
        }
        self.hear(index, from, &datagram);
    }

    fn hear(&mut self, index: usize, from: SocketAddr, datagram: &[u8]) {
        let now_ms = self.local_ms(index);
        let Some(gossip) = &mut self.nodes[index].gossip else { return };
        let mut effects = Vec::new();
        gossip.hear(now_ms, from, datagram, &mut effects).expect("machines understand each other");
        self.act(index, effects);
    }

    fn thaw(&mut self, index: usize) {
        self.nodes[index].frozen = false;
        // Timers and sockets are ready at once; either may be seen first.
        let ticks_first = self.dice.below(2) == 0;
        if ticks_first {
            self.tick(index);
        }
        for (from, datagram) in std::mem::take(&mut self.nodes[index].inbox) {
            self.hear(index, from, &datagram);
        }
        if !ticks_first {
            self.tick(index);
        }
    }

    fn act(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, datagram } => self.send(index, to, datagram),
                Effect::Tell(event) => self.told.push(Told { at_ms: self.now_ms, by: index, event }),
            }
        }
    }

    fn send(&mut self, index: usize, to: SocketAddr, datagram: Vec<u8>) {
        self.trace.write(&datagram);
        let node = &mut self.nodes[index];
        node.bytes_sent += datagram.len() as u64;
        node.datagrams_sent += 1;
        let from = node.address;
        let lost = self.dice.below(100) < self.plan.loss_percent;
        let delay_ms = 1 + self.dice.below(self.plan.delay_ms_max);
        let cut = self.places.get(&to).is_some_and(|there| self.cut.contains(&(index, *there)));
        if !lost && !cut {
            self.step(self.now_ms + delay_ms, Step::Deliver { to, from, datagram });
        }
    }
}

/// What a run of deaths shows, in milliseconds from each death, sorted.
pub struct Deaths {
    /// Until the first of the others knew.
    pub first_ms: Vec<u64>,
    /// Until the last did.
    pub last_ms: Vec<u64>,
    /// Machines told to be silent that were not.
    pub wrong: usize,
    /// How long the next life took to be known to all.
    pub returned_ms: Vec<u64>,
}

/// Kills one machine after another, and starts each again.
pub fn deaths(plan: Plan, times: usize) -> Deaths {
    let machines = plan.machines;
    let mut world = World::new(plan);
    let scale = if machines > 50 { machines as u64 / 50 + 1 } else { 1 };
    world.run(10_000 * scale);
    let mut seen = Deaths { first_ms: Vec::new(), last_ms: Vec::new(), wrong: 0, returned_ms: Vec::new() };
    for _ in 0..times {
        let phase_ms = world.dice.below(1_000);
        world.run(phase_ms);
        let victim = usize::try_from(world.dice.below(machines as u64)).expect("small");
        let (killed_ms, id) = (world.now_ms, world.nodes[victim].id);
        world.told.clear();
        world.kill(victim);
        world.run(6_000 * scale);
        let silent = world.told_since(killed_ms, |event| matches!(event, Event::Silent(_)));
        let about: Vec<u64> =
            silent.iter().filter(|told| told.event == Event::Silent(id)).map(|told| told.at_ms - killed_ms).collect();
        seen.wrong += silent.len() - about.len();
        seen.first_ms.push(about.iter().copied().min().unwrap_or(u64::MAX));
        let last_ms = about.iter().copied().max().unwrap_or(u64::MAX);
        seen.last_ms.push(if about.len() == machines - 1 { last_ms } else { u64::MAX });
        let started_ms = world.now_ms;
        world.start(victim);
        world.run(5_000 * scale);
        let back = world.told_since(started_ms, |event| *event == Event::Restarted(id));
        let last_ms = back.iter().map(|told| told.at_ms - started_ms).max().unwrap_or(u64::MAX);
        seen.returned_ms.push(if back.len() == machines - 1 { last_ms } else { u64::MAX });
    }
    seen.first_ms.sort_unstable();
    seen.last_ms.sort_unstable();
    seen.returned_ms.sort_unstable();
    seen
}

/// What a run of freezes shows.
pub struct Freezes {
    /// Those after which anybody was told to be silent.
    pub told: usize,
    /// Those after which somebody else was, who did not freeze.
    pub wrong: usize,
    /// Those after which not all took all for alive again.
    pub lost: usize,
}

/// Freezes one machine after another.
pub fn freezes(plan: Plan, times: usize, for_ms: u64) -> Freezes {
    let machines = plan.machines;
    let mut world = World::new(plan);
    world.run(10_000);
    let mut seen = Freezes { told: 0, wrong: 0, lost: 0 };
    for _ in 0..times {
        let phase_ms = world.dice.below(1_000);
        world.run(phase_ms);
        let victim = usize::try_from(world.dice.below(machines as u64)).expect("small");
        let id = world.nodes[victim].id;
        world.told.clear();
        world.freeze(victim, for_ms);
        world.run(for_ms + 3_000);
        let silent = world.told_since(0, |event| matches!(event, Event::Silent(_)));
        seen.told += usize::from(!silent.is_empty());
        seen.wrong += usize::from(silent.iter().any(|told| told.event != Event::Silent(id)));
        seen.lost += usize::from(world.alive() != (machines, machines));
    }
    seen
}

/// What a run in which nobody dies shows.
pub struct Hours {
    pub machine_hours: f64,
    /// Machines told to be silent, all of them wrongly.
    pub wrong: Vec<Told>,
    pub silence_ms_max: u64,
    pub bytes_per_second: u64,
    pub datagrams_per_second: f64,
}

/// Lets machines be, for so long each.
pub fn hours(plan: Plan, seconds: u64) -> Hours {
    let machines = plan.machines as u64;
    let mut world = World::new(plan);
    world.run(10_000);
    world.told.clear();
    world.watch_silence = true;
    let sum = |world: &World, of: fn(&Node) -> u64| world.nodes.iter().map(of).sum::<u64>();
    let bytes = sum(&world, |node| node.bytes_sent);
    let datagrams = sum(&world, |node| node.datagrams_sent);
    world.run(seconds * 1_000);
    Hours {
        machine_hours: (seconds * machines) as f64 / 3_600.0,
        wrong: world.told_since(0, |event| matches!(event, Event::Silent(_))),
        silence_ms_max: world.silence_ms_max,
        bytes_per_second: (sum(&world, |node| node.bytes_sent) - bytes) / machines / seconds,
        datagrams_per_second: (sum(&world, |node| node.datagrams_sent) - datagrams) as f64
            / machines as f64
            / seconds as f64,
    }
}

/// The value that so many of a hundred are not above.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(u64::MAX)
}
