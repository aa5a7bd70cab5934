//! What being the gateway means for this machine.
//!
//! Promises that it acts only while the lease runs, by its own clock, and says in which epoch it has stopped.

use super::lease::Held;
use control::view::View;
use tokio::sync::watch;

pub struct Acting {
    pub me: String,
    pub view: View,
    pub held: watch::Receiver<Option<Held>>,
    pub stopped: watch::Sender<u64>,
}

impl Acting {
    /// Runs until it is dropped, anywhere.
    pub async fn act(mut self) {
        loop {
            let asked_to_stop = {
                let snapshot = self.view.borrow_and_update();
                let mine = snapshot.roles.gateway.as_ref().filter(|gateway| *gateway.holder == *self.me);
                mine.filter(|gateway| gateway.hand_over).map(|gateway| gateway.epoch)
            };
            if let Some(epoch) = asked_to_stop {
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
            }
        }
    }
}
