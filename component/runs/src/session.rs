//! A line to whoever has a run, and why there is none.

use crate::link::{Frame, Reader, Writer};
use crate::roots::RootError;
use crate::worker::{NO_ROOM, no_run};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::api::Problem;
use wire::run::{Accepted, Told};

/// How long somebody may take to accept or refuse who has said nothing of why it takes long.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// A language is copied, or others are before.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Nobody can be reached who would run it.
pub const NO_WORKER: &str = "B0905";

/// Why a run was not begun. Whose fault it is follows from the kind.
#[derive(Debug, thiserror::Error)]
pub enum RefusedRun {
    #[error("{0}")]
    Wrong(String),
    #[error("{language} cannot be run here: {source}")]
    Language {
        language: String,
        #[source]
        source: Box<RootError>,
    },
    #[error("{0} runs wait already")]
    TooMany(usize),
    /// As a worker or another machine says it.
    #[error("{}", .0.message)]
    Told(Box<Problem>),
    #[error("no worker answers")]
    NoWorker(#[source] io::Error),
    #[error("{machine} cannot be reached")]
    Unreachable {
        machine: String,
        #[source]
        source: io::Error,
    },
    #[error("another connection watches this run")]
    Superseded,
}

impl RefusedRun {
    /// As the API says it, with its status.
    pub fn problem(&self) -> (u16, Problem) {
        let told = |code: &str, hint: &str| Problem {
            code: code.to_owned(),
            message: wire::diagnostic::chain(self),
            hint: hint.to_owned(),
            diagnostics: Vec::new(),
        };
        let problem = match self {
            RefusedRun::Wrong(_) => told("B0901", "see `bramble run --help` and docs/runs.md"),
            RefusedRun::Language { .. } => told(
                "B0904",
                "`bramble language ls` shows what can be run where; install the language's packages and try again",
            ),
            RefusedRun::TooMany(_) => told(NO_ROOM, "try again in a minute, or add a machine"),
            RefusedRun::Told(problem) => *problem.clone(),
            RefusedRun::NoWorker(_) => told(NO_WORKER, "the node's log says why its workers do not start"),
            RefusedRun::Unreachable { .. } => told(NO_WORKER, "`bramble node ls` shows which machines are there"),
            RefusedRun::Superseded => no_run(""),
        };
        let status = match problem.code.as_str() {
            "B0901" => 400,
            "B0904" => 422,
            "B0903" => 404,
            _other => 503,
        };
        (status, problem)
    }

    /// Whether another machine, or a later moment, may have room.
    pub fn is_for_now(&self) -> bool {
        matches!(self, RefusedRun::Told(problem) if problem.code == NO_ROOM)
    }

    /// There is no such run there.
    pub fn is_unknown(&self) -> bool {
        matches!(self, RefusedRun::Told(problem) if problem.code == no_run("").code)
    }
}

/// A line to the worker that has a run.
pub struct Session {
    pub accepted: Accepted,
    pub reader: Reader,
    pub writer: Writer,
}

/// What comes of a connection on which something was asked: the run's own words from here on, or why not. What is said
/// until then is handed on, if anybody is there for it.
pub(crate) async fn opened(
    mut reader: Reader,
    writer: Writer,
    told: Option<&mpsc::Sender<Told>>,
) -> Result<Session, RefusedRun> {
    let mut patience = ANSWER_DEADLINE;
    loop {
        let next = tokio::time::timeout(patience, reader.next()).await;
        let frame = next.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(RefusedRun::NoWorker)?;
        let bad = |kind: io::ErrorKind| RefusedRun::NoWorker(kind.into());
        let word = match frame {
            Some(Frame::Word(word)) => Frame::word::<Told>(&word).map_err(RefusedRun::NoWorker)?,
            Some(Frame::Blocks(_)) => return Err(bad(io::ErrorKind::InvalidData)),
            None => return Err(bad(io::ErrorKind::UnexpectedEof)),
        };
        match word {
            Told::Accepted(accepted) => return Ok(Session { accepted, reader, writer }),
            Told::Problem(problem) => return Err(RefusedRun::Told(Box::new(problem))),
            Told::Superseded => return Err(RefusedRun::Superseded),
            word @ (Told::Queued(_) | Told::Preparing(_)) => {
                patience = PATIENCE;
                if let Some(told) = told {
                    // Whoever does not listen is not told.
                    let _ = told.try_send(word);
                }
            }
            Told::Phase(_) | Told::Taken(_) | Told::Ended(_) | Told::Again(_) => {
                return Err(bad(io::ErrorKind::InvalidData));
            }
        }
    }
}
