//! The lease on being the gateway: given by who leads, held by one machine.
//!
//! Owns how long it runs and who counts it. Promises that who leads counts longer than the holder, so that nobody else is named
//! while the holder may believe in it: the holder counts from when it asked, the leader from when a majority had answered that it
//! still leads. Nothing of it is written to disk: a new leader counts a whole lease first. Never knows what the holder does
//! with it.

use super::{internal, leader};
use control::Space;
use control::view::{Snapshot, View};
use membership::roles::{Assignment, Gateway, Lease};
use meter::{Gauge, Meter};
use replication::Group;
use rpc::{Code, Failure, Peers};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use wire::resource::key;

/// Asks who leads to go on, or tells it that the holder has stopped.
pub const HOLD: &str = "cluster/hold-gateway";
/// With an address that floats: three renewals are lost before a lease is, and a lost gateway is replaced within a second.
pub const QUICK: Duration = Duration::from_millis(500);
/// Without one nobody waits for the next gateway, and nothing should be said often.
const SLOW: Duration = Duration::from_secs(6);
const RENEWALS: u32 = 4;
/// What who leads counts longer: clocks of machines run apart by far less, and its timer may come late.
const MARGIN: Duration = Duration::from_millis(100);

/// How long a lease is to run.
fn wanted(snapshot: &Snapshot) -> Duration {
    if snapshot.floating.addresses.is_empty() { SLOW } else { QUICK }
}

/// What the holder says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub machine: String,
    pub epoch: u64,
    /// It has stopped, and will not begin again in this epoch.
    #[serde(default)]
    pub stopped: bool,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Granted {
    /// From when the holder asked.
    pub lease_ms: u64,
    /// Whoever was the gateway before has said that it stopped.
    #[serde(default)]
    pub is_vacant: bool,
}

/// The count of who leads.
#[derive(Default)]
pub struct Lessor {
    count: Mutex<Option<Count>>,
    renewed: Notify,
}

struct Count {
    term: u64,
    epoch: u64,
    until: Instant,
    /// Called so once, it is never renewed.
    lease: Lease,
    /// It began when the lease before was given back.
    is_vacant: bool,
}

impl Count {
    /// How it stands now.
    fn look(&mut self) -> Lease {
        if self.lease == Lease::Held && world::clock::monotonic() >= self.until {
            self.lease = Lease::Expired;
        }
        self.lease
    }
}

impl Lessor {
    /// How the lease of the gateway named in `assignment` stands, for who leads in `term`.
    pub fn standing(&self, term: u64, snapshot: &Snapshot) -> Lease {
        let assignment = &snapshot.roles;
        let Some(gateway) = &assignment.gateway else { return Lease::Held };
        // Nobody counts before its own `Lead` is written down.
        if assignment.term != term {
            return Lease::Held;
        }
        let mut count = self.count();
        // A later holder has asked already; here it is not known yet.
        if count.as_ref().is_some_and(|count| count.term == term && count.epoch > gateway.epoch) {
            return Lease::Held;
        }
        present(&mut count, term, gateway.epoch, wanted(snapshot)).look()
    }

    /// This machine leads no more: it counts for nobody.
    pub fn forget(&self) {
        *self.count() = None;
    }

    /// Ends when the lease that is counted runs out unless it is renewed, and when its holder says that it has stopped.
    pub async fn runs_out(&self) {
        loop {
            let until = self.count().as_ref().filter(|count| count.lease == Lease::Held).map(|count| count.until);
            let Some(until) = until else { return self.renewed.notified().await };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.renewed.notified() => return,
            }
            // Called so once, it is not waited for again.
            if self.count().as_mut().is_none_or(|count| count.look() != Lease::Held) {
                return;
            }
        }
    }

    /// Answers the holder.
    pub async fn answer(&self, group: &Group, space: &Space, view: &View, asked: &Asked) -> Result<Granted, Failure> {
        let refused = |why: &str| Failure::new(Code::FailedPrecondition, format!("hold the gateway: {why}"));
        let (term, stored) = leader::confirmed(group, space.get(key::ROLES)).await?;
        let stored = stored.ok_or_else(|| refused("nobody has a role yet"))?;
        let assignment: Assignment = serde_json::from_slice(&stored.value).map_err(internal)?;
        if assignment.term != term {
            return Err(refused("this machine does not lead yet"));
        }
        let is_holder = |gateway: &Gateway| *gateway.holder == *asked.machine && gateway.epoch == asked.epoch;
        if !assignment.gateway.as_ref().is_some_and(is_holder) {
            return Err(refused("another machine is the gateway"));
        }
        let lease = wanted(&view.borrow());
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let mut count = self.count();
        // A holder may ask before anybody here has looked at what was written down.
        let present = present(&mut count, term, asked.epoch, lease);
        let granted = Granted { lease_ms, is_vacant: present.is_vacant };
        match (present.look(), asked.stopped) {
            (Lease::Expired, _) => Err(refused("the lease has run out")),
            (Lease::Released, false) => Err(refused("the lease was given back")),
            (Lease::Held | Lease::Released, true) => {
                present.lease = Lease::Released;
                self.renewed.notify_one();
                Ok(granted)
            }
            (Lease::Held, false) => {
                // A longer one that was given before still runs.
                present.until = present.until.max(world::clock::monotonic() + lease + MARGIN);
                Ok(granted)
            }
        }
    }

    fn count(&self) -> MutexGuard<'_, Option<Count>> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The count of the lease in this term and epoch; it begins when it is looked at first. Nobody who knows of a later epoch asks
/// for an earlier one.
fn present(count: &mut Option<Count>, term: u64, epoch: u64, lease: Duration) -> &mut Count {
    let is_next = |before: &Count| before.term == term && before.epoch + 1 == epoch;
    let is_vacant = count.as_ref().is_some_and(|before| is_next(before) && before.lease == Lease::Released);
    let known = count.take().filter(|count| count.term == term && count.epoch == epoch);
    let until = world::clock::monotonic() + lease + MARGIN;
    count.insert(known.unwrap_or(Count { term, epoch, until, lease: Lease::Held, is_vacant }))
}

/// That this machine is the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub epoch: u64,
    /// When it was held first, in this epoch.
    pub began: Instant,
    /// Whoever was the gateway before has said that it stopped.
    pub is_vacant: bool,
    /// When this machine asked for it last.
    pub asked: Instant,
    /// By this machine's monotonic clock; then it is over unless it was renewed.
    pub until: Instant,
}

/// What the holder's side needs of the node.
pub struct Holder {
    pub me: String,
    pub group: Group,
    pub space: Space,
    pub view: View,
    pub peers: Peers,
    pub lessor: Arc<Lessor>,
    pub meter: Meter,
    /// Whoever acts as the gateway follows this, and stops by itself when the time comes.
    pub held: watch::Sender<Option<Held>>,
    /// The last epoch in which that has stopped for good.
    pub stopped: watch::Receiver<u64>,
}

impl Holder {
    /// Asks for the lease whenever this machine is named, until it is dropped, anywhere.
    pub async fn hold(self) {
        let active: Gauge =
            self.meter.gauge("bramble_cluster_gateway_active", "Whether this machine is the gateway.", &[]);
        let mut view = self.view.clone();
        let mut stopped = self.stopped.clone();
        loop {
            let mine = self.named();
            let is_over = |held: &Held| {
                mine.as_ref().is_none_or(|gateway| gateway.epoch != held.epoch)
                    || held.until <= world::clock::monotonic()
            };
            self.held.send_if_modified(|held| held.take_if(|held| is_over(held)).is_some());
            active.set(f64::from(u8::from(self.held.borrow().is_some())));
            match &mine {
                Some(gateway) if *stopped.borrow_and_update() >= gateway.epoch => {
                    self.held.send_replace(None);
                    self.ask(gateway.epoch, true).await;
                }
                // One that is to hand over has it until it has stopped.
                Some(gateway) => self.renew(gateway.epoch).await,
                None => {}
            }
            let due = world::clock::monotonic() + wanted(&view.borrow_and_update()) / RENEWALS;
            while self.named() == mine {
                let changed = tokio::select! {
                    // Whoever has no office waits for one.
                    () = tokio::time::sleep_until(due.into()), if mine.is_some() => break,
                    changed = stopped.changed(), if mine.is_some() => match changed {
                        Ok(()) => break,
                        gone => gone,
                    },
                    changed = view.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        }
    }

    /// This machine's office, if it has one.
    fn named(&self) -> Option<Gateway> {
        self.view.borrow().roles.gateway.clone().filter(|gateway| *gateway.holder == *self.me)
    }

    async fn renew(&self, epoch: u64) {
        let asked = world::clock::monotonic();
        let Some(granted) = self.ask(epoch, false).await else { return };
        let until = asked + Duration::from_millis(granted.lease_ms);
        // An answer that took as long as the lease says nothing any more.
        if until > world::clock::monotonic() {
            let before = self.held.borrow().filter(|before| before.epoch == epoch);
            let began = before.map_or(asked, |before| before.began);
            let is_vacant = granted.is_vacant;
            let was = self.held.send_replace(Some(Held { epoch, began, is_vacant, asked, until }));
            if was.is_none_or(|was| was.epoch != epoch) {
                tracing::info!(epoch, "this machine is the gateway");
            }
        }
    }

    async fn ask(&self, epoch: u64, stopped: bool) -> Option<Granted> {
        let asked = Asked { machine: self.me.clone(), epoch, stopped };
        let answered = tokio::time::timeout(SLOW, self.say(&asked)).await;
        let why = match answered {
            Ok(Ok(granted)) => return Some(granted),
            Ok(Err(failure)) => failure.message,
            Err(_) => "no answer came".to_owned(),
        };
        tracing::debug!(why, epoch, "the lease on being the gateway is not renewed");
        None
    }

    async fn say(&self, asked: &Asked) -> Result<Granted, Failure> {
        if leader::is_here(&self.group) {
            return self.lessor.answer(&self.group, &self.space, &self.view, asked).await;
        }
        let within = wanted(&self.view.borrow());
        leader::ask(&self.group, &self.view, &self.peers, HOLD, asked, within).await
    }
}
