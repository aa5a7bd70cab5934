//! This machine's cores, looked at one after another for as long as the node runs, and what follows when one is wrong.
//!
//! Owns the thread that computes, at the lowest priority and on one core at a time, and the machine's record of what it
//! found. A core that is wrong has the machine drained, by the same record as `bramble node drain`; who activates it has its
//! wrong cores looked at again at once. Promises to cost less than a thousandth of one core, and to keep away while programs
//! wait for the processor. What is computed, and what an answer means, is [`selftest`]'s.

use control::view::View;
use control::{Compare, Space, SpaceError, Txn};
use meter::Meter;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use selftest::{Fault, Judge, Outcome, Task, Test, Wrong};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use telemetry::Telemetry;
use wire::resource::{CoreFault, Node, key};

/// Between two pieces of work, of a millisecond or two: four parts in ten thousand of one core at most.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two while a core is in doubt: a few of them are over within a second.
const PAUSE_IN_DOUBT: Duration = Duration::from_millis(10);
/// Share of time in which programs wait for a processor, above which none is taken for this.
const PRESSURE_MAX: f64 = 0.10;
/// After ten minutes it is done all the same: machines that are always busy have cores too.
const LEFT_OUT_MAX: u32 = 120;
/// Between tries to write down what was found.
const RETRY: Duration = Duration::from_secs(2);
/// More than a thread can tell before the record is written: then it waits.
const TOLD_MAX: usize = 64;
/// The lowest priority there is.
const NICE: i32 = 19;
const SECONDS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.1];

/// What it needs of the node.
pub struct Parts {
    pub me: String,
    pub space: Space,
    pub view: View,
    pub telemetry: Arc<Telemetry>,
    pub meter: Meter,
    /// Names cores that are to be wrong, for tests; then nothing is waited for either.
    pub lab: Option<PathBuf>,
}

/// What a thread has computed: the core answers as it does.
type Unit = Box<dyn Fn(Task, u64) -> Result<(), Wrong> + Send>;

/// How long is paused, and whether the machine has better things to do.
struct Pace {
    pause: Duration,
    is_busy: Box<dyn Fn() -> bool + Send>,
}

/// What the thread found out.
#[derive(Debug)]
enum Found {
    Fault(Fault),
    Right { core: usize },
}

/// Runs until it is dropped, anywhere: the thread ends with it.
pub async fn keep(parts: Parts) {
    let Parts { me, space, mut view, telemetry, meter, lab } = parts;
    let (ask, asked) = channel();
    let (tell, mut told) = tokio::sync::mpsc::channel(TOLD_MAX);
    let known = own(&view, &me).faults.iter().map(|fault| fault.core as usize).collect::<Vec<_>>();
    let pace = Pace {
        pause: if lab.is_some() { PAUSE_IN_DOUBT } else { PAUSE },
        is_busy: Box::new({
            let quiet = lab.is_some();
            move || !quiet && telemetry.load().psi_cpu > PRESSURE_MAX
        }),
    };
    let examiner = Examiner { judge: Judge::new(known), unit: unit(lab), pace, meter, asked, tell };
    let thread = std::thread::Builder::new().name("selftest".to_owned()).spawn(move || examiner.run());
    if let Err(error) = thread {
        tracing::warn!(%error, "this machine's cores are not tested: there is no thread for it");
        return;
    }
    let mut record = Record { me, space, ask, pending: VecDeque::new(), is_examined: false };
    loop {
        record.look(&own(&view, &record.me));
        tokio::select! {
            found = told.recv() => match found {
                Some(found) => record.pending.push_back(found),
                // It ended: there is no core it may be on.
                None => return,
            },
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !record.pending.is_empty() => {}
        }
        record.write_down().await;
    }
}

fn own(view: &View, me: &str) -> Node {
    view.borrow().machines.get(me).map(|machine| machine.node.clone()).unwrap_or_default()
}

/// What the cluster knows of this machine's cores.
struct Record {
    me: String,
    space: Space,
    ask: Sender<Vec<usize>>,
    pending: VecDeque<Found>,
    /// Wrong cores are being looked at again.
    is_examined: bool,
}

impl Record {
    /// Somebody says that the machine is to be used although cores of it were wrong: it is found out.
    fn look(&mut self, node: &Node) {
        let is_used = !node.drained && !node.cordoned;
        if node.faults.is_empty() || !is_used {
            self.is_examined = false;
        } else if !self.is_examined && self.pending.is_empty() {
            self.is_examined = true;
            tracing::info!("cores that were wrong are tested again: the machine was activated");
            // The thread gone, `told` says so.
            let _ = self.ask.send(node.faults.iter().map(|fault| fault.core as usize).collect());
        }
    }

    async fn write_down(&mut self) {
        while let Some(found) = self.pending.front() {
            match self.changed(found).await {
                Ok(true) => drop(self.pending.pop_front()),
                // Changed by somebody else meanwhile, or nobody leads: tried again.
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "what the test of the cores found cannot be written down yet");
                    return;
                }
            }
        }
    }

    async fn changed(&self, found: &Found) -> Result<bool, SpaceError> {
        let at = key::node(&self.me);
        let stored = self.space.get(&at).await?;
        let revision = stored.as_ref().map_or(0, |entry| entry.mod_revision);
        let declared: Option<Node> = stored.and_then(|entry| entry.json().ok());
        let mut node = Node { id: self.me.clone(), ..declared.unwrap_or_default() };
        match found {
            Found::Fault(fault) => {
                node.drained = true;
                node.cordoned = false;
                node.faults.retain(|known| known.core as usize != fault.core);
                node.faults.push(CoreFault {
                    core: u32::try_from(fault.core).unwrap_or(u32::MAX),
                    test: fault.test.name().to_owned(),
                    expected: fault.wrong.expected.clone(),
                    got: fault.wrong.got.clone(),
                    elsewhere: fault.elsewhere,
                    found_ms: world::clock::unix_ms(),
                });
            }
            Found::Right { core } => node.faults.retain(|known| known.core as usize != *core),
        }
        let txn = Txn::new().when(Compare::mod_revision(&at, revision)).put_json(&at, &node);
        Ok(self.space.commit(txn).await?.succeeded)
    }
}

/// The thread.
struct Examiner {
    judge: Judge,
    unit: Unit,
    pace: Pace,
    meter: Meter,
    asked: Receiver<Vec<usize>>,
    tell: tokio::sync::mpsc::Sender<Found>,
}

impl Examiner {
    fn run(mut self) {
        // Of this thread alone, as Linux has it.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "cores are tested at the usual priority");
        }
        let mut cores = allowed();
        let (mut left_out, mut seed) = (0, world::random::number());
        loop {
            let pause = if self.judge.is_pressed() { PAUSE_IN_DOUBT } else { self.pace.pause };
            match self.asked.recv_timeout(pause) {
                Ok(wrong) => self.judge.reexamine(wrong),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.judge.is_pressed() && left_out < LEFT_OUT_MAX && (self.pace.is_busy)() {
                left_out += 1;
                continue;
            }
            left_out = 0;
            let Some(task) = self.judge.next(&cores) else { return };
            if !pin(task.core) {
                // Switched off, or no longer ours.
                cores.retain(|core| *core != task.core);
                continue;
            }
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let outcome = self.compute(task, seed);
            if !self.say(task, outcome) {
                return;
            }
        }
    }

    fn compute(&mut self, task: Task, seed: u64) -> Outcome {
        let (test, core) = (task.test.name(), task.core.to_string());
        let began = world::clock::monotonic();
        let answer = (self.unit)(task, seed);
        let took = world::clock::monotonic().saturating_duration_since(began);
        self.meter.counter("bramble_selftest_runs_total", "Tests of a core.", &[("test", test)]).inc();
        let help = "What a test of a core takes.";
        self.meter.histogram("bramble_selftest_seconds", help, &[("test", test)], SECONDS).observe_duration(took);
        if answer.is_err() {
            let labels = [("core", core.as_str()), ("test", test)];
            self.meter.counter("bramble_selftest_failures_total", "Wrong answers of a core.", &labels).inc();
        }
        self.judge.answered(answer)
    }

    /// False: nobody listens any more.
    fn say(&self, task: Task, outcome: Outcome) -> bool {
        let (core, test) = (task.core, task.test.name());
        match outcome {
            Outcome::Fine => true,
            Outcome::Doubtful(Wrong { expected, got }) => {
                tracing::warn!(core, test, expected, got, "a core gave a wrong answer and is asked again");
                true
            }
            Outcome::Passed => {
                tracing::warn!(
                    core,
                    test,
                    "the core is right whenever it is asked again; next time it is not believed"
                );
                true
            }
            Outcome::Faulty(fault) => {
                let Fault { core, test, wrong, elsewhere } = &fault;
                tracing::error!(
                    core,
                    test = test.name(),
                    expected = wrong.expected,
                    got = wrong.got,
                    elsewhere,
                    "a core computes wrong: this machine is drained; have its processor or memory looked at"
                );
                self.tell.blocking_send(Found::Fault(fault)).is_ok()
            }
            Outcome::Recovered { core } => {
                tracing::info!(core, "a core that was wrong is right again");
                self.tell.blocking_send(Found::Right { core }).is_ok()
            }
        }
    }
}

/// The cores this process may be on.
fn allowed() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(error) => {
            tracing::warn!(%error, "this machine's cores are not tested: which there are cannot be found out");
            Vec::new()
        }
    }
}

/// Has this thread be on one core and no other.
fn pin(core: usize) -> bool {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).is_ok()
}

fn unit(lab: Option<PathBuf>) -> Unit {
    match lab {
        None => Box::new(|task, seed| task.test.run(seed)),
        Some(path) => Box::new(move |task, seed| match said_to_be_wrong(&path).get(&(task.core, task.test.name())) {
            None => task.test.run(seed),
            Some(got) => Err(Wrong { expected: "right".to_owned(), got: got.clone() }),
        }),
    }
}

/// Lines of `CORE TEST ANSWER`; nothing where there is no file.
fn said_to_be_wrong(path: &Path) -> BTreeMap<(usize, &'static str), String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let core = words.next()?.parse().ok()?;
        let name = words.next()?;
        let test = Test::ALL.into_iter().find(|test| test.name() == name)?;
        Some(((core, test.name()), words.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}
