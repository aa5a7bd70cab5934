//! What a worker is told, and what it tells: the words between a machine's node and its workers, who are the same program.

use crate::talk::Watching;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use wire::run::{Asked, RunLimits, RunRecord, RunWanted};

/// Bounds of a run with nothing left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub cpu_ms: u64,
    pub wall_ms: u64,
    pub memory_bytes: u64,
    pub processes: u64,
    pub output_bytes: u64,
    pub file_bytes: u64,
}

/// What a run has unless it or its language says otherwise: what exercises need, and an hour's lesson survives a mistake.
const USUAL: Limits = Limits {
    cpu_ms: 10_000,
    wall_ms: 60_000,
    memory_bytes: 256 << 20,
    processes: 64,
    output_bytes: 64 << 20,
    file_bytes: 64 << 20,
};
/// What a run may ask for at most.
const MOST: Limits = Limits {
    cpu_ms: 3_600_000,
    wall_ms: 24 * 3_600_000,
    memory_bytes: 16 << 30,
    processes: 4_096,
    output_bytes: 1 << 40,
    file_bytes: 16 << 30,
};

impl Limits {
    /// What the run asks for, else the language, else what is usual.
    pub fn of(wanted: &RunLimits, language: &RunLimits) -> Result<Limits, String> {
        let pick = |what: &str, wanted: Option<u64>, language: Option<u64>, usual: u64, most: u64| {
            let picked = wanted.or(language).unwrap_or(usual);
            if picked == 0 || picked > most {
                return Err(format!("the limit {what} is {picked}; it may be from 1 to {most}"));
            }
            Ok(picked)
        };
        Ok(Limits {
            cpu_ms: pick("cpu_ms", wanted.cpu_ms, language.cpu_ms, USUAL.cpu_ms, MOST.cpu_ms)?,
            wall_ms: pick("wall_ms", wanted.wall_ms, language.wall_ms, USUAL.wall_ms, MOST.wall_ms)?,
            memory_bytes: pick(
                "memory_bytes",
                wanted.memory_bytes,
                language.memory_bytes,
                USUAL.memory_bytes,
                MOST.memory_bytes,
            )?,
            processes: pick("processes", wanted.processes, language.processes, USUAL.processes, MOST.processes)?,
            output_bytes: pick(
                "output_bytes",
                wanted.output_bytes,
                language.output_bytes,
                USUAL.output_bytes,
                MOST.output_bytes,
            )?,
            file_bytes: pick("file_bytes", wanted.file_bytes, language.file_bytes, USUAL.file_bytes, MOST.file_bytes)?,
        })
    }

    /// As who asked says them.
    pub fn told(&self) -> RunLimits {
        RunLimits {
            cpu_ms: Some(self.cpu_ms),
            wall_ms: Some(self.wall_ms),
            memory_bytes: Some(self.memory_bytes),
            processes: Some(self.processes),
            output_bytes: Some(self.output_bytes),
            file_bytes: Some(self.file_bytes),
        }
    }
}

/// A run, with everything decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub id: String,
    /// Whose run it is.
    pub who: String,
    pub language: String,
    pub wanted: RunWanted,
    pub limits: Limits,
    /// The root file system of its boxes.
    pub root: PathBuf,
    /// Empty for a language that is run as it is written.
    pub compile: Vec<String>,
    pub keep: Vec<String>,
    pub run: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub code_sha256: String,
    /// Where what was compiled is kept, by [`Order::compiled_as`].
    pub compiled: PathBuf,
    /// What of all is compiled alike.
    pub compiled_as: String,
    /// When it was asked for.
    pub asked_ms: u64,
    /// How long it has waited for a worker.
    pub queue_usec: u64,
    #[serde(default)]
    pub place_usec: u64,
    #[serde(default)]
    pub trace: String,
    /// The machine is somebody's who comes first.
    #[serde(default)]
    pub idle: bool,
}

impl Order {
    /// What is to be known of it once it has begun.
    pub fn record(&self, node: &str, worker: u32, began_ms: u64) -> RunRecord {
        RunRecord {
            id: self.id.clone(),
            who: self.who.clone(),
            trace: self.trace.clone(),
            language: self.language.clone(),
            code_sha256: self.code_sha256.clone(),
            node: node.to_owned(),
            worker,
            limits: self.limits.told(),
            detached: self.wanted.detach,
            began_ms,
            ..RunRecord::default()
        }
    }
}

/// Between a run's id and the number of one of its inputs.
const TURN_MARK: char = '.';

/// What a run with one of several inputs goes by, counted from 0; with the last one, by the id of all.
pub fn of_turn(id: &str, index: usize) -> String {
    format!("{id}{TURN_MARK}{}", index + 1)
}

/// The run with all its inputs that one with one of them belongs to.
pub fn whole_of(id: &str) -> &str {
    id.split_once(TURN_MARK).map_or(id, |(whole, _)| whole)
}

/// To a worker, first of all on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    Run(Box<Order>),
    Attach(Watching),
    /// Ends a run, whoever watches it.
    Kill(String),
    /// The node's own connection: it is told of runs.
    Node,
    /// Another of the node's: it is told that the worker lives, by a thread of its own.
    Beats,
}

/// To a worker, on the connection of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Asked(Asked),
    /// Whoever watched is gone for good, and not only this connection.
    Left,
}

/// To a worker, on the node's own connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// Records up to this one are kept.
    Kept(u64),
    /// It takes no more runs, and ends when it has none.
    Retire,
}

/// From a worker, on the node's own connection: a run began or ended. Said again on each new connection until it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u64,
    pub record: RunRecord,
}

/// That it lives, and how it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beat {
    pub number: u32,
    pub pid: u32,
    /// The program's version: a worker of another one takes no more runs.
    pub version: String,
    pub runs: u32,
    /// Both go up as long as the threads that carry and that run do not hang.
    pub carried: u64,
    pub ran: u64,
    pub retires: bool,
    pub boxes: Boxes,
}

/// Boxes of a worker: how many wait for a program, and what has become of others since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Boxes {
    pub ready: u32,
    /// Programs that waited until one was built, that had a new one, and that had one after another program.
    pub built: u64,
    pub ahead: u64,
    pub again: u64,
    /// Not to be had again after a program, though that was asked for.
    pub given_up: u64,
}
