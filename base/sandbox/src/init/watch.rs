//! What a run uses, summed over all processes of the box: for machines where no control group bounds it.

use crate::proc;
use crate::protocol::{RunLimits, Verdict};
use crate::sys;
use std::fs;

/// How often a run with limits is looked at. What it can overshoot is what it can use in that time; looking takes a few
/// microseconds a process.
pub(super) const PERIOD_MS: u64 = 20;

/// The limit a box is over, if one. Process 1, which is ours, does not count.
pub(super) fn over(limits: &RunLimits) -> Option<Verdict> {
    let pids = others();
    let mut cpu_usec = sys::used_by_children().cpu_usec;
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

fn others() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != 1).collect()
}
