//! The spaces' numbers for a meter, read when somebody looks.

use crate::board::Board;
use crate::{Soft, Space, SpaceError};
use meter::{Counter, Histogram, LATENCY_SECONDS, Meter, Registration};
use std::sync::Arc;
use std::time::Instant;

/// What became of transactions: how long it took, and how many were not written though nothing was wrong with them.
#[derive(Debug)]
pub(crate) struct Commits {
    seconds: Histogram,
    failures: Counter,
}

impl Commits {
    fn new(meter: &Meter) -> Commits {
        let (seconds, failures) = ("bramble_control_commit_seconds", "bramble_control_commit_failures_total");
        Commits {
            seconds: meter.histogram(seconds, "Time for a change to be on disk.", &[], LATENCY_SECONDS),
            failures: meter.counter(failures, "Changes that could not be written.", &[]),
        }
    }

    /// Counts a transaction begun at `began`. One that can never succeed is its caller's mistake, not a failure.
    pub(crate) fn count<T>(&self, began: Instant, ended: &Result<T, SpaceError>) {
        match ended {
            Ok(_) => self.seconds.observe_duration(began.elapsed()),
            Err(error) if error.is_temporary() => self.failures.inc(),
            Err(_) => {}
        }
    }
}

impl Space {
    /// Shows the space's numbers in `meter` for as long as the registration is held, and counts commits from now on.
    pub fn measure(&self, meter: &Meter) -> Registration {
        self.count_commits(Commits::new(meter));
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
