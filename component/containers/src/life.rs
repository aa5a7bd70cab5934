//! One instance, from nothing to serving and back: pull, build, start, watch, restart, stop.
//!
//! One task per instance owns all of it and tells its status. It goes by level: after a restart of the agent it looks
//! at what is there (a box that runs, one that ended, nothing) and goes on from that. Dropped anywhere, it leaves the
//! box running.

use crate::blueprint::{self, Blueprint};
use crate::door;
use crate::erase::erase;
use crate::error::BuildError;
use crate::health::{self, Check};
use crate::lease;
use crate::pinned;
use crate::restart::{Next, Restarts};
use crate::shared::{Live, Shared};
use images::{Image, Pull, Reference};
use sandbox::{ExitRecord, Found, Shim, ShimStart};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wire::diagnostic::chain;
use wire::resource::{Exit, Health, Instance, Phase, Status, key};
use wire::spec::{Expose, Protocol, PullPolicy};
use world::task::Task;

/// How long requests may take to leave an instance that is being stopped, beside its own grace.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// A box that was killed and is not gone by then hangs in the kernel; the instance is given up as stopped.
const KILL_MAX: Duration = Duration::from_secs(5);
/// Signals by name, as stop signals are written.
const SIGNALS: [(&str, i32); 10] = [
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("HUP", libc::SIGHUP),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("WINCH", libc::SIGWINCH),
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
];

/// What is to become of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    Stop,
    /// Its record is gone: stop, and leave nothing behind.
    Forget,
}

pub(crate) struct Life {
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    orders: watch::Receiver<Order>,
    status: Status,
    restarts: Restarts,
    /// What the image says about stopping and health.
    image: Option<Image>,
}

/// Why attending a running box ended.
enum Ended {
    Exited(ExitRecord),
    Ordered,
}

impl Life {
    pub(crate) fn new(shared: Arc<Shared>, instance: Arc<Instance>, orders: watch::Receiver<Order>) -> Life {
        let status = Status { instance: instance.id.clone(), ..Status::default() };
        Life { shared, instance, orders, status, restarts: Restarts::default(), image: None }
    }

    /// Runs until the instance's record is gone.
    pub(crate) async fn run(mut self) {
        loop {
            match self.order() {
                Order::Run => self.live().await,
                Order::Stop | Order::Forget => {
                    self.stop().await;
                    match self.next_order().await {
                        Some(Order::Run) => {}
                        Some(Order::Stop | Order::Forget) => return self.clean().await,
                        None => return,
                    }
                }
            }
        }
    }

    fn order(&mut self) -> Order {
        *self.orders.borrow_and_update()
    }

    /// What a stopped instance is to do next: run again or be forgotten. `None`: the agent ends, the record stays.
    async fn next_order(&mut self) -> Option<Order> {
        loop {
            match self.order() {
                Order::Stop => self.orders.changed().await.ok()?,
                order @ (Order::Forget | Order::Run) => return Some(order),
            }
        }
    }

    /// One start and what follows it, up to the pause before the next.
    async fn live(&mut self) {
        let dir = self.shared.run_dir(&self.instance.id);
        let mut orders = self.orders.clone();
        let found = match Shim::connect(&dir).await {
            Ok(found) => found,
            Err(error) => {
                let error = chain(&error);
                self.tell(Phase::Failed, format!("cannot look at its box: {error}"));
                return self.pause(Duration::from_secs(1)).await;
            }
        };
        let shim = match found {
            Found::Alive(shim) => {
                if let Err(error) = self.learn_image().await {
                    tracing::debug!(
                        instance = self.instance.id,
                        error = chain(&error),
                        "image of a running box is gone"
                    );
                }
                shim
            }
            Found::Exited(record) => return self.ended(record).await,
            Found::Nothing => {
                let started = tokio::select! {
                    started = self.start() => started,
                    () = changed(&mut orders) => return,
                };
                match started {
                    Ok(shim) => shim,
                    Err(error) => return self.not_started(&error).await,
                }
            }
        };
        match self.attend(Arc::new(shim)).await {
            Ended::Exited(record) => self.ended(record).await,
            Ended::Ordered => {}
        }
    }

    /// Brings the box up. Dropped half way, the next look finds what was made.
    async fn start(&mut self) -> Result<Shim, BuildError> {
        self.learn_image().await?;
        self.tell(Phase::Starting, String::new());
        let (shared, instance, image) = (Arc::clone(&self.shared), Arc::clone(&self.instance), self.image.clone());
        // Making folders waits for the disk.
        let drawn = tokio::task::spawn_blocking(move || blueprint::draw(&shared, &instance, image.as_ref())).await;
        let Blueprint { spec, command } = drawn.expect("drawing a blueprint does not panic")?;
        // Last, as all before takes time.
        let ends_boot_ms = self.lease().await;
        let start = ShimStart {
            dir: self.shared.run_dir(&self.instance.id),
            log_dir: self.shared.log_dir(&self.instance),
            log_size_bytes_max: self.instance.spec.log_size_bytes_max,
            spec,
            command,
            ends_boot_ms,
        };
        let shim = self.asked(start).await?;
        self.status.started_ms = world::clock::unix_ms();
        Ok(shim)
    }

    /// Waits until this machine may start it, among others that might run it.
    async fn lease(&mut self) -> Option<u64> {
        let (shared, instance) = (Arc::clone(&self.shared), Arc::clone(&self.instance));
        let why = "waits for a word from who leads, without which it must not run here";
        lease::to_start(&shared, &instance, || self.tell(Phase::Waiting, why.to_owned())).await
    }

    /// Has the spawner start a shim. What was asked of it is done, whether or not anybody waits: an agent that leaves
    /// can so wait until nothing of the kind is under way.
    async fn asked(&self, start: ShimStart) -> Result<Shim, BuildError> {
        let spawner = Arc::clone(&self.shared.spawner);
        let place = Arc::clone(&self.shared.starts).acquire_owned().await.expect("the agent's places are never closed");
        let (tell, told) = oneshot::channel();
        let asking = async move {
            let started = spawner.start(start).await;
            drop(place);
            // Nobody waits when the instance has other orders; the box is found through its folder.
            let _ = tell.send(started);
        };
        world::task::spawn("start", asking).detach();
        Ok(told.await.expect("asking the spawner does not panic")?)
    }

    async fn learn_image(&mut self) -> Result<(), BuildError> {
        let name = self.instance.spec.image.clone();
        if name == "host" || self.image.is_some() {
            return Ok(());
        }
        let written: Reference =
            name.parse().map_err(|source| BuildError::Reference { reference: name.clone(), source })?;
        let home = self.shared.box_dir(&self.instance.id);
        let pinned = pinned::reference(&home, &written);
        let policy = match self.instance.spec.pull_policy {
            PullPolicy::Never => Pull::Never,
            PullPolicy::Always if pinned.is_none() => Pull::Always,
            PullPolicy::Always | PullPolicy::Missing => Pull::Missing,
        };
        let reference = pinned.unwrap_or(written);
        let (progress, mut seen) = watch::channel(images::Progress::default());
        let images = self.shared.images.clone();
        let pull = images.pull(&reference, policy, progress);
        tokio::pin!(pull);
        let mut counting = true;
        let pulled = loop {
            tokio::select! {
                pulled = &mut pull => break pulled,
                changed = seen.changed(), if counting => {
                    counting = changed.is_ok();
                    let (done, total) = { let now = seen.borrow(); (now.bytes_done, now.bytes_total) };
                    if total > 0 {
                        let unpacking = if done == total { ", unpacking" } else { "" };
                        let of = format!("{} of {} MiB", done >> 20, total >> 20);
                        self.tell(Phase::Pulling, format!("pulling {name}: {of}{unpacking}"));
                    }
                }
            }
        };
        let image = pulled.map_err(|source| {
            pull_failures(&self.shared.meter).inc();
            BuildError::Pull { reference: name, source }
        })?;
        pinned::pin(&home, &image.digest).map_err(|source| BuildError::Folder { path: home, source })?;
        self.know(image);
        Ok(())
    }

    /// The image of a box that runs already: what it says matters, where it comes from does not.
    fn recall_image(&mut self) {
        if self.image.is_none()
            && let Ok(written) = self.instance.spec.image.parse::<Reference>()
        {
            let pinned = pinned::reference(&self.shared.box_dir(&self.instance.id), &written);
            if let Some(image) = self.shared.images.find(&pinned.unwrap_or(written)) {
                self.know(image);
            }
        }
    }

    fn know(&mut self, image: Image) {
        let protocol = |udp| if udp { Protocol::Udp } else { Protocol::Tcp };
        let ports = image.config.exposed.iter().map(|(port, udp)| Expose { port: *port, protocol: protocol(*udp) });
        self.status.image_ports = ports.collect();
        self.image = Some(image);
    }

    /// Watches a running box: its health, its end, and orders.
    async fn attend(&mut self, shim: Arc<Shim>) -> Ended {
        let live = Live {
            instance: Arc::clone(&self.instance),
            shim: Arc::clone(&shim),
            usage: wire::api::Usage::default(),
            cpu_before: None,
        };
        self.shared.live().insert(self.instance.id.clone(), live);
        let _lease = self.prolong(&shim);
        let _door = door::open(&self.shared, &self.instance, &shim).await;
        self.status.pid = Some(shim.pid());
        self.status.exit = None;
        if self.status.started_ms == 0 {
            self.status.started_ms = world::clock::unix_ms();
        }
        let check = Check::of(&self.instance, self.image.as_ref(), &self.status.image_ports);
        self.status.health = if check.is_declared() { Health::Starting } else { Health::None };
        self.tell(Phase::Running, String::new());
        let (verdicts, mut judged) = tokio::sync::mpsc::channel(4);
        let started_ms = self.status.started_ms;
        let work = health::watch(Arc::clone(&self.shared), Arc::clone(&shim), check, started_ms, verdicts);
        let _health = world::task::spawn("health", work);
        let mut orders = self.orders.clone();
        let ended = loop {
            tokio::select! {
                record = shim.exited() => break Ended::Exited(record),
                () = changed(&mut orders) => break Ended::Ordered,
                Some(verdict) = judged.recv() => {
                    self.status.ready = verdict.ready;
                    self.status.health = verdict.health;
                    self.tell(Phase::Running, verdict.message);
                }
            }
        };
        self.shared.live().remove(&self.instance.id);
        ended
    }

    /// While it is held, the box goes on as long as its instance may.
    fn prolong(&self, shim: &Arc<Shim>) -> Task {
        let work = lease::prolong(Arc::clone(&self.shared), Arc::clone(&self.instance), Arc::clone(shim));
        world::task::spawn("lease", work)
    }

    async fn not_started(&mut self, error: &BuildError) {
        let text = chain(error);
        tracing::warn!(instance = self.instance.id, error = text, "cannot start");
        (self.shared.hooks.note)(&self.instance, &format!("cannot start: {text}"));
        let now_ms = world::clock::unix_ms();
        self.status.exit = Some(Exit { code: 125, reason: text.clone(), at_ms: now_ms });
        self.again(125, 0, &text).await;
    }

    /// The box ended by itself.
    async fn ended(&mut self, record: ExitRecord) {
        let code = exit_code(&record);
        let lived_ms = record.at_ms.saturating_sub(self.status.started_ms);
        (self.shared.hooks.note)(&self.instance, &record.reason);
        tracing::info!(instance = self.instance.id, reason = record.reason, "ended");
        self.status.pid = None;
        self.status.exit = Some(Exit { code, reason: record.reason.clone(), at_ms: record.at_ms });
        if let Err(error) = sandbox::forget(&self.shared.run_dir(&self.instance.id)) {
            tracing::warn!(instance = self.instance.id, %error, "cannot clear the run folder of an ended box");
        }
        if record.overdue {
            return self.cut_off().await;
        }
        self.again(code, lived_ms, &record.reason).await;
    }

    /// It was stopped by its own machine, which is no failure of its own: it starts again as soon as it may.
    async fn cut_off(&mut self) {
        lease::stopped(&self.shared.meter).inc();
        let after_ms = self.instance.spec.disconnect.stop_after_ms.unwrap_or(0);
        let why = format!("stopped: this machine had no word from who leads for {} s", after_ms / 1_000);
        tracing::warn!(instance = self.instance.id, after_ms, "stopped, since this machine has no word from who leads");
        (self.shared.hooks.note)(&self.instance, &why);
        self.status.ready = false;
        self.status.health = Health::None;
        self.status.restarts += 1;
        self.tell(Phase::Waiting, why);
        let (shared, instance) = (Arc::clone(&self.shared), Arc::clone(&self.instance));
        let mut orders = self.orders.clone();
        tokio::select! {
            // What it says stays said until then.
            _ = lease::to_start(&shared, &instance, || {}) => {}
            () = changed(&mut orders) => {}
        }
    }

    /// Waits for the next start, or for ever if there is to be none.
    async fn again(&mut self, code: i32, lived_ms: u64, reason: &str) {
        self.status.ready = false;
        self.status.health = Health::None;
        match self.restarts.ended(&self.instance.spec.restart, code, lived_ms) {
            Next::Again { after_ms } => {
                self.tell(Phase::BackingOff, format!("{reason}; starts again in {after_ms} ms"));
                self.pause(Duration::from_millis(after_ms)).await;
                self.status.restarts += 1;
            }
            Next::Stay => {
                self.tell(Phase::Exited, reason.to_owned());
                changed(&mut self.orders.clone()).await;
            }
            Next::GaveUp => {
                self.tell(Phase::Failed, format!("{reason}; its restart policy allows no more attempts"));
                changed(&mut self.orders.clone()).await;
            }
        }
    }

    async fn pause(&mut self, pause: Duration) {
        let mut orders = self.orders.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed(&mut orders) => {}
        }
    }

    /// Out of traffic, then the stop signal, then the grace, then the end.
    async fn stop(&mut self) {
        self.status.ready = false;
        self.recall_image();
        let dir = self.shared.run_dir(&self.instance.id);
        if let Ok(Found::Alive(shim)) = Shim::connect(&dir).await {
            self.tell(Phase::Stopping, String::new());
            let shim = Arc::new(shim);
            let _lease = self.prolong(&shim);
            // Requests that are under way still need the door.
            let _door = door::open(&self.shared, &self.instance, &shim).await;
            let live = Live {
                instance: Arc::clone(&self.instance),
                shim: Arc::clone(&shim),
                usage: wire::api::Usage::default(),
                cpu_before: None,
            };
            self.shared.live().insert(self.instance.id.clone(), live);
            let drained = (self.shared.hooks.drained)(self.instance.id.clone());
            let record = tokio::select! {
                record = shim.exited() => Some(record),
                _ = tokio::time::timeout(DRAIN_MAX, drained) => self.end(&shim).await,
            };
            self.shared.live().remove(&self.instance.id);
            if let Some(record) = record {
                let code = exit_code(&record);
                self.status.exit = Some(Exit { code, reason: record.reason, at_ms: record.at_ms });
            }
        }
        if let Err(error) = sandbox::forget(&dir)
            && dir.exists()
        {
            tracing::warn!(instance = self.instance.id, %error, "cannot clear the run folder of a stopped box");
        }
        self.status.pid = None;
        self.status.health = Health::None;
        self.tell(Phase::Exited, "stopped".to_owned());
    }

    async fn end(&self, shim: &Shim) -> Option<ExitRecord> {
        let of_image = self.image.as_ref().and_then(|image| image.config.stop_signal.clone());
        let name = self.instance.spec.stop_signal.clone().or(of_image);
        let signal = name.map_or(libc::SIGTERM, |name| signal_number(&name));
        if let Err(error) = shim.signal(signal).await {
            tracing::debug!(instance = self.instance.id, %error, "cannot signal");
        }
        let grace = Duration::from_millis(self.instance.spec.stop_grace_ms);
        if let Ok(record) = tokio::time::timeout(grace, shim.exited()).await {
            return Some(record);
        }
        (self.shared.hooks.note)(&self.instance, "did not stop within its grace and is killed");
        if let Err(error) = shim.kill().await {
            tracing::debug!(instance = self.instance.id, %error, "cannot kill");
        }
        tokio::time::timeout(KILL_MAX, shim.exited()).await.ok()
    }

    /// Leaves nothing of the instance but its log.
    async fn clean(&self) {
        if let Err(error) = erase(&self.shared, &self.instance.id).await {
            tracing::warn!(instance = self.instance.id, %error, "cannot remove what the box wrote");
        }
        self.shared.meter.forget("instance", &self.instance.id);
        self.shared.soft.delete(&key::status(&self.instance.id));
    }

    fn tell(&mut self, phase: Phase, message: String) {
        self.status.phase = phase;
        self.status.message = message;
        self.status.changed_ms = world::clock::unix_ms();
        if let Err(error) = self.shared.soft.put_json(key::status(&self.instance.id), &self.status) {
            tracing::error!(instance = self.instance.id, %error, "cannot report a status");
        }
    }
}

/// Made at the agent's start, so that the first failure is a step up from zero.
pub(crate) fn pull_failures(meter: &meter::Meter) -> meter::Counter {
    meter.counter("bramble_image_pull_failures_total", "Images that could not be pulled.", &[])
}

/// Ends when the order is another one, or nobody can give orders any more.
async fn changed(orders: &mut watch::Receiver<Order>) {
    let _ = orders.changed().await;
}

/// The program's code, or 128 + the signal, as a shell counts.
fn exit_code(record: &ExitRecord) -> i32 {
    record.code.or(record.signal.map(|signal| 128 + signal)).unwrap_or(255)
}

fn signal_number(name: &str) -> i32 {
    let bare = name.trim_start_matches("SIG");
    let known = SIGNALS.iter().find(|(known, _)| bare.eq_ignore_ascii_case(known)).map(|(_, number)| *number);
    known.or_else(|| bare.parse().ok().filter(|number| (1..=64).contains(number))).unwrap_or(libc::SIGTERM)
}
