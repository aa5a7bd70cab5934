//! What a member is made of, and how its group begins. Plain data.

use crate::machine_store::CHECKPOINT_COMMANDS;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::disk::{Disk, Real};

/// One of the log's segments; those behind are deleted whole.
const KEPT_BYTES: u64 = 8 * 1024 * 1024;

/// How a group begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first machine: a group of one voter. Changes nothing if the group exists already.
    Found,
    /// A further machine: waits until a member adds it.
    Join,
    /// A member whose group has lost its majority for good: it is the only voter from now on, with what it has. What the
    /// others acknowledged without it is lost; members of before are not listened to any more, nor do they listen
    /// ([`crate::Overview::is_superseded`]): they come back by joining with nothing.
    Force,
}

/// When members suspect each other. The election time-out is at least five heartbeats, and far above what a sync takes.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_ms_min: u64,
    pub election_ms_max: u64,
}

impl Default for Timing {
    /// Two wake-ups a second; a lost leader is replaced within 5 s.
    fn default() -> Self {
        Self { heartbeat_ms: 500, election_ms_min: 2_500, election_ms_max: 5_000 }
    }
}

/// What a member is made of.
#[derive(Debug, Clone)]
pub struct Options {
    pub disk: Arc<dyn Disk>,
    /// Holds the member's log and nothing else.
    pub directory: PathBuf,
    /// This member's number, the same for ever.
    pub node: u64,
    pub start: Start,
    pub timing: Timing,
    pub log: storage::log::Options,
    /// Commands after which a checkpoint is due.
    pub checkpoint_commands: u64,
    /// How much of the log is kept after a checkpoint, for members that are a moment behind: they need not be sent the whole state.
    pub kept_bytes: u64,
}

impl Options {
    /// The first machine of a group, on this machine's disk.
    pub fn alone(directory: &Path) -> Self {
        Self {
            disk: Arc::new(Real),
            directory: directory.to_owned(),
            node: 1,
            start: Start::Found,
            timing: Timing::default(),
            log: storage::log::Options::default(),
            checkpoint_commands: CHECKPOINT_COMMANDS,
            kept_bytes: KEPT_BYTES,
        }
    }
}
