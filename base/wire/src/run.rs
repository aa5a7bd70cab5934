//! Runs: code that somebody hands over to be run in a box, what it writes and how it ends.
//!
//! The same words are spoken on every hop between whoever watches a run and the worker that has it. Words are JSON; what
//! a program reads and writes travels in numbered blocks beside them ([`Block`]).

use crate::api::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most a block carries: one packet of a network, so that what is lost or late is small.
pub const BLOCK_BYTES_MAX: usize = 1_500;
/// What is before the payload of a block: eight bytes of its number, the most significant first, and one of its channel.
pub const BLOCK_HEAD_BYTES: usize = 9;
/// Input that was sent and not yet [taken](Told::Taken): whoever sends more than this is not waiting, and is cut off.
pub const INPUT_WINDOW_BYTES: usize = 256 << 10;

/// What the bytes of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// To the program; a block without payload is the end of its input.
    Stdin,
    Stdout,
    Stderr,
    /// What the compiler wrote.
    Compiler,
    /// How the run ended, as JSON of [`Ended`]: the last block of a run, numbered like all others so that it arrives once.
    End,
    /// How it ended with one of several inputs, which the next one follows; the end of the last is [`Channel::End`].
    Turn,
}

impl Channel {
    pub fn number(self) -> u8 {
        match self {
            Channel::Stdin => 0,
            Channel::Stdout => 1,
            Channel::Stderr => 2,
            Channel::Compiler => 3,
            Channel::End => 4,
            Channel::Turn => 5,
        }
    }

    pub fn of_number(number: u8) -> Option<Channel> {
        [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Compiler, Channel::End, Channel::Turn]
            .get(usize::from(number))
            .copied()
    }
}

/// Bytes with their place among all of their direction, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    pub sequence: u64,
    pub channel: Channel,
    pub payload: &'a [u8],
}

impl<'a> Block<'a> {
    pub fn head(sequence: u64, channel: Channel) -> [u8; BLOCK_HEAD_BYTES] {
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..8].copy_from_slice(&sequence.to_be_bytes());
        head[8] = channel.number();
        head
    }

    /// `None` for what is no block.
    pub fn parse(bytes: &'a [u8]) -> Option<Block<'a>> {
        let (head, payload) = bytes.split_first_chunk::<BLOCK_HEAD_BYTES>()?;
        let (sequence, channel) = head.split_first_chunk::<8>()?;
        Some(Block { sequence: u64::from_be_bytes(*sequence), channel: Channel::of_number(channel[0])?, payload })
    }
}

/// What is to be run. Only `files` is needed, and `language` where no file's name says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunWanted {
    /// By name or alias; empty: by the first file's name.
    pub language: String,
    /// The first is what is run or compiled.
    pub files: Vec<RunFile>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// All of the input, for who does not stream any.
    pub stdin: Option<String>,
    pub limits: RunLimits,
    /// A terminal of its own for the program, of this size, in place of pipes.
    pub terminal: Option<TerminalSize>,
    /// The run goes on when nobody watches it.
    pub detach: bool,
    /// Nothing is lost if it is begun again on another machine because the first is gone.
    pub repeatable: bool,
    /// Whether files that the program leaves in its folder come with its end.
    pub collect: bool,
    /// The same code with each of these as all of its input, compiled once; for who does not stream.
    pub inputs: Vec<String>,
}

/// A file, as text or in base 64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunFile {
    /// Below the program's folder, with `/` between.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
}

/// Bounds of a run; what is left out is the language's, or Bramble's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunLimits {
    /// Of all its processes together.
    pub cpu_ms: Option<u64>,
    pub wall_ms: Option<u64>,
    /// Of all its processes together.
    pub memory_bytes: Option<u64>,
    pub processes: Option<u64>,
    /// Standard output and error together.
    pub output_bytes: Option<u64>,
    /// All that it may have in files.
    pub file_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// What whoever watches a run says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// First of all, for a new run.
    Run(Box<RunWanted>),
    /// First of all, for a run that goes on: everything after that block is said again.
    Attach(Attach),
    /// Blocks up to this one have arrived; they are forgotten, and there is room for others.
    Ack(u64),
    /// By name, as `INT`.
    Signal(String),
    Resize(TerminalSize),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    pub id: String,
    /// The last block that arrived; 0 for none.
    #[serde(default)]
    pub after: u64,
}

/// What whoever watches a run is told, besides blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Nobody has room: how many runs are begun before this one.
    Queued(Queued),
    /// Something has to be got ready before the first run of a language, as `copying python from this machine`.
    Preparing(String),
    /// A worker has it.
    Accepted(Accepted),
    Phase(Phase),
    /// Input up to this block is the program's. Said when input has arrived, and first to who attaches.
    Taken(u64),
    /// The last block of a run, in words.
    Ended(Box<Ended>),
    /// Its machine is gone, and it is [repeatable](RunWanted::repeatable): it begins anew, with blocks from 1 on, as if what was
    /// written so far had not been. Says why; [`Told::Accepted`] follows.
    Again(String),
    /// Another connection watches the run now; this one ends.
    Superseded,
    /// It was not run, or is not known.
    Problem(Problem),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    pub before: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accepted {
    pub id: String,
    /// The machine, by id.
    pub node: String,
    /// Which of its workers.
    pub worker: u32,
    pub language: String,
    /// The number of the block of input that comes next: more than 1 where others have sent some.
    pub next_input: u64,
    pub terminal: bool,
    /// How many connections there were to it, with this one.
    pub connection: u64,
    /// It goes on when nobody watches it.
    pub detached: bool,
}

/// What a machine has to do with runs, as it reports. Never stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// Of its workers, in boxes.
    pub running: u32,
    /// Runs at once that each have a core.
    pub cores: u32,
    /// As an assigner: those it carries, and those that wait for a worker.
    pub carried: u32,
    pub waiting: u32,
    /// What can be run there, and whether its files have been copied.
    pub languages: BTreeMap<String, bool>,
    /// Why it takes none at the moment; empty if it does.
    pub refuses: String,
    /// Its workers take a run with several inputs.
    pub turns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Compiling,
    Running,
}

/// How a run ended, in words that whoever wrote the code understands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunVerdict {
    /// It ended by itself, with exit code 0.
    #[default]
    Finished,
    WrongExit,
    NotCompiled,
    OutOfTime,
    OutOfMemory,
    TooMuchOutput,
    /// By a signal, its own or one that was asked for.
    Killed,
    /// It was not run.
    Refused,
    /// The machine or the worker that had it is gone.
    Lost,
}

impl RunVerdict {
    pub const ALL: [RunVerdict; 9] = [
        RunVerdict::Finished,
        RunVerdict::WrongExit,
        RunVerdict::NotCompiled,
        RunVerdict::OutOfTime,
        RunVerdict::OutOfMemory,
        RunVerdict::TooMuchOutput,
        RunVerdict::Killed,
        RunVerdict::Refused,
        RunVerdict::Lost,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RunVerdict::Finished => "finished",
            RunVerdict::WrongExit => "wrong_exit",
            RunVerdict::NotCompiled => "not_compiled",
            RunVerdict::OutOfTime => "out_of_time",
            RunVerdict::OutOfMemory => "out_of_memory",
            RunVerdict::TooMuchOutput => "too_much_output",
            RunVerdict::Killed => "killed",
            RunVerdict::Refused => "refused",
            RunVerdict::Lost => "lost",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    pub verdict: RunVerdict,
    /// For people: `it ran longer than 5 s`.
    pub message: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// Of the block this was; none follows.
    pub sequence: u64,
    pub cpu_usec: u64,
    pub memory_peak_bytes: u64,
    pub output_bytes: u64,
    /// Where its time went.
    pub times: Times,
    /// What it left, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<RunFile>,
}

/// From the moment it was asked for, in millionths of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// Until it was its turn.
    pub queue_usec: u64,
    /// Until it was given to the machine that took it: a buddy was told, others may have refused.
    pub place_usec: u64,
    /// Until its box was ready; 0 for one that was built ahead.
    pub box_usec: u64,
    /// 0 when it had been compiled before.
    pub compile_usec: u64,
    /// What the program took, by the clock.
    pub run_usec: u64,
}

/// What became of a run that nobody streamed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunAnswer {
    pub id: String,
    pub node: String,
    pub language: String,
    #[serde(flatten)]
    pub ended: Ended,
    /// As text; what is none is in base 64 beside it.
    pub stdout: String,
    pub stderr: String,
    pub compiler: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
}

/// `POST /v1/runs` with `inputs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunAnswers {
    pub runs: Vec<RunAnswer>,
}

/// A line of the record of runs: what was run, where, for whom, and what became of it. Lines are added and never changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    pub id: String,
    pub who: String,
    /// Which trace it belongs to, as W3C's `traceparent` has it: the one of the request that asked for it, or its own.
    pub trace: String,
    pub language: String,
    /// SHA-256 of the code, in hex.
    pub code_sha256: String,
    pub node: String,
    pub worker: u32,
    pub limits: RunLimits,
    pub detached: bool,
    pub began_ms: u64,
    /// `None` while it runs.
    pub ended_ms: Option<u64>,
    pub verdict: Option<RunVerdict>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cpu_usec: u64,
    pub memory_peak_bytes: u64,
    pub output_bytes: u64,
    pub times: Times,
}

/// A language, and whether a machine can run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanguageDetail {
    pub name: String,
    pub title: String,
    pub aliases: Vec<String>,
    pub extensions: Vec<String>,
    pub compiled: bool,
    pub example: String,
    /// What the first file is called.
    pub main: String,
    pub machines: Vec<LanguageOn>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanguageOn {
    pub node: String,
    /// As its own program says.
    pub version: String,
    /// Whether its files have been copied, so that the first run does not wait for that.
    pub copied: bool,
    /// Why it cannot be run there; empty if it can.
    pub lack: String,
}
