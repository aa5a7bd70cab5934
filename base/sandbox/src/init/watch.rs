//! What a run uses, summed over all processes of the box: for machines where no control group bounds it.
//!
//! Memory is what page tables show, plus anonymous memory that is shared: it can be filled and then taken out of the
//! page tables without being given back, so its mapped size counts instead.

use crate::protocol::{RunLimits, Verdict};
use crate::sys;
use std::collections::BTreeMap;
use std::fs;

/// How often a run with limits is looked at. What it can overshoot is what it can use in that time; looking takes a few
/// microseconds a process.
pub(super) const PERIOD_MS: u64 = 20;
/// The kernel's unit of processor time in `/proc`, fixed at 100 a second for user space.
const TICK_USEC: u64 = 10_000;

/// A first look: cheap, and never less than the truth.
#[derive(Default)]
struct Glance {
    cpu_usec: u64,
    resident_bytes: u64,
    /// The largest address space: hidden memory needs one above the limit.
    mapped_bytes: u64,
    pids: Vec<u32>,
}

/// The limit a box is over, if one.
pub(super) fn over(limits: &RunLimits) -> Option<Verdict> {
    let glance = glance();
    if limits.cpu_ms.is_some_and(|limit| glance.cpu_usec / 1000 >= limit) {
        return Some(Verdict::Cpu);
    }
    let limit = limits.memory_bytes?;
    let suspicious = glance.resident_bytes > limit || glance.mapped_bytes > limit;
    (suspicious && memory_bytes(&glance.pids) > limit).then_some(Verdict::Memory)
}

/// Processor time of the living and the dead, and sizes that count shared pages more than once. Without process 1,
/// which is ours.
fn glance() -> Glance {
    let mut glance = Glance { cpu_usec: sys::used_by_children().cpu_usec, ..Glance::default() };
    let page_bytes = rustix::param::page_size() as u64;
    let Ok(entries) = fs::read_dir("/proc") else { return glance };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1);
        let Some(pid) = pid else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name may hold anything; the last parenthesis ends it, and field 3 follows.
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        glance.cpu_usec += (field(14) + field(15) + field(16) + field(17)) * TICK_USEC;
        glance.resident_bytes += field(24) * page_bytes;
        glance.mapped_bytes = glance.mapped_bytes.max(field(23));
        glance.pids.push(pid);
    }
    glance
}

/// Memory with each page counted once.
fn memory_bytes(pids: &[u32]) -> u64 {
    let (mut own, mut shared) = (0, 0);
    let mut hidden: BTreeMap<String, u64> = BTreeMap::new();
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        own += field("Pss_Anon:") + field("Pss_File:");
        shared += field("Pss_Shmem:");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for (inode, size) in maps.lines().filter_map(shared_anonymous) {
            let known = hidden.entry(inode.to_owned()).or_default();
            *known = (*known).max(size);
        }
    }
    own + shared.max(hidden.values().sum())
}

/// The inode and size of a mapping of shared anonymous memory, as `/proc/…/maps` has it:
/// `7f…-7f… rw-s 00000000 00:01 4711   /dev/zero (deleted)`.
fn shared_anonymous(line: &str) -> Option<(&str, u64)> {
    if !line.ends_with("/dev/zero (deleted)") {
        return None;
    }
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let size = u64::from_str_radix(to, 16).ok()?.checked_sub(u64::from_str_radix(from, 16).ok()?)?;
    Some((fields.nth(3)?, size))
}

#[cfg(test)]
mod tests {
    use super::shared_anonymous;

    #[test]
    fn only_shared_anonymous_memory_counts_as_hidden() {
        let check = |line: &str, expected: Option<(&str, u64)>| assert_eq!(shared_anonymous(line), expected, "{line}");
        check("7f00-8000 rw-s 00000000 00:01 4711                       /dev/zero (deleted)", Some(("4711", 0x100)));
        check("7f00-8000 rw-p 00000000 00:00 0 ", None);
        check("7f00-8000 r-xp 00000000 fe:00 12  /usr/bin/true", None);
        check("what /dev/zero (deleted)", None);
    }
}
