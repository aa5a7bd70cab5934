//! What a run uses, summed over all processes of the box: for machines where no control group bounds it.

use crate::proc;
use crate::protocol::{RunLimits, Verdict};
use crate::sys;
use std::fs;

/// How often a run with limits is looked at. What it can overshoot is what it can use in that time; looking takes a few
/// microseconds a process.
const PERIOD_MS: u64 = 20;
/// The same for one that does nothing. Whether that is still so is found out without a look at each process's memory, but a
/// thousand that wait for their input would have the machine busy with that alone.
const QUIET_PERIOD_MS: u64 = 80;

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Each process and what it had used of a processor; none where that may not be all of them.
    clocks: Vec<(u32, u64)>,
    pause_ms: u64,
}

impl Seen {
    /// How long until the next look.
    pub(super) fn pause_ms(&self) -> u64 {
        self.pause_ms.max(PERIOD_MS)
    }

    /// Whether none of the processes has run since: then none has more memory, and there is no other.
    pub(super) fn is_quiet(&mut self) -> bool {
        let same = |(pid, used): &(u32, u64)| sys::processor_time_nanoseconds(*pid) == Some(*used);
        let quiet = !self.clocks.is_empty() && self.clocks.iter().all(same);
        self.pause_ms = if quiet { (self.pause_ms() * 2).min(QUIET_PERIOD_MS) } else { PERIOD_MS };
        quiet
    }
}

/// The limit a box is over, if one; `ended_usec` is what its processes used that ended. Process 1, which is ours, does not
/// count.
pub(super) fn over(limits: &RunLimits, ended_usec: u64, seen: &mut Seen) -> Option<Verdict> {
    // What is born after its parent's clock was read moves that clock; what is born before is in the second list.
    let Some(before) = others() else { return Some(unseen(limits)) };
    let clocks = before.iter().map(|pid| Some((*pid, sys::processor_time_nanoseconds(*pid)?)));
    seen.clocks = clocks.collect::<Option<_>>().unwrap_or_default();
    let Some(pids) = others() else { return Some(unseen(limits)) };
    if pids != before {
        seen.clocks.clear();
    }
    let mut cpu_usec = ended_usec;
    let (mut resident_bytes, mut mapped_bytes_max) = (0, 0);
    for glance in pids.iter().filter_map(|pid| proc::glance(*pid)) {
        cpu_usec += glance.cpu_usec;
        resident_bytes += glance.resident_bytes;
        mapped_bytes_max = glance.mapped_bytes.max(mapped_bytes_max);
    }
    if limits.cpu_ms.is_some_and(|limit| cpu_usec / 1000 >= limit) {
        return Some(Verdict::Cpu);
    }
    let limit = limits.memory_bytes?;
    // Neither can be less than the truth: hidden memory needs an address space above the limit.
    let suspicious = resident_bytes > limit || mapped_bytes_max > limit;
    (suspicious && proc::memory_bytes(&pids) > limit).then_some(Verdict::Memory)
}

/// What cannot be looked at has no limit, and may not go on.
fn unseen(limits: &RunLimits) -> Verdict {
    if limits.memory_bytes.is_some() { Verdict::Memory } else { Verdict::Cpu }
}

/// All processes but process 1; `None` where they cannot be seen.
fn others() -> Option<Vec<u32>> {
    let entries = fs::read_dir("/proc").ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Some(pids.filter(|pid| *pid != 1).collect())
}
