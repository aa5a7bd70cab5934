//! This machine and Bramble's own processes: what the kernel says about them, as meter collectors and as
//! [`wire::api::Load`].
//!
//! Owns one cached reading: however many ask, the files are read once a second at most, so that the share
//! of busy time is over a span that means something. What a kernel does not tell (pressure, before 4.20 or
//! switched off) is left out, not zero; for what waits there is a coarser figure then, of the run queue and of idle
//! processors that wait for a disk. Knows no instance: shims are pids to it.

mod procfs;

use meter::{Meter, Registration, Samples};
use procfs::{CpuTicks, ProcessTimes};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reading younger than this is handed out again: shorter spans make the kernel's 10 ms ticks visible.
const FRESH: Duration = Duration::from_millis(900);

/// What the coarser figures are smoothed over, as the kernel's own are.
const QUEUED_OVER: Duration = Duration::from_secs(10);

/// Most shims looked at; each costs three small reads a sample.
const SHIMS_MAX: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Machine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    proc: PathBuf,
    data_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read_at: Option<Instant>,
    cpu: Option<CpuTicks>,
    shims: Vec<u32>,
    agent: Group,
    shim: Group,
    reading: Reading,
}

/// Processes counted together. Members come and go; what they used stays counted.
#[derive(Debug, Default)]
struct Group {
    last: HashMap<u32, Member>,
    usage: ProcessUsage,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    times: ProcessTimes,
    written_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUsage {
    pub count: u64,
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
    pub written_bytes: u64,
}

/// One look at the machine; `None` is what this kernel does not tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    pub load_1m: Option<f64>,
    pub cpu_busy: Option<f64>,
    pub memory_total_bytes: Option<u64>,
    pub memory_available_bytes: Option<u64>,
    pub disk_total_bytes: Option<u64>,
    pub disk_available_bytes: Option<u64>,
    pub psi_cpu: Option<f64>,
    pub psi_memory: Option<f64>,
    pub psi_io: Option<f64>,
    /// Share of looks at which more ran than there are processors.
    pub queued_cpu: Option<f64>,
    /// Share of time in which a processor was idle because of a disk.
    pub queued_io: Option<f64>,
    pub agent: ProcessUsage,
    pub shims: ProcessUsage,
}

impl Reading {
    /// Share of time in which something waited for a processor, as well as this kernel tells.
    pub fn waiting_cpu(&self) -> Option<f64> {
        self.psi_cpu.or(self.queued_cpu)
    }

    /// The same of the disk.
    pub fn waiting_io(&self) -> Option<f64> {
        self.psi_io.or(self.queued_io)
    }
}

impl Machine {
    /// `proc` is where the kernel's files are: `/proc`, unless a test writes its own.
    pub fn new(proc: &Path, data_dir: &Path) -> Machine {
        Machine(Arc::new(Shared {
            proc: proc.to_owned(),
            data_dir: data_dir.to_owned(),
            state: Mutex::new(State::default()),
        }))
    }

    /// Which shims run now.
    pub fn watch_shims(&self, mut pids: Vec<u32>) {
        pids.truncate(SHIMS_MAX);
        self.state().shims = pids;
    }

    /// The machine as it is, at most a second old.
    pub fn reading(&self) -> Reading {
        let now = world::clock::monotonic();
        let mut state = self.state();
        let fresh = state.read_at.is_some_and(|then| now.duration_since(then) < FRESH);
        if !fresh {
            let passed = state.read_at.map_or(Duration::ZERO, |then| now.duration_since(then));
            state.read_at = Some(now);
            self.0.look(&mut state, passed);
        }
        state.reading.clone()
    }

    /// Looks again, however fresh the last reading is: as if `passed` had gone by since.
    pub fn look_after(&self, passed: Duration) -> Reading {
        let mut state = self.state();
        state.read_at = Some(world::clock::monotonic());
        self.0.look(&mut state, passed);
        state.reading.clone()
    }

    /// The same, at once.
    pub fn look(&self) -> Reading {
        self.look_after(Duration::ZERO)
    }

    /// What a node reports about itself; what is reserved is for whoever places instances to fill in.
    pub fn load(&self) -> wire::api::Load {
        let reading = self.reading();
        wire::api::Load {
            load_1m: reading.load_1m.unwrap_or_default(),
            cpu_busy: reading.cpu_busy.unwrap_or_default(),
            memory_available_bytes: reading.memory_available_bytes.unwrap_or_default(),
            disk_total_bytes: reading.disk_total_bytes.unwrap_or_default(),
            disk_available_bytes: reading.disk_available_bytes.unwrap_or_default(),
            psi_cpu: reading.psi_cpu.unwrap_or_default(),
            psi_memory: reading.psi_memory.unwrap_or_default(),
            psi_io: reading.psi_io.unwrap_or_default(),
            ..wire::api::Load::default()
        }
    }

    /// Reports to `meter` for as long as the registration is held.
    pub fn register(&self, meter: &Meter) -> Registration {
        let machine = self.clone();
        meter.collector(move |samples| report(&machine.reading(), samples))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A reading half done is done again at the next look.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.proc.join(file)).ok()
    }

    fn look(&self, state: &mut State, passed: Duration) {
        let stat = self.read("stat");
        let ticks = stat.as_deref().and_then(procfs::cpu_ticks);
        // The first reading says how it was since boot.
        let before = state.cpu.unwrap_or_default();
        let cpu_busy = ticks.and_then(|now| share(now.busy, before.busy, now, before));
        let cpu_busy = cpu_busy.or(ticks.and(state.reading.cpu_busy));
        let queue = stat.as_deref().and_then(procfs::run_queue);
        let queued_cpu = queue.map(|queue| f64::from(u8::from(queue.is_waiting())));
        // One processor that is idle because of a disk is enough for something to wait.
        let idle = ticks.and_then(|now| share(now.disk_idle, before.disk_idle, now, before));
        let queued_io = idle.zip(queue).map(|(idle, queue)| (idle * f64::from(queue.cores)).min(1.0));
        let weight = 1.0 - (-passed.as_secs_f64() / QUEUED_OVER.as_secs_f64()).exp();
        let smoothed = |before: Option<f64>, now: Option<f64>| match (before, now) {
            (Some(before), Some(now)) => Some(before + (now - before) * weight),
            // One look says nothing yet.
            (None, Some(_)) => Some(0.0),
            (before, None) => before,
        };
        let (queued_cpu, queued_io) =
            (smoothed(state.reading.queued_cpu, queued_cpu), smoothed(state.reading.queued_io, queued_io));
        state.cpu = ticks;
        let memory = self.read("meminfo");
        let memory = |field| memory.as_deref().and_then(|text| procfs::kib_field(text, field));
        let pressure = |kind| self.read(&format!("pressure/{kind}")).as_deref().and_then(procfs::pressure);
        let disk = rustix::fs::statvfs(&self.data_dir).ok();
        let shims = std::mem::take(&mut state.shims);
        state.agent.look(self, &[std::process::id()]);
        state.shim.look(self, &shims);
        state.shims = shims;
        state.reading = Reading {
            load_1m: self.read("loadavg").as_deref().and_then(procfs::load_1m),
            cpu_busy,
            memory_total_bytes: memory("MemTotal"),
            memory_available_bytes: memory("MemAvailable"),
            disk_total_bytes: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
            disk_available_bytes: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            psi_cpu: pressure("cpu"),
            psi_memory: pressure("memory"),
            psi_io: pressure("io"),
            queued_cpu,
            queued_io,
            agent: state.agent.usage,
            shims: state.shim.usage,
        };
    }
}

impl Group {
    fn look(&mut self, shared: &Shared, pids: &[u32]) {
        let mut last = HashMap::with_capacity(pids.len());
        self.usage.count = 0;
        self.usage.resident_bytes = 0;
        for pid in pids {
            let Some(times) = shared.read(&format!("{pid}/stat")).as_deref().and_then(procfs::process_times) else {
                continue;
            };
            let status = shared.read(&format!("{pid}/status"));
            let io = shared.read(&format!("{pid}/io"));
            let written_bytes = io.as_deref().and_then(|io| procfs::plain_field(io, "write_bytes")).unwrap_or(0);
            self.usage.count += 1;
            self.usage.resident_bytes +=
                status.as_deref().and_then(|status| procfs::kib_field(status, "VmRSS")).unwrap_or(0);
            let before = self.last.get(pid).filter(|before| before.times.started == times.started);
            let cpu_before = before.map_or(0.0, |before| before.times.cpu_seconds);
            self.usage.cpu_seconds += (times.cpu_seconds - cpu_before).max(0.0);
            self.usage.written_bytes += written_bytes.saturating_sub(before.map_or(0, |before| before.written_bytes));
            last.insert(*pid, Member { times, written_bytes });
        }
        self.last = last;
    }
}

/// What part had of all time between two looks; `None` when no time passed.
#[expect(clippy::cast_precision_loss, reason = "differences of ticks are small")]
fn share(part_now: u64, part_before: u64, now: CpuTicks, before: CpuTicks) -> Option<f64> {
    let total = now.total.checked_sub(before.total).filter(|total| *total > 0)?;
    Some((part_now.saturating_sub(part_before) as f64 / total as f64).min(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "sizes below 9 PB are exact, and nobody reads the last byte")]
fn report(reading: &Reading, samples: &mut Samples) {
    let mut gauge = |name, help, labels: &[(&'static str, &str)], value: Option<f64>| {
        if let Some(value) = value {
            samples.gauge(name, help, labels, value);
        }
    };
    let bytes = |value: Option<u64>| value.map(|value| value as f64);
    gauge("bramble_node_load1", "Load average of one minute.", &[], reading.load_1m);
    gauge("bramble_node_cpu_busy", "Busy share of all cores, 0 to 1.", &[], reading.cpu_busy);
    gauge("bramble_node_memory_total_bytes", "Memory.", &[], bytes(reading.memory_total_bytes));
    let available = "Memory that can be had without swapping.";
    gauge("bramble_node_memory_available_bytes", available, &[], bytes(reading.memory_available_bytes));
    let total = "Size of the file system that holds the data folder.";
    gauge("bramble_node_disk_total_bytes", total, &[], bytes(reading.disk_total_bytes));
    let free = "Room left for us on the file system that holds the data folder.";
    gauge("bramble_node_disk_available_bytes", free, &[], bytes(reading.disk_available_bytes));
    let psi = "Share of the last ten seconds in which something waited, 0 to 1.";
    gauge("bramble_node_psi", psi, &[("kind", "cpu")], reading.psi_cpu);
    gauge("bramble_node_psi", psi, &[("kind", "memory")], reading.psi_memory);
    gauge("bramble_node_psi", psi, &[("kind", "io")], reading.psi_io);
    for (process, usage) in [("agent", reading.agent), ("shim", reading.shims)] {
        let labels = [("process", process)];
        samples.gauge("bramble_process_count", "Our own processes.", &labels, usage.count as f64);
        let resident = "Memory our own processes hold.";
        samples.gauge("bramble_process_resident_bytes", resident, &labels, usage.resident_bytes as f64);
        let cpu = "CPU time our own processes used.";
        samples.counter("bramble_process_cpu_seconds_total", cpu, &labels, usage.cpu_seconds);
        let written = "Bytes our own processes had written to a disk.";
        samples.counter("bramble_process_written_bytes_total", written, &labels, usage.written_bytes as f64);
    }
}
