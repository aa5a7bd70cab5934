//! A machine that is not there: within it the doors lead to a seed instead of to the kernel.
//!
//! Owns what such a machine is to the code that runs on it: its dice, what its wall clock shows, how long what blocks takes,
//! and whether it runs, is frozen or is gone. Promises that the same seed makes the same run, on a runtime of one thread whose time
//! is paused; [`crate::disk::Simulated`] is the disk for it. Knows no network: whoever simulates several of them carries bytes.

use crate::random::Dice;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinHandle};

/// Ended tasks are forgotten when there are this many more of them than at the last time.
const SWEEP_TASKS: usize = 64;

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// A simulated machine. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dice: Dice,
    /// When its runtime's time began, as far as it knows.
    started: tokio::time::Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    run: Run,
    /// What its wall clock showed when it started.
    wall_ms: u64,
    blocking_max: Duration,
    tasks: Vec<AbortHandle>,
    sweep_at: usize,
}

#[derive(Debug)]
enum Run {
    Running,
    /// Its tasks wait here until it thaws.
    Frozen(Vec<Waker>),
    Gone,
}

/// The machine whose work this thread does at the moment.
pub(crate) fn current() -> Option<Host> {
    CURRENT.with_borrow(Clone::clone)
}

impl Host {
    /// A machine that runs. Must be called on the runtime it is to run on.
    pub fn new(seed: u64, unix_ms: u64) -> Self {
        let state = State {
            run: Run::Running,
            wall_ms: unix_ms,
            blocking_max: Duration::from_millis(1),
            tasks: Vec::new(),
            sweep_at: SWEEP_TASKS,
        };
        let dice = Dice::seeded(seed);
        Self { inner: Arc::new(Inner { dice, started: tokio::time::Instant::now(), state: Mutex::new(state) }) }
    }

    /// Starts `work` on this machine; what it starts is on this machine too.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        #[expect(clippy::disallowed_methods, reason = "this is the door's other side")]
        let handle = tokio::spawn(On { host: self.clone(), work: Box::pin(work) });
        let mut state = self.state();
        if matches!(state.run, Run::Gone) {
            handle.abort();
            return handle;
        }
        if state.tasks.len() >= state.sweep_at {
            state.tasks.retain(|task| !task.is_finished());
            state.sweep_at = state.tasks.len() + SWEEP_TASKS;
        }
        state.tasks.push(handle.abort_handle());
        handle
    }

    /// Ends everything on it between two steps, as SIGKILL and a power cut do. Its disk is the caller's to cut.
    pub fn kill(&self) {
        let mut state = self.state();
        state.run = Run::Gone;
        for task in std::mem::take(&mut state.tasks) {
            task.abort();
        }
    }

    /// Nothing on it goes on until it thaws; time does.
    pub fn freeze(&self) {
        let mut state = self.state();
        if matches!(state.run, Run::Running) {
            state.run = Run::Frozen(Vec::new());
        }
    }

    pub fn thaw(&self) {
        let mut state = self.state();
        if let Run::Frozen(waiting) = &mut state.run {
            let waiting = std::mem::take(waiting);
            state.run = Run::Running;
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Has its wall clock jump.
    pub fn step_clock(&self, by_ms: i64) {
        let mut state = self.state();
        state.wall_ms = state.wall_ms.saturating_add_signed(by_ms);
    }

    /// How long what blocks, a sync above all, may take at most.
    pub fn set_blocking_max(&self, blocking_max: Duration) {
        self.state().blocking_max = blocking_max;
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        let ran_ms = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.state().wall_ms.saturating_add(ran_ms)
    }

    pub(crate) fn dice(&self) -> &Dice {
        &self.inner.dice
    }

    /// Takes the time that blocking takes; the work itself is then done at once.
    pub(crate) async fn block(&self) {
        let most_us = u64::try_from(self.state().blocking_max.as_micros()).unwrap_or(u64::MAX);
        let took_us = self.dice().roll() % most_us.max(1);
        tokio::time::sleep(Duration::from_micros(took_us)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task must not go on now; if it may later, it is woken then.
    fn holds(&self, task: &Waker) -> bool {
        match &mut self.state().run {
            Run::Running => false,
            Run::Frozen(waiting) => {
                waiting.push(task.clone());
                true
            }
            Run::Gone => true,
        }
    }
}

/// Work on a machine.
struct On<F> {
    host: Host,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for On<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.host.holds(context.waker()) {
            return Poll::Pending;
        }
        let _here = Here::enter(self.host.clone());
        self.work.as_mut().poll(context)
    }
}

/// This thread works for a machine while this is held.
struct Here(Option<Host>);

impl Here {
    fn enter(host: Host) -> Self {
        Self(CURRENT.replace(Some(host)))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn paused() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
    }

    #[test]
    fn the_doors_lead_to_the_seed_and_the_runtimes_time() {
        let run = || {
            paused().block_on(async {
                let host = Host::new(7, 1_000_000);
                let numbers = host.spawn(async {
                    let began = crate::clock::monotonic();
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    let inner = crate::task::spawn("test", async { crate::random::number() }).join().await;
                    let blocked = crate::task::blocking(crate::random::number).await;
                    (began.elapsed() < Duration::from_secs(5), crate::clock::unix_ms() / 1_000, inner, blocked)
                });
                numbers.await.expect("it ran")
            })
        };
        let first = run();
        assert!(first.0, "no time passed outside");
        assert_eq!(first.1, 1_060);
        assert_eq!(first, run());
    }

    #[test]
    fn a_frozen_machine_stands_still_and_a_killed_one_is_gone() {
        paused().block_on(async {
            let host = Host::new(1, 0);
            let steps = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&steps);
            let task = host.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            tokio::time::sleep(Duration::from_millis(3_500)).await;
            host.freeze();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(steps.load(Ordering::Relaxed), 3);
            host.thaw();
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            assert_eq!(steps.load(Ordering::Relaxed), 6);
            host.kill();
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
            assert!(host.spawn(async {}).await.is_err(), "nothing starts on a machine that is gone");
        });
    }
}
