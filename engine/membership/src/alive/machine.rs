//! What is known of one other machine.
//!
//! Owns when it was last alive, how long silences of it usually are, and where it is reached. Never knows the other ones.

use super::datagram::{Entry, Item, Known};
use super::line::Line;
use super::node::NodeId;
use super::record::Record;
use super::settings::Settings;
use std::net::SocketAddr;

/// The share of the newest silence in what is usual: some ten seconds of news count.
const NEWEST: f64 = 1.0 / 32.0;
/// Where a machine was heard from is where it is, for so long. Longer than a round of all takes, by far; then its record
/// counts as much.
const VIA_MS: u64 = 10_000;

/// Whether a machine is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Alive,
    /// Nobody has heard of it for too long.
    Silent {
        since_ms: u64,
    },
    /// It said good-bye.
    Left {
        since_ms: u64,
    },
}

/// What is known of another machine, as its callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<'a> {
    pub id: NodeId,
    /// Which of its lives this is; a greater one is later.
    pub generation: u64,
    pub record: &'a Record,
    pub standing: Standing,
    /// How long nobody has heard of it, as far as is known here.
    pub silence_ms: u64,
    /// That, in what is usual for it: suspicion. A verdict falls at [`Settings::phi_silent`].
    pub phi: f64,
    /// When it was last heard by this very machine. A machine may be alive, as others hear it, and out of reach from
    /// here; among thirty, each is heard directly every second or two.
    pub heard_ms: Option<u64>,
    /// When it last answered this machine: then both directions work. Each is asked in turn; among thirty, every 2.5 s.
    pub answered_ms: Option<u64>,
    /// Where it was last heard from, which may be none of the addresses in its record.
    pub address: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    pub(crate) version: u64,
    pub(crate) record: Record,
    pub(crate) raw: Vec<u8>,
    pub(crate) standing: Standing,
    /// When its last known heartbeat was, in this machine's time.
    alive_ms: u64,
    usual_ms: f64,
    pub(crate) via: Option<SocketAddr>,
    pub(crate) heard_ms: Option<u64>,
    pub(crate) answered_ms: Option<u64>,
    pub(crate) second: Option<Line>,
}

impl Machine {
    pub(crate) fn new(now_ms: u64, item: &Item<'_>, record: Record) -> Machine {
        Machine {
            id: item.id,
            generation: item.known.generation,
            heartbeat: item.known.heartbeat,
            version: item.known.version,
            record,
            raw: item.raw.to_vec(),
            standing: Standing::Alive,
            alive_ms: now_ms.saturating_sub(item.known.age_ms),
            // What is usual is learned from above the least.
            usual_ms: 0.0,
            via: None,
            heard_ms: None,
            answered_ms: None,
            second: None,
        }
    }

    /// A new life of the same machine. Where it is reached is kept; the way there may well be the same.
    pub(crate) fn begin_again(&mut self, now_ms: u64, item: &Item<'_>, record: Record) {
        let (via, heard_ms, answered_ms) = (self.via, self.heard_ms, self.answered_ms);
        let second = self.second;
        *self = Machine { via, heard_ms, answered_ms, second, ..Machine::new(now_ms, item, record) };
    }

    pub(crate) fn known(&self, now_ms: u64) -> Known {
        Known {
            generation: self.generation,
            heartbeat: self.heartbeat,
            version: self.version,
            age_ms: now_ms.saturating_sub(self.alive_ms),
            left: matches!(self.standing, Standing::Left { .. }),
        }
    }

    pub(crate) fn entry(&self, now_ms: u64) -> Entry {
        Entry { short: self.id.short(), known: self.known(now_ms) }
    }

    pub(crate) fn item(&self, now_ms: u64) -> Item<'_> {
        Item { id: self.id, known: self.known(now_ms), raw: &self.raw }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.standing == Standing::Alive
    }

    /// A later heartbeat, `age_ms` ago; or the same one, heard from the machine itself just now. The same one
    /// from others says nothing: each passes on its own reckoning of the age, and to believe the youngest would let
    /// two machines keep a dead one alive by turns.
    pub(crate) fn beat(&mut self, now_ms: u64, watched_ms: u64, heartbeat: u64, age_ms: u64, directly: bool) {
        if heartbeat < self.heartbeat || (heartbeat == self.heartbeat && !directly) {
            return;
        }
        let silence_ms = self.silence_ms(now_ms, watched_ms);
        if self.is_alive() && heartbeat > self.heartbeat {
            self.usual_ms += (real(silence_ms) - self.usual_ms) * NEWEST;
        }
        self.heartbeat = heartbeat;
        self.alive_ms = self.alive_ms.max(now_ms.saturating_sub(age_ms));
    }

    /// How long it has been silent, not counting from before `watched_ms`: then this machine heard nobody.
    pub(crate) fn silence_ms(&self, now_ms: u64, watched_ms: u64) -> u64 {
        now_ms.saturating_sub(self.alive_ms.max(watched_ms))
    }

    /// When its silence will have lasted for so long.
    pub(crate) fn silent_at_ms(&self, watched_ms: u64, silence_ms_max: u64) -> u64 {
        self.alive_ms.max(watched_ms).saturating_add(silence_ms_max)
    }

    /// Silence that is a verdict, among so many machines.
    pub(crate) fn silence_ms_max(&self, settings: &Settings, machines: usize) -> u64 {
        let usual_ms = self.usual_ms(settings, machines) * settings.phi_silent;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
        let silence_ms = usual_ms as u64;
        silence_ms
    }

    /// What is usual, within its bounds.
    pub(crate) fn usual_ms(&self, settings: &Settings, machines: usize) -> f64 {
        let bound = |ms| real(settings.among(machines, ms));
        self.usual_ms.min(bound(settings.usual_ms_max)).max(bound(settings.usual_ms_min))
    }

    /// Where to send to: where it was heard from lately, or else there and at the addresses it tells of, in turn.
    pub(crate) fn address(&self, now_ms: u64, turn: u64) -> Option<SocketAddr> {
        let lately = self.heard_ms.is_some_and(|at| now_ms.saturating_sub(at) < VIA_MS);
        if let (Some(via), true) = (self.via, lately) {
            return Some(via);
        }
        let others = self.record.addresses.iter().filter(|address| Some(**address) != self.via);
        let places: Vec<SocketAddr> = self.via.into_iter().chain(others.copied()).collect();
        let index = usize::try_from(turn).unwrap_or(0) % places.len().max(1);
        places.get(index).copied()
    }
}

#[expect(clippy::cast_precision_loss, reason = "times stay far below 2^52 ms")]
pub(crate) fn real(ms: u64) -> f64 {
    ms as f64
}
