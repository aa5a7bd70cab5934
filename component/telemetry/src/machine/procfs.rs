//! What the kernel writes under `/proc`, read. Pure: text in, numbers out; a line it does not know is `None`.

/// Ticks per second of the times in `stat` files: `USER_HZ`, 100 on every architecture Linux runs on here.
const TICKS_PER_SECOND: f64 = 100.0;

/// Time all cores spent since boot, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTicks {
    pub(super) busy: u64,
    /// Idle while something waits for a disk.
    pub(super) disk_idle: u64,
    pub(super) total: u64,
}

/// The first line of `/proc/stat`. Waiting for a disk is idle; guest time is already in user time.
pub(super) fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total: u64 = ticks.iter().fold(0, |sum, part| sum.saturating_add(*part));
    let disk_idle = ticks.get(4).copied().unwrap_or(0);
    let idle = ticks.get(3)?.saturating_add(disk_idle);
    Some(CpuTicks { busy: total.saturating_sub(idle), disk_idle, total })
}

/// How much runs at this moment, and on how many processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunQueue {
    running: u32,
    pub(super) cores: u32,
}

impl RunQueue {
    /// Whether something waits for a processor. Whoever asks runs, and is not counted.
    pub(super) fn is_waiting(self) -> bool {
        self.running > self.cores.saturating_add(1)
    }
}

/// Of `/proc/stat`.
pub(super) fn run_queue(stat: &str) -> Option<RunQueue> {
    let is_core =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|one: char| one.is_ascii_digit()));
    let cores = u32::try_from(stat.lines().filter(is_core).count()).ok().filter(|cores| *cores > 0)?;
    let running = stat.lines().find_map(|line| line.strip_prefix("procs_running "))?.trim().parse().ok()?;
    Some(RunQueue { running, cores })
}

pub(super) fn load_1m(loadavg: &str) -> Option<f64> {
    loadavg.split_ascii_whitespace().next()?.parse().ok()
}

/// A field of `/proc/meminfo` or `/proc/<pid>/status`, which say kB and mean KiB.
pub(super) fn kib_field(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// A field of `/proc/<pid>/io`.
pub(super) fn plain_field(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?.trim().parse().ok()
}

/// The share of the last ten seconds in which something waited, 0 to 1, of a file in `/proc/pressure`.
pub(super) fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = some.split_ascii_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse().ok()?;
    Some(percent / 100.0)
}

/// When a process started (ticks after boot, which tells two with one pid apart) and its CPU seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProcessTimes {
    pub(super) started: u64,
    pub(super) cpu_seconds: f64,
}

/// `/proc/<pid>/stat`. The program's name is in parentheses and may hold spaces and parentheses itself.
pub(super) fn process_times(stat: &str) -> Option<ProcessTimes> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Fields are numbered from 1 in proc(5); the first after the name is number 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let (user, system, started) = (field(14)?, field(15)?, field(22)?);
    #[expect(clippy::cast_precision_loss, reason = "ticks of one process stay far below 2^53")]
    let cpu_seconds = user.saturating_add(system) as f64 / TICKS_PER_SECOND;
    Some(ProcessTimes { started, cpu_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(
            cpu_ticks("cpu  100 1 20 500 30 0 4 5 7 0\ncpu0 1 2 3 4\n"),
            Some(CpuTicks { busy: 130, disk_idle: 30, total: 660 })
        );
        let queue = run_queue("cpu  1 2 3 4\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nctxt 9\nprocs_running 4\nprocs_blocked 1\n");
        assert_eq!(queue, Some(RunQueue { running: 4, cores: 2 }));
        assert!(queue.is_some_and(RunQueue::is_waiting));
        assert!(!RunQueue { running: 3, cores: 2 }.is_waiting());
        assert_eq!(load_1m("0.65 0.29 0.18 1/102 11007\n"), Some(0.65));
        assert_eq!(kib_field("MemTotal:  2 kB\nMemAvailable:   24 kB\n", "MemAvailable"), Some(24 << 10));
        assert_eq!(plain_field("rchar: 1\nwrite_bytes: 77\n", "write_bytes"), Some(77));
        let psi = "some avg10=6.50 avg60=3.53 avg300=1.47 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(psi), Some(0.065));
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 9000 1 1";
        assert_eq!(process_times(stat), Some(ProcessTimes { started: 9_000, cpu_seconds: 2.0 }));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "cpu ", "cpu x", ")", "MemAvailable:", "some avg10=", "MemAvailable: 99999999999999999999 kB"]
        {
            assert_eq!(cpu_ticks(text), None);
            assert_eq!(run_queue(text), None);
            assert_eq!(load_1m("x"), None);
            assert_eq!(kib_field(text, "MemAvailable"), None);
            assert_eq!(pressure(text), None);
            assert_eq!(process_times(text), None);
        }
        assert_eq!(kib_field(&format!("A: {} kB", u64::MAX), "A"), None);
    }
}
