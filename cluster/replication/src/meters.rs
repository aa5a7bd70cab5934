//! A group's numbers for a meter, read when somebody looks.

use crate::group::Group;
use meter::{Meter, Registration};

impl Group {
    /// Shows this member's numbers in `meter` under the label `group`, for as long as the registration is held.
    pub fn measure(&self, meter: &Meter, name: &str) -> Registration {
        let (group, name) = (self.clone(), name.to_owned());
        meter.collector(move |samples| {
            let overview = group.overview();
            let labels = [("group", name.as_str())];
            let flag = |set: bool| f64::from(u8::from(set));
            let leads = overview.leader == Some(overview.node);
            samples.gauge("bramble_group_leads", "1 while this member leads its group.", &labels, flag(leads));
            let known = flag(overview.leader.is_some());
            samples.gauge("bramble_group_has_leader", "1 while this member knows a leader.", &labels, known);
            samples.gauge("bramble_group_voters", "Members with a vote.", &labels, overview.voters.len() as f64);
            samples.gauge("bramble_group_term", "The term, one more for each election.", &labels, overview.term as f64);
            let (last, applied) =
                (overview.last_index.map_or(0, |at| at + 1), overview.applied_index.map_or(0, |at| at + 1));
            let behind = last.saturating_sub(applied);
            samples.gauge("bramble_group_unapplied_entries", "Entries not applied yet.", &labels, behind as f64);
            let full = flag(overview.disk_full);
            samples.gauge("bramble_log_disk_full", "1 while a write waits for room on the disk.", &labels, full);
            let stopped = flag(overview.stopped.is_some());
            samples.gauge("bramble_group_stopped", "1 once this member no longer takes part.", &labels, stopped);
            let writes = overview.writes as f64;
            samples.counter("bramble_log_writes_total", "Writes of the log, one sync each.", &labels, writes);
            let seconds = overview.writing.as_secs_f64();
            samples.counter("bramble_log_write_seconds_total", "Time spent in them.", &labels, seconds);
            let slowest = overview.slowest_write.as_secs_f64();
            samples.gauge("bramble_log_slowest_write_seconds", "The slowest since the start.", &labels, slowest);
        })
    }
}
