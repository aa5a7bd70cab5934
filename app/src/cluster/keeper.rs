//! What whoever leads does for the cluster: lets new members into the group, gives votes as the roles say, and says which
//! machines are down.
//!
//! Level-driven: it looks at members, the group and who answers, and does what is missing, again and again; another
//! leader goes on from the same. Promises that what it writes is only what changed.

use super::gossip;
use super::home::Home;
use super::twin::PING;
use control::view::View;
use control::{Space, Txn};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meter::Meter;
use replication::Group;
use rpc::{Peers, Terms};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wire::resource::{Member, Presence, Verdict, key};

/// Between two looks, while nobody falls silent.
const LOOK: Duration = Duration::from_millis(500);
/// A machine of which gossip says that nobody hears it is asked by another way, and has this long to answer.
const PONG_WITHIN: Duration = Duration::from_millis(400);
/// One of which gossip says nothing yet is down after so long without an answer.
const SILENT_MAX: Duration = Duration::from_millis(2_500);
/// A new member has to catch up within this; then it is tried again.
const CATCH_UP: Duration = Duration::from_secs(30);
/// A process that was asked to have itself replaced, and is still there after so long, is asked again.
const REPLACED_WITHIN: Duration = Duration::from_secs(60);

/// What it needs of the node.
pub struct Keeper {
    pub me: String,
    pub group: Group,
    pub space: Space,
    pub view: View,
    pub peers: Peers,
    pub gossip: watch::Receiver<gossip::Heard>,
    /// Who is to vote, when that is to change.
    pub voters: watch::Receiver<Option<BTreeSet<u64>>>,
    pub meter: Meter,
    pub home: Home,
}

/// What whoever leads knows of each machine.
type Heard = BTreeMap<String, Word>;

#[derive(Debug, Clone, Copy)]
struct Word {
    /// When it was last heard of.
    at: Instant,
    /// It was, and does not only have the benefit of the doubt.
    is_sure: bool,
}

/// Runs until it is dropped, anywhere. Who votes is changed beside the watching: it may have to wait for a majority.
pub async fn run(keeper: Keeper) {
    let (tell, heard) = watch::channel(Heard::new());
    tokio::join!(keeper.watch(tell), keeper.seat(heard));
}

impl Keeper {
    /// Says which machines are down, while this one leads.
    async fn watch(&self, tell: watch::Sender<Heard>) {
        let verdicts = self.meter.counter("bramble_cluster_verdicts_total", "Machines found to be down.", &[]);
        let mut gossip = self.gossip.clone();
        let mut heard = Heard::new();
        let mut replaced: Option<Instant> = None;
        loop {
            // Who falls silent is looked at at once; without gossip, everybody now and then.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, gossip.changed()).await {
                tokio::time::sleep(LOOK).await;
            }
            let overview = self.group.overview();
            let is_due = replaced.is_none_or(|at| world::clock::monotonic() >= at + REPLACED_WITHIN);
            if overview.is_superseded && is_due && self.begin_anew() {
                replaced = Some(world::clock::monotonic());
            }
            if overview.leader == Some(overview.node) {
                let members = self.members();
                let said = gossip.borrow_and_update().clone();
                self.listen(&members, &said, &mut heard).await;
                verdicts.add(self.judge(&members, &heard).await);
            } else {
                // Whoever leads next begins with the benefit of the doubt.
                heard.clear();
            }
            tell.send_replace(heard.clone());
        }
    }

    /// Lets machines in and has them vote, while this one leads.
    async fn seat(&self, mut heard: watch::Receiver<Heard>) {
        let mut voters = self.voters.clone();
        loop {
            let changed = tokio::select! {
                changed = heard.changed() => changed,
                changed = voters.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let overview = self.group.overview();
            if overview.leader != Some(overview.node) {
                continue;
            }
            let (members, heard) = (self.members(), heard.borrow_and_update().clone());
            self.let_in(&members, &heard).await;
            let wanted = voters.borrow_and_update().clone();
            self.let_vote(wanted).await;
        }
    }

    fn members(&self) -> Vec<Member> {
        self.view.borrow().members.values().filter(|member| !member.revoked).cloned().collect()
    }

    /// Has this process replaced by one that puts the state away: clients do not notice. False: not yet.
    fn begin_anew(&self) -> bool {
        if let Err(error) = self.home.supersede() {
            tracing::error!(
                error = wire::diagnostic::chain(&error),
                "this machine cannot take the cluster's state yet"
            );
            return false;
        }
        // As `bramble upgrade` without a word.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2).is_ok()
    }

    /// Finds out who is there: whom gossip hears, and who answers of those whom it does not hear. Who neither is heard nor
    /// answers was last heard of longer ago than a verdict takes.
    async fn listen(&self, members: &[Member], gossip: &gossip::Heard, heard: &mut Heard) {
        heard.retain(|id, _| members.iter().any(|member| member.id == *id));
        let began = world::clock::monotonic();
        for member in members.iter().filter(|member| gossip.alive.contains(&member.node)) {
            heard.insert(member.id.clone(), Word { at: began, is_sure: true });
        }
        let (me, peers) = (&self.me, &self.peers);
        let mut asked: FuturesUnordered<_> = members
            .iter()
            .filter(|member| member.id != *me && !gossip.alive.contains(&member.node))
            .map(|member| async move {
                let answered = peers.call(member.node, PING, Vec::new(), Terms::within(PONG_WITHIN)).await;
                (member, answered.is_ok())
            })
            .collect();
        while let Some((member, answered)) = asked.next().await {
            if answered {
                heard.insert(member.id.clone(), Word { at: world::clock::monotonic(), is_sure: true });
            } else if gossip.silent.contains(&member.node)
                && let Some(longer_ago) = began.checked_sub(SILENT_MAX * 2)
            {
                heard.insert(member.id.clone(), Word { at: longer_ago, is_sure: true });
            }
        }
        for member in members {
            heard.entry(member.id.clone()).or_insert(Word { at: began, is_sure: false });
        }
        heard.insert(self.me.clone(), Word { at: world::clock::monotonic(), is_sure: true });
    }

    /// Writes down who is down, and who is back. How many are newly down.
    async fn judge(&self, members: &[Member], heard: &Heard) -> u64 {
        let now = world::clock::monotonic();
        let snapshot = self.view.borrow().clone();
        let mut txn = Txn::new();
        let (mut changed, mut lost) = (false, 0);
        for member in members {
            let silent = heard.get(&member.id).map_or(Duration::ZERO, |word| now.saturating_duration_since(word.at));
            let was_down = matches!(snapshot.presence(&member.id), Presence::Down { .. });
            let is_down = silent > SILENT_MAX;
            if is_down == was_down {
                continue;
            }
            changed = true;
            let at = key::verdict(&member.id);
            if is_down {
                lost += 1;
                let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                let since_ms = world::clock::unix_ms().saturating_sub(silent_ms);
                tracing::warn!(machine = member.id, hostname = member.hostname, silent_ms, "a machine is down");
                txn = txn.put_json(at, &Verdict { node: member.id.clone(), presence: Presence::Down { since_ms } });
            } else {
                tracing::info!(machine = member.id, hostname = member.hostname, "a machine is back");
                txn = txn.delete(at);
            }
        }
        if changed && let Err(error) = self.space.commit(txn).await {
            tracing::warn!(%error, "verdicts cannot be written down");
            return 0;
        }
        lost
    }

    /// Has everybody follow the group, and nobody who was removed.
    async fn let_in(&self, members: &[Member], heard: &Heard) {
        let overview = self.group.overview();
        let in_group = |number: &u64| overview.voters.contains(number) || overview.learners.contains(number);
        let is_new = |member: &&Member| !in_group(&member.number) && is_heard(member, heard);
        if let Some(new) = members.iter().find(is_new) {
            match tokio::time::timeout(CATCH_UP, self.group.add_learner(new.number)).await {
                Ok(Ok(())) => tracing::info!(machine = new.id, "follows the state of record"),
                Ok(Err(error)) => tracing::warn!(machine = new.id, %error, "cannot follow the state of record yet"),
                Err(_) => tracing::warn!(machine = new.id, "does not catch up with the state of record yet"),
            }
        }
        let gone = overview.learners.iter().find(|number| !members.iter().any(|member| member.number == **number));
        if let Some(number) = gone
            && let Err(error) = self.group.remove_learner(*number).await
        {
            tracing::warn!(%error, "a machine that was removed still follows the state of record");
        }
    }

    /// Has those vote that the roles say.
    async fn let_vote(&self, wanted: Option<BTreeSet<u64>>) {
        let overview = self.group.overview();
        let follows = |number: &u64| overview.voters.contains(number) || overview.learners.contains(number);
        let Some(wanted) = wanted.filter(|wanted| *wanted != overview.voters && wanted.iter().all(follows)) else {
            return;
        };
        match tokio::time::timeout(CATCH_UP, self.group.set_voters(wanted.clone())).await {
            Ok(Ok(())) => tracing::info!(voters = wanted.len(), "who votes has changed"),
            Ok(Err(error)) => tracing::warn!(%error, "who votes cannot be changed yet"),
            Err(_) => tracing::warn!("who votes cannot be changed yet: too few of them answer"),
        }
    }
}

/// Whether it was heard of itself, and not long ago.
fn is_heard(member: &Member, heard: &Heard) -> bool {
    let now = world::clock::monotonic();
    heard.get(&member.id).is_some_and(|word| word.is_sure && now.saturating_duration_since(word.at) <= SILENT_MAX)
}
