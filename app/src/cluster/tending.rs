//! Being a member: known by its present addresses, as the life it is, with a certificate that has not ended.
//!
//! Promises that a machine which is not the one on record, and meets that one, is no member any more: it stops.

use super::home::Standing;
use super::twin::{self, Twin};
use super::{Cluster, RENEW, clocks, discovery, disk, entry, internal};
use control::view::View;
use control::{Compare, Space, SpaceError, Txn};
use rpc::{Code, Failure, Identity, Peers, Terms};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::identity::NodeId;
use wire::join::JoinAnswer;
use wire::resource::{Member, key};

/// How often a member looks whether its certificate is to be renewed and its addresses have changed.
const TEND: Duration = Duration::from_secs(10);
/// And again after a failure, as nobody led just then.
const TEND_AGAIN: Duration = Duration::from_millis(500);
const RENEWED_WITHIN: Duration = Duration::from_secs(5);
/// Certificates begin a day before they are made. One that was made by a clock further off than half of that would count with
/// nobody, and the machine that has it could never come back by itself.
const SKEW_MS_MAX: u64 = 12 * 3_600 * 1_000;

pub struct Tending {
    pub cluster: Arc<Cluster>,
    pub identity: Identity,
    pub standing: Standing,
    pub peers: Peers,
    pub space: Space,
    pub view: View,
    /// By how much this machine's clock is ahead of the others', if that is known.
    pub own_clock: watch::Receiver<Option<i64>>,
    /// What members share to find each other, once it is known.
    pub secret: watch::Sender<Option<Vec<u8>>>,
    /// How fast its disk is, once that is known.
    pub fsync_p99_us: Option<u64>,
}

impl Tending {
    /// Runs until it is dropped, anywhere.
    pub async fn keep(mut self) {
        self.fsync_p99_us = self.measure_disk().await;
        let mut looked = world::clock::monotonic();
        loop {
            match self.be_known().await {
                Ok(None) => {}
                Ok(Some(twin)) => return self.stop(&twin),
                Err(error) => {
                    tracing::debug!(%error, "this machine's record cannot be brought up to date yet");
                    tokio::time::sleep(TEND_AGAIN).await;
                    // Nobody tells anything to a machine that has the place of another: it has to ask.
                    if world::clock::monotonic().saturating_duration_since(looked) >= TEND {
                        looked = world::clock::monotonic();
                        if let Err(twin) = self.look_for_twin().await {
                            return self.stop(&twin);
                        }
                    }
                    continue;
                }
            }
            if self.secret.borrow().is_none()
                && let Err(error) = self.learn_secret().await
            {
                tracing::debug!(%error, "what members share to find each other is not known yet");
            }
            if entry::now_s() >= self.standing.certificate.renew_at_s()
                && let Err(error) = self.renew().await
            {
                tracing::warn!(%error, "this machine's certificate cannot be renewed yet");
            }
            // Somebody who writes as this machine is looked at as soon as what it writes is seen, and not more often than a failure.
            tokio::time::sleep(TEND_AGAIN).await;
            let (mut view, me, own) = (self.view.clone(), &self.cluster.me, self.cluster.incarnation());
            let another =
                view.wait_for(|snapshot| snapshot.members.get(me).is_some_and(|member| member.incarnation != own));
            if let Ok(Err(_closed)) = tokio::time::timeout(TEND, another).await {
                return;
            }
        }
    }

    /// Kept beside the certificate: when it is needed, nobody can be asked for the state of record.
    async fn learn_secret(&self) -> Result<(), Failure> {
        let (_, kept) = entry::authority(&self.space).await?;
        let secret = discovery::secret(&kept.key_pem);
        self.cluster.home.keep_discovery(&secret).map_err(internal)?;
        self.secret.send_replace(Some(secret));
        Ok(())
    }

    async fn look_for_twin(&self) -> Result<(), Twin> {
        let Some(life) = self.cluster.life() else { return Ok(()) };
        // Not of the state of record: who hears from nobody what of its log counts has none of it.
        let met = self.cluster.home.members().unwrap_or_else(|error| {
            tracing::warn!(error = wire::diagnostic::chain(&error), "who else is a member cannot be read");
            Vec::new()
        });
        let others = met.iter().filter(|member| !member.revoked && member.id != self.cluster.me);
        let others: Vec<NodeId> = others.map(|member| member.node).collect();
        match twin::ask(&self.peers, &others, &life).await {
            Err(failure) if failure.code == Code::FailedPrecondition => Err(failure.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whoever is on record goes on. What runs here is the other's too, and stops before it runs twice for longer.
    fn stop(&self, twin: &Twin) {
        tracing::error!(reason = twin.to_string(), hint = twin.hint, "this machine stops");
        twin::seen(&self.cluster.meter, &self.cluster.me).inc();
        self.cluster.line.lead(None);
        if let Err(error) = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT) {
            tracing::error!(%error, "this machine cannot stop itself: stop it by hand");
        }
    }

    /// As fast as its writes are, this machine may vote or not.
    async fn measure_disk(&self) -> Option<u64> {
        let folder = self.cluster.home.folder().to_owned();
        match tokio::task::spawn_blocking(move || disk::fsync_p99_us(&folder)).await {
            Ok(Ok(p99_us)) => {
                let seconds = Duration::from_micros(p99_us).as_secs_f64();
                let help = "99 of 100 writes were on the disk within this time when the node began.";
                self.cluster.meter.gauge("bramble_cluster_fsync_p99_seconds", help, &[]).set(seconds);
                Some(p99_us)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "how fast this machine's disk writes cannot be measured: it gets no vote");
                None
            }
            Err(_) => None,
        }
    }

    /// Writes down what this machine is now. `Some`: another life of it is on record, and goes on.
    async fn be_known(&self) -> Result<Option<Twin>, SpaceError> {
        let me = &self.cluster.me;
        let known = self.view.borrow().members.get(me).cloned();
        let record = |before| self.cluster.record(before, self.identity.node(), self.fsync_p99_us);
        let is_right = |known: &Member| {
            let now = record(Some(known.clone()));
            let is_as_fast = is_as_fast(known.fsync_p99_us, now.fsync_p99_us);
            (&known.addresses, &known.hostname, &known.incarnation, is_as_fast)
                == (&now.addresses, &now.hostname, &now.incarnation, true)
        };
        if known.as_ref().is_some_and(is_right) {
            return Ok(None);
        }
        let at = key::member(me);
        let stored = self.space.get(&at).await?;
        let revision = stored.as_ref().map_or(0, |entry| entry.mod_revision);
        let before: Option<Member> = stored.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        if before.as_ref().is_some_and(is_right) {
            return Ok(None);
        }
        let others = before.as_ref().filter(|before| before.incarnation.is_some());
        if let (Some(before), Some(life)) = (others, self.cluster.life())
            && before.incarnation.as_ref() != Some(&life.incarnation)
            && let Some(there) = twin::meet(&self.peers, self.identity.node(), &life, &before.addresses).await
        {
            return Ok(Some(Twin::of(me, &life, &there)));
        }
        let member = record(before);
        let txn = Txn::new().when(Compare::mod_revision(&at, revision)).put_json(&at, &member);
        if self.space.commit(txn).await?.succeeded {
            let life = member.incarnation.map_or(0, |incarnation| incarnation.number);
            tracing::info!(life, addresses = ?member.addresses, "this machine's record is up to date");
        }
        Ok(None)
    }

    /// Any member gives the next certificate, this one first: it has the same state of record.
    async fn renew(&mut self) -> Result<(), Failure> {
        if let Some(ahead_ms) = self.own_clock.borrow().filter(|ahead_ms| ahead_ms.unsigned_abs() > SKEW_MS_MAX) {
            return Err(untimely(ahead_ms));
        }
        let request = self.standing.key.request().map_err(internal)?;
        let (node, cluster) = (self.identity.node(), self.standing.certificate.cluster.clone());
        let mut told = entry::renew(&self.space, &cluster, Some(node), &request).await;
        let others: Vec<NodeId> = self.view.borrow().members.values().map(|member| member.node).collect();
        for other in others.into_iter().filter(|other| *other != node) {
            if told.is_ok() {
                break;
            }
            let asked = self.peers.call(other, RENEW, request.clone(), Terms::within(RENEWED_WITHIN)).await;
            told = match asked {
                Ok(answer) => serde_json::from_slice(&answer.bytes).map_err(internal),
                Err(error) => Err(Failure::new(error.code(), error.to_string())),
            };
        }
        let JoinAnswer { chain_pem, roots_pem, now_ms } = told?;
        let ahead_ms = world::clock::unix_ms().cast_signed().saturating_sub(now_ms.cast_signed());
        if ahead_ms.unsigned_abs() > SKEW_MS_MAX {
            return Err(untimely(ahead_ms));
        }
        self.cluster.home.keep(&chain_pem, &roots_pem).map_err(internal)?;
        if let Some(standing) = self.cluster.home.standing().map_err(internal)? {
            self.identity.renew(standing.credentials().map_err(internal)?).map_err(internal)?;
            self.standing = standing;
        }
        Ok(())
    }
}

fn untimely(ahead_ms: i64) -> Failure {
    let message =
        format!("a certificate of now is of no use: this machine's clock is {} the others'", clocks::side(ahead_ms));
    Failure::new(Code::FailedPrecondition, message).with_hint("set the clock of the machine that is wrong")
}

/// Whether a disk that was so fast still is, as far as votes go. What it takes a little longer or shorter is not written down.
fn is_as_fast(before: Option<u64>, now: Option<u64>) -> bool {
    let may_vote = |p99_us: Option<u64>| p99_us.is_some_and(|p99_us| p99_us <= membership::roles::FSYNC_P99_US_MAX);
    before.is_some() == now.is_some() && may_vote(before) == may_vote(now)
}
