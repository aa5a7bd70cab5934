//! A member of a replicated group: opens its log and machine, takes part, proposes, closes.

use crate::batcher::{self, Refused, WAITING_MAX, Waiting as WaitingCommand};
use crate::checkpoints;
use crate::election::{Elections, Heard};
use crate::forced;
use crate::forwarder::{self, Forward, Said, from_answer};
use crate::lane::Lane;
use crate::log_store::LogStore;
use crate::machine_store::MachineStore;
use crate::message::{Message, answer, answers, read_answer};
use crate::network::{Network, Peers, SendError};
use crate::notes::{claim, read_mark, read_note};
use crate::options::{Options, Start, Timing};
use crate::types::{Raft, RaftError};
use openraft::error::{CheckIsLeaderError, ClientWriteError};
use openraft::raft::AppendEntriesResponse;
use openraft::{ChangeMembers, Config, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::log::{Log, LogError};
use storage::replicated::{Machine, ProposeError, Proposer, Waiting};
use tokio::sync::{mpsc, oneshot};
use wire::diagnostic::chain;
use world::task::Task;

/// How long a proposal may take in all, elections included.
const PROPOSE_WITHIN: Duration = Duration::from_secs(10);
/// How often a proposal that found no leader looks for one.
const LEADER_LOOK: Duration = Duration::from_millis(50);
/// How long a member on its own may take to be ready: it has nobody to wait for but its disk.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Entries of one message between members.
const MESSAGE_ENTRIES: u64 = 64;
/// Bytes of one piece of a snapshot.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Why a member could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("open the log")]
    Log(#[from] LogError),
    #[error("read the member's notes in {directory}: {what}")]
    Notes { directory: PathBuf, what: String },
    #[error("the log in {directory} belongs to member {found}, this is member {node}")]
    OtherMember { directory: PathBuf, found: u64, node: u64 },
    #[error("the state ends at entry {state:?}, the log begins at {log}")]
    Gap { state: Option<u64>, log: u64 },
    #[error("start the log's thread")]
    Thread(#[source] std::io::Error),
    #[error("start the group: {0}")]
    Raft(String),
}

/// Why members could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    #[error("change members: this member does not lead; {leader:?} does")]
    NotLeader { leader: Option<u64> },
    #[error("change members: {0}")]
    Refused(String),
    #[error("change members: the group has stopped: {0}")]
    Stopped(String),
}

/// A member's view of its group, for people and meters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    pub node: u64,
    pub leader: Option<u64>,
    pub term: u64,
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// How much of the log each other member has, as far as it has told; only the leader knows.
    pub matched: BTreeMap<u64, u64>,
    pub last_index: Option<u64>,
    pub applied_index: Option<u64>,
    /// Entries up to here are in a checkpoint and gone from the log.
    pub purged_index: Option<u64>,
    /// Durable writes of the log since the start.
    pub writes: u64,
    /// Time spent in them.
    pub writing: Duration,
    pub slowest_write: Duration,
    /// A write is waiting for room on the disk.
    pub disk_full: bool,
    /// Why the member no longer takes part.
    pub stopped: Option<String>,
    /// Another member has taken the lead by force without this one: what this one has counts no longer.
    pub is_superseded: bool,
}

/// Whether something may be asked again of a leader that did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Freely,
    /// It may have happened, and must not happen again.
    Never,
}

/// A member. Clones are the same member.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    node: u64,
    raft: Raft,
    lane: Arc<Lane>,
    store: MachineStore,
    machine: Arc<dyn Machine>,
    network: Arc<dyn Network>,
    commands: mpsc::Sender<WaitingCommand>,
    forwards: mpsc::Sender<Forward>,
    tasks: Mutex<Vec<Task>>,
    is_superseded: AtomicBool,
    elections: Arc<Elections>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl Group {
    /// Opens a member: recovers its log, brings `machine` to where it was, takes part. A member on its own is the
    /// leader and up to date when this returns.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        options: Options,
        machine: Arc<dyn Machine>,
        network: Arc<dyn Network>,
    ) -> Result<Self, OpenError> {
        let log = open_log(&options).await?;
        let reader = log.reader();
        let note = read_note(&options, &reader.note())?;
        let saved = read_mark(&options, machine.saved())?;
        let (state, first) = (saved.applied.map(|applied| applied.index), reader.first() - 1);
        if state.map_or(0, |index| index + 1) < first {
            return Err(OpenError::Gap { state, log: first });
        }
        let lane = Arc::new(Lane::start(log).map_err(OpenError::Thread)?);
        let mut note = claim(&lane, note).await?;
        if options.start == Start::Force {
            note = forced::take_lead(&lane, &reader, note, saved.applied).await?;
        }
        let logs =
            LogStore::new(Arc::clone(&lane), reader, note).map_err(|error| OpenError::Raft(error.to_string()))?;
        let store = MachineStore::new(Arc::clone(&machine), logs.clone(), saved, options.checkpoint_commands);
        let config = Arc::new(config(options.timing)?);
        let raft = Raft::new(
            options.node,
            config,
            Peers { network: Arc::clone(&network), logs: logs.clone() },
            logs.clone(),
            store.clone(),
        )
        .await
        .map_err(|error| OpenError::Raft(chain(&error)))?;
        let (commands, arriving) = mpsc::channel(WAITING_MAX);
        let (forwards, forwarded) = mpsc::channel(WAITING_MAX);
        let elections = Arc::new(Elections {
            node: options.node,
            raft: raft.clone(),
            network: Arc::clone(&network),
            logs: logs.clone(),
            heard: Heard::now(),
            timing: options.timing,
        });
        let elects = Arc::clone(&elections);
        let tasks = vec![
            world::task::spawn("replication.elections", async move { elects.run().await }),
            world::task::spawn("replication.batcher", batcher::run(raft.clone(), Arc::clone(&lane), arriving)),
            world::task::spawn("replication.forwarder", forwarder::run(Arc::clone(&network), forwarded)),
            world::task::spawn("replication.checkpoints", checkpoints::take(raft.clone(), store.clone())),
            world::task::spawn(
                "replication.purges",
                checkpoints::purge(raft.clone(), store.clone(), logs, options.kept_bytes),
            ),
        ];
        let inner = Inner {
            node: options.node,
            raft,
            lane,
            store,
            machine,
            network,
            commands,
            forwards,
            tasks: Mutex::new(tasks),
            is_superseded: AtomicBool::new(false),
            elections,
        };
        let group = Self { inner: Arc::new(inner) };
        group.begin(options.start).await?;
        Ok(group)
    }

    async fn begin(&self, start: Start) -> Result<(), OpenError> {
        let raft = &self.inner.raft;
        let failed = |error: String| OpenError::Raft(error);
        let initialized = raft.is_initialized().await.map_err(|error| failed(error.to_string()))?;
        if !initialized && start == Start::Found {
            let members = BTreeMap::from([(self.inner.node, openraft::EmptyNode::new())]);
            raft.initialize(members).await.map_err(|error| failed(error.to_string()))?;
        }
        if !self.is_only_voter() {
            return Ok(());
        }
        // It need not wait for anybody's heartbeat.
        if self.leading().is_none() {
            raft.trigger().elect().await.map_err(|error| failed(error.to_string()))?;
        }
        let node = self.inner.node;
        let wait = raft.wait(Some(READY_WITHIN));
        let ready = wait.metrics(
            |metrics| {
                let applied = metrics.last_applied.map(|applied| applied.index);
                metrics.current_leader == Some(node) && applied == metrics.last_log_index
            },
            "a member on its own leads and has applied its log",
        );
        ready.await.map(|_| ()).map_err(|error| failed(error.to_string()))
    }

    /// Answers a message that a network brought from another member.
    pub async fn handle(&self, message: &[u8]) -> Vec<u8> {
        let raft = &self.inner.raft;
        let Some(message) = Message::decode(message) else { return Vec::new() };
        if !self.is_of_our_time(&message) {
            // Nothing is what a member says that does not know the question.
            return if matches!(message, Message::Prevote(_)) { answer(&false, &[]) } else { Vec::new() };
        }
        match message {
            Message::Append(request) => {
                let appended = raft.append_entries(request).await;
                self.hear(appended.as_ref().is_ok_and(|appended| match appended {
                    AppendEntriesResponse::HigherVote(_) => false,
                    AppendEntriesResponse::Success
                    | AppendEntriesResponse::PartialSuccess(_)
                    | AppendEntriesResponse::Conflict => true,
                }));
                answer(&appended, &[])
            }
            Message::Vote(request) => {
                let voted = raft.vote(request).await;
                self.hear(voted.as_ref().is_ok_and(|voted| voted.vote_granted));
                answer(&voted, &[])
            }
            Message::Snapshot(request) => {
                let vote = request.vote;
                let installed = raft.install_snapshot(request).await;
                self.hear(installed.as_ref().is_ok_and(|installed| installed.vote <= vote));
                answer(&installed, &[])
            }
            Message::Prevote(asked) => answer(&self.inner.elections.would_vote(&asked), &[]),
            Message::Propose(command) => to_answer(self.propose_here(command, None).await.map_err(no_leader)),
            Message::ProposeAll(commands) => {
                let proposed = commands.into_iter().map(|command| self.propose_here(command, None));
                let said = futures::future::join_all(proposed).await;
                answers(&said.into_iter().map(|said| said.map_err(no_leader)).collect::<Vec<_>>())
            }
            Message::Ask(question) => to_answer(self.answer_here(&question).await.map_err(no_leader)),
            Message::ReadIndex => answer(&self.read_index_here().await.map_err(no_leader), &[]),
        }
    }

    fn hear(&self, leads: bool) {
        if leads {
            self.inner.elections.heard.again();
        }
    }

    /// Whether a message is from a member that knows of as many leads taken by force as this one. A member that has
    /// nothing yet belongs to whoever finds it.
    fn is_of_our_time(&self, message: &Message) -> bool {
        let term = match message {
            Message::Append(request) => request.vote.leader_id().term,
            Message::Vote(request) => request.vote.leader_id().term,
            Message::Snapshot(request) => request.vote.leader_id().term,
            Message::Prevote(asked) => asked.term,
            Message::Propose(_) | Message::ProposeAll(_) | Message::Ask(_) | Message::ReadIndex => return true,
        };
        let (own, is_blank) = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.current_term, metrics.last_log_index.is_none())
        };
        let (theirs, ours) = (forced::times(term), forced::times(own));
        if theirs > ours && !is_blank && !self.inner.is_superseded.swap(true, Ordering::Relaxed) {
            tracing::error!(
                term,
                own,
                "another member has taken the lead by force: what this one has counts no longer"
            );
        }
        theirs == ours || is_blank
    }

    /// Adds a member that follows without a vote, and waits until it has caught up.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn add_learner(&self, node: u64) -> Result<(), MembersError> {
        let added = self.inner.raft.add_learner(node, openraft::EmptyNode::new(), true).await;
        added.map(|_| ()).map_err(members_error)
    }

    /// Makes exactly these members voters; who had a vote and is not among them becomes a learner. Voters are odd
    /// in number, or losing one machine would be worse than not having it.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<(), MembersError> {
        if voters.len().is_multiple_of(2) {
            return Err(MembersError::Refused(format!("{} voters are not an odd number", voters.len())));
        }
        let changed = self.inner.raft.change_membership(voters, true).await;
        changed.map(|_| ()).map_err(members_error)
    }

    /// Removes a learner from the group.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn remove_learner(&self, node: u64) -> Result<(), MembersError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
        let changed = self.inner.raft.change_membership(change, false).await;
        changed.map(|_| ()).map_err(members_error)
    }

    /// The term this member is in: what of [`Group::overview`] costs nothing.
    pub fn term(&self) -> u64 {
        self.inner.raft.metrics().borrow().current_term
    }

    /// How this member sees its group now.
    pub fn overview(&self) -> Overview {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let (writing, slowest_write) = self.inner.lane.writing();
        Overview {
            node: self.inner.node,
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: metrics.membership_config.voter_ids().collect(),
            learners: metrics.membership_config.membership().learner_ids().collect(),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .filter_map(|(node, matched)| Some((*node, matched.as_ref()?.index)))
                .collect(),
            last_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|applied| applied.index),
            purged_index: metrics.purged.map(|purged| purged.index),
            writes: self.inner.lane.writes(),
            writing,
            slowest_write,
            disk_full: self.inner.lane.is_full(),
            is_superseded: self.inner.is_superseded.load(Ordering::Relaxed),
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Stops taking part and writes a last checkpoint, so that the next start has nothing to repeat. Without it, as
    /// after a crash, the next start repeats what the log holds.
    pub async fn close(&self) {
        // openraft waits for its write, and the write may wait for room on the disk.
        self.inner.lane.give_up();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the group did not stop in order");
        }
        self.inner.tasks.lock().expect("taking the tasks never panics").clear();
        let (lane, store) = (Arc::clone(&self.inner.lane), self.inner.store.clone());
        let closed = world::task::blocking(move || {
            store.save();
            lane.close();
        });
        if closed.await.is_none() {
            tracing::warn!("the last checkpoint was not written");
        }
    }

    fn is_only_voter(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let voters = metrics.borrow().membership_config.voter_ids().collect::<Vec<_>>();
        voters == [self.inner.node]
    }

    /// Has the command committed if this member leads, in `term` if one is given.
    async fn propose_here(&self, command: Vec<u8>, term: Option<u64>) -> Result<Vec<u8>, Refused> {
        if self.inner.lane.is_full() {
            return Err(Refused::Failed(ProposeError::DiskFull));
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.inner.commands.try_send(WaitingCommand { command, term, answer });
        if sent.is_err() {
            return Err(Refused::Failed(ProposeError::Busy { waiting: WAITING_MAX }));
        }
        let ended = ProposeError::Stopped { reason: "it was closed".to_owned() };
        answered.await.unwrap_or(Err(Refused::Failed(ended)))
    }

    /// The machine's answer, if this member still leads: who leads on without knowing that others have elected another would say
    /// what nobody holds to.
    async fn answer_here(&self, question: &[u8]) -> Result<Vec<u8>, Refused> {
        let index = self.read_index_here().await?;
        self.inner.store.applied().until(|applied| *applied >= index).await;
        Ok(self.inner.machine.answer(question))
    }

    async fn read_index_here(&self) -> Result<Option<u64>, Refused> {
        let read = self.inner.raft.get_read_log_id().await;
        match read {
            Ok((read, _)) => Ok(read.map(|log_id| log_id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                Err(Refused::NotLeader(forward.leader_id))
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(Refused::NotLeader(None)),
            Err(RaftError::Fatal(error)) => Err(Refused::Failed(ProposeError::Stopped { reason: error.to_string() })),
        }
    }

    /// Asks the leader, wherever it is, until it answers or time is up: `here` on this member, `there` on another.
    async fn at_leader<T, H, A>(
        &self,
        repeats: Repeats,
        here: impl Fn() -> H,
        there: impl Fn(u64) -> A,
    ) -> Result<T, ProposeError>
    where
        H: Future<Output = Result<T, Refused>>,
        A: Future<Output = Result<Option<Result<T, ProposeError>>, SendError>>,
    {
        loop {
            let leader = self.inner.raft.metrics().borrow().current_leader;
            let leader = match leader {
                Some(leader) if leader == self.inner.node => match here().await {
                    Ok(value) => return Ok(value),
                    Err(Refused::Failed(error)) => return Err(error),
                    Err(Refused::NotLeader(leader)) => leader.filter(|leader| *leader != self.inner.node),
                },
                leader => leader,
            };
            if let Some(leader) = leader {
                match there(leader).await {
                    Ok(Some(Err(ProposeError::NoLeader)) | None) => {}
                    Ok(Some(result)) => return result,
                    Err(SendError::Unreachable { .. }) => {}
                    Err(SendError::Unanswered { .. }) if repeats == Repeats::Never => std::future::pending().await,
                    Err(SendError::Unanswered { .. }) => {}
                }
            }
            if let Err(stopped) = &self.inner.raft.metrics().borrow().running_state {
                return Err(ProposeError::Stopped { reason: stopped.to_string() });
            }
            tokio::time::sleep(LEADER_LOOK).await;
        }
    }

    /// Has the leader, another member, do it.
    async fn propose_there(&self, leader: u64, command: Vec<u8>) -> Result<Said, SendError> {
        let (answer, answered) = oneshot::channel();
        if self.inner.forwards.send(Forward { leader, command, answer }).await.is_err() {
            return Err(SendError::Unreachable { member: leader });
        }
        answered.await.unwrap_or(Err(SendError::Unanswered { member: leader }))
    }

    async fn ask_there<T>(
        &self,
        leader: u64,
        question: &Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, SendError> {
        Ok(read(&self.inner.network.send(leader, question.encode()).await?))
    }

    /// Bounds the time of something asked of the leader.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ProposeError>>) -> Result<T, ProposeError> {
        match tokio::time::timeout(PROPOSE_WITHIN, work).await {
            Ok(result) => result,
            Err(_) => Err(ProposeError::Unanswered { waited_ms: PROPOSE_WITHIN.as_millis() as u64 }),
        }
    }
}

impl Proposer for Group {
    fn propose(&self, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        Box::pin(async move {
            let here = || self.propose_here(command.clone(), None);
            let there = |leader| self.propose_there(leader, command.clone());
            self.in_time(self.at_leader(Repeats::Never, here, there)).await
        })
    }

    fn propose_leading(&self, term: u64, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        Box::pin(self.in_time(async move { self.propose_here(command, Some(term)).await.map_err(no_leader) }))
    }

    fn ask(&self, question: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        Box::pin(async move {
            let message = Message::Ask(question.clone());
            let there = |leader| self.ask_there(leader, &message, from_answer);
            self.in_time(self.at_leader(Repeats::Freely, || self.answer_here(&question), there)).await
        })
    }

    fn barrier(&self) -> Waiting<'_, Result<(), ProposeError>> {
        Box::pin(async move {
            // Nobody else can have acknowledged anything.
            if self.is_only_voter() && self.leading().is_some() {
                return Ok(());
            }
            let read = |bytes: &[u8]| read_answer::<Result<Option<u64>, ProposeError>>(bytes).map(|(index, _)| index);
            self.in_time(async {
                let there = |leader| self.ask_there(leader, &Message::ReadIndex, read);
                let index = self.at_leader(Repeats::Freely, || self.read_index_here(), there).await?;
                self.inner.store.applied().until(|applied| *applied >= index).await;
                Ok(())
            })
            .await
        })
    }

    fn leading(&self) -> Option<u64> {
        batcher::leading(&self.inner.raft)
    }
}

fn to_answer(result: Result<Vec<u8>, ProposeError>) -> Vec<u8> {
    match result {
        Ok(reply) => answer(&Ok::<(), ProposeError>(()), &reply),
        Err(error) => answer(&Err::<(), _>(error), &[]),
    }
}

/// A member asked as the leader does not pass on: whoever asked looks for the leader itself.
fn no_leader(refused: Refused) -> ProposeError {
    match refused {
        Refused::NotLeader(_) => ProposeError::NoLeader,
        Refused::Failed(error) => error,
    }
}

fn members_error(error: RaftError<ClientWriteError<u64, openraft::EmptyNode>>) -> MembersError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembersError::NotLeader { leader: forward.leader_id }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => MembersError::Refused(error.to_string()),
        RaftError::Fatal(error) => MembersError::Stopped(error.to_string()),
    }
}

async fn open_log(options: &Options) -> Result<Log, OpenError> {
    let (disk, directory, log_options) = (Arc::clone(&options.disk), options.directory.clone(), options.log);
    let opened = world::task::blocking(move || Log::open(disk, &directory, log_options)).await;
    let (log, recovery) = opened.ok_or_else(|| OpenError::Raft("reading the log panicked".to_owned()))??;
    if let Some((path, offset, bytes)) = &recovery.torn {
        tracing::info!(path = %path.display(), offset, bytes, "cut off a write that was never acknowledged");
    }
    Ok(log)
}

fn config(timing: Timing) -> Result<Config, OpenError> {
    let config = Config {
        cluster_name: "bramble".to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        enable_elect: false,
        election_timeout_min: timing.election_ms_min,
        // No voter leaves a leader for so long; openraft would draw its own time-out up to here.
        election_timeout_max: timing.election_ms_min + 1,
        install_snapshot_timeout: timing.election_ms_max,
        max_payload_entries: MESSAGE_ENTRIES,
        // Checkpoints are due by bytes as well as by number, which openraft does not count.
        snapshot_policy: SnapshotPolicy::Never,
        snapshot_max_chunk_size: PIECE_BYTES,
        // What is kept is counted in bytes, which openraft does not do: `checkpoints::purge` does.
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    };
    config.validate().map_err(|error| OpenError::Raft(error.to_string()))
}
