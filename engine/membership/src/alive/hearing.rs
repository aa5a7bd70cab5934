//! What a datagram changes, and what is said in return.
//!
//! Owns the rules by which news are believed: a later life beats an earlier one, within a life a later heartbeat beats
//! an earlier one, and a good-bye beats all heartbeats of its life.

use super::coding::Malformed;
use super::datagram::{self, Datagram, Entry, Head, Item, Kind, Known, Letter};
use super::effect::{Effect, Event};
use super::gossip::Gossip;
use super::line::{self, LAG_BEATS};
use super::machine::{Machine, Standing};
use super::node::Short;
use super::record::Record;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// How many datagrams answer one. 4: a newcomer gets the records of thirty machines with its first round, and nobody is
/// made to send much by one datagram.
const ANSWERS_MAX: usize = 4;

impl Gossip {
    /// Takes in a datagram that `from` sent; [`super::sender`] names the machine. An answer goes to where it came from. What
    /// cannot be read changes nothing.
    pub fn hear(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        datagram: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Malformed> {
        let mut read = datagram::decode(datagram)?;
        if self.is_leaving() {
            return Ok(());
        }
        self.notice_absence(now_ms);
        let waited_ms = self.waited_ms(now_ms);
        read.grow_older(waited_ms);
        if read.head.sender == self.me {
            let known = Known {
                generation: read.head.generation,
                heartbeat: read.head.heartbeat,
                version: 0,
                age_ms: 0,
                left: false,
            };
            self.hear_of_me(now_ms, &known, Some(from), effects);
            return Ok(());
        }
        let mut wants = BTreeSet::new();
        for entry in &read.entries {
            self.take_entry(now_ms, entry, &mut wants, effects);
        }
        for (item, record) in std::mem::take(&mut read.items) {
            wants.remove(&item.id.short());
            self.take_item(now_ms, &item, record, effects);
        }
        // After the items, among which may be that of a sender who was not known until now.
        self.hear_directly(now_ms, from, &read, waited_ms, effects);
        let mut replies = Replies::new(self.head(), if read.kind == Kind::Answer { Kind::Tell } else { Kind::Answer });
        match read.kind {
            Kind::Ask { first, last } => {
                let mut entries = read.entries;
                entries.sort_by_key(|entry| entry.short);
                wants.iter().for_each(|short| replies.want(*short));
                self.answer(now_ms, read.head.sender.short(), (first, last), &entries, &mut replies);
            }
            Kind::Answer => {
                let wanted: BTreeSet<Short> = read.wants.into_iter().collect();
                self.tell(now_ms, &wanted, &mut replies);
            }
            Kind::Tell => {}
        }
        effects.extend(replies.finish().into_iter().map(|datagram| Effect::Send { to: from, datagram }));
        Ok(())
    }

    /// What it says that a datagram came from this machine, and from there.
    fn hear_directly(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        read: &Datagram<'_>,
        waited_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let (head, watched_ms) = (read.head, self.watched_ms);
        let Some(machine) = self.machines.get_mut(&head.sender.short()).filter(|known| known.id == head.sender) else {
            return;
        };
        if head.generation > machine.generation {
            // A new life, of which the entries tell more.
            return;
        }
        let lags = head.heartbeat.saturating_add(LAG_BEATS) <= machine.heartbeat;
        if head.generation < machine.generation || lags {
            if line::note(&mut machine.second, now_ms, head.generation, head.heartbeat) {
                let addresses = machine.via.into_iter().chain([from]).collect();
                effects.push(Effect::Tell(Event::Twins { id: machine.id, addresses }));
            }
            return;
        }
        if matches!(machine.standing, Standing::Left { .. }) {
            return;
        }
        machine.via = Some(from);
        let sent_ms = now_ms.saturating_sub(waited_ms);
        machine.heard_ms = machine.heard_ms.max(Some(sent_ms));
        if read.kind == Kind::Answer {
            machine.answered_ms = machine.answered_ms.max(Some(sent_ms));
        }
        machine.beat(now_ms, watched_ms, head.heartbeat, waited_ms, true);
        self.notice_return(now_ms, head.sender.short(), effects);
    }

    fn take_entry(&mut self, now_ms: u64, entry: &Entry, wants: &mut BTreeSet<Short>, effects: &mut Vec<Effect>) {
        let Entry { short, known } = entry;
        if *short == self.me.short() {
            self.hear_of_me(now_ms, known, None, effects);
            return;
        }
        let watched_ms = self.watched_ms;
        let Some(machine) = self.machines.get_mut(short) else {
            if !known.left && self.is_news(known) {
                wants.insert(*short);
            }
            return;
        };
        match known.generation.cmp(&machine.generation) {
            Ordering::Less => {}
            Ordering::Greater if known.left => {
                machine.generation = known.generation;
                self.take_leave(now_ms, *short, effects);
            }
            Ordering::Greater => {
                if self.is_news(known) {
                    wants.insert(*short);
                }
            }
            Ordering::Equal if known.left => self.take_leave(now_ms, *short, effects),
            Ordering::Equal if matches!(machine.standing, Standing::Left { .. }) => {}
            Ordering::Equal => {
                machine.beat(now_ms, watched_ms, known.heartbeat, known.age_ms, false);
                if known.version > machine.version {
                    wants.insert(*short);
                }
                self.notice_return(now_ms, *short, effects);
            }
        }
    }

    fn take_item(&mut self, now_ms: u64, item: &Item<'_>, record: Record, effects: &mut Vec<Effect>) {
        let Item { id, known, raw } = item;
        let entry = Entry { short: id.short(), known: *known };
        if *id == self.me {
            self.hear_of_me(now_ms, known, None, effects);
            return;
        }
        let news = !known.left && self.is_news(known);
        let Some(machine) = self.machines.get_mut(&entry.short) else {
            if news && entry.short != self.me.short() && self.has_room() {
                self.machines.insert(entry.short, Machine::new(now_ms, item, record));
                effects.push(Effect::Tell(Event::Came(*id)));
            }
            return;
        };
        if machine.id != *id {
            // Whoever made a key with the first bytes of another one's is not let in its place.
            return;
        }
        if known.generation > machine.generation && news {
            let event = match machine.standing {
                Standing::Left { .. } => Event::Came(*id),
                Standing::Alive | Standing::Silent { .. } => Event::Restarted(*id),
            };
            machine.begin_again(now_ms, item, record);
            effects.push(Effect::Tell(event));
            return;
        }
        let later = known.version > machine.version;
        if known.generation == machine.generation && later && !known.left {
            let changed = machine.record != record;
            machine.version = known.version;
            machine.raw = raw.to_vec();
            machine.record = record;
            if changed {
                effects.push(Effect::Tell(Event::Changed(*id)));
            }
        }
        self.take_entry(now_ms, &entry, &mut BTreeSet::new(), effects);
    }

    /// Somebody silent who was alive a moment ago is back.
    fn notice_return(&mut self, now_ms: u64, short: Short, effects: &mut Vec<Effect>) {
        let silent = |machine: &Machine| matches!(machine.standing, Standing::Silent { .. });
        if !self.machines.get(&short).is_some_and(silent) {
            return;
        }
        let machines = self.machines_alive();
        let Some(machine) = self.machines.get_mut(&short) else { return };
        // By its age alone, whatever this machine missed: old news must not bring anybody back.
        if machine.silence_ms(now_ms, 0) < machine.silence_ms_max(&self.settings, machines) {
            machine.standing = Standing::Alive;
            effects.push(Effect::Tell(Event::Back(machine.id)));
        }
    }

    fn take_leave(&mut self, now_ms: u64, short: Short, effects: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get_mut(&short) else { return };
        match machine.standing {
            Standing::Left { .. } => {}
            Standing::Alive | Standing::Silent { .. } => {
                machine.standing = Standing::Left { since_ms: now_ms };
                effects.push(Effect::Tell(Event::Left(machine.id)));
            }
        }
    }

    /// What others say of this very machine: usually nothing new, but its own earlier life, or a twin's.
    fn hear_of_me(&mut self, now_ms: u64, known: &Known, from: Option<SocketAddr>, effects: &mut Vec<Effect>) {
        if known.left && known.generation >= self.generation {
            // A good-bye of an earlier life, whose number was no smaller than this one's.
            self.begin_after(known.generation);
            return;
        }
        let lags = known.heartbeat.saturating_add(LAG_BEATS) <= self.heartbeat;
        let mine = known.generation == self.generation && known.heartbeat <= self.heartbeat && !lags;
        // What others still have of an earlier life or an earlier beat says nothing; from this machine itself it does.
        let earlier = (known.generation, known.heartbeat) < (self.generation, self.heartbeat) && from.is_none();
        if !mine && !earlier && line::note(&mut self.rival, now_ms, known.generation, known.heartbeat) {
            effects.push(Effect::Tell(Event::Twins { id: self.me, addresses: from.into_iter().collect() }));
        }
    }

    /// Whether one more machine may be remembered. The one that has been gone for longest makes room; nobody alive does.
    fn has_room(&mut self) -> bool {
        if self.machines.len() < self.settings.machines_max {
            return true;
        }
        let gone = self.machines.iter().filter_map(|(short, machine)| match machine.standing {
            Standing::Alive => None,
            Standing::Silent { since_ms } | Standing::Left { since_ms } => Some((since_ms, *short)),
        });
        let oldest = gone.min();
        oldest.is_some_and(|(_, short)| self.machines.remove(&short).is_some())
    }

    /// What is known better here than by who asked.
    fn answer(
        &mut self,
        now_ms: u64,
        asker: Short,
        (first, last): (Short, Short),
        theirs: &[Entry],
        replies: &mut Replies,
    ) {
        let find = |short: Short| theirs.binary_search_by_key(&short, |entry| entry.short).ok();
        let known_there = |short: Short| find(short).and_then(|index| theirs.get(index)).map(|entry| entry.known);
        let mut records: Vec<Short> = Vec::new();
        let mine = self.entry();
        if (first..=last).contains(&mine.short) {
            match news_for(&mine.known, true, known_there(mine.short).as_ref()) {
                News::None => {}
                News::Beat => replies.entry(&mine),
                News::Record => replies.item(&self.item()),
            }
        }
        if first <= last {
            for (short, machine) in self.machines.range(first..=last) {
                let known = machine.known(now_ms);
                match news_for(&known, machine.is_alive(), known_there(*short).as_ref()) {
                    News::None => {}
                    // Who asks knows itself; it needs to hear only of a life it does not know.
                    News::Beat | News::Record if *short == asker => replies.entry(&machine.entry(now_ms)),
                    News::Beat => replies.entry(&machine.entry(now_ms)),
                    News::Record => records.push(*short),
                }
            }
        }
        // From somewhere else each time: when not all find room, each has its turn.
        let start = usize::try_from(self.bits.below(records.len() as u64)).unwrap_or(0);
        let (before, after) = records.split_at(start);
        for short in after.iter().chain(before) {
            if let Some(machine) = self.machines.get(short) {
                replies.item(&machine.item(now_ms));
            }
        }
    }

    /// The records that were wanted.
    fn tell(&self, now_ms: u64, wanted: &BTreeSet<Short>, replies: &mut Replies) {
        for short in wanted {
            if *short == self.me.short() {
                replies.item(&self.item());
            } else if let Some(machine) = self.machines.get(short).filter(|machine| machine.is_alive()) {
                replies.item(&machine.item(now_ms));
            }
        }
    }
}

enum News {
    None,
    Beat,
    Record,
}

/// What to say of a machine to somebody who knows this much of it.
fn news_for(here: &Known, alive: bool, there: Option<&Known>) -> News {
    let Some(there) = there else {
        return if alive { News::Record } else { News::None };
    };
    let later_life = here.generation > there.generation;
    // Whoever knows that it has left knows the last of that life.
    let same_life = here.generation == there.generation && !there.left;
    if alive && (later_life || (same_life && here.version > there.version)) {
        News::Record
    } else if later_life || (same_life && (here.left || here.heartbeat > there.heartbeat)) {
        News::Beat
    } else {
        News::None
    }
}

/// The datagrams that go back to a sender.
struct Replies {
    head: Head,
    kind: Kind,
    letter: Letter,
    sealed: Vec<Vec<u8>>,
}

impl Replies {
    fn new(head: Head, kind: Kind) -> Replies {
        Replies { head, kind, letter: Letter::new(head), sealed: Vec::new() }
    }

    fn want(&mut self, short: Short) {
        self.put(|letter| letter.want(short));
    }

    fn entry(&mut self, entry: &Entry) {
        self.put(|letter| letter.entry(entry));
    }

    fn item(&mut self, item: &Item<'_>) {
        self.put(|letter| letter.item(item));
    }

    /// Into this datagram, or the next one; what comes after the last is left to a later round.
    fn put(&mut self, put: impl Fn(&mut Letter) -> bool) {
        if !put(&mut self.letter) && self.sealed.len() + 1 < ANSWERS_MAX {
            let full = std::mem::replace(&mut self.letter, Letter::new(self.head));
            self.sealed.push(full.seal(self.kind));
            put(&mut self.letter);
        }
    }

    /// A question is answered even when there is nothing to say: that both directions work is news too.
    fn finish(self) -> Vec<Vec<u8>> {
        let Replies { kind, letter, mut sealed, .. } = self;
        if !letter.is_empty() || (kind == Kind::Answer && sealed.is_empty()) {
            sealed.push(letter.seal(kind));
        }
        sealed
    }
}
