//! The durable space as everybody uses it: read, commit, watch, lease. Owns the task that ends leases; the state is
//! [`Keyspace`]'s, agreement is behind [`Proposer`].

use crate::alone::Alone;
use crate::board::Board;
use crate::command::{Answer, Command, Question, Refusal, Reply};
use crate::keyspace::{CLIENTS_BYTES_MAX, Keyspace, LIVE_BYTES_MAX};
use crate::meters::Commits;
use crate::txn::RANGED_KEYS_MAX;
use crate::watch::Keys;
use crate::{Committed, Entry, Listing, Range, RangeError, Ranged, SpaceError, Txn, Watch};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use storage::replicated::Proposer;
use world::task::Task;

/// Shorter leases than a slow disk's hiccup would end by accident.
pub const LEASE_MS_MIN: u64 = 1_000;
/// A day: what should live longer is not a lease.
pub const LEASE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// What reading a range answers at most: it is in memory once more while a slow client takes it.
pub const READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a transaction answers of ranges at most: as much as goes between members at once, with room to spare.
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a member with leases looks whether it has become the leader, and a failed revocation is repeated.
const LEASE_LOOK: Duration = Duration::from_secs(1);
/// Leases ended at once: the group makes one write of them, and leaves room for others' proposals.
const ENDING_MAX: usize = 256;
/// How long a member waits to have applied what its leader has acknowledged; then the caller may read a little early.
const CATCH_UP: Duration = Duration::from_secs(5);

/// A versioned map of keys, the state of record. Clones are the same space.
#[derive(Debug, Clone)]
pub struct Space {
    inner: Arc<Inner>,
    /// Ends with the last clone.
    _expiry: Arc<Task>,
}

#[derive(Debug)]
struct Inner {
    keyspace: Arc<Keyspace>,
    proposer: Arc<dyn Proposer>,
    /// Set once somebody measures.
    commits: OnceLock<Commits>,
}

impl Space {
    /// The space over a key space and the group that replicates it. `app` wires it so, once, at boot:
    ///
    /// ```ignore
    /// let keyspace = control::Keyspace::open(Arc::new(world::disk::Real), &dir.join("control/state"))?;
    /// let options = replication::Options::alone(&dir.join("control/log"));
    /// let group = replication::Group::open(options, keyspace.clone(), Arc::new(replication::Nowhere)).await?;
    /// let space = control::Space::start(keyspace, Arc::new(group.clone()));
    /// let meters = (space.measure(&meter), group.measure(&meter, "control"));
    /// // … and at shutdown, in this order: space.close(), group.close().await
    /// ```
    ///
    /// Must be called on a tokio runtime: a task ends leases in the background while this member leads.
    pub fn start(keyspace: Arc<Keyspace>, proposer: Arc<dyn Proposer>) -> Self {
        let inner = Arc::new(Inner { keyspace, proposer, commits: OnceLock::new() });
        let expiry = world::task::spawn("control.leases", expire(Arc::clone(&inner)));
        Self { inner, _expiry: Arc::new(expiry) }
    }

    /// A space in memory, for tests: same semantics, nothing is kept. Must be called on a tokio runtime.
    pub fn ephemeral() -> Self {
        Self::unreplicated(Keyspace::ephemeral())
    }

    /// The space over a key space that no group replicates, for tests and for looking at one. As [`Space::ephemeral`].
    pub fn unreplicated(keyspace: Arc<Keyspace>) -> Self {
        Self::start(Arc::clone(&keyspace), Arc::new(Alone::new(keyspace)))
    }

    /// The key as it is now, everything acknowledged before the call included.
    ///
    /// # Errors
    /// [`SpaceError::Unavailable`] when there is no leader to ask whether this member is up to date.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, SpaceError> {
        self.inner.proposer.barrier().await?;
        Ok(self.inner.keyspace.board().read().get(key))
    }

    /// The keys under `prefix`, all as of one revision, everything acknowledged before the call included.
    ///
    /// # Errors
    /// As [`Space::get`].
    pub async fn list(&self, prefix: &str) -> Result<Listing, SpaceError> {
        self.inner.proposer.barrier().await?;
        Ok(self.inner.keyspace.board().read().list(prefix))
    }

    /// What this member knows, which may be a little old and needs no leader: for showing, not for deciding.
    pub fn list_local(&self, prefix: &str) -> Listing {
        self.inner.keyspace.board().read().list(prefix)
    }

    /// Has a transaction happen, whole or not at all. When this returns, it is on disk on a majority and visible
    /// here. Dropped while it waits, it may or may not happen.
    ///
    /// # Errors
    /// [`SpaceError`]; [`SpaceError::is_temporary`] says whether trying again may help.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, SpaceError> {
        txn.check()?;
        self.check_ranges(&txn)?;
        let began = world::clock::monotonic();
        let ended = self.commit_checked(txn).await;
        if let Some(commits) = self.inner.commits.get() {
            commits.count(began, &ended);
        }
        ended
    }

    /// What a transaction that changes nothing would answer, everything acknowledged before the call included. Costs no
    /// write.
    ///
    /// # Errors
    /// As [`Space::commit`]; one that would change something is refused.
    pub async fn look(&self, txn: Txn) -> Result<Committed, SpaceError> {
        txn.check()?;
        self.check_ranges(&txn)?;
        self.inner.proposer.barrier().await?;
        let state = self.inner.keyspace.board().read();
        state.look(&txn.compares, txn.success, txn.failure).map_err(refused)
    }

    /// Whether a transaction's ranges hold few enough keys, as far as this member knows. Before it is proposed and never
    /// while it is applied: members of other versions have to decide alike.
    fn check_ranges(&self, txn: &Txn) -> Result<(), SpaceError> {
        let ranges = txn.ranges();
        let is_too_many = ranges.len() > 1 && self.inner.keyspace.board().read().has_more(&ranges, RANGED_KEYS_MAX);
        if is_too_many { Err(SpaceError::TooManyKeys { max: RANGED_KEYS_MAX }) } else { Ok(()) }
    }

    async fn commit_checked(&self, txn: Txn) -> Result<Committed, SpaceError> {
        match self.propose(&Command::from(txn)).await? {
            Reply::Committed(committed) => {
                self.seen(committed.revision).await;
                Ok(committed)
            }
            Reply::Refused(refusal) => Err(refused(refusal)),
            Reply::Leased { .. } => Err(SpaceError::Protocol("a lease's reply to a transaction")),
        }
    }

    /// Every change under `prefix` at `from_revision` or later: first those that have happened, then those to
    /// come, none left out and none twice. After a listing, watch from `listing.revision + 1`. 0 means: only
    /// what comes from now on.
    pub fn watch(&self, prefix: &str, from_revision: u64) -> Watch {
        Watch::new(self.inner.keyspace.board(), Keys::Under(prefix.to_owned()), from_revision)
    }

    /// As [`Space::watch`], everything but what is kept for others ([`crate::CLIENTS`]).
    pub fn watch_own(&self, from_revision: u64) -> Watch {
        Watch::new(self.inner.keyspace.board(), Keys::Own, from_revision)
    }

    /// As [`Space::list_local`], everything but what is kept for others.
    pub fn list_own_local(&self) -> Listing {
        self.inner.keyspace.board().read().list_own()
    }

    /// The latest revision that changed something of Bramble's own, as far as this member knows.
    pub fn revision_own(&self) -> u64 {
        self.inner.keyspace.board().read().own_revision()
    }

    /// Returns once everything that was acknowledged before the call is seen here.
    ///
    /// # Errors
    /// As [`Space::get`].
    pub async fn barrier(&self) -> Result<(), SpaceError> {
        Ok(self.inner.proposer.barrier().await?)
    }

    /// What this member knows of a range, now or as it was right after a revision: at most `limit` entries. After
    /// [`Space::barrier`] it is what was acknowledged before that.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn range_local(&self, range: &Range, limit: usize, at_revision: Option<u64>) -> Result<Ranged, RangeError> {
        self.range_local_within(range, limit, at_revision, READ_BYTES_MAX)
    }

    /// As [`Space::range_local`], of at most so many bytes.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn range_local_within(
        &self,
        range: &Range,
        limit: usize,
        at_revision: Option<u64>,
        bytes_max: usize,
    ) -> Result<Ranged, RangeError> {
        let state = self.inner.keyspace.board().read();
        match at_revision {
            None => state.range(range, limit, bytes_max),
            Some(revision) => state.range_at(range, revision, limit, bytes_max),
        }
    }

    /// Whether a transaction would tell of more than so many bytes, roughly, were it to happen now.
    pub fn tells_more_local(&self, txn: &Txn, bytes_max: usize) -> bool {
        let told = txn.told();
        !told.is_empty() && self.inner.keyspace.board().read().has_more_bytes(&told, bytes_max)
    }

    /// What changed at this revision and before can no longer be watched.
    pub fn compacted(&self) -> u64 {
        self.inner.keyspace.board().read().compacted
    }

    /// What all keys take, roughly, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.inner.keyspace.board().read().sizes_bytes().0
    }

    /// Of them what is kept for others, and how much that may be.
    pub fn clients_bytes(&self) -> (usize, usize) {
        (self.inner.keyspace.board().read().clients_bytes(), CLIENTS_BYTES_MAX)
    }

    /// The leases this member knows of.
    pub fn leases_local(&self) -> Vec<u64> {
        self.inner.keyspace.board().read().leases.keys().copied().collect()
    }

    /// The keys under a lease, as this member knows.
    pub fn lease_keys_local(&self, id: u64) -> Vec<String> {
        let state = self.inner.keyspace.board().read();
        let keys = state.leases.get(&id).map(|lease| lease.keys.iter().map(ToString::to_string).collect());
        keys.unwrap_or_default()
    }

    /// Whether this member decides for the group now. Another may a moment later: what must not be decided twice is
    /// committed under a condition.
    pub fn leads(&self) -> bool {
        self.inner.proposer.leading().is_some()
    }

    /// The latest revision this member has applied.
    pub fn revision(&self) -> u64 {
        self.inner.keyspace.board().read().revision
    }

    /// Grants a lease: after `ttl_ms` without a renewal, the keys put under it are deleted. Returns its id.
    ///
    /// # Errors
    /// [`SpaceError::LeaseDuration`] outside [`LEASE_MS_MIN`] to [`LEASE_MS_MAX`], or as [`Space::commit`].
    pub async fn grant(&self, ttl_ms: u64) -> Result<u64, SpaceError> {
        loop {
            // Positive as a signed number, as etcd's ids are.
            let id = (world::random::number() >> 1).max(1);
            match self.grant_as(id, ttl_ms).await {
                Ok(()) => return Ok(id),
                Err(SpaceError::LeaseExists) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Space::grant`], under an id that is not 0.
    ///
    /// # Errors
    /// [`SpaceError::LeaseExists`] too.
    pub async fn grant_as(&self, id: u64, ttl_ms: u64) -> Result<(), SpaceError> {
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&ttl_ms) {
            return Err(SpaceError::LeaseDuration { min_ms: LEASE_MS_MIN, max_ms: LEASE_MS_MAX });
        }
        match self.propose(&Command::Grant { id, ttl_ms }).await? {
            Reply::Leased { .. } => Ok(()),
            Reply::Refused(refusal) => Err(refused(refusal)),
            Reply::Committed(_) => Err(SpaceError::Protocol("a transaction's reply to a grant")),
        }
    }

    /// Starts the lease's time anew and returns it, in milliseconds. Costs no write.
    ///
    /// # Errors
    /// [`SpaceError::LeaseNotFound`] when it is over, or [`SpaceError::Unavailable`].
    pub async fn renew(&self, id: u64) -> Result<u64, SpaceError> {
        let answer = self.inner.proposer.ask(Question::Renew { id }.encode()).await?;
        match Answer::decode(&answer).map_err(|malformed| SpaceError::Protocol(malformed.0))? {
            Answer::Renewed { ttl_ms } => Ok(ttl_ms),
            Answer::LeaseNotFound { id } => Err(SpaceError::LeaseNotFound { id }),
            Answer::Malformed => Err(SpaceError::Protocol("the leader does not know the question")),
            Answer::TimeLeft { .. } => Err(SpaceError::Protocol("the time left in reply to a renewal")),
        }
    }

    /// How long a lease lasts, and how long it has left without a renewal.
    ///
    /// # Errors
    /// As [`Space::renew`].
    pub async fn time_left(&self, id: u64) -> Result<TimeLeft, SpaceError> {
        let answer = self.inner.proposer.ask(Question::TimeLeft { id }.encode()).await?;
        match Answer::decode(&answer).map_err(|malformed| SpaceError::Protocol(malformed.0))? {
            Answer::TimeLeft { ttl_ms, left_ms } => Ok(TimeLeft { ttl_ms, left_ms }),
            Answer::LeaseNotFound { id } => Err(SpaceError::LeaseNotFound { id }),
            Answer::Malformed => Err(SpaceError::Protocol("the leader does not know the question")),
            Answer::Renewed { .. } => Err(SpaceError::Protocol("a renewal in reply to another question")),
        }
    }

    /// Ends the lease now and deletes its keys, at one revision.
    ///
    /// # Errors
    /// [`SpaceError::LeaseNotFound`], or as [`Space::commit`].
    pub async fn revoke(&self, id: u64) -> Result<(), SpaceError> {
        let revision = revoked(&self.inner.propose(&Command::Revoke { id }).await?)?;
        self.seen(revision).await;
        Ok(())
    }

    /// Ends every lease that is over at `now`, if this member leads; returns how many. A background task calls
    /// it with the real time; a test hands in another.
    ///
    /// # Errors
    /// As [`Space::commit`]; what was not ended stays due.
    pub async fn expire_leases(&self, now: Instant) -> Result<usize, SpaceError> {
        self.inner.expire(now).await
    }

    /// Ends every watch with [`crate::WatchError::Closed`]. Reading goes on.
    pub fn close(&self) {
        self.inner.keyspace.board().close();
    }

    pub(crate) fn count_commits(&self, commits: Commits) {
        // A second meter for one space is nobody's wish; the first one counts.
        let _ = self.inner.commits.set(commits);
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        self.inner.keyspace.board()
    }

    async fn propose(&self, command: &Command) -> Result<Reply, SpaceError> {
        self.inner.propose(command).await
    }

    /// Waits until this member has applied `revision`, so that whoever was acknowledged also reads it here.
    async fn seen(&self, revision: u64) {
        let progress = self.inner.keyspace.board().listen();
        let caught_up = progress.until(|progress| progress.revision >= revision || progress.closed);
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            tracing::warn!(revision, "acknowledged by the leader but not applied here yet");
        }
    }
}

/// Of a lease, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft {
    pub ttl_ms: u64,
    pub left_ms: u64,
}

impl Inner {
    async fn propose(&self, command: &Command) -> Result<Reply, SpaceError> {
        let reply = self.proposer.propose(command.encode()).await?;
        Reply::decode(&reply).map_err(|malformed| SpaceError::Protocol(malformed.0))
    }

    /// Ends a lease that is over as far as this leadership knows.
    async fn end(&self, id: u64, term: u64) -> Result<u64, SpaceError> {
        let reply = self.proposer.propose_leading(term, Command::Revoke { id }.encode()).await?;
        revoked(&Reply::decode(&reply).map_err(|malformed| SpaceError::Protocol(malformed.0))?)
    }

    async fn expire(&self, now: Instant) -> Result<usize, SpaceError> {
        let term = self.proposer.leading();
        self.keyspace.lead(term, now);
        let Some(term) = term else { return Ok(0) };
        let due = self.keyspace.deadlines().due(now);
        let mut ended = 0;
        for some in due.chunks(ENDING_MAX) {
            // It may have been renewed while others were ended.
            let over = some.iter().copied().filter(|id| self.keyspace.deadlines().end(*id, now));
            let ends = over.map(|id| async move { (id, self.end(id, term).await) });
            let mut failed = None;
            for (id, end) in futures::future::join_all(ends).await {
                match end {
                    Ok(_) => ended += 1,
                    Err(SpaceError::LeaseNotFound { .. }) => self.keyspace.deadlines().forget(id),
                    Err(error) => failed = Some(error),
                }
            }
            failed.map_or(Ok(()), Err)?;
        }
        Ok(ended)
    }
}

fn revoked(reply: &Reply) -> Result<u64, SpaceError> {
    match reply {
        Reply::Leased { revision } => Ok(*revision),
        Reply::Refused(refusal) => Err(refused(*refusal)),
        Reply::Committed(_) => Err(SpaceError::Protocol("a transaction's reply to a revocation")),
    }
}

pub(crate) fn refused(refusal: Refusal) -> SpaceError {
    match refusal {
        Refusal::LeaseNotFound { id } => SpaceError::LeaseNotFound { id },
        Refusal::LeaseExists { .. } => SpaceError::LeaseExists,
        Refusal::KeyNotFound => SpaceError::KeyNotFound,
        Refusal::AnswerTooLarge => SpaceError::AnswerTooLarge { max: ANSWER_BYTES_MAX },
        Refusal::SpaceFull => SpaceError::SpaceFull { max: LIVE_BYTES_MAX },
        Refusal::Malformed => SpaceError::Protocol("a member does not know the command"),
    }
}

/// Waits for the end of the next lease and ends it. Sleeps without a wake-up while there is no lease. Runs until
/// its owner, the last [`Space`], is dropped; may be cancelled anywhere.
async fn expire(inner: Arc<Inner>) {
    let mut failing = false;
    loop {
        let changed = inner.keyspace.leases_changed().notified();
        if inner.keyspace.board().read().leases.is_empty() {
            changed.await;
        }
        let now = world::clock::monotonic();
        let failed = inner.expire(now).await.err();
        // Told once, not once a second.
        if let Some(error) = failed.as_ref().filter(|_| !failing) {
            tracing::warn!(%error, hint = error.hint(), "leases that are over could not be ended; trying again");
        }
        failing = failed.is_some();
        // A lease that is due but could not be ended must not make this loop spin.
        let until_next = inner.keyspace.deadlines().next().map(|end| end.saturating_duration_since(now));
        let pause = until_next.filter(|pause| !pause.is_zero()).map_or(LEASE_LOOK, |pause| pause.min(LEASE_LOOK));
        tokio::time::sleep(pause).await;
    }
}
