//! Where a replicated state machine and the group that replicates it meet, without knowing each other.
//!
//! Owns two traits: [`Machine`], which a keeper of state implements, and [`Proposer`], which the group in front
//! of it implements. `control` knows only these words, `replication` knows only these words, and `app` brings
//! them together. Promises nothing by itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// Something that is waited for, boxed so that the traits stay object-safe.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// State that changes only by commands, the same on every member of a group.
///
/// The group calls `apply`, `checkpoint`, `snapshot` and `restore` one at a time and in order; `answer` may
/// come from anywhere at any time.
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command and returns the reply for whoever proposed it.
    ///
    /// Must come out the same on every member: no clock, no randomness, no failure. A command it cannot read
    /// (a newer member's, or damaged) gets a reply that says so and changes nothing.
    fn apply(&self, index: u64, command: &[u8]) -> Vec<u8>;

    /// Answers from the leader's memory: nothing becomes durable (a lease's renewal).
    fn answer(&self, question: &[u8]) -> Vec<u8>;

    /// The mark of the last checkpoint that reached the disk; what was applied after it is applied again.
    fn saved(&self) -> Option<Vec<u8>>;

    /// Takes what changed since the last checkpoint, cheaply; the slow half is [`Checkpoint::write`].
    fn checkpoint(&self) -> Box<dyn Checkpoint>;

    /// The whole state as bytes, for a member that is too far behind for the log.
    fn snapshot(&self) -> Vec<u8>;

    /// Becomes what `snapshot` says, durably and under `mark`, before it returns.
    fn restore(&self, mark: &[u8], snapshot: &[u8]) -> Result<(), MachineError>;
}

/// What a machine has to write, taken at one moment.
pub trait Checkpoint: Send + Sync {
    /// Makes it durable together with `mark`, all or nothing. Blocks. After a failure the machine's next
    /// checkpoint holds what this one held.
    fn write(self: Box<Self>, mark: &[u8]) -> Result<(), MachineError>;
}

/// Why a machine could not write its state.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("write the state: the disk is full")]
    DiskFull,
    #[error("write the state")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("read a snapshot: {0}")]
    Malformed(&'static str),
}

/// The way into a group: from proposed bytes to the machine's reply.
pub trait Proposer: Send + Sync + 'static {
    /// Has `command` committed and applied, and returns the machine's reply. On a member that does not lead,
    /// the leader is asked. Dropped while it waits, the command may or may not be applied.
    fn propose(&self, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>>;

    /// As [`Proposer::propose`], but only while this member leads in `term`, and never passed on: for what a leader decides by
    /// what it alone knows. Another that leads by then may know better.
    fn propose_leading(&self, term: u64, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>>;

    /// Has the leader's machine answer `question` from memory. It was still the leader, and its machine up to date, at some time
    /// after the call.
    fn ask(&self, question: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>>;

    /// Returns once this member's machine has applied everything that was acknowledged before the call.
    fn barrier(&self) -> Waiting<'_, Result<(), ProposeError>>;

    /// The term in which this member leads, if it does. A new term is a new leadership.
    fn leading(&self) -> Option<u64>;
}

/// Why a proposal was not answered. Says whether it may have happened all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum ProposeError {
    /// Did not happen: there is no room for it in the log.
    #[error("propose: the disk is full")]
    DiskFull,
    /// Did not happen: nobody leads, or the leader cannot be reached.
    #[error("propose: no leader")]
    NoLeader,
    /// Did not happen: too much is waiting already.
    #[error("propose: {waiting} proposals wait already")]
    Busy { waiting: usize },
    /// May have happened: the answer did not arrive in time.
    #[error("propose: no answer within {waited_ms} ms; it may have happened")]
    Unanswered { waited_ms: u64 },
    /// The group has ended; `reason` is for people.
    #[error("propose: the group has stopped: {reason}")]
    Stopped { reason: String },
}

impl ProposeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DiskFull => {
                "free space on the disk that holds the data directory; nothing that was acknowledged is lost"
            }
            Self::NoLeader => "try again; a new leader is found within seconds while most members are up",
            Self::Busy { .. } => "try again a little later",
            Self::Unanswered { .. } => "look whether it happened before trying again",
            Self::Stopped { .. } => "see the log of this machine for the cause, then start it again",
        }
    }
}

impl fmt::Debug for dyn Proposer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposer").field("leading", &self.leading()).finish()
    }
}

impl fmt::Debug for dyn Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}
