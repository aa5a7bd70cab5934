//! What being the gateway means for this machine: the addresses that float are here.
//!
//! Promises that it has them only while its lease runs, by its own clock and by the kernel's, and says in which epoch it has
//! stopped. Never knows how the lease is agreed on.

use super::lease::Held;
use address::{Holder, Shut, Take};
use control::view::View;
use gateway::Gateway;
use meter::Meter;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wire::diagnostic::chain;
use wire::resource::FloatingAddress;
use wire::spec::Protocol;

/// From when a lease was asked for, the kernel keeps an address no longer than this, whatever becomes of the program: a second
/// is the least it can count, the rest is what the answer may take.
const KEPT: Duration = Duration::from_millis(1_150);
/// Connections that are being made when newcomers are no longer answered may take so long to be there.
const HANDSHAKE: Duration = Duration::from_millis(30);
/// Who is connected has so long to be answered before the address goes to another machine: newcomers wait for as long, and ask
/// again after a second anyway.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Between two tries to hold an address that could not be held.
const AGAIN: Duration = Duration::from_secs(5);

pub struct Acting {
    pub me: String,
    pub view: View,
    pub held: watch::Receiver<Option<Held>>,
    pub stopped: watch::Sender<u64>,
    pub gateway: Arc<Gateway>,
    pub meter: Meter,
}

/// One that floats.
enum Place {
    Here(Arc<Holder>),
    /// It cannot be held here, and that was told; then it is tried again.
    Nowhere {
        until: Instant,
    },
}

impl Acting {
    /// Runs until it is dropped, anywhere: what it holds then stays for the process that comes next, and is gone within
    /// [`KEPT`] if none does.
    pub async fn act(mut self) {
        let mut places = Leaving(BTreeMap::new());
        loop {
            let (wanted, over) = self.wanted();
            let held = *self.held.borrow_and_update();
            match held {
                Some(held) if over.is_none() => self.hold(held, &wanted, &mut places.0).await,
                Some(_) if !places.0.is_empty() => self.hand_over(&wanted, &mut places.0).await,
                Some(_) | None => let_go(&mut places.0).await,
            }
            if let Some(epoch) = over {
                self.stopped.send_if_modified(|stopped| std::mem::replace(stopped, epoch) != epoch);
            }
            tokio::select! {
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.held.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(until(held)), if !places.0.is_empty() => {}
            }
        }
    }

    /// The addresses that float, and the epoch in which this machine is to stop being the gateway.
    fn wanted(&mut self) -> (Vec<FloatingAddress>, Option<u64>) {
        let snapshot = self.view.borrow_and_update();
        let mine = snapshot.roles.gateway.as_ref().filter(|gateway| *gateway.holder == *self.me);
        let over = mine.filter(|gateway| gateway.hand_over).map(|gateway| gateway.epoch);
        (snapshot.floating.addresses.clone(), over)
    }

    /// Lets go of the addresses once those that are connected were answered; the lease is renewed meanwhile.
    async fn hand_over(&mut self, wanted: &[FloatingAddress], places: &mut BTreeMap<String, Place>) {
        let addresses: Vec<IpAddr> = wanted.iter().map(|floating| floating.ip).collect();
        let sockets = self.gateway.sockets().await.into_iter().filter(|socket| socket.protocol == Protocol::Tcp);
        let shut: Vec<Shut> = sockets
            .filter_map(|socket| {
                let shut = Shut::new(socket.socket, &addresses);
                let failed = |error: &std::io::Error| {
                    tracing::warn!(%error, port = %socket.address, "connections begun while an address is handed over may break");
                };
                shut.inspect_err(failed).ok()
            })
            .collect();
        let gateway = Arc::clone(&self.gateway);
        let mut answered = pin!(async move {
            tokio::time::sleep(HANDSHAKE).await;
            gateway.renew(LAST_ANSWERS).await;
        });
        loop {
            tokio::select! {
                () = answered.as_mut() => break,
                changed = self.held.changed() => {
                    let held = *self.held.borrow_and_update();
                    match held {
                        Some(held) if changed.is_ok() => self.hold(held, wanted, places).await,
                        Some(_) | None => break,
                    }
                }
            }
        }
        let_go(places).await;
        drop(shut);
    }

    async fn hold(&self, held: Held, wanted: &[FloatingAddress], places: &mut BTreeMap<String, Place>) {
        if held.until <= world::clock::monotonic() {
            return let_go(places).await;
        }
        let names: Vec<String> = wanted.iter().map(|floating| floating.ip.to_string()).collect();
        let gone: Vec<String> = places.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            self.failed(&name, false);
            if let Some(place) = places.remove(&name) {
                release(name, place).await;
            }
        }
        let until = held.asked + KEPT;
        // Who was the gateway before may still have it, for as long as it may have asked before this machine was named.
        let gone_at = held.began + KEPT + Duration::from_millis(address::KERNEL_LATE_MS);
        let take = if held.is_vacant { Take::AtOnce } else { Take::WhenQuiet { gone_at } };
        for (floating, name) in wanted.iter().zip(names) {
            let place = match places.remove(&name) {
                Some(Place::Nowhere { until }) if until <= world::clock::monotonic() => self.find(floating).await,
                Some(place) => place,
                None => self.find(floating).await,
            };
            if let Place::Here(holder) = &place {
                holder.hold_until(until, take);
            }
            places.insert(name, place);
        }
    }

    async fn find(&self, floating: &FloatingAddress) -> Place {
        let name = floating.ip.to_string();
        let (meter, floating) = (self.meter.clone(), floating.clone());
        let started = tokio::task::spawn_blocking(move || {
            let at = address::Floating::new(floating.ip, Some(floating.prefix))
                .map_err(|why| address::Error::Text { text: floating.ip.to_string(), why })?;
            Holder::start(at, floating.interface.as_deref(), &meter, |_| {})
        });
        match started.await {
            Ok(Ok(holder)) => {
                self.failed(&name, false);
                Place::Here(Arc::new(holder))
            }
            Ok(Err(error)) => {
                let hint = error.hint().unwrap_or_default();
                tracing::warn!(error = chain(&error), hint, "this machine is the gateway and cannot hold its address");
                self.failed(&name, true);
                Place::Nowhere { until: world::clock::monotonic() + AGAIN }
            }
            Err(_) => Place::Nowhere { until: world::clock::monotonic() + AGAIN },
        }
    }

    fn failed(&self, name: &str, failed: bool) {
        let help = "Whether this machine is the gateway and cannot hold an address that floats.";
        let gauge = self.meter.gauge("bramble_cluster_floating_failed", help, &[("address", name)]);
        gauge.set(f64::from(u8::from(failed)));
    }
}

/// How long what is held may be left alone.
fn until(held: Option<Held>) -> Duration {
    held.map_or(AGAIN, |held| held.until.saturating_duration_since(world::clock::monotonic())).min(AGAIN)
}

async fn let_go(places: &mut BTreeMap<String, Place>) {
    while let Some((name, place)) = places.pop_first() {
        release(name, place).await;
    }
}

/// Not here any more when this returns, or the kernel takes it away within [`KEPT`].
async fn release(name: String, place: Place) {
    let Place::Here(holder) = place else { return };
    let released = tokio::task::spawn_blocking(move || holder.release()).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(address = name, error = chain(&error), "a floating address was not let go of in time");
    }
}

/// Dropped, addresses stay for whoever comes next.
struct Leaving(BTreeMap<String, Place>);

impl Drop for Leaving {
    fn drop(&mut self) {
        for place in std::mem::take(&mut self.0).into_values() {
            if let Place::Here(holder) = place
                && let Some(holder) = Arc::into_inner(holder)
            {
                holder.leave();
            }
        }
    }
}
