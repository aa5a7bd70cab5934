//! What a run uses, summed over all processes of the box: for machines where no control group bounds it.

use crate::protocol::{RunLimits, Verdict};
use crate::sys;
use std::fs;

/// How often a run with limits is looked at. What it can overshoot is what it can use in that time; looking takes a few
/// microseconds a process.
pub(super) const PERIOD_MS: u64 = 20;
const TICK_USEC: u64 = 10_000;

/// The limit a box is over, if one.
pub(super) fn over(limits: &RunLimits) -> Option<Verdict> {
    let (cpu_usec, memory_bytes) = used();
    if limits.cpu_ms.is_some_and(|limit| cpu_usec / 1000 >= limit) {
        return Some(Verdict::Cpu);
    }
    limits.memory_bytes.is_some_and(|limit| memory_bytes > limit).then_some(Verdict::Memory)
}

/// Processor time of the living and the dead, resident memory of the living. Without process 1, which is ours.
pub(super) fn used() -> (u64, u64) {
    let mut cpu_usec = sys::used_by_children().cpu_usec;
    let mut memory_bytes = 0;
    let page = rustix::param::page_size() as u64;
    let Ok(entries) = fs::read_dir("/proc") else { return (cpu_usec, 0) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name may hold anything; the last parenthesis ends it, and field 3 follows.
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        cpu_usec += (field(14) + field(15) + field(16) + field(17)) * TICK_USEC;
        memory_bytes += field(24) * page;
    }
    (cpu_usec, memory_bytes)
}
