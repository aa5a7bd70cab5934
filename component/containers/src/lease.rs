//! Leases on instances that must not go on where nobody hears of who leads.
//!
//! Whoever asks for them tells them here; what of one has reached a box is the shim's to keep, whatever becomes of this process.

use crate::shared::Shared;
use sandbox::Shim;
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::resource::{Instance, Wanted};

/// What this machine has leases for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leases {
    /// There is no other machine, and nobody to ask.
    Alone,
    /// By instance.
    Among(BTreeMap<String, Lease>),
}

/// What lets an instance go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// By the clock since boot.
    pub until_boot_ms: u64,
    /// What who leads wants of the instance: one that is to stop may only come to its end.
    pub wanted: Wanted,
}

/// What an instance that is not running may do now.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Unbounded,
    Until(u64),
    NotYet,
}

/// Whether it stops by itself on a machine that is cut off.
fn stops(instance: &Instance) -> bool {
    instance.spec.disconnect.stop_after_ms.is_some()
}

fn start(leases: &Leases, instance: &Instance, boot_ms: u64) -> Start {
    let Leases::Among(leases) = leases else { return Start::Unbounded };
    if !stops(instance) {
        return Start::Unbounded;
    }
    match leases.get(&instance.id) {
        Some(lease) if lease.wanted == Wanted::Running && lease.until_boot_ms > boot_ms => {
            Start::Until(lease.until_boot_ms)
        }
        Some(_) | None => Start::NotYet,
    }
}

/// Waits until the instance may start; until when it may then live, if that has an end. `waits` is called once if it has to. May be
/// dropped anywhere.
pub(crate) async fn to_start(shared: &Shared, instance: &Instance, waits: impl FnOnce()) -> Option<u64> {
    let mut leases = shared.leases.clone();
    let mut waits = Some(waits);
    loop {
        match start(&leases.borrow_and_update(), instance, world::clock::boot_ms()) {
            Start::Unbounded => return None,
            Start::Until(boot_ms) => return Some(boot_ms),
            Start::NotYet => {}
        }
        if let Some(waits) = waits.take() {
            waits();
        }
        if leases.changed().await.is_err() {
            // Nobody asks any more: this agent ends.
            return std::future::pending().await;
        }
    }
}

/// Passes on to a running box what its instance was given. May be dropped anywhere: the box has what it was told.
pub(crate) async fn prolong(shared: Arc<Shared>, instance: Arc<Instance>, shim: Arc<Shim>) {
    if !stops(&instance) {
        return;
    }
    let mut leases = shared.leases.clone();
    // A box knows of none, or of what an agent before this one told it.
    let mut told = None;
    loop {
        let until = match &*leases.borrow_and_update() {
            Leases::Alone => Some(None),
            Leases::Among(leases) => leases.get(&instance.id).map(|lease| Some(lease.until_boot_ms)),
        };
        if until.is_some() && until != told {
            match shim.prolong(until.flatten()).await {
                Ok(()) => told = until,
                Err(error) => tracing::warn!(instance = instance.id, %error, "a box cannot be told that it may go on"),
            }
        }
        if leases.changed().await.is_err() {
            return;
        }
    }
}

/// Made at the agent's start, so that the first is a step up from zero.
pub(crate) fn stopped(meter: &meter::Meter) -> meter::Counter {
    let help = "Instances that stopped by themselves because this machine had no word from who leads.";
    meter.counter("bramble_instances_cut_off_total", help, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::{Disconnect, Service};

    #[test]
    fn only_what_stops_by_itself_waits_for_a_lease_and_only_among_others() {
        let given = |wanted| Leases::Among(BTreeMap::from([("i".to_owned(), Lease { until_boot_ms: 100, wanted })]));
        let check = |stop_after_ms, leases: &Leases, now, expected| {
            let disconnect = Disconnect { stop_after_ms, ..Disconnect::default() };
            let spec = Service { disconnect, ..Service::default() };
            let instance = Instance { id: "i".to_owned(), spec, ..instance() };
            assert_eq!(start(leases, &instance, now), expected);
        };
        let none = Leases::Among(BTreeMap::new());
        check(None, &none, 0, Start::Unbounded);
        check(Some(10_000), &Leases::Alone, 0, Start::Unbounded);
        check(Some(10_000), &none, 0, Start::NotYet);
        check(Some(10_000), &given(Wanted::Running), 99, Start::Until(100));
        check(Some(10_000), &given(Wanted::Running), 100, Start::NotYet);
        check(Some(10_000), &given(Wanted::Stopped), 99, Start::NotYet);
    }

    fn instance() -> Instance {
        Instance {
            id: String::new(),
            stack: "s".to_owned(),
            service: "w".to_owned(),
            slot: 1,
            revision: 1,
            node: "m".to_owned(),
            wanted: Wanted::Running,
            shape: String::new(),
            spec: Service::default(),
            created_ms: 0,
            placed: wire::resource::Placed::default(),
        }
    }
}
