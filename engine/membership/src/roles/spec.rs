//! What is wanted of a cluster, and what is known of its machines. Plain data.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A machine's name: its key, never its address.
pub type Id = Arc<str>;

/// A disk that is slower holds no vote and no log: every commit would wait for it. etcd advises 10 ms; five times that
/// still leaves an election time-out of a second many heartbeats.
pub const FSYNC_P99_US_MAX: u64 = 50_000;

/// The least number of each role, as far as there are machines. One gateway is active in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    pub monitors: usize,
    /// Assigners come as two buddies, on two machines.
    pub pairs: usize,
    /// Processes that run work: as many on a machine as it has cores. `u32::MAX`: every machine that may.
    pub workers: u32,
    /// Monitors and assigners run no work where there are machines enough for both.
    pub apart: bool,
    /// An even number counts as one less.
    pub voters_max: usize,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec { monitors: 3, pairs: 1, workers: u32::MAX, apart: false, voters_max: 5 }
    }
}

/// What is known of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub verdict: Verdict,
    pub duty: Duty,
    /// What fails together. Machines without one share the same.
    pub zone: Option<Arc<str>>,
    pub cores: u32,
    /// How busy it is: 1000 is saturated.
    pub load_per_mille: u32,
    /// What is written to its disk survives a power cut.
    pub durable: bool,
    /// 99 of 100 measured writes were on its disk within this time; `None` when it was not measured.
    pub fsync_p99_us: Option<u64>,
    /// It keeps hours or gives way to its owner: it may go at any time, and orchestrates only if others cannot.
    pub considerate: bool,
    /// What its join token said it should rather be.
    pub asked: Option<Role>,
    /// Its copy of control's log has all that is committed, or nearly. Says nothing of one that has no copy.
    pub caught_up: bool,
    /// It leads the control group: were it the gateway too, its loss would take an election before another is the gateway.
    pub leads: bool,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            verdict: Verdict::Up,
            duty: Duty::Open,
            zone: None,
            cores: 1,
            load_per_mille: 0,
            durable: true,
            fsync_p99_us: Some(1_000),
            considerate: false,
            asked: None,
            caught_up: false,
            leads: false,
        }
    }
}

impl Machine {
    /// Whether it may hold a vote or a copy of the log.
    pub fn may_vote(&self) -> bool {
        self.durable && self.fsync_p99_us.is_some_and(|p99_us| p99_us <= FSYNC_P99_US_MAX)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Up,
    Down,
}

/// What people let a machine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    Open,
    /// Keeps what it has, gets nothing new.
    Cordoned,
    /// Gives everything away.
    Draining,
}

/// The lease on being the gateway, as whoever leads counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lease {
    /// The holder may be active, as far as is known.
    Held,
    /// It said that it has stopped and will not begin again in this epoch.
    Released,
    /// It surely runs no more, by the holder's clock too.
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Gateway,
    Monitor,
    Assigner,
    Worker,
}

impl FromStr for Role {
    type Err = ();

    /// As join tokens say it.
    fn from_str(text: &str) -> Result<Role, ()> {
        let all = [Role::Gateway, Role::Monitor, Role::Assigner, Role::Worker];
        all.into_iter().find(|role| role.to_string() == text).ok_or(())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Gateway => "gateway",
            Role::Monitor => "monitor",
            Role::Assigner => "assigner",
            Role::Worker => "worker",
        })
    }
}
