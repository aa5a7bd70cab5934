//! The part as a whole: its task, and what others ask it.
//!
//! Owns the store and the alerts behind one lock, taken for a sample and for a question, never across an
//! await. A question copies what it wants out.

use crate::alerts::{Alerts, Change, Rule, built_in};
use crate::logs::{Keep, Logs};
use crate::machine::Machine;
use crate::requests::Requests;
use crate::series::Store;
use meter::{Counter, Gauge, Histogram, Meter, Registration};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use wire::api::{Alert, Load, Series};
use world::task::Task;

/// How often everything is sampled: [`crate::series::POINTS`] of these are an hour.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// How often logs are brought under their bounds when nothing else asks for it. A service that writes
/// 1 MB/s, which is a lot, is by then 60 MB over.
const PRUNE_EVERY_MS: u64 = 60_000;

/// Bounds of how long a sample takes: it should be a few milliseconds.
const SAMPLE_SECONDS: &[f64] = &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0];

/// What the agent may hold: with control and gateway in one process, what the design grants an orchestrator.
const MEMORY_BUDGET_BYTES: u64 = 80 << 20;

#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder whose disk is watched.
    pub data_dir: PathBuf,
    /// Where shims write.
    pub logs_dir: PathBuf,
    /// Where requests are told of.
    pub requests_dir: PathBuf,
    /// Where the kernel's files are.
    pub proc_dir: PathBuf,
    pub sample_every: Duration,
    pub rules: Vec<Rule>,
}

impl Settings {
    pub fn new(data_dir: &Path, logs_dir: &Path) -> Settings {
        Settings {
            data_dir: data_dir.to_owned(),
            logs_dir: logs_dir.to_owned(),
            requests_dir: data_dir.join("requests"),
            proc_dir: PathBuf::from("/proc"),
            sample_every: SAMPLE_EVERY,
            rules: built_in(MEMORY_BUDGET_BYTES),
        }
    }

    /// Alerts fire once what they are about has held for `ms`, or as soon as their rule says if that is sooner: for
    /// drills, which need not find out whether minutes pass.
    pub fn alerting_after(mut self, ms: u64) -> Settings {
        for rule in &mut self.rules {
            rule.for_ms = rule.for_ms.min(ms);
        }
        self
    }
}

/// This machine's series, logs and alerts. Dropped, it stops sampling; clones of its [`Logs`] go on.
#[derive(Debug)]
pub struct Telemetry {
    shared: Arc<Shared>,
    sampled: watch::Receiver<u64>,
    _collector: Registration,
    _task: Task,
}

#[derive(Debug)]
struct Shared {
    meter: Meter,
    machine: Machine,
    logs: Logs,
    requests: Requests,
    state: Mutex<State>,
    own: Own,
}

#[derive(Debug)]
struct State {
    store: Store,
    alerts: Alerts,
    sampled_at: Option<Instant>,
    /// `None` until somebody said which instances live: then nothing may be pruned.
    keep: Option<Vec<Keep>>,
    /// What to keep changed, or it is time.
    prune_due_ms: u64,
    /// Refused at the sample before.
    refused: u64,
}

/// What this part counts about itself.
#[derive(Debug)]
struct Own {
    streams: Gauge,
    refused: Counter,
    sample_seconds: Histogram,
    follows: Gauge,
    logs_bytes: Gauge,
    logs_freed_bytes: Counter,
    prune_failures: Counter,
}

impl Own {
    fn new(meter: &Meter) -> Own {
        Own {
            streams: meter.gauge("bramble_telemetry_streams", "Streams of points kept in memory.", &[]),
            refused: meter.counter("bramble_telemetry_refused_total", "Samples not kept: too many streams.", &[]),
            sample_seconds: meter.histogram(
                "bramble_telemetry_sample_seconds",
                "Time to sample every series and judge them.",
                &[],
                SAMPLE_SECONDS,
            ),
            follows: meter.gauge("bramble_telemetry_follows", "Logs being followed.", &[]),
            logs_bytes: meter.gauge("bramble_telemetry_logs_bytes", "What all logs take, as last pruned.", &[]),
            logs_freed_bytes: meter.counter("bramble_telemetry_logs_freed_bytes_total", "Old logs removed.", &[]),
            prune_failures: meter.counter("bramble_telemetry_prune_failures_total", "Old logs not removed.", &[]),
        }
    }
}

impl Telemetry {
    /// Starts sampling. Needs a runtime.
    pub fn start(settings: Settings, meter: Meter) -> Telemetry {
        let machine = Machine::new(&settings.proc_dir, &settings.data_dir);
        let collector = machine.register(&meter);
        let state = State {
            store: Store::new(),
            alerts: Alerts::new(settings.rules),
            sampled_at: None,
            keep: None,
            prune_due_ms: 0,
            refused: 0,
        };
        let own = Own::new(&meter);
        let logs = Logs::new(&settings.logs_dir);
        let requests = Requests::new(&settings.requests_dir, &meter);
        let shared = Arc::new(Shared { meter, machine, logs, requests, state: Mutex::new(state), own });
        let (sender, sampled) = watch::channel(0);
        let task = world::task::spawn("telemetry", run(shared.clone(), settings.sample_every, sender));
        Telemetry { shared, sampled, _collector: collector, _task: task }
    }

    /// How busy this machine is, at most a second old.
    pub fn load(&self) -> Load {
        self.shared.machine.load()
    }

    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    pub fn logs(&self) -> &Logs {
        &self.shared.logs
    }

    pub fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    /// The series called `name` whose labels hold all of `filters`; see [`Store::query`].
    pub fn series(&self, name: &str, filters: &[(String, String)], since_ms: u64) -> Vec<Series> {
        self.shared.state().store.query(name, filters, since_ms)
    }

    /// Names [`Telemetry::series`] knows.
    pub fn series_names(&self) -> Vec<String> {
        self.shared.state().store.names()
    }

    /// What fires, then what holds but not for long enough yet.
    pub fn alerts(&self) -> Vec<Alert> {
        self.shared.state().alerts.list()
    }

    /// Changes with every sample; its value counts them.
    pub fn sampled(&self) -> watch::Receiver<u64> {
        self.sampled.clone()
    }

    /// Which shims run now: what they use counts as ours.
    pub fn watch_shims(&self, pids: Vec<u32>) {
        self.shared.machine.watch_shims(pids);
    }

    /// What logs to keep of which services: all there are. Until this is said, nothing is pruned.
    pub fn keep_logs(&self, keep: Vec<Keep>) {
        let mut state = self.shared.state();
        if state.keep.as_ref() != Some(&keep) {
            state.keep = Some(keep);
            state.prune_due_ms = 0;
        }
    }
}

/// Samples for ever. May be dropped anywhere; a prune that runs ends by itself.
async fn run(shared: Arc<Shared>, every: Duration, sampled: watch::Sender<u64>) {
    let mut ticks = tokio::time::interval(every);
    // After a pause (a laptop's lid) one sample says as much as the hundreds that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = world::clock::unix_ms();
        shared.sample(now_ms, world::clock::monotonic());
        sampled.send_modify(|count| *count += 1);
        if let Some(keep) = shared.prune_due(now_ms) {
            prune(&shared, now_ms, keep).await;
        }
    }
}

async fn prune(shared: &Arc<Shared>, now_ms: u64, keep: Vec<Keep>) {
    let logs = shared.logs.clone();
    let Ok(pruned) = tokio::task::spawn_blocking(move || logs.prune(now_ms, &keep)).await else { return };
    shared.own.logs_freed_bytes.add(pruned.freed_bytes);
    #[expect(clippy::cast_precision_loss, reason = "nobody reads the last byte of a petabyte")]
    shared.own.logs_bytes.set(pruned.kept_bytes as f64);
    shared.own.prune_failures.add(pruned.failed);
    if pruned.freed_bytes > 0 {
        tracing::debug!(instances = pruned.instances, files = pruned.files, bytes = pruned.freed_bytes, "pruned logs");
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The worst a panic leaves behind is a sample half recorded.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self, now_ms: u64, now: Instant) {
        let samples = self.meter.samples();
        let mut guard = self.state();
        let state = &mut *guard;
        let elapsed = state.sampled_at.map_or(Duration::ZERO, |then| now.duration_since(then));
        state.sampled_at = Some(now);
        state.store.record(now_ms, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), &samples);
        let changes = state.alerts.step(now_ms, &state.store);
        let firing = state.alerts.firing();
        #[expect(clippy::cast_precision_loss, reason = "bounded by STREAMS_MAX")]
        self.own.streams.set(state.store.streams() as f64);
        self.own.refused.add(state.store.refused() - state.refused);
        state.refused = state.store.refused();
        drop(guard);
        #[expect(clippy::cast_precision_loss, reason = "bounded by FOLLOWS_MAX")]
        self.own.follows.set(self.logs.follows() as f64);
        for (alert, count) in firing {
            let help = "Alerts that fire now.";
            #[expect(clippy::cast_precision_loss, reason = "bounded by ALERTS_MAX")]
            self.meter.gauge("bramble_alerts_firing", help, &[("alert", alert)]).set(count as f64);
        }
        for change in &changes {
            tell(change);
        }
        self.own.sample_seconds.observe_duration(world::clock::monotonic().duration_since(now));
    }

    fn prune_due(&self, now_ms: u64) -> Option<Vec<Keep>> {
        let mut state = self.state();
        let keep = state.keep.clone()?;
        // A clock set back far would put it off as far.
        let due = now_ms >= state.prune_due_ms || state.prune_due_ms - now_ms > PRUNE_EVERY_MS;
        due.then(|| {
            state.prune_due_ms = now_ms.saturating_add(PRUNE_EVERY_MS);
            keep
        })
    }
}

fn tell(change: &Change) {
    match change {
        Change::Fired(alert) => {
            tracing::warn!(alert = alert.name, labels = ?alert.labels, value = alert.value, "{}", alert.summary);
        }
        Change::Resolved(alert) => {
            tracing::info!(alert = alert.name, labels = ?alert.labels, value = alert.value, "alert ended");
        }
    }
}
