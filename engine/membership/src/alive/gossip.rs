//! The gossip of one machine: what it knows of the others, and the rounds in which it asks them.
//!
//! Owns the state, the rounds and the verdicts. What comes in is dealt with in `hearing`.

use super::datagram::{Entry, Head, Item, Kind, Known, Letter};
use super::effect::{Effect, Event};
use super::line::{Line, PAUSE_MS};
use super::machine::{Machine, Seen, Standing, real};
use super::node::{NodeId, Short};
use super::record::{Record, Unfit};
use super::settings::Settings;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Rounds after [`Gossip::leave`] in which it is said again: three times in all, so that a lost datagram in a cluster of two
/// does not turn a good-bye into a suspicion.
const FAREWELL_ROUNDS: u32 = 2;
/// How many machines hear a good-bye at first hand; they tell the others.
const FAREWELL_MAX: usize = 64;
/// One round in so many also asks a contact that is no living machine's address, so that parts of a cluster which have
/// forgotten each other meet again. 40: every ten seconds.
const CONTACT_ROUNDS: u64 = 40;
/// How many contacts a machine asks in a round while it knows nobody alive.
const CONTACTS_ALONE: usize = 2;

/// The gossip of one machine. It does nothing by itself: give it datagrams ([`Gossip::hear`]) and time
/// ([`Gossip::tick`]), and do what it asks.
#[derive(Debug)]
pub struct Gossip {
    pub(crate) settings: Settings,
    pub(crate) me: NodeId,
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    version: u64,
    /// What it says of itself, and what of that others are told by now.
    record: Record,
    told: Record,
    told_ms: u64,
    raw: Vec<u8>,
    pub(crate) machines: BTreeMap<Short, Machine>,
    /// The latest last.
    contacts: Vec<SocketAddr>,
    /// How many of them, at the end, were not asked yet.
    fresh: usize,
    /// Whom to ask next, from the end: everybody in turn, in an order drawn anew each time. A draw for each round would
    /// leave some machine unasked for a long time, and [`Seen::answered_ms`] without meaning.
    turn: Vec<Short>,
    round_ms: Option<u64>,
    ticked_ms: Option<u64>,
    /// Before this, silence was this machine's own.
    pub(crate) watched_ms: u64,
    /// How long that lasted.
    away_ms: u64,
    /// Another line of heartbeats under this machine's own id.
    pub(crate) rival: Option<Line>,
    /// Farewells still to be said, once it leaves.
    leaving: Option<u32>,
    pub(crate) bits: Bits,
}

impl Gossip {
    /// The gossip of `me`, which begins its life number `generation`: the time it starts at, in milliseconds since
    /// 1970, will do. If that is less than before (a clock was set), the machine finds out and counts on from there;
    /// until then, for some two seconds, it is not heard.
    pub fn new(settings: Settings, me: NodeId, generation: u64, record: Record) -> Result<Gossip, Unfit> {
        let raw = record.encode()?;
        Ok(Gossip {
            settings,
            me,
            generation: generation.min(super::datagram::COUNTER_MAX),
            heartbeat: 0,
            version: 1,
            told: record.clone(),
            told_ms: 0,
            record,
            raw,
            machines: BTreeMap::new(),
            contacts: Vec::new(),
            fresh: 0,
            turn: Vec::new(),
            round_ms: None,
            ticked_ms: None,
            watched_ms: 0,
            away_ms: 0,
            rival: None,
            leaving: None,
            bits: Bits(0),
        })
    }

    /// Says what this machine tells of itself from now on. It goes out with the next round, or, when only figures
    /// changed, when [`Settings::figures_ms`] have passed since the last time.
    pub fn set_record(&mut self, record: Record) -> Result<(), Unfit> {
        record.encode()?;
        self.record = record;
        Ok(())
    }

    /// Introduces an address at which some machine of the cluster may be: one is enough. It is asked in the next round,
    /// and from then on whenever nobody is left, or now and then.
    pub fn contact(&mut self, address: SocketAddr) {
        self.contacts.retain(|known| *known != address);
        self.contacts.push(address);
        if self.contacts.len() > self.settings.contacts_max {
            self.contacts.remove(0);
        }
        self.fresh = (self.fresh + 1).min(self.contacts.len());
    }

    /// Says good-bye: everybody is told, three times with the ticks that follow. Nothing is heard or asked any more.
    pub fn leave(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.leaving.is_none() {
            self.leaving = Some(FAREWELL_ROUNDS);
            self.farewell(now_ms, effects);
        }
    }

    /// Whether [`Gossip::leave`] was called.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// When [`Gossip::tick`] has something to do; `u64::MAX` when it never will again. Being late by less than
    /// [`Settings::away_ms`] does no harm, nor does being early.
    pub fn next_tick_ms(&self) -> u64 {
        let Some(round_ms) = self.round_ms else { return 0 };
        match self.leaving {
            Some(0) => u64::MAX,
            Some(_) => round_ms,
            None => {
                let machines = self.machines_alive();
                let alive = self.machines.values().filter(|machine| machine.is_alive());
                let verdicts = alive.map(|machine| {
                    machine.silent_at_ms(self.watched_ms, machine.silence_ms_max(&self.settings, machines))
                });
                verdicts.min().unwrap_or(u64::MAX).min(round_ms)
            }
        }
    }

    /// Passes time: verdicts that are due, and a round when it is time for one. All bits of `random` are used.
    pub fn tick(&mut self, now_ms: u64, random: u64, effects: &mut Vec<Effect>) {
        self.bits.stir(random);
        if let Some(left) = self.leaving {
            if left > 0 && self.round_ms.is_none_or(|at| now_ms >= at) {
                self.leaving = Some(left - 1);
                self.farewell(now_ms, effects);
                self.round_ms = Some(now_ms.saturating_add(self.settings.interval_ms));
            }
            return;
        }
        self.notice_absence(now_ms);
        self.ticked_ms = Some(now_ms);
        self.judge(now_ms, effects);
        self.outrank_former_life(now_ms);
        if self.round_ms.is_none_or(|at| now_ms >= at) {
            self.round(now_ms, effects);
        }
    }

    /// All other machines that are remembered, in the order of their ids' first bytes.
    pub fn peers(&self, now_ms: u64) -> impl Iterator<Item = Seen<'_>> {
        self.machines.values().map(move |machine| self.see(now_ms, machine))
    }

    /// What is known of one.
    pub fn peer(&self, now_ms: u64, id: &NodeId) -> Option<Seen<'_>> {
        self.machine(id).map(|machine| self.see(now_ms, machine))
    }

    /// Who this is.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Which of its lives this is. It grows when an earlier one turns out to have had a greater number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What this machine tells of itself.
    pub fn record(&self) -> &Record {
        &self.record
    }

    fn see<'a>(&'a self, now_ms: u64, machine: &'a Machine) -> Seen<'a> {
        let silence_ms = machine.silence_ms(now_ms, self.watched_ms);
        Seen {
            id: machine.id,
            generation: machine.generation,
            record: &machine.record,
            standing: machine.standing,
            silence_ms,
            phi: real(silence_ms) / machine.usual_ms(&self.settings, self.machines_alive()),
            heard_ms: machine.heard_ms,
            answered_ms: machine.answered_ms,
            address: machine.via,
        }
    }

    fn machine(&self, id: &NodeId) -> Option<&Machine> {
        self.machines.get(&id.short()).filter(|machine| machine.id == *id)
    }

    /// This one counted.
    pub(crate) fn machines_alive(&self) -> usize {
        1 + self.machines.values().filter(|machine| machine.is_alive()).count()
    }

    /// Whether this is young enough to speak of somebody alive.
    pub(crate) fn is_news(&self, known: &Known) -> bool {
        known.age_ms < self.news_ms_max()
    }

    fn news_ms_max(&self) -> u64 {
        let machines = self.machines_alive();
        let usual_ms = real(self.settings.among(machines, self.settings.usual_ms_min));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
        let news_ms = (usual_ms * self.settings.phi_silent) as u64;
        news_ms
    }

    fn interval_ms(&self) -> u64 {
        let Settings { interval_ms, fanout, .. } = self.settings;
        let machines = self.machines_alive();
        if (2..=fanout).contains(&machines) {
            // Too few to ask as many as is meant: the same ones more often. Among two, a question or its answer is all
            // there is in a round, and a quarter of the datagrams lost would be a false verdict every few days.
            return (interval_ms.saturating_mul(machines as u64 - 1) / fanout as u64).max(1);
        }
        self.settings.among(machines, interval_ms)
    }

    /// When this machine did not run, it is not the others who were silent (Lifeguard's lesson: most false verdicts come
    /// from slow detectors).
    pub(crate) fn notice_absence(&mut self, now_ms: u64) {
        let Some(ticked_ms) = self.ticked_ms else {
            self.watched_ms = now_ms;
            return;
        };
        let gap_ms = now_ms.saturating_sub(ticked_ms);
        if gap_ms > self.interval_ms().saturating_add(self.settings.away_ms) {
            self.watched_ms = now_ms;
            self.away_ms = gap_ms;
            self.ticked_ms = Some(now_ms);
        }
    }

    /// How long what is heard now may have waited for this machine to come back. Taken for fresh, news that waited in a
    /// socket through a long pause would bring back machines that died in it, here and then everywhere.
    pub(crate) fn waited_ms(&self, now_ms: u64) -> u64 {
        let reading = now_ms.saturating_sub(self.watched_ms) < self.settings.interval_ms;
        if reading { self.away_ms } else { 0 }
    }

    fn judge(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let machines = self.machines_alive();
        let Gossip { settings, watched_ms, .. } = self;
        self.machines.retain(|_, machine| match machine.standing {
            Standing::Alive => {
                if machine.silence_ms(now_ms, *watched_ms) >= machine.silence_ms_max(settings, machines) {
                    machine.standing = Standing::Silent { since_ms: now_ms };
                    effects.push(Effect::Tell(Event::Silent(machine.id)));
                }
                true
            }
            Standing::Silent { since_ms } | Standing::Left { since_ms } => {
                let kept = now_ms.saturating_sub(since_ms) < settings.forget_ms;
                if !kept {
                    effects.push(Effect::Tell(Event::Forgotten(machine.id)));
                }
                kept
            }
        });
    }

    /// A life before this one had a greater number, and is over: this one counts on from there, or nobody would hear it.
    /// Not while the other goes on: two twins would overtake each other for ever, and every step look like a restart.
    fn outrank_former_life(&mut self, now_ms: u64) {
        let Some(rival) = self.rival else { return };
        let pause_ms = if rival.is_twin() { PAUSE_MS } else { self.news_ms_max() };
        let over = now_ms.saturating_sub(rival.beat_ms) >= pause_ms;
        if over && (rival.generation, rival.heartbeat) > (self.generation, self.heartbeat) {
            self.begin_after(rival.generation);
        }
    }

    /// Begins a new life with a number above `generation`.
    pub(crate) fn begin_after(&mut self, generation: u64) {
        self.generation = generation.saturating_add(1).min(super::datagram::COUNTER_MAX);
        self.heartbeat = 0;
        self.rival = None;
    }

    fn round(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.heartbeat = self.heartbeat.saturating_add(1);
        self.publish(now_ms);
        let interval_ms = self.interval_ms();
        // A tenth earlier or later, so that rounds of different machines do not march in step.
        let tenth_ms = interval_ms / 10;
        let shift_ms = self.bits.below(2 * tenth_ms + 1);
        self.round_ms = Some(now_ms.saturating_add(interval_ms - tenth_ms).saturating_add(shift_ms));
        let targets = self.targets(now_ms);
        if targets.is_empty() {
            return;
        }
        let questions = self.questions(now_ms);
        for to in targets {
            effects.extend(questions.iter().map(|datagram| Effect::Send { to, datagram: datagram.clone() }));
        }
    }

    fn publish(&mut self, now_ms: u64) {
        let figures_ms = self.settings.among(self.machines_alive(), self.settings.figures_ms);
        let due = now_ms.saturating_sub(self.told_ms) >= figures_ms;
        if self.record == self.told || !(due || self.record.says_more_than_figures(&self.told)) {
            return;
        }
        // It could be encoded when it was set.
        if let Ok(raw) = self.record.encode() {
            self.raw = raw;
            self.version = self.version.saturating_add(1);
            self.told = self.record.clone();
            self.told_ms = now_ms;
        }
    }

    /// Whom to ask in this round: some of the living in turn, now and then one of the silent, who may be back at the end
    /// of a partition, and contacts.
    fn targets(&mut self, now_ms: u64) -> Vec<SocketAddr> {
        let mut targets: Vec<SocketAddr> = Vec::new();
        let add = |targets: &mut Vec<SocketAddr>, address: Option<SocketAddr>| {
            if let Some(address) = address.filter(|address| !targets.contains(address)) {
                targets.push(address);
            }
        };
        let alive = self.machines_alive() - 1;
        let mut drawn: Vec<Short> = Vec::new();
        while drawn.len() < self.settings.fanout.min(alive) {
            let Some(short) = self.turn.pop() else {
                self.turn = self.machines.iter().filter(|(_, machine)| machine.is_alive()).map(|(id, _)| *id).collect();
                self.bits.shuffle(&mut self.turn);
                continue;
            };
            if drawn.contains(&short) {
                continue;
            }
            let Some(machine) = self.machines.get(&short).filter(|machine| machine.is_alive()) else { continue };
            drawn.push(short);
            add(&mut targets, machine.address(now_ms, self.bits.next()));
        }
        let silent = |machine: &&Machine| matches!(machine.standing, Standing::Silent { .. });
        let silents = self.machines.values().filter(silent).count();
        if silents > 0 && (alive == 0 || self.bits.below(2) == 0) {
            let index = usize::try_from(self.bits.below(silents as u64)).unwrap_or(0);
            let random = self.bits.next();
            let machine = self.machines.values().filter(silent).nth(index);
            add(&mut targets, machine.and_then(|machine| machine.address(now_ms, random)));
        }
        for _ in 0..self.contacts_due(alive) {
            if let Some(contact) = self.next_contact() {
                add(&mut targets, Some(contact));
            }
        }
        targets
    }

    fn contacts_due(&mut self, alive: usize) -> usize {
        if alive == 0 {
            CONTACTS_ALONE
        } else if self.fresh > 0 || self.bits.below(CONTACT_ROUNDS) == 0 {
            1
        } else {
            0
        }
    }

    /// The fresh ones first, in the order they were introduced in; then any but those where somebody alive is known to be.
    fn next_contact(&mut self) -> Option<SocketAddr> {
        if self.fresh > 0 {
            let index = self.contacts.len().checked_sub(self.fresh)?;
            self.fresh -= 1;
            return self.contacts.get(index).copied();
        }
        let Gossip { machines, contacts, bits, .. } = self;
        let taken = |address: &SocketAddr| {
            let mut alive = machines.values().filter(|machine| machine.is_alive());
            alive.any(|machine| machine.via == Some(*address))
        };
        let free: Vec<SocketAddr> = contacts.iter().copied().filter(|address| !taken(address)).collect();
        let index = usize::try_from(bits.below(free.len() as u64)).unwrap_or(0);
        free.get(index).copied()
    }

    /// All that is known of the living, and of those that have just left, in as few datagrams as hold it.
    fn questions(&self, now_ms: u64) -> Vec<Vec<u8>> {
        let told = |machine: &&Machine| match machine.standing {
            Standing::Alive => true,
            Standing::Silent { .. } => false,
            Standing::Left { since_ms } => now_ms.saturating_sub(since_ms) < self.settings.left_told_ms,
        };
        let mut entries: Vec<Entry> =
            self.machines.values().filter(told).map(|machine| machine.entry(now_ms)).collect();
        let mine = self.entry();
        entries.insert(entries.partition_point(|entry| entry.short < mine.short), mine);
        let mut questions = Vec::new();
        let mut first = Short(0);
        let mut letter = Letter::new(self.head());
        for entry in &entries {
            if !letter.entry(entry) {
                let last = Short(entry.short.0.saturating_sub(1));
                let full = std::mem::replace(&mut letter, Letter::new(self.head()));
                questions.push(full.seal(Kind::Ask { first, last }));
                first = entry.short;
                letter.entry(entry);
            }
        }
        questions.push(letter.seal(Kind::Ask { first, last: Short(u64::MAX) }));
        questions
    }

    fn farewell(&self, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut letter = Letter::new(self.head());
        letter.entry(&self.entry());
        let datagram = letter.seal(Kind::Tell);
        let alive = self.machines.values().filter(|machine| machine.is_alive()).take(FAREWELL_MAX);
        for to in alive.filter_map(|machine| machine.address(now_ms, 0)) {
            effects.push(Effect::Send { to, datagram: datagram.clone() });
        }
    }

    pub(crate) fn head(&self) -> Head {
        Head { sender: self.me, generation: self.generation, heartbeat: self.heartbeat }
    }

    pub(crate) fn known(&self) -> Known {
        let left = self.leaving.is_some();
        Known { generation: self.generation, heartbeat: self.heartbeat, version: self.version, age_ms: 0, left }
    }

    pub(crate) fn entry(&self) -> Entry {
        Entry { short: self.me.short(), known: self.known() }
    }

    pub(crate) fn item(&self) -> Item<'_> {
        Item { id: self.me, known: self.known(), raw: &self.raw }
    }
}

/// Random bits, spun out of those that were handed in: splitmix64.
#[derive(Debug)]
pub(crate) struct Bits(u64);

impl Bits {
    fn stir(&mut self, random: u64) {
        self.0 ^= random;
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An even number in `0..below`, or 0 when that is empty.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        let scaled = (u128::from(self.next()) * u128::from(below)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = self.below(last as u64 + 1);
            list.swap(last, usize::try_from(other).unwrap_or(last));
        }
    }
}
