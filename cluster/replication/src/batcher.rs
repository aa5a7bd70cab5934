//! Gathers commands that wait at the same time into one log entry: group commit.
//!
//! While entries are being synced the next gathers, so that a disk that needs 10 ms for a sync still takes thousands
//! of commands a second, and a lone command waits for nobody.

use crate::lane::Lane;
use crate::types::{Commands, Logged, Metrics, Raft, RaftError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::error::ClientWriteError;
use std::sync::Arc;
use std::time::Duration;
use storage::replicated::ProposeError;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait; more are refused, since their callers would wait too long.
pub(crate) const WAITING_MAX: usize = 4096;
/// Commands of one entry.
pub(crate) const BATCH_COMMANDS: usize = 512;
/// Bytes of one entry, unless a single command is larger.
pub(crate) const BATCH_BYTES: usize = 1024 * 1024;
/// How long after the end of a leadership its entries' proposers are told what became of them.
const SAID_WITHIN: Duration = Duration::from_secs(1);
/// Entries under way at once: while the others sync one, this member syncs the next.
const ENTRIES_MAX: usize = 2;
/// What an entry adds to its commands, at most: its own header, each command's length, the log's frame.
const ENTRY_BYTES: usize = 256;
const COMMAND_BYTES: usize = 4;

/// Why a command was not committed here.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another member leads, if it is known which.
    NotLeader(Option<u64>),
    Failed(ProposeError),
}

pub(crate) struct Waiting {
    pub(crate) command: Vec<u8>,
    /// The leadership it is meant for, if not any.
    pub(crate) term: Option<u64>,
    pub(crate) answer: oneshot::Sender<Result<Vec<u8>, Refused>>,
}

/// Commits what arrives until the group and with it the sender is gone. Cancelled, it drops what waits, whose
/// callers then know that it may have happened.
pub(crate) async fn run(raft: Raft, lane: Arc<Lane>, mut arriving: mpsc::Receiver<Waiting>) {
    let (mut left_over, mut under_way, mut bytes_under_way) = (None, FuturesUnordered::new(), 0);
    loop {
        let first = tokio::select! {
            biased;
            Some(over) = under_way.next() => {
                bytes_under_way -= over;
                continue;
            }
            first = next(&mut left_over, &mut arriving), if under_way.len() < ENTRIES_MAX => match first {
                Some(first) => first,
                None => return,
            },
        };
        let mut batch = vec![first];
        let mut bytes = batch[0].command.len();
        while batch.len() < BATCH_COMMANDS {
            let Ok(waiting) = arriving.try_recv() else { break };
            if bytes + waiting.command.len() > BATCH_BYTES {
                left_over = Some(waiting);
                break;
            }
            bytes += waiting.command.len();
            batch.push(waiting);
        }
        // Whoever stopped waiting before it was written does not want it any more.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if !batch.is_empty() {
            let needed = (bytes + batch.len() * COMMAND_BYTES + ENTRY_BYTES) as u64;
            bytes_under_way += needed;
            let (raft, lane, room) = (&raft, &lane, bytes_under_way);
            under_way.push(async move {
                commit(raft, lane, batch, room).await;
                needed
            });
        }
    }
}

/// What comes next; `None` when nothing will any more.
async fn next(left_over: &mut Option<Waiting>, arriving: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
    match left_over.take() {
        Some(waiting) => Some(waiting),
        None => arriving.recv().await,
    }
}

/// The term in which this member leads.
pub(crate) fn leading(raft: &Raft) -> Option<u64> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow();
    (metrics.state == ServerState::Leader && metrics.running_state.is_ok()).then_some(metrics.current_term)
}

/// `room` is what the log needs for it and what is under way.
async fn commit(raft: &Raft, lane: &Lane, batch: Vec<Waiting>, room: u64) {
    if !lane.admits(room).await {
        return refuse(batch, || Refused::Failed(ProposeError::DiskFull));
    }
    // openraft takes messages in order: whatever ends a leadership that there is now comes before its next.
    let term = leading(raft);
    let (batch, late): (Vec<_>, Vec<_>) =
        batch.into_iter().partition(|waiting| waiting.term.is_none() || waiting.term == term);
    refuse(late, || Refused::NotLeader(None));
    if batch.is_empty() {
        return;
    }
    let (commands, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.command, waiting.answer)).unzip();
    let (began, logged) = (world::clock::monotonic(), Logged::default());
    let waited = || {
        let waited_ms = (world::clock::monotonic() - began).as_millis() as u64;
        Refused::Failed(ProposeError::Unanswered { waited_ms })
    };
    let written = tokio::select! {
        biased;
        written = raft.client_write(Commands(Arc::new(commands), logged.clone())) => Some(written),
        () = over(raft, term) => None,
    };
    let refused = match written {
        Some(Ok(response)) => {
            for (answer, reply) in answers.into_iter().zip(response.data.0) {
                drop(answer.send(Ok(reply)));
            }
            return;
        }
        // openraft says so too when another leader's entries took the place of this one, which a third leader may still have: who
        // proposes again would have it happen twice.
        Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if logged.get() => waited(),
        Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
            Refused::NotLeader(forward.leader_id)
        }
        Some(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => stopped(error.to_string()),
        Some(Err(RaftError::Fatal(error))) => stopped(error.to_string()),
        None => waited(),
    };
    for answer in answers {
        drop(answer.send(Err(match &refused {
            Refused::NotLeader(leader) => Refused::NotLeader(*leader),
            Refused::Failed(error) => Refused::Failed(error.clone()),
        })));
    }
}

/// Waits until the leadership of `term` is over, and then as long as openraft may take to say what became of its entries. Of one
/// that was stepped over by another leader's snapshot it never says anything: whoever waited on would wait for ever.
async fn over(raft: &Raft, term: Option<u64>) {
    let mut metrics = raft.metrics();
    let leads = |metrics: &Metrics| metrics.state == ServerState::Leader && Some(metrics.current_term) == term;
    // An error says that the group is gone, which is an end too.
    drop(metrics.wait_for(|metrics| !leads(metrics)).await);
    tokio::time::sleep(SAID_WITHIN).await;
}

fn stopped(reason: String) -> Refused {
    Refused::Failed(ProposeError::Stopped { reason })
}

fn refuse(batch: Vec<Waiting>, reason: impl Fn() -> Refused) {
    for waiting in batch {
        drop(waiting.answer.send(Err(reason())));
    }
}
