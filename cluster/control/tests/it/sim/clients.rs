//! Who uses the cluster while it is broken: readers and writers of shared keys, and holders of leases.

use crate::sim::cluster::{Cluster, Machine};
use crate::sim::linear::{Act, KEYS, Operation, Outcome, Value};
use crate::sim::record::Renewal;
use control::{Compare, Entry, Operation as Step, Space, SpaceError, Txn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use storage::replicated::ProposeError;
use world::random::Dice;

/// Few enough that clients meet.
pub(crate) const FAMILIES: usize = 8;
/// Longer than the cluster's own patience; some clients have less.
const PATIENCE_MS: u64 = 12_000;

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) cluster: Cluster,
    /// Time between two calls of a client, on average.
    pub(crate) think_ms: u64,
    /// No value is written twice.
    pub(crate) values: Arc<AtomicU64>,
    pub(crate) ended: Arc<AtomicBool>,
}

pub(crate) fn key(family: usize, key: usize) -> String {
    format!("f{family}/{key}")
}

/// Why a call has no answer.
struct Failed {
    /// It may have happened, or happen yet. What a space says never happened is taken at its word, and checked.
    maybe: bool,
    why: String,
}

impl From<SpaceError> for Failed {
    fn from(error: SpaceError) -> Self {
        let never = matches!(
            &error,
            SpaceError::Unavailable(ProposeError::NoLeader | ProposeError::Busy { .. } | ProposeError::DiskFull)
                | SpaceError::DiskFull
                | SpaceError::LeaseNotFound { .. }
        );
        Self { maybe: !never, why: error.to_string() }
    }
}

impl Load {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn value(&self) -> Value {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The machine asked last, as long as it answers; else any, of the group if it is known who is in it.
    fn node(&self, dice: &Dice, last: Option<u64>) -> u64 {
        let members = self.cluster.members();
        if let Some(last) = last.filter(|last| members.contains(last) && !dice.roll().is_multiple_of(8)) {
            return last;
        }
        let group = self.cluster.led().map(|led| led.voters.union(&led.learners).copied().collect::<Vec<_>>());
        let group = group.filter(|group| !group.is_empty() && !dice.roll().is_multiple_of(8)).unwrap_or(members);
        group[(dice.roll() % group.len() as u64) as usize]
    }

    /// Asks a machine as a client over the network does.
    async fn ask<T, F>(&self, node: u64, dice: &Dice, work: impl FnOnce(Space) -> F) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SpaceError>> + Send + 'static,
    {
        tokio::time::sleep(self.cluster.net.delay()).await;
        let Some(Machine { host, space, .. }) = self.cluster.machine(node) else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            return Err(Failed { maybe: false, why: "nobody is there".to_owned() });
        };
        let patience_ms = if dice.roll().is_multiple_of(8) { dice.roll() % 2_000 } else { PATIENCE_MS };
        let work = host.spawn(work(space));
        let answered = tokio::time::timeout(Duration::from_millis(patience_ms), work).await;
        tokio::time::sleep(self.cluster.net.delay()).await;
        let lost = |why: &str| Failed { maybe: true, why: why.to_owned() };
        answered.map_err(|_| lost("no patience"))?.map_err(|_| lost("it was killed"))?.map_err(Failed::from)
    }

    /// Reads and writes until the end.
    pub(crate) async fn client(self, number: usize, dice: Dice) {
        let mut last = None;
        // What it saw last of each key: what it swaps from.
        let mut seen = [[None; KEYS]; FAMILIES];
        while !self.has_ended() {
            tokio::time::sleep(Duration::from_millis(dice.roll() % (2 * self.think_ms))).await;
            let node = self.node(&dice, last);
            let family = (dice.roll() % FAMILIES as u64) as usize;
            let operation = self.draw(&dice, &seen[family]);
            let call = self.cluster.record.called(number, node, family, operation.clone());
            match self.perform(node, &dice, family, operation.clone()).await {
                Ok((outcome, revision)) => {
                    learn(&operation, &outcome, &mut seen[family]);
                    self.cluster.record.answered(call, outcome, revision);
                    last = Some(node);
                }
                Err(Failed { maybe, why }) => {
                    self.cluster.record.failed(call, maybe, &why);
                    last = None;
                }
            }
        }
    }

    fn draw(&self, dice: &Dice, seen: &[Option<Value>; KEYS]) -> Operation {
        let key = (dice.roll() % KEYS as u64) as usize;
        let other = (key + 1) % KEYS;
        let swap = |compares: Vec<usize>, success: Vec<Act>| {
            let failure = compares.iter().map(|key| Act::Get(*key)).collect();
            let compares = compares.into_iter().map(|key| (key, seen[key])).collect();
            Operation { compares, success, failure }
        };
        let plain = |success| Operation { success, ..Operation::default() };
        match dice.roll() % 100 {
            0..35 => plain(vec![Act::Get(key)]),
            35..45 => plain((0..KEYS).map(Act::Get).collect()),
            45..60 => plain(vec![Act::Put(key, self.value())]),
            60..80 => swap(vec![key], vec![Act::Put(key, self.value())]),
            80..86 => plain(vec![Act::Delete(key)]),
            _ => {
                let value = self.value();
                swap(vec![key, other], vec![Act::Put(key, value), Act::Get(other), Act::Put(other, self.value())])
            }
        }
    }

    async fn perform(
        &self,
        node: u64,
        dice: &Dice,
        family: usize,
        operation: Operation,
    ) -> Result<(Outcome, Option<u64>), Failed> {
        let read = |entry: Option<&Entry>| entry.map(value);
        let seen = |read| (Outcome { succeeded: true, read }, None);
        if operation.compares.is_empty() {
            let keys = operation.success.iter().map(|act| if let Act::Get(key) = act { Some(*key) } else { None });
            match keys.collect::<Option<Vec<_>>>().as_deref() {
                Some([single]) => {
                    let name = key(family, *single);
                    let entry = self.ask(node, dice, |space| async move { space.get(&name).await }).await?;
                    return Ok(seen(vec![read(entry.as_ref())]));
                }
                Some(_) => {
                    let prefix = format!("f{family}/");
                    let listing = self.ask(node, dice, |space| async move { space.list(&prefix).await }).await?;
                    let named = |wanted: usize| listing.entries.iter().find(|entry| entry.key == key(family, wanted));
                    return Ok(seen((0..KEYS).map(|key| read(named(key))).collect()));
                }
                None => {}
            }
        }
        let txn = transaction(family, &operation);
        let committed = self.ask(node, dice, |space| async move { space.commit(txn).await }).await?;
        let read = committed.replies.iter().map(|reply| read(reply.first())).collect();
        Ok((Outcome { succeeded: committed.succeeded, read }, Some(committed.revision)))
    }

    /// Holds a lease for a while, lets it end, and begins anew.
    pub(crate) async fn holder(self, number: usize, dice: Dice) {
        let mut last = None;
        let mut round = 0;
        while !self.has_ended() {
            round += 1;
            let key = format!("held/{number}/{round}");
            let ttl_ms = 2_000 + dice.roll() % 8_000;
            let node = self.node(&dice, last.take());
            let asked_ms = self.cluster.record.now_ms();
            let Ok(lease) = self.ask(node, &dice, |space| async move { space.grant(ttl_ms).await }).await else {
                tokio::time::sleep(Duration::from_millis(1_000)).await;
                continue;
            };
            let put = Txn::new().put_leased(key.clone(), *b"held", lease);
            if self.ask(node, &dice, |space| async move { space.commit(put).await }).await.is_err() {
                continue;
            }
            self.cluster.record.renewed(Renewal { key: key.clone(), asked_ms, ttl_ms });
            last = Some(node);
            for _ in 0..dice.roll() % 12 {
                tokio::time::sleep(Duration::from_millis(dice.roll() % ttl_ms)).await;
                let node = self.node(&dice, last.take());
                let asked_ms = self.cluster.record.now_ms();
                match self.ask(node, &dice, |space| async move { space.renew(lease).await }).await {
                    Ok(ttl_ms) => {
                        self.cluster.record.renewed(Renewal { key: key.clone(), asked_ms, ttl_ms });
                        last = Some(node);
                    }
                    Err(Failed { maybe: false, .. }) => break,
                    Err(Failed { .. }) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(dice.roll() % (2 * ttl_ms))).await;
        }
    }
}

fn value(entry: &Entry) -> Value {
    Value::from_le_bytes(entry.value.as_ref().try_into().expect("clients write eight bytes"))
}

fn transaction(family: usize, operation: &Operation) -> Txn {
    let mut txn = Txn::new();
    for (wanted, value) in &operation.compares {
        let name = key(family, *wanted);
        txn = txn.when(match value {
            Some(value) => Compare::value(name, value.to_le_bytes()),
            None => Compare::absent(name),
        });
    }
    let step = |act: &Act| match act {
        Act::Put(wanted, value) => {
            Step::Put { key: key(family, *wanted), value: value.to_le_bytes().into(), lease: None }
        }
        Act::Delete(wanted) => Step::Delete { key: key(family, *wanted) },
        Act::Get(wanted) => Step::Get { key: key(family, *wanted) },
    };
    txn = operation.success.iter().map(step).fold(txn, Txn::and);
    operation.failure.iter().map(step).fold(txn, Txn::otherwise)
}

/// What a client knows after an answer.
fn learn(operation: &Operation, outcome: &Outcome, seen: &mut [Option<Value>; KEYS]) {
    let mut read = outcome.read.iter();
    for act in if outcome.succeeded { &operation.success } else { &operation.failure } {
        match act {
            Act::Put(key, value) => seen[*key] = Some(*value),
            Act::Delete(key) => seen[*key] = None,
            Act::Get(key) => seen[*key] = read.next().copied().flatten(),
        }
    }
}
