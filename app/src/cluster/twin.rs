//! That a machine is there once: which of its lives this process is, and whether another machine lives with its key.
//!
//! Owns the number of the life ([`Incarnation`]) and what a machine that begins has the others look at. A life is numbered from
//! the machine's own folder and written down in the state of record. A copy of the folder would give the life that is under
//! way, or one that was, the same number or a greater one: it is found by being met, or by its number. Promises that a machine
//! that is met, or whose folder is behind, takes no part: it is refused before it opens its log, so that nobody votes twice.
//!
//! Left open: a copy that reaches neither the machine it is a copy of nor anybody who does, and a copy that begins while that
//! machine is off: this cannot be told from a machine that has moved. Then the other is refused when it is back.

use super::Cluster;
use super::home::{Home, HomeError, Standing};
use super::places::Places;
use control::view::View;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meter::{Counter, Meter};
use rpc::{CallError, Code, Failure, Identity, Patience, Peers, Revoked, Terms};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wire::identity::NodeId;
use wire::resource::{Incarnation, Member};

/// Asks whether a machine is there; it says which life of it this is.
pub const PING: &str = "cluster/ping";
/// Asks whether a machine may begin.
pub const BEGIN: &str = "cluster/begin";
/// A machine that lives answers in a few milliseconds; one on a busy processor needs some hundred.
const MET_WITHIN: Duration = Duration::from_secs(1);
/// Whoever is asked meets the machine first. All are asked at once, and those that are off keep nobody waiting for longer.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// A machine that has begun listens to others within this: until then a second one with its key has to wait.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(500);
const WORD_CHARACTERS: usize = 12;
/// As many as a machine tells of itself.
const ADDRESSES_MAX: usize = 8;

/// What a machine says of its life.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Life {
    pub incarnation: Incarnation,
    pub addresses: Vec<SocketAddr>,
    /// What time it is there.
    #[serde(default)]
    pub now_ms: u64,
}

/// Why a machine does not begin.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Twin {
    message: String,
    pub hint: String,
}

impl Life {
    pub fn is_same(&self, other: &Life) -> bool {
        self.incarnation == other.incarnation
    }

    fn shares_address(&self, other: &Life) -> bool {
        self.addresses.iter().any(|address| other.addresses.contains(address))
    }
}

/// The life after the one whose number is in the folder. It counts only when it was kept.
pub fn next(home: &Home) -> Result<Incarnation, HomeError> {
    let number = home.incarnation()?.map_or(0, |last| last.number).saturating_add(1);
    Ok(Incarnation { number, word: world::random::word(WORD_CHARACTERS) })
}

/// Asks the machine that was there under this name, wherever it may still be, and everybody who may know of it.
pub async fn look_for(
    me: &str,
    standing: &Standing,
    life: &Life,
    met: &[Member],
    places: &Places,
) -> Result<Result<(), Twin>, HomeError> {
    let identity = Identity::new(standing.credentials()?);
    let (node, revoked) = (identity.node(), Revoked::new());
    let peers = Peers::new(identity, revoked, Patience::default(), &Meter::new());
    let others: Vec<NodeId> =
        met.iter().filter(|member| member.id != me && !member.revoked).map(|member| member.node).collect();
    places.know(met.iter());
    for member in met.iter().filter(|member| others.contains(&member.node)) {
        peers.set_addresses(member.node, &places.of(member.node));
    }
    let own = met.iter().find(|member| member.id == me).map(|member| member.addresses.clone()).unwrap_or_default();
    let until = world::clock::monotonic() + BEGINS_WITHIN;
    loop {
        if let Some(there) = meet(&peers, node, life, &own).await {
            return Ok(Err(Twin::of(me, life, &there)));
        }
        match ask(&peers, &others, life).await {
            Ok(()) => return Ok(Ok(())),
            Err(failure) if failure.code == Code::Unavailable && world::clock::monotonic() < until => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(failure) => return Ok(Err(failure.into())),
        }
    }
}

/// Whether everybody who answers lets this life begin. Programs that do not know the question say nothing.
pub async fn ask(peers: &Peers, others: &[NodeId], life: &Life) -> Result<(), Failure> {
    let request = serde_json::to_vec(life).map_err(super::internal)?;
    let mut asked: FuturesUnordered<_> =
        others.iter().map(|node| peers.call(*node, BEGIN, request.clone(), Terms::within(ASKED_WITHIN))).collect();
    let mut wait = Ok(());
    while let Some(answer) = asked.next().await {
        match answer {
            Err(CallError::Failed { failure }) if failure.code == Code::FailedPrecondition => return Err(failure),
            Err(CallError::Failed { failure }) if failure.code == Code::Unavailable => wait = Err(failure),
            Ok(_) | Err(_) => {}
        }
    }
    wait
}

/// Another life of machine `node` at these addresses, if one answers there.
pub async fn meet(peers: &Peers, node: NodeId, life: &Life, at: &[SocketAddr]) -> Option<Life> {
    let elsewhere: Vec<SocketAddr> = at.iter().filter(|address| !life.addresses.contains(address)).copied().collect();
    if elsewhere.is_empty() {
        return None;
    }
    peers.set_addresses(node, &elsewhere);
    answers(peers, node, life).await
}

async fn answers(peers: &Peers, node: NodeId, life: &Life) -> Option<Life> {
    let answer = peers.call(node, PING, Vec::new(), Terms::within(MET_WITHIN)).await.ok()?;
    // One of before it said so says nothing: it cannot be told from this one.
    let there: Life = serde_json::from_slice(&answer.bytes).ok()?;
    (!there.is_same(life)).then_some(there)
}

impl Twin {
    pub fn of(machine: &str, life: &Life, there: &Life) -> Twin {
        let (here, there) = (list(&life.addresses), list(&there.addresses));
        Twin {
            message: format!("machine {machine} runs already at {there}; this one at {here} has the same key"),
            hint: "one's data folder is a copy of the other's: give this one a folder of its own (`--data DIR`) and have it join \
                   with a new token; if it is to take the other's place, stop that one for good first"
                .to_owned(),
        }
    }

    fn behind(machine: &str, life: &Life, known: &Member) -> Twin {
        let (here, there) = (list(&life.addresses), list(&known.addresses));
        Twin {
            message: format!(
                "machine {machine} has lived on at {there} since this data folder, at {here}, was its own"
            ),
            hint: "the folder is a copy, or was put back to an earlier state: what it has agreed to since is missing, and it must \
                   not vote; give it an empty folder (`--data DIR`) and have it join with a new token"
                .to_owned(),
        }
    }

    fn failure(self) -> Failure {
        Failure::new(Code::FailedPrecondition, self.message).with_hint(self.hint)
    }
}

impl From<Failure> for Twin {
    fn from(failure: Failure) -> Twin {
        Twin { message: failure.message, hint: failure.hint }
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
    texts.join(", ")
}

/// Whether the life of which this folder has the last number may be followed by `next`, where the cluster knows `known`.
fn is_behind(known: &Incarnation, next: &Incarnation) -> bool {
    known.number > next.number || (known.number == next.number && known.word != next.word)
}

/// Looks at machines that begin.
pub struct Witness {
    cluster: Arc<Cluster>,
    peers: Peers,
    view: View,
    places: Arc<Places>,
    begun: Mutex<BTreeMap<NodeId, (Life, Instant)>>,
}

impl Witness {
    pub fn new(cluster: Arc<Cluster>, peers: Peers, view: View, places: Arc<Places>) -> Witness {
        Witness { cluster, peers, view, places, begun: Mutex::default() }
    }

    /// Which life of this machine this is.
    pub fn life(&self) -> Option<Life> {
        self.cluster.life()
    }

    /// Says whether the machine with this key may begin the life it asks for.
    pub async fn admit(&self, caller: NodeId, asked: &Life) -> Result<(), Failure> {
        // Whoever calls may be where nobody knows it to be.
        if self.places.found(caller, &asked.addresses) {
            self.peers.set_addresses(caller, &self.places.of(caller));
        }
        let known = self.view.borrow().members.values().find(|member| member.node == caller).cloned();
        // It has joined, and this one has not heard of it yet.
        let Some(known) = known else { return Ok(()) };
        if known.incarnation.as_ref().is_some_and(|last| is_behind(last, &asked.incarnation)) {
            return Err(self.refuse(&known, Twin::behind(&known.id, asked, &known)));
        }
        if let Some(there) = answers(&self.peers, caller, asked).await {
            return Err(self.refuse(&known, Twin::of(&known.id, asked, &there)));
        }
        let now = world::clock::monotonic();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|_, (_, at)| now.saturating_duration_since(*at) < BEGINS_WITHIN);
        if let Some((first, _)) = begun.get(&caller)
            && !first.is_same(asked)
            && !first.shares_address(asked)
        {
            let message = format!("machine {} begins at {} just now", known.id, list(&first.addresses));
            return Err(Failure::new(Code::Unavailable, message)
                .with_hint("is this data folder a copy of that machine's? give it one of its own (`--data DIR`)"));
        }
        begun.insert(caller, (asked.clone(), now));
        Ok(())
    }

    fn refuse(&self, known: &Member, twin: Twin) -> Failure {
        tracing::error!(machine = known.id, reason = twin.message, "a second machine with one key was refused");
        seen(&self.cluster.meter, &known.id).inc();
        twin.failure()
    }
}

/// Counts that two machines with the key of `machine` were met.
pub fn seen(meter: &Meter, machine: &str) -> Counter {
    let help = "How often two machines with one key were met: one data folder is a copy of the other.";
    meter.counter("bramble_cluster_twins_met_total", help, &[("machine", machine)])
}

#[cfg(test)]
mod tests {
    use super::is_behind;
    use wire::resource::Incarnation;

    #[test]
    fn a_folder_is_behind_when_its_machine_has_lived_on() {
        let life = |number, word: &str| Incarnation { number, word: word.to_owned() };
        let check = |known, next, expected| assert_eq!(is_behind(&known, &next), expected, "{known:?} {next:?}");
        // Started again, also when the last start got nowhere; and after the cluster was put back to a backup.
        check(life(4, "a"), life(5, "b"), false);
        check(life(4, "a"), life(9, "b"), false);
        // The same life once more, as after an upgrade that failed.
        check(life(4, "a"), life(4, "a"), false);
        // A copy, of which the other half was started before it, or more than once.
        check(life(5, "a"), life(5, "b"), true);
        check(life(7, "a"), life(5, "b"), true);
    }
}
