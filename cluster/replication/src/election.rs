//! When a member stands for election: when no leader has been heard for a while, and a majority says that it would vote.
//!
//! Why not openraft's own time-out: it begins a new term before it asks anybody, and with a newer term whoever was away (frozen,
//! cut off) ends the lead of a leader that all others hear; and it waits for a lease of the longest time-out before its own begins.
//! Asking first is the pre-vote of Ongaro's dissertation (9.6), as in etcd. Who votes, and for whom, stays openraft's business.

use crate::log_store::LogStore;
use crate::message::{Message, read_answer};
use crate::network::Network;
use crate::options::Timing;
use crate::types::{LogId, Metrics, Raft};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Asked of every voter before an election.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prevote {
    /// The term it would be.
    pub(crate) term: u64,
    last_log_id: Option<LogId>,
}

/// When this member last heard of a leader it follows, or voted for one.
pub(crate) struct Heard(Mutex<Instant>);

impl Heard {
    pub(crate) fn now() -> Heard {
        Heard(Mutex::new(world::clock::monotonic()))
    }

    pub(crate) fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = world::clock::monotonic();
    }

    fn ago(&self) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        world::clock::monotonic().saturating_duration_since(last)
    }
}

/// What a member's elections are made of.
pub(crate) struct Elections {
    pub(crate) node: u64,
    pub(crate) raft: Raft,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) logs: LogStore,
    pub(crate) heard: Heard,
    pub(crate) timing: Timing,
}

impl Elections {
    /// Whether this member would vote for who asks: its log is as long, and there is no leader that is heard here.
    pub(crate) fn would_vote(&self, asked: &Prevote) -> bool {
        let is_led = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let patience_ms = self.timing.election_ms_min;
            match metrics.state {
                ServerState::Leader => metrics.millis_since_quorum_ack.is_none_or(|ago_ms| ago_ms < patience_ms),
                ServerState::Learner | ServerState::Follower | ServerState::Candidate | ServerState::Shutdown => {
                    self.heard.ago() < Duration::from_millis(patience_ms)
                }
            }
        };
        !is_led && asked.last_log_id >= self.logs.last()
    }

    /// Stands for election whenever it is time to, until the group has stopped. May be dropped anywhere.
    pub(crate) async fn run(&self) {
        let Timing { heartbeat_ms, election_ms_min, election_ms_max } = self.timing;
        let mut metrics = self.raft.metrics();
        let is_idle = |now: &Metrics| now.state == ServerState::Leader || !self.votes(now);
        let mut patience = between(election_ms_min, election_ms_max);
        loop {
            if is_idle(&metrics.borrow_and_update()) {
                if metrics.wait_for(|now| !is_idle(now)).await.is_err() {
                    return;
                }
                // Whoever led a moment ago leaves it to others first.
                self.heard.again();
            }
            if let Some(left) = patience.checked_sub(self.heard.ago()).filter(|left| !left.is_zero()) {
                tokio::time::sleep(left).await;
                if self.heard.ago() < patience {
                    patience = between(election_ms_min, election_ms_max);
                }
                continue;
            }
            let pause = if self.agreed().await {
                if self.raft.trigger().elect().await.is_err() {
                    return;
                }
                // As long as an election takes on slow disks.
                between(election_ms_min / 2, election_ms_min)
            } else {
                between(heartbeat_ms, heartbeat_ms * 2)
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn votes(&self, now: &Metrics) -> bool {
        now.membership_config.voter_ids().any(|voter| voter == self.node)
    }

    /// Whether a majority would vote for this member: in both memberships while one follows the other.
    async fn agreed(&self) -> bool {
        let (memberships, term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.membership_config.membership().get_joint_config().clone(), metrics.current_term)
        };
        let message = Message::Prevote(Prevote { term: term + 1, last_log_id: self.logs.last() }).encode();
        let others: BTreeSet<u64> = memberships.iter().flatten().copied().filter(|other| *other != self.node).collect();
        let asking = others.into_iter().map(|other| {
            let answered = self.network.send(other, message.clone());
            async move { says_yes(&answered.await.ok()?).then_some(other) }
        });
        let mut answers: FuturesUnordered<_> = asking.collect();
        let mut yes = BTreeSet::from([self.node]);
        let is_majority =
            |yes: &BTreeSet<u64>| memberships.iter().all(|voters| voters.intersection(yes).count() * 2 > voters.len());
        let counted = async {
            while !is_majority(&yes) {
                match answers.next().await {
                    Some(answer) => yes.extend(answer),
                    None => return false,
                }
            }
            true
        };
        let limit = Duration::from_millis(self.timing.election_ms_min);
        tokio::time::timeout(limit, counted).await.unwrap_or(false)
    }
}

fn between(least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(least_ms + world::random::number() % (most_ms - least_ms).max(1))
}

/// A member of a version that does not know the question says nothing to it, and votes as it always did.
fn says_yes(answer: &[u8]) -> bool {
    answer.is_empty() || read_answer::<bool>(answer).is_some_and(|(yes, _)| yes)
}
