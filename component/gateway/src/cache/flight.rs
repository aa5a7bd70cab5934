//! Requests for one answer: the first asks, the others wait for what becomes of it.
//!
//! Owns who waits for whom. A first one that leaves before there was an answer lets one of the others be first.

use super::answer::Answer;
use super::fill::Fill;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Requests that wait for one answer; more go their own way. Each holds a client's connection.
const WAITING_MAX: usize = 512;

/// What is known of an answer that was asked for.
#[derive(Clone)]
pub(crate) enum Phase {
    /// Nothing came yet.
    Asked,
    /// Its body is coming, and how long it will be is known: whoever waits may read along.
    Coming(Arc<Fill>),
    /// It is kept: look again.
    Kept,
    /// The service is in trouble: this is what there is.
    Stale(Arc<Answer>),
    /// It is not for keeping.
    Alone,
}

/// The answers that are asked for now.
#[derive(Default)]
pub(crate) struct Flights {
    under_way: Mutex<HashMap<String, watch::Sender<Phase>>>,
}

/// What a request is to one that is under way.
pub(crate) enum Seat {
    /// It asks.
    First(Lead),
    /// It waits.
    Next(watch::Receiver<Phase>),
    /// Too many wait.
    None,
}

impl Flights {
    pub(crate) fn board(self: &Arc<Self>, key: &str) -> Seat {
        let mut under_way = self.lock();
        if let Some(phase) = under_way.get(key) {
            if phase.receiver_count() >= WAITING_MAX {
                return Seat::None;
            }
            return Seat::Next(phase.subscribe());
        }
        under_way.insert(key.to_owned(), watch::Sender::new(Phase::Asked));
        Seat::First(Lead { flights: Arc::clone(self), key: key.to_owned() })
    }

    /// Whether an answer is asked for now.
    pub(crate) fn is_under_way(&self, key: &str) -> bool {
        self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Phase>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Being the one that asks. Dropped, those that wait learn that nobody asks any more.
pub(crate) struct Lead {
    flights: Arc<Flights>,
    key: String,
}

impl Lead {
    /// Tells those that wait.
    pub(crate) fn tell(&self, phase: Phase) {
        if let Some(known) = self.flights.lock().get(&self.key) {
            known.send_replace(phase);
        }
    }

    /// Tells those that wait, for the last time.
    pub(crate) fn land(self, phase: Phase) {
        self.tell(phase);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let phase = self.flights.lock().remove(&self.key);
        drop(phase);
    }
}

/// Waits until there is something to be done. `None` when the first one left without an answer.
pub(crate) async fn landed(phase: &mut watch::Receiver<Phase>) -> Option<Phase> {
    let known = phase.wait_for(|phase| !matches!(phase, Phase::Asked)).await;
    known.ok().map(|phase| phase.clone())
}
