//! What machines report, carried from each to all: a machine tells what is its own, and everybody follows everybody.
//!
//! Owns nothing that lasts: the soft space of each machine holds what was heard. Promises that a machine is believed only
//! about itself and its instances, and that what it last said stays known while it cannot be heard.

use control::Soft;
use control::view::View;
use rpc::{Failure, Messages, Peers, Terms};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::identity::NodeId;

/// The method behind it.
pub const FOLLOW: &str = "reports/follow";
const OPENED_WITHIN: Duration = Duration::from_secs(3);
/// Between tries to follow a machine that cannot be reached.
const PAUSE: Duration = Duration::from_millis(250);
/// Values of one message: some hundred statuses of a kibibyte or two.
const MESSAGE_BYTES: usize = 512 << 10;

/// More than a machine runs: one that says more than that of others is not listened to.
const DOUBTED_MAX: usize = 4_096;

/// Some of what a machine reports.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    /// What was said before and is not said again is no more, when [`Report::is_last`] comes.
    #[serde(default)]
    is_whole: bool,
    /// The whole is through.
    #[serde(default)]
    is_last: bool,
    /// JSON by key.
    #[serde(default)]
    put: BTreeMap<String, String>,
    #[serde(default)]
    gone: Vec<String>,
}

/// Tells `to` what machine `me` reports, until nobody listens.
pub async fn tell(me: &str, soft: &Soft, view: &View, to: Messages) -> Result<(), Failure> {
    loop {
        let listing = soft.list("");
        let mut watch = soft.watch("", listing.revision + 1);
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut report = Report { is_whole: true, ..Report::default() };
        let mut bytes = 0;
        for entry in listing.entries.iter().filter(|entry| is_of(me, &entry.key, view)) {
            let Ok(value) = std::str::from_utf8(&entry.value) else { continue };
            told.insert(entry.key.clone());
            bytes += value.len();
            report.put.insert(entry.key.clone(), value.to_owned());
            if bytes > MESSAGE_BYTES {
                send(&to, &std::mem::take(&mut report)).await?;
                (report.is_whole, bytes) = (true, 0);
            }
        }
        report.is_last = true;
        send(&to, &report).await?;
        // An error is that it fell behind: it begins again with the whole.
        while let Ok(events) = watch.next().await {
            let mut report = Report::default();
            for event in events {
                match event.value.as_deref().map(std::str::from_utf8) {
                    Some(Ok(value)) if is_of(me, &event.key, view) => {
                        told.insert(event.key.clone());
                        report.put.insert(event.key, value.to_owned());
                    }
                    Some(_) => {}
                    None if told.remove(&event.key) => {
                        report.put.remove(&event.key);
                        report.gone.push(event.key);
                    }
                    None => {}
                }
            }
            if !report.put.is_empty() || !report.gone.is_empty() {
                send(&to, &report).await?;
            }
        }
    }
}

async fn send(to: &Messages, report: &Report) -> Result<(), Failure> {
    // Texts by text are always writable.
    to.send(serde_json::to_vec(report).unwrap_or_default()).await
}

/// Whether `key` is for machine `id` to report: itself, its load and its instances. An instance that is not known is nobody's
/// yet: who has only heard of it must not speak for it.
fn is_of(id: &str, key: &str, view: &View) -> bool {
    match key.split_once('/') {
        Some(("node" | "load" | "runs", node)) => node == id,
        Some(("status", instance)) => view.borrow().instances.get(instance).is_some_and(|instance| instance.node == id),
        _ => false,
    }
}

/// Follows what machine `id`, whose key says that it is `node`, reports. May be dropped; what was heard stays.
pub async fn follow(peers: Peers, node: NodeId, id: String, soft: Soft, view: View) {
    let mut heard = Heard { id, soft, view, known: BTreeSet::new(), whole: BTreeSet::new(), doubted: BTreeMap::new() };
    let mut told = false;
    loop {
        match peers.watch(node, FOLLOW, Vec::new(), Terms::within(OPENED_WITHIN)).await {
            Ok(watch) => heard.listen(watch).await,
            Err(error) if error.is_removed() && !told => {
                told = true;
                tracing::error!(
                    machine = heard.id,
                    "this machine was removed from the cluster: what it runs is no longer asked for; stop it, and have it \
                     join again with a new data folder"
                );
            }
            Err(error) => tracing::debug!(machine = heard.id, %error, "cannot be followed"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What one machine has said.
struct Heard {
    id: String,
    soft: Soft,
    view: View,
    known: BTreeSet<String>,
    /// Of a whole that is under way.
    whole: BTreeSet<String>,
    /// What is not for it to say, as far as is known here. That may be behind: an instance was moved there, and its new
    /// machine's word is faster than the state of record.
    doubted: BTreeMap<String, String>,
}

impl Heard {
    async fn listen(&mut self, mut watch: rpc::Watch) {
        self.whole.clear();
        let mut view = self.view.clone();
        loop {
            tokio::select! {
                message = watch.next() => {
                    let Ok(Some(message)) = message else { return };
                    let Ok(report) = serde_json::from_slice::<Report>(&message) else {
                        tracing::warn!(machine = self.id, "a report cannot be read: is that machine's program a later one?");
                        return;
                    };
                    self.hear(report);
                }
                changed = view.changed(), if !self.doubted.is_empty() => {
                    if changed.is_err() {
                        return;
                    }
                    for (key, value) in std::mem::take(&mut self.doubted) {
                        self.keep(key, value);
                    }
                }
            }
        }
    }

    fn hear(&mut self, report: Report) {
        for (key, value) in report.put {
            if report.is_whole {
                self.whole.insert(key.clone());
            }
            self.keep(key, value);
        }
        let mut gone = report.gone;
        if report.is_last {
            gone.extend(self.known.difference(&self.whole).cloned());
            self.doubted.retain(|key, _| self.whole.contains(key));
            self.whole.clear();
        }
        for key in gone {
            self.doubted.remove(&key);
            if self.known.remove(&key) {
                self.soft.delete(&key);
            }
        }
    }

    fn keep(&mut self, key: String, value: String) {
        if !is_of(&self.id, &key, &self.view) {
            if self.doubted.len() < DOUBTED_MAX {
                self.doubted.insert(key, value);
            }
            return;
        }
        match self.soft.put(key.clone(), value.into_bytes()) {
            Ok(_) => drop(self.known.insert(key)),
            Err(error) => tracing::warn!(machine = self.id, key, %error, "a report cannot be kept"),
        }
    }
}
