//! Instances that stop by themselves on a machine that is cut off, so that another may have their place.
//!
//! Owns the lease that each machine has on those it runs, the count of who leads (`membership::fencing`), and the answer to a
//! demand that one be fenced: who leads gives no lease on it any more, and says that it is done when the last one has surely
//! ended. Promises that nothing of a lease is written to disk. Never knows what becomes of an instance whose lease has ended: that is
//! its shim's.

use super::{internal, leader};
use containers::{Lease, Leases};
use control::view::{Snapshot, View};
use control::{Compare, Space, SpaceError, Txn};
use membership::fencing::{self, Count};
use meter::Meter;
use replication::Group;
use rpc::{Failure, Peers};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::resource::{Fence, Instance, Member, Presence, Wanted, key};

/// Asks who leads for the lease of a machine.
pub const HOLD: &str = "cluster/hold-instances";
/// So many renewals are lost before an instance stops.
const RENEWALS: u32 = 5;
/// As long as a question may take at most; the shortest lease is renewed more often.
const ASK_MAX: Duration = Duration::from_secs(5);
/// After a question that came to nothing: another machine may lead by then.
const AGAIN: Duration = Duration::from_millis(500);
/// Of one machine: far more than it runs.
const INSTANCES_MAX: usize = 4_096;

/// What a machine says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub machine: String,
    /// Those it has.
    pub instances: BTreeSet<String>,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Granted {
    /// Those that may go on for their `stop_after`, from when the machine asked, and what is wanted of them.
    pub instances: BTreeMap<String, Wanted>,
}

/// The count of who leads, with its term.
#[derive(Default)]
pub struct Lessor {
    count: Mutex<Option<(u64, Count)>>,
}

impl Lessor {
    /// Answers a machine.
    pub async fn answer(&self, group: &Group, space: &Space, asked: &Asked) -> Result<Granted, Failure> {
        let (term, held) = leader::confirmed(group, held(space, asked)).await?;
        // A demand that is newer than what was read is known by its count.
        let granted = self.counted(term, |count| {
            let now_ms = world::clock::boot_ms();
            let given = held.into_iter().filter(|(id, stop_after_ms, _)| count.give(now_ms, id, *stop_after_ms));
            given.map(|(id, _, wanted)| (id, wanted)).collect()
        });
        Ok(Granted { instances: granted })
    }

    /// With the count of this term; it begins when it is looked at first.
    fn counted<T>(&self, term: u64, look: impl FnOnce(&mut Count) -> T) -> T {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let known = count.take().filter(|(known, _)| *known == term);
        let (_, count) = count.insert(known.unwrap_or_else(|| (term, Count::new(world::clock::boot_ms()))));
        look(count)
    }
}

/// Those a machine asks for that are its own, stop by themselves and are not to be fenced, as a majority has it.
async fn held(space: &Space, asked: &Asked) -> Result<Vec<(String, u64, Wanted)>, SpaceError> {
    let fences = space.list(key::FENCES).await?;
    let is_fenced = |id: &str| fences.entries.iter().any(|entry| entry.key == key::fence(id));
    let known = asked.instances.iter().take(INSTANCES_MAX).filter(|id| !is_fenced(id)).filter_map(|id| {
        let at = key::instance(id);
        let entry = space.list_local(&at).entries.into_iter().find(|entry| entry.key == at)?;
        let instance = entry.json::<Instance>().ok().filter(|instance| instance.node == asked.machine)?;
        Some((id.clone(), instance.spec.disconnect.stop_after_ms?, instance.wanted))
    });
    Ok(known.collect())
}

/// Answers demands while this machine leads.
pub struct Fences {
    pub group: Group,
    pub space: Space,
    pub view: View,
    pub lessor: Arc<Lessor>,
    pub meter: Meter,
}

impl Fences {
    /// Runs until it is dropped, anywhere: what is to be done is found again.
    pub async fn answer(self) {
        let counter = |outcome| {
            let help = "Demands that an instance be kept from running, by what became of them.";
            self.meter.counter("bramble_cluster_fences_total", help, &[("outcome", outcome)])
        };
        let (done, withdrawn) = (counter("done"), counter("withdrawn"));
        let mut view = self.view.clone();
        loop {
            let snapshot = view.borrow_and_update().clone();
            let wake = match self.turn(&snapshot).await {
                Ok(turn) => {
                    done.add(turn.done);
                    withdrawn.add(turn.withdrawn);
                    turn.wake
                }
                Err(failure) => {
                    tracing::warn!(why = failure.message, "what became of a fence cannot be written down yet");
                    Some(AGAIN)
                }
            };
            let alarm = async {
                match wake {
                    Some(wake) => tokio::time::sleep(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = alarm => {}
            }
        }
    }

    async fn turn(&self, snapshot: &Snapshot) -> Result<Turn, Failure> {
        let mut turn = Turn::default();
        let open = || snapshot.fences.values().filter(|fence| !fence.done);
        if !leader::is_here(&self.group) {
            // It may come to lead without anything else changing.
            turn.wake = open().next().map(|_| AGAIN);
            return Ok(turn);
        }
        let term = self.group.term();
        self.lessor.counted(term, |count| count.keep_closed(|id| snapshot.fences.contains_key(id)));
        for fence in open() {
            let wake = if is_lost(snapshot, &fence.node) {
                // One that never stops by itself is waited for.
                let Some(stop_after_ms) = snapshot.instances.get(&fence.instance).and_then(stop_after_ms) else {
                    continue;
                };
                let over_ms = self.lessor.counted(term, |count| count.close(&fence.instance, stop_after_ms));
                match over_ms.saturating_sub(world::clock::boot_ms()) {
                    0 if self.conclude(term, fence, true).await? => {
                        turn.done += 1;
                        continue;
                    }
                    0 => AGAIN,
                    left_ms => Duration::from_millis(left_ms),
                }
            } else if self.conclude(term, fence, false).await? {
                // Its machine is back before it was certain: nothing was started in its place.
                turn.withdrawn += 1;
                continue;
            } else {
                AGAIN
            };
            turn.wake = Some(turn.wake.map_or(wake, |earlier| earlier.min(wake)));
        }
        Ok(turn)
    }

    /// Writes down that it is done, or demanded no more. False: somebody was faster.
    async fn conclude(&self, term: u64, fence: &Fence, is_done: bool) -> Result<bool, Failure> {
        let at = key::fence(&fence.instance);
        // The count is worth nothing where another machine has led since: that may have given a lease before the demand.
        let (confirmed, stored) = leader::confirmed(&self.group, self.space.get(&at)).await?;
        let Some(stored) = stored.filter(|_| confirmed == term) else { return Ok(false) };
        if stored.json::<Fence>().ok().as_ref() != Some(fence) {
            return Ok(false);
        }
        let txn = Txn::new().when(Compare::mod_revision(&at, stored.mod_revision));
        let txn = if is_done { txn.put_json(&at, &Fence { done: true, ..fence.clone() }) } else { txn.delete(&at) };
        let written = self.space.commit(txn).await.map_err(internal)?.succeeded;
        if written {
            let (instance, machine) = (&fence.instance, &fence.node);
            let waited_ms = world::clock::unix_ms().saturating_sub(fence.demanded_ms);
            match is_done {
                true => tracing::warn!(instance, machine, waited_ms, "fenced: its machine has surely stopped it"),
                false => tracing::info!(instance, machine, waited_ms, "not fenced: its machine is back"),
            }
        }
        Ok(written)
    }
}

/// What was done, and when to look again.
#[derive(Default)]
struct Turn {
    done: u64,
    withdrawn: u64,
    wake: Option<Duration>,
}

fn stop_after_ms(instance: &Arc<Instance>) -> Option<u64> {
    instance.spec.disconnect.stop_after_ms
}

/// By verdict, or no member any more.
fn is_lost(snapshot: &Snapshot, machine: &str) -> bool {
    let is_member = snapshot.members.get(machine).is_some_and(|member| !member.revoked);
    !is_member || matches!(snapshot.presence(machine), Presence::Down { .. })
}

/// Whether a machine is the only one. One that does not know itself knows too little to say so.
pub fn is_alone<'a>(me: &str, members: impl Iterator<Item = &'a Member>) -> bool {
    let present: Vec<&str> = members.filter(|member| !member.revoked).map(|member| member.id.as_str()).collect();
    present == [me]
}

/// What the holder's side needs of the node.
pub struct Holder {
    pub me: String,
    pub group: Group,
    pub space: Space,
    pub view: View,
    pub peers: Peers,
    pub lessor: Arc<Lessor>,
    /// The agent goes by it.
    pub leases: watch::Sender<Leases>,
}

impl Holder {
    /// Has a lease on whatever of this machine needs one, until it is dropped, anywhere.
    pub async fn hold(self) {
        let mut view = self.view.clone();
        let mut failing = Failing::default();
        loop {
            let mine = self.mine(&view.borrow_and_update());
            let due = match mine.as_ref().and_then(|mine| mine.values().min().copied()) {
                None => {
                    self.put(if mine.is_some() { Leases::Among(BTreeMap::new()) } else { Leases::Alone });
                    None
                }
                Some(least_ms) => Some(self.renew(mine.as_ref(), least_ms, &mut failing).await),
            };
            let due = due.map(|pause| world::clock::monotonic() + pause);
            while self.mine(&view.borrow_and_update()) == mine {
                let alarm = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = alarm => break,
                    changed = view.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    /// What this machine has that stops by itself, and after how long; `None` where there is no other machine.
    fn mine(&self, snapshot: &Snapshot) -> Option<BTreeMap<String, u64>> {
        if is_alone(&self.me, snapshot.members.values()) {
            return None;
        }
        let mine = snapshot.instances.iter().filter(|(_, instance)| instance.node == self.me);
        let stops = mine.filter_map(|(id, instance)| Some((id.clone(), stop_after_ms(instance)?)));
        Some(stops.take(INSTANCES_MAX).collect())
    }

    /// Asks once; how long to wait before it asks again.
    async fn renew(&self, mine: Option<&BTreeMap<String, u64>>, least_ms: u64, failing: &mut Failing) -> Duration {
        let (none, pause) = (BTreeMap::new(), Duration::from_millis(least_ms) / RENEWALS);
        let mine = mine.unwrap_or(&none);
        let asked_ms = world::clock::boot_ms();
        let asked = Asked { machine: self.me.clone(), instances: mine.keys().cloned().collect() };
        let within = pause.min(ASK_MAX);
        let answered = tokio::time::timeout(within, self.ask(&asked, within)).await;
        let granted = match answered {
            Ok(Ok(granted)) => granted,
            Ok(Err(failure)) => return failing.again(&failure.message, asked_ms, least_ms),
            Err(_) => return failing.again("no answer came", asked_ms, least_ms),
        };
        failing.heard_ms = Some(asked_ms);
        failing.is_told = false;
        let before = match &*self.leases.borrow() {
            Leases::Alone => BTreeMap::new(),
            Leases::Among(before) => before.clone(),
        };
        self.put(Leases::Among(renewed(&before, mine, asked_ms, &granted)));
        pause
    }

    async fn ask(&self, asked: &Asked, within: Duration) -> Result<Granted, Failure> {
        if leader::is_here(&self.group) {
            return self.lessor.answer(&self.group, &self.space, asked).await;
        }
        leader::ask(&self.group, &self.view, &self.peers, HOLD, asked, within).await
    }

    fn put(&self, leases: Leases) {
        self.leases.send_if_modified(|before| std::mem::replace(before, leases.clone()) != leases);
    }
}

/// What this machine has leases on after an answer. One that was not renewed runs out.
fn renewed(
    before: &BTreeMap<String, Lease>,
    mine: &BTreeMap<String, u64>,
    asked_ms: u64,
    granted: &Granted,
) -> BTreeMap<String, Lease> {
    let lease = |(id, stop_after_ms): (&String, &u64)| {
        let lease = match (granted.instances.get(id), before.get(id)) {
            (Some(wanted), before) => {
                let until_ms = fencing::held_until_ms(asked_ms, *stop_after_ms);
                let until_boot_ms = before.map_or(until_ms, |before| before.until_boot_ms.max(until_ms));
                Lease { until_boot_ms, wanted: *wanted }
            }
            (None, Some(before)) => Lease { wanted: Wanted::Stopped, ..*before },
            (None, None) => return None,
        };
        Some((id.clone(), lease))
    };
    mine.iter().filter_map(lease).collect()
}

/// Questions that came to nothing.
#[derive(Default)]
struct Failing {
    /// When the last one was asked that was answered, by the clock since boot.
    heard_ms: Option<u64>,
    is_told: bool,
}

impl Failing {
    /// Said once, when half of the shortest lease is over.
    fn again(&mut self, why: &str, asked_ms: u64, least_ms: u64) -> Duration {
        let silent_ms = self.heard_ms.map_or(0, |heard_ms| asked_ms.saturating_sub(heard_ms));
        if silent_ms > least_ms / 2 && !self.is_told {
            self.is_told = true;
            let left_ms = least_ms.saturating_sub(silent_ms);
            tracing::warn!(why, silent_ms, left_ms, "no word from who leads: what must not run twice is about to stop");
        }
        tracing::debug!(why, "leases on instances are not renewed");
        AGAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_renewed_runs_out_and_is_not_started_again() {
        let map = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), 10_000)).collect::<BTreeMap<_, u64>>();
        let granted = |ids: &[(&str, Wanted)]| Granted {
            instances: ids.iter().map(|(id, wanted)| ((*id).to_owned(), *wanted)).collect(),
        };
        let lease = |until_boot_ms, wanted| Lease { until_boot_ms, wanted };
        let both = [("a", Wanted::Running), ("b", Wanted::Stopped)];
        let first = renewed(&BTreeMap::new(), &map(&["a", "b", "c"]), 1_000, &granted(&both));
        assert_eq!(first.len(), 2, "nothing was said of c");
        assert_eq!(first["a"], lease(11_000, Wanted::Running));
        assert_eq!(first["b"], lease(11_000, Wanted::Stopped));
        let next = renewed(&first, &map(&["a"]), 2_000, &granted(&[]));
        assert_eq!(next, BTreeMap::from([("a".to_owned(), lease(11_000, Wanted::Stopped))]));
        let late = renewed(&first, &map(&["a"]), 500, &granted(&both));
        assert_eq!(late["a"], lease(11_000, Wanted::Running), "what was given is not taken back");
    }
}
