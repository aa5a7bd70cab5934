//! The spaces' numbers for a meter, read when somebody looks.

use crate::board::Board;
use crate::{Soft, Space};
use meter::{Meter, Registration};
use std::sync::Arc;

impl Space {
    /// Shows the space's numbers in `meter` for as long as the registration is held.
    pub fn measure(&self, meter: &Meter) -> Registration {
        measure(Arc::clone(self.board()), meter, "durable")
    }
}

impl Soft {
    /// Shows the space's numbers in `meter` for as long as the registration is held.
    pub fn measure(&self, meter: &Meter) -> Registration {
        measure(Arc::clone(self.board()), meter, "soft")
    }
}

fn measure(board: Arc<Board>, meter: &Meter, space: &'static str) -> Registration {
    meter.collector(move |samples| {
        let labels = [("space", space)];
        let watches = board.watches() as f64;
        let state = board.read();
        let (live_bytes, history_bytes) = state.sizes_bytes();
        samples.counter(
            "bramble_space_revision",
            "Transactions that changed something.",
            &labels,
            state.revision as f64,
        );
        samples.gauge("bramble_space_keys", "Keys there are.", &labels, state.live.len() as f64);
        samples.gauge("bramble_space_bytes", "Memory the keys take, roughly.", &labels, live_bytes as f64);
        samples.gauge("bramble_space_events", "Changes kept for watches.", &labels, state.history.len() as f64);
        samples.gauge("bramble_space_event_bytes", "Memory they take, roughly.", &labels, history_bytes as f64);
        samples.gauge("bramble_space_leases", "Leases granted and not over.", &labels, state.leases.len() as f64);
        samples.gauge("bramble_space_watches", "Watches open.", &labels, watches);
    })
}
