//! What is known of a machine, and what follows for instances on it whoever they belong to: whether it takes new ones,
//! and whether it has to be left.

use crate::hours::{self, Opening};
use crate::pressure::Pressure;
use wire::resource::{Load, Node, Presence};
use wire::spec::Constraint;

/// A machine of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub node: Node,
    /// Memory nobody has reserved is memory the machine really has: what the system itself needs is left out.
    pub memory_usable_bytes: u64,
    pub cpu_usable_millis: u64,
    pub presence: Presence,
    /// What is really used, if it was heard.
    pub load: Option<Load>,
    /// When it was heard, by the clock of whoever plans: machines' own may differ.
    pub load_heard_ms: u64,
    pub pressure: Pressure,
}

/// Why instances are to leave a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Drained,
    /// Its hours end soon, or have ended.
    Closing,
    /// Its owner needs it: one instance after the other.
    Pressed,
}

impl Leave {
    pub(crate) fn why(self) -> &'static str {
        match self {
            Leave::Drained => "its machine is drained",
            Leave::Closing => "its machine's hours end",
            Leave::Pressed => "its machine is under pressure",
        }
    }
}

/// Why a machine takes nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    Down,
    Silent,
    Drained,
    Cordoned,
    Closed,
    Pressed,
}

impl Shut {
    /// The end of "2 of 3 machines …".
    pub(crate) fn told(self) -> &'static str {
        match self {
            Shut::Down => "down",
            Shut::Silent => "silent",
            Shut::Drained => "drained",
            Shut::Cordoned => "cordoned",
            Shut::Closed => "outside their hours",
            Shut::Pressed => "under pressure",
        }
    }

    /// The same of one machine.
    fn told_of_one(self) -> &'static str {
        match self {
            Shut::Closed => "outside its hours",
            Shut::Down | Shut::Silent | Shut::Drained | Shut::Cordoned | Shut::Pressed => self.told(),
        }
    }
}

impl Machine {
    pub(crate) fn is_down(&self) -> bool {
        match self.presence {
            Presence::Up | Presence::Silent { .. } => false,
            Presence::Down { .. } => true,
        }
    }

    /// Why nothing new comes here, as the end of "the machine is …".
    pub fn refuses(&self, now_ms: u64) -> Option<&'static str> {
        self.shut(now_ms).map(Shut::told_of_one)
    }

    pub(crate) fn shut(&self, now_ms: u64) -> Option<Shut> {
        match self.presence {
            Presence::Down { .. } => return Some(Shut::Down),
            Presence::Silent { .. } => return Some(Shut::Silent),
            Presence::Up => {}
        }
        if self.node.drained {
            return Some(Shut::Drained);
        }
        if self.node.cordoned {
            return Some(Shut::Cordoned);
        }
        if self.closing(now_ms) {
            return Some(Shut::Closed);
        }
        match self.pressure {
            Pressure::Calm => None,
            Pressure::Rising { .. } | Pressure::Pressed { .. } | Pressure::Easing { .. } => Some(Shut::Pressed),
        }
    }

    pub(crate) fn leave(&self, now_ms: u64) -> Option<Leave> {
        if self.node.drained {
            return Some(Leave::Drained);
        }
        if self.closing(now_ms) {
            return Some(Leave::Closing);
        }
        match self.pressure {
            Pressure::Pressed { .. } => Some(Leave::Pressed),
            Pressure::Calm | Pressure::Rising { .. } | Pressure::Easing { .. } => None,
        }
    }

    /// Outside its hours, or so near their end that what comes now would leave again.
    fn closing(&self, now_ms: u64) -> bool {
        let Some(owner) = &self.node.considerate else { return false };
        match hours::opening(&owner.hours, self.node.utc_offset_minutes, now_ms) {
            Opening::Always => false,
            Opening::Open { until_ms } => now_ms.saturating_add(owner.leave_ms) >= until_ms,
            Opening::Closed { .. } => true,
        }
    }

    /// When time alone changes what may be here.
    pub(crate) fn changes_at_ms(&self, now_ms: u64) -> Option<u64> {
        let owner = self.node.considerate.as_ref()?;
        match hours::opening(&owner.hours, self.node.utc_offset_minutes, now_ms) {
            Opening::Always => None,
            Opening::Open { until_ms } if now_ms.saturating_add(owner.leave_ms) < until_ms => {
                Some(until_ms - owner.leave_ms)
            }
            Opening::Open { until_ms } | Opening::Closed { until_ms } => Some(until_ms),
        }
    }

    /// What instances may reserve together, after the owner's share.
    pub(crate) fn usable(&self) -> (u64, u64) {
        let (memory, cpu) = self.usable_at_best();
        if self.node.considerate.is_none() {
            return (memory, cpu);
        }
        let used = self.load.as_ref().map_or((0, 0), |load| (load.owner_memory_bytes, load.owner_cpu_millis));
        (memory.saturating_sub(used.0), cpu.saturating_sub(used.1))
    }

    /// The same while its owner does nothing.
    pub(crate) fn usable_at_best(&self) -> (u64, u64) {
        let kept =
            self.node.considerate.as_ref().map_or((0, 0), |owner| (owner.memory_kept_bytes, owner.cpu_kept_millis));
        (self.memory_usable_bytes.saturating_sub(kept.0), self.cpu_usable_millis.saturating_sub(kept.1))
    }

    pub(crate) fn meets(&self, constraint: &Constraint) -> bool {
        let equal = self.field(&constraint.field).is_some_and(|value| value.eq_ignore_ascii_case(&constraint.value));
        equal == constraint.equal
    }

    /// What a constraint's or preference's field says of it. Labels that are not set have no value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let node = &self.node;
        match name {
            "node.id" => Some(&node.id),
            "node.hostname" => Some(&node.hostname),
            "node.role" => Some(&node.role),
            "node.platform.os" => Some(&node.os),
            "node.platform.arch" => Some(&node.arch),
            ZONE => self.zone(),
            _ => {
                let label =
                    name.strip_prefix("node.labels.").or_else(|| name.strip_prefix("engine.labels.")).unwrap_or(name);
                if label == "zone" { self.zone() } else { node.labels.get(label).map(String::as_str) }
            }
        }
    }

    fn zone(&self) -> Option<&str> {
        if self.node.zone.is_empty() {
            return self.node.labels.get("zone").map(String::as_str);
        }
        Some(&self.node.zone)
    }
}

/// The field every service is spread over, whatever it prefers besides.
pub(crate) const ZONE: &str = "node.zone";
