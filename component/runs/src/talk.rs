//! What machines say to each other about runs: a whole wish to who assigns and who works, and small questions beside.

use crate::link::{self, Reader, Writer};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use wire::run::{RunWanted, Running};

/// A run as it is asked for, on its way to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Given by whoever the client is connected to: asked twice under one id, a run is begun once.
    pub id: String,
    pub who: String,
    pub wanted: RunWanted,
    pub asked_ms: u64,
    /// How long it has waited for a worker.
    pub queue_usec: u64,
    /// How long it has been looked for one since.
    #[serde(default)]
    pub place_usec: u64,
    #[serde(default)]
    pub trace: String,
    /// Whose turn it is to find a worker, and how often that one has begun anew: what an earlier attempt begins late, a
    /// machine that was told of a later one does not take.
    #[serde(default)]
    pub attempt: u64,
}

/// Attempts of one who assigns, before the next one's count begins.
pub const ATTEMPTS: u64 = 1 << 16;

/// Watching a run that has begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    pub id: String,
    /// The last block that the client has acknowledged.
    pub after: u64,
    /// The connection that this one carries on, by its number: refused if there was another one since. `None`: a client that
    /// comes back, whose connection counts from now on.
    #[serde(default)]
    pub instead_of: Option<u64>,
    /// Who keeps that connection: one that it made and has not heard of is its own.
    #[serde(default)]
    pub keeper: String,
    /// Knows what [`wire::run::Channel::Turn`] is: who asked for a run with several inputs does.
    #[serde(default)]
    pub turns: bool,
}

/// The first words through a tunnel. [`wire::run::Told`] answers, until it is accepted; then the run's own words follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Talk {
    /// To who assigns: find a worker.
    Begin(Box<Wish>),
    /// To who assigns: the run is at that machine, carry it on.
    Resume { machine: String, watching: Watching },
    /// To who works.
    Work(Box<Wish>),
    /// To who works.
    Watch(Watching),
}

/// A call's question; each says what its answer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// To a monitor: who is to assign, other than these? [`Led`].
    Assigner { but: BTreeSet<String> },
    /// To a buddy, before it is done: these runs may be at these machines. What is over is forgotten. `()`.
    Hold { runs: Vec<Held>, over: Vec<String> },
    /// To a machine where a run may have begun: it shall not begin there from now on in any attempt up to this one. Whether it
    /// has, `bool`.
    Void { id: String, attempt: u64 },
    /// What is known of a run, `Option<RunRecord>`.
    Find(String),
    /// `()`.
    Kill(String),
    /// The last runs, `Vec<RunRecord>`.
    List(usize),
    /// The last runs of a trace, `Vec<RunRecord>`.
    Trace { trace: String, most: usize },
    /// `Vec<LanguageDetail>`.
    Languages,
    /// A language's files are copied, so that a run need not wait for it. `()`, or a [`wire::api::Problem`] as the error.
    Prepare(String),
}

/// Where a run may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub id: String,
    pub machines: Vec<String>,
}

/// Who assigns, and who carries on should it be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    pub assigner: String,
    pub buddy: Option<String>,
}

/// A machine that may run code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub machine: String,
    pub has: Running,
}

/// Who does what, as this machine knows it now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cast {
    /// This machine.
    pub me: String,
    /// Every other machine that may be there.
    pub others: Vec<String>,
    pub monitors: Vec<String>,
    pub pairs: Vec<Vec<String>>,
    pub workers: Vec<Place>,
    /// What assigners report, by machine.
    pub assigners: Vec<Place>,
    /// Those that are not there.
    pub gone: BTreeSet<String>,
}

pub type Going<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Other machines, as far as runs have to do with them.
pub trait Elsewhere: Send + Sync {
    fn cast(&self) -> Cast;
    /// A connection to that machine's [`Front::answer`](crate::front::Front::answer), with its first frame said.
    fn talk<'a>(&'a self, machine: &'a str, first: Bytes) -> Going<'a, io::Result<(Reader, Writer)>>;
    /// A question, and what [`Front::reply`](crate::front::Front::reply) says there.
    fn ask<'a>(&'a self, machine: &'a str, question: Vec<u8>) -> Going<'a, io::Result<Vec<u8>>>;
    /// Ends when a machine is found to be gone.
    fn lost<'a>(&'a self, machine: &'a str) -> Going<'a, ()>;
}

/// A connection to another machine on which this was said.
pub(crate) async fn talk(elsewhere: &dyn Elsewhere, machine: &str, first: &Talk) -> io::Result<(Reader, Writer)> {
    elsewhere.talk(machine, link::word(first)?).await
}

/// A question put to another machine, and its answer as what it should be.
pub async fn ask<T: serde::de::DeserializeOwned>(
    elsewhere: &dyn Elsewhere,
    machine: &str,
    question: &Question,
) -> io::Result<T> {
    let answer = elsewhere.ask(machine, serde_json::to_vec(question)?).await?;
    serde_json::from_slice(&answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
