//! How busy this machine is, measured and reported to all.
//!
//! Owns what was reported last: a figure is reported anew once it has changed enough to matter, so that what is decided by
//! it is not decided anew by noise. Nothing of it is ever written to a disk.

use containers::Agent;
use control::Soft;
use meter::Meter;
use std::sync::Arc;
use std::time::Duration;
use telemetry::{Reading, Telemetry};
use wire::resource::{Load, Node, key};

/// Between two looks: the kernel's own figures are over ten seconds, and one look reads ten small files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks that the use of processors is smoothed over: ten seconds, as the kernel does with what waits.
const SMOOTH_LOOKS: f64 = 5.0;
/// What did not change is said again after so long: whoever waits for a machine to have been calm goes by its reports.
const REPORT_EVERY_MS: u64 = 10_000;
/// Twentieths of a machine's processors, and of its memory, are worth a report; less is noise.
const STEP_PARTS: u64 = 20;
/// Points of a share of time in which something waited, of a hundred.
const PSI_STEP: u32 = 2;
/// Between two looks at what the clocks on the wall show: they change twice a year.
const CLOCK_EVERY_MS: u64 = 60_000;

/// What measures, and what it is told to.
pub struct Parts {
    /// As it was reported when the node began.
    pub node: Node,
    pub soft: Soft,
    pub agent: Arc<Agent>,
    pub telemetry: Arc<Telemetry>,
    pub meter: Meter,
}

/// What was found out in one look.
#[derive(Debug, Clone, Default)]
struct Seen {
    reading: Reading,
    /// By instances, which are ours.
    instances_cores: f64,
    instances_memory_bytes: u64,
}

/// What is known of the machine between two looks.
#[derive(Debug, Default)]
struct Smooth {
    busy_cores: Option<f64>,
    ours_cores: Option<f64>,
    /// CPU seconds of the agent and the shims, and when.
    own: Option<(f64, u64)>,
}

/// Reports for as long as the node runs. May be dropped anywhere: what was reported stays.
pub async fn report(parts: Parts) {
    let Parts { mut node, soft, agent, telemetry, meter } = parts;
    let reports =
        meter.counter("bramble_cluster_load_reports_total", "Times this machine reported how busy it is.", &[]);
    let mut smooth = Smooth::default();
    let mut said: Option<Load> = None;
    let mut clock_at_ms = 0;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = world::clock::unix_ms();
        let (instances_cores, instances_memory_bytes) = agent.usage_of_all();
        let seen = Seen { reading: telemetry.machine().reading(), instances_cores, instances_memory_bytes };
        let found = smooth.look(&node, &seen, now_ms);
        if let Some(load) = worth_saying(&node, said.as_ref(), found) {
            if let Err(error) = soft.put_json(key::load(&node.id), &load) {
                tracing::warn!(%error, "how busy this machine is cannot be reported");
            }
            reports.inc();
            said = Some(load);
        }
        // Also when the clock was set back.
        if now_ms.abs_diff(clock_at_ms) >= CLOCK_EVERY_MS {
            clock_at_ms = now_ms;
            let offset = utc_offset_minutes();
            if node.utc_offset_minutes != offset {
                node.utc_offset_minutes = offset;
                if let Err(error) = soft.put_json(key::node(&node.id), &node) {
                    tracing::warn!(%error, "what the clocks here show cannot be reported");
                }
            }
        }
    }
}

/// What clocks on the wall show here, east of Greenwich.
pub fn utc_offset_minutes() -> i32 {
    let now = i64::try_from(world::clock::unix_ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    now.map_or(0, |now| jiff::tz::TimeZone::system().to_offset(now).seconds() / 60)
}

impl Smooth {
    fn look(&mut self, node: &Node, seen: &Seen, now_ms: u64) -> Load {
        let reading = &seen.reading;
        let cores = f64::from(node.cores);
        let busy = smoothed(&mut self.busy_cores, reading.cpu_busy.unwrap_or_default() * cores);
        let own_seconds = reading.agent.cpu_seconds + reading.shims.cpu_seconds;
        let own_cores = match self.own.replace((own_seconds, now_ms)) {
            Some((seconds, at_ms)) if now_ms > at_ms => {
                (own_seconds - seconds).max(0.0) * 1_000.0 / (now_ms - at_ms) as f64
            }
            Some(_) | None => 0.0,
        };
        let ours = smoothed(&mut self.ours_cores, seen.instances_cores + own_cores);
        let available = reading.memory_available_bytes.unwrap_or_default();
        let used = node.memory_bytes.saturating_sub(available);
        let our_memory = seen.instances_memory_bytes + reading.agent.resident_bytes + reading.shims.resident_bytes;
        let [cpu, memory, io] = [reading.waiting_cpu(), reading.psi_memory, reading.waiting_io()].map(percent);
        Load {
            at_ms: now_ms,
            cpu_busy_millis: millis(busy),
            memory_available_bytes: available,
            owner_cpu_millis: millis(busy - ours),
            owner_memory_bytes: used.saturating_sub(our_memory),
            psi_percent: cpu.max(memory).max(io),
            psi_cpu_percent: cpu,
            psi_memory_percent: memory,
            psi_io_percent: io,
            load_1m_millis: millis(reading.load_1m.unwrap_or_default()),
            disk_total_bytes: reading.disk_total_bytes.unwrap_or_default(),
            disk_available_bytes: reading.disk_available_bytes.unwrap_or_default(),
        }
    }
}

fn smoothed(mean: &mut Option<f64>, value: f64) -> f64 {
    let next = mean.map_or(value, |mean| mean + (value - mean) / SMOOTH_LOOKS);
    *mean = Some(next);
    next
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not below zero, and far below 2^64")]
fn millis(value: f64) -> u64 {
    (value.max(0.0) * 1_000.0).round() as u64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 100")]
fn percent(share: Option<f64>) -> u32 {
    (share.unwrap_or_default().clamp(0.0, 1.0) * 100.0).round() as u32
}

/// What to report after `said`, if anything: figures that changed little are as they were said before.
fn worth_saying(node: &Node, said: Option<&Load>, found: Load) -> Option<Load> {
    let Some(said) = said else { return Some(found) };
    let cores = u64::from(node.cores) * 1_000;
    let kept = |before: u64, now: u64, whole: u64| {
        if before.abs_diff(now) >= (whole / STEP_PARTS).max(1) { now } else { before }
    };
    // That nobody waits any more is never noise.
    let waits = |before: u32, now: u32| if before.abs_diff(now) >= PSI_STEP || now == 0 { now } else { before };
    let next = Load {
        at_ms: said.at_ms,
        cpu_busy_millis: kept(said.cpu_busy_millis, found.cpu_busy_millis, cores),
        memory_available_bytes: kept(said.memory_available_bytes, found.memory_available_bytes, node.memory_bytes),
        owner_cpu_millis: kept(said.owner_cpu_millis, found.owner_cpu_millis, cores),
        owner_memory_bytes: kept(said.owner_memory_bytes, found.owner_memory_bytes, node.memory_bytes),
        psi_percent: waits(said.psi_percent, found.psi_percent),
        psi_cpu_percent: waits(said.psi_cpu_percent, found.psi_cpu_percent),
        psi_memory_percent: waits(said.psi_memory_percent, found.psi_memory_percent),
        psi_io_percent: waits(said.psi_io_percent, found.psi_io_percent),
        load_1m_millis: kept(said.load_1m_millis, found.load_1m_millis, cores),
        disk_total_bytes: found.disk_total_bytes,
        disk_available_bytes: kept(said.disk_available_bytes, found.disk_available_bytes, found.disk_total_bytes),
    };
    let is_due = found.at_ms.abs_diff(said.at_ms) >= REPORT_EVERY_MS;
    (is_due || next != *said).then_some(Load { at_ms: found.at_ms, ..next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node { cores: 4, memory_bytes: 4 << 30, ..Node::default() }
    }

    fn look(smooth: &mut Smooth, now_ms: u64, busy: f64, instances_cores: f64) -> Load {
        let reading = Reading { cpu_busy: Some(busy), memory_available_bytes: Some(1 << 30), ..Reading::default() };
        smooth.look(&node(), &Seen { reading, instances_cores, instances_memory_bytes: 1 << 30 }, now_ms)
    }

    #[test]
    fn what_instances_do_not_use_is_the_owners() {
        let mut smooth = Smooth::default();
        let load = look(&mut smooth, 2_000, 0.75, 1.0);
        assert_eq!((load.cpu_busy_millis, load.owner_cpu_millis), (3_000, 2_000));
        assert_eq!((load.memory_available_bytes, load.owner_memory_bytes), (1 << 30, 2 << 30));
        // Instances are looked at less often than the machine: they seem to use more than all of it.
        assert_eq!(look(&mut smooth, 4_000, 0.0, 4.0).owner_cpu_millis, 800);
        let idle = (0..40).map(|more| look(&mut smooth, 6_000 + more * 2_000, 0.0, 4.0)).last();
        assert_eq!(idle.map(|load| (load.cpu_busy_millis, load.owner_cpu_millis)), Some((0, 0)));
    }

    #[test]
    fn our_own_processes_are_not_the_owner() {
        let mut smooth = Smooth::default();
        let at = |cpu_seconds: f64| {
            let mut reading = Reading { cpu_busy: Some(0.25), ..Reading::default() };
            reading.agent.cpu_seconds = cpu_seconds;
            Seen { reading, ..Seen::default() }
        };
        smooth.look(&node(), &at(100.0), 0);
        let later: Vec<u64> = (1..=60)
            .map(|look| {
                smooth
                    .look(&node(), &at(100.0 + f64::from(look) * 2.0), u64::from(look as u32) * 2_000)
                    .owner_cpu_millis
            })
            .collect();
        assert_eq!(later.last(), Some(&0), "it is one core, and all of it ours: {later:?}");
    }

    #[test]
    fn noise_is_said_again_only_when_it_is_time_and_as_it_was() {
        let said = Load {
            at_ms: 1_000,
            cpu_busy_millis: 400,
            psi_percent: 9,
            memory_available_bytes: 1 << 30,
            ..Load::default()
        };
        let check =
            |found: Load, expected: Option<Load>| assert_eq!(worth_saying(&node(), Some(&said), found), expected);
        let noise =
            Load { at_ms: 3_000, cpu_busy_millis: 599, psi_percent: 10, memory_available_bytes: (1 << 30) + 7, ..said };
        check(noise.clone(), None);
        check(Load { at_ms: 11_000, ..noise.clone() }, Some(Load { at_ms: 11_000, ..said.clone() }));
        check(
            Load { cpu_busy_millis: 600, ..noise.clone() },
            Some(Load { at_ms: 3_000, cpu_busy_millis: 600, ..said.clone() }),
        );
        check(Load { psi_percent: 11, ..noise.clone() }, Some(Load { at_ms: 3_000, psi_percent: 11, ..said.clone() }));
        // The clock was set back.
        let said_late = Load { at_ms: 99_000, ..said.clone() };
        assert_eq!(worth_saying(&node(), Some(&said_late), noise), Some(Load { at_ms: 3_000, ..said.clone() }));
        assert_eq!(worth_saying(&node(), None, said.clone()), Some(said.clone()));
    }
}
