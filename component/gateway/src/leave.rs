//! How a gateway ends whose place another one takes: at the same sockets, without a client that notices.
//!
//! Owns the order and the bounds of that end. The other gateway accepts already when this begins; connections made here
//! are answered here. Does not know how the other one was started or given its sockets.

use crate::gateway::Gateway;
use crate::listener::{Listening, Phase};
use crate::table::Endpoint;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use wire::spec::Protocol;

/// How long connections may take to close that are told to.
const CUT_MOMENT: Duration = Duration::from_millis(500);

/// A request may be on its way to a connection that is told to end: longer than a slow link takes to carry it.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Client connections that were cut, because their time was up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// At the end of the time for requests: in the middle of one, or still without one.
    pub requests: usize,
    /// At the end of the time for tunnels.
    pub tunnels: usize,
}

impl Gateway {
    /// Stops accepting; whoever has connected is answered once more, and told to connect again. Tables applied
    /// afterwards are not served; [`Gateway::follow`] is how endpoints change from here on.
    pub async fn leave(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        let listeners = std::mem::take(&mut state.listeners);
        for (key, listening) in listeners {
            let (phases, task) = listening.leave();
            state.retired.extend(phases);
            match key.protocol {
                Protocol::Tcp => drop(task.join().await),
                // It answers what it was asked.
                Protocol::Udp => task.detach(),
            }
        }
        if let Some(cache) = self.floor.ground.cache.get() {
            let stash = cache.stash.clone();
            // The other gateway waits for the folder, and nobody for this; it ends within a bound of its own.
            world::task::spawn("cache closing", async move { stash.close().await }).detach();
        }
    }

    /// Has every client that is connected connect again, as before an address goes to another machine: it is answered once more
    /// and told so, then what is idle closes, and what is not when its request is over. Waits until they have, at most `patience`;
    /// what takes longer goes on.
    pub async fn renew(&self, patience: Duration) {
        let before: Vec<watch::Sender<Phase>> = {
            let mut state = self.state.lock().await;
            state.listeners.values_mut().map(Listening::renew).collect()
        };
        let ended = async {
            for phase in &before {
                phase.closed().await;
            }
        };
        let told = async {
            for (phase, moment) in [(Phase::Leave, LAST_MOMENT), (Phase::Drain, patience)] {
                for client in &before {
                    client.send_replace(phase);
                }
                self.floor.ground.crowd.nudge();
                tokio::time::sleep(moment).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = told => {}
        }
        self.state.lock().await.retired.extend(before);
    }

    /// Takes in which endpoints there are: what is still under way may have to find another one.
    pub fn follow(&self, services: &BTreeMap<String, Vec<Endpoint>>) {
        for upstream in self.all_upstreams() {
            upstream.update(services.get(&upstream.service).map_or(&[], Vec::as_slice));
        }
    }

    /// Waits until nothing is under way any more: at most `requests` for what is no tunnel, and `tunnels` in all. What
    /// is left then is cut. Call [`Gateway::leave`] before.
    pub async fn finish(&self, requests: Duration, tunnels: Duration) -> Left {
        let requests = requests.min(tunnels);
        if self.ended_within(requests).await {
            return Left::default();
        }
        let before = self.connections();
        self.tell(Phase::Tunnels).await;
        // Those that are cut end within a moment; what is left then has to be tunnels.
        let ended = self.ended_within(CUT_MOMENT).await;
        // Whoever has ended may be about to give its place back.
        let left = if ended { 0 } else { self.connections() };
        let cut = before.saturating_sub(left);
        if ended || self.ended_within(tunnels.saturating_sub(requests)).await {
            return Left { requests: cut, tunnels: 0 };
        }
        let left = Left { requests: cut, tunnels: self.connections() };
        self.tell(Phase::Cut).await;
        left
    }

    /// Client connections there are.
    pub fn connections(&self) -> usize {
        self.floor.places.saturating_sub(self.floor.room.available_permits())
    }

    async fn tell(&self, phase: Phase) {
        for retired in &self.state.lock().await.retired {
            retired.send_replace(phase);
        }
        self.floor.ground.crowd.nudge();
    }

    async fn ended_within(&self, patience: Duration) -> bool {
        let phases: Vec<watch::Sender<Phase>> = self.state.lock().await.retired.clone();
        let ended = async {
            for phase in &phases {
                phase.closed().await;
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}
