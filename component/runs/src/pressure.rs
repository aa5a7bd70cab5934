//! Whether this machine can do with another program, by what its own kernel says.
//!
//! Threads that could run now say at once how busy the processors are; how long somebody waited for memory or the disk says so
//! over ten seconds (PSI). A machine without PSI goes by the first alone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads of the machine that can run now, for each of its processors, above which no more programs are begun.
const RUNNABLE_PER_CORE_MAX: usize = 4;
/// Share of ten seconds, in percent, in which something waited for it: more, and no more programs are begun.
/// Who has much to do, or a slow disk, is not refused work for that; who swaps is.
const MEMORY_PERCENT_MAX: f64 = 30.0;
/// A hundred programs that do nothing are begun and have ended within this, and a person does not notice it.
const AGE_MAX: Duration = Duration::from_millis(20);

/// The bounds of a machine, of what its kernel says about ten seconds (PSI), in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { cpu: None, memory: Some(MEMORY_PERCENT_MAX), io: None }
    }
}

impl Bounds {
    /// As `cpu=80,memory=20,io=60`; what is left out is as usual, and `off` is none.
    pub fn parse(text: &str) -> Result<Bounds, String> {
        let mut bounds = Bounds::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not name=percent"))?;
            let bound = match value {
                "off" => None,
                percent => Some(
                    percent
                        .parse::<f64>()
                        .ok()
                        .filter(|percent| (0.0..=100.0).contains(percent))
                        .ok_or_else(|| format!("{percent:?} is no percentage from 0 to 100, nor `off`"))?,
                ),
            };
            match name {
                "cpu" => bounds.cpu = bound,
                "memory" => bounds.memory = bound,
                "io" => bounds.io = bound,
                other => return Err(format!("{other:?} is none of cpu, memory and io")),
            }
        }
        Ok(bounds)
    }
}

/// This machine, looked at as often as it can change.
pub struct Pressure {
    bounds: Bounds,
    cores: usize,
    last: Mutex<Option<(Instant, Option<String>)>>,
}

impl Pressure {
    pub fn new(bounds: Bounds) -> Pressure {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Pressure { bounds, cores, last: Mutex::new(None) }
    }

    /// Why no more programs are begun now, if so.
    pub fn refuses(&self) -> Option<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = world::clock::monotonic();
        match &*last {
            Some((at, told)) if now.saturating_duration_since(*at) < AGE_MAX => told.clone(),
            _ => {
                let read = |name: &str| std::fs::read_to_string(format!("/proc/pressure/{name}")).unwrap_or_default();
                let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
                let told = decide(&self.bounds, &loadavg, self.cores, read);
                *last = Some((now, told.clone()));
                told
            }
        }
    }
}

fn decide(bounds: &Bounds, loadavg: &str, cores: usize, read: impl Fn(&str) -> String) -> Option<String> {
    let runnable = loadavg.split(' ').nth(3).and_then(|field| field.split_once('/')?.0.parse::<usize>().ok());
    if runnable.is_some_and(|runnable| runnable > cores * RUNNABLE_PER_CORE_MAX) {
        return Some("the machine is busy".to_owned());
    }
    let all = [("cpu", bounds.cpu), ("memory", bounds.memory), ("io", bounds.io)];
    all.into_iter().find_map(|(name, bound)| {
        let (bound, waited) = (bound?, some_avg10(&read(name))?);
        (waited > bound)
            .then(|| format!("the machine waits for {name} {waited:.0} % of its time, {bound:.0} % at most"))
    })
}

fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split(' ').find_map(|part| part.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_swaps_or_has_too_much_to_do_takes_no_more() {
        let psi = |percent: &str| format!("some avg10={percent} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n");
        let check = |loadavg: &str, memory: &str, io: &str, bounds: &Bounds, refused: bool| {
            let read = |name: &str| match name {
                "memory" => psi(memory),
                "io" => psi(io),
                _cpu => String::new(),
            };
            let decided = decide(bounds, loadavg, 2, read);
            assert_eq!(decided.is_some(), refused, "{loadavg} {memory} {io}: {decided:?}");
        };
        let usual = Bounds::default();
        check("0.1 0.1 0.1 1/200 77", "0.00", "99.0", &usual, false);
        check("0.1 0.1 0.1 8/200 77", "29.9", "0.00", &usual, false);
        check("0.1 0.1 0.1 9/200 77", "0.00", "0.00", &usual, true);
        check("0.1 0.1 0.1 1/200 77", "30.1", "0.00", &usual, true);
        // A machine without either is not refused for that.
        check("", "", "", &usual, false);
        let own = Bounds::parse("io=60, memory=off").expect("bounds");
        check("0.1 0.1 0.1 1/200 77", "99.0", "61.0", &own, true);
        check("0.1 0.1 0.1 1/200 77", "99.0", "59.0", &own, false);
    }

    #[test]
    fn bounds_that_are_none_are_told() {
        for (text, told) in [("cpu", "name=percent"), ("cpu=101", "percentage"), ("disk=3", "none of")] {
            let error = Bounds::parse(text).expect_err("refused");
            assert!(error.contains(told), "{error}");
        }
    }
}
