//! Figures from many measurements on a machine that others use too.

use std::time::Duration;

/// Of everything measured, inherited by what it starts: a busy machine then disturbs less.
const PRIORITY: i32 = -20;

/// Gives this process and what it starts the processor before others; false where that is not allowed. Only root may.
pub(super) fn go_first() -> bool {
    rustix::process::setpriority_process(None, PRIORITY).is_ok()
}

/// The middle one; zero of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

pub(super) fn lowest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Waits a little for a moment in which nobody else wants the processor; false if there was none.
pub(super) fn quiet_moment() -> bool {
    const LOOKS_MAX: u32 = 60;
    const PAUSE: Duration = Duration::from_millis(2);
    for _look in 0..LOOKS_MAX {
        // `0.00 0.00 0.00 running/all newest`, and the one running is this process.
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let running = load.split(' ').nth(3).and_then(|field| field.split_once('/')?.0.parse::<u32>().ok());
        if running.is_none_or(|running| running <= 1) {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}
