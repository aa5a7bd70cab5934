//! What `/proc` says about one process: inside a box about its own, outside about those of a box.

use std::collections::BTreeMap;
use std::fs;

/// The kernel's unit of processor time in `/proc`, fixed at 100 a second for user space.
const TICK_USEC: u64 = 10_000;

/// A glance: cheap, but pages that processes share count for each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Glance {
    /// With children that were waited for.
    pub(crate) cpu_usec: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) mapped_bytes: u64,
}

/// `None` for a process that is gone.
pub(crate) fn glance(pid: u32) -> Option<Glance> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; the last parenthesis ends it, and field 3 follows.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let (user, system, user_of_children, system_of_children) = (field(14), field(15), field(16), field(17));
    Some(Glance {
        cpu_usec: (user + system + user_of_children + system_of_children) * TICK_USEC,
        mapped_bytes: field(23),
        resident_bytes: field(24) * rustix::param::page_size() as u64,
    })
}

/// The memory of several processes with each page counted once. Walks their page tables.
///
/// Anonymous memory that is shared counts with its mapped size: it can be filled and then taken out of the page tables
/// without being given back.
pub(crate) fn memory_bytes(pids: &[u32]) -> u64 {
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
