//! Processes as /proc tells of them: what a node left behind, what it uses.

use std::path::Path;

/// Of the clock that processor time is told in, on every Linux there is.
pub const TICKS_PER_SECOND: f64 = 100.0;

/// Everything that runs, by pid.
pub fn all() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The command line, words separated by spaces.
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// The node of a data folder, its spawner and its shims: all were started with that folder as their home. Their titles
/// are their own, so the environment they began with is what tells.
pub fn of_data(data: &Path) -> Vec<u32> {
    let mark = format!("HOME={}", data.display());
    let of_node = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    all().into_iter().filter(of_node).collect()
}

/// Every process whose ancestor one of `roots` is, they included.
pub fn with_children(roots: &[u32]) -> Vec<u32> {
    let mut found = roots.to_vec();
    let everything = all();
    loop {
        let before = found.len();
        for pid in &everything {
            if !found.contains(pid) && parent(*pid).is_some_and(|parent| found.contains(&parent)) {
                found.push(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Whether it has not ended; what only waits to be reaped has.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(')').is_some_and(|end| !stat[end..].starts_with(") Z") && !stat[end..].starts_with(") X"))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so what counts starts after its closing parenthesis.
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Processor time used so far, in clock ticks of 10 ms.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some(end) = stat.rfind(')') else { return 0 };
    let fields: Vec<&str> = stat[end + 1..].split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}

/// Bytes the process caused to be written to a disk.
pub fn written_bytes(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes:")).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether tests may become other users and mount things.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
