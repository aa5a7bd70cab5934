//! How long a box takes, from the start of a program that does nothing to its end, beside a plain process and others'
//! boxes. All of them in turn, round by round, so that what disturbs one disturbs all.

use super::figures::{go_first, lowest, median, milliseconds, quiet_moment};
use super::peers::{self, PROGRAM};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::process;
use sandbox::{BoxSpec, Outcome, Root, RunLimits, Spawner, SpawnerClient, Trust, Verdict};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;

const ROUNDS: usize = 60;
/// A median of fewer says nothing.
const QUIET_ROUNDS_MIN: usize = 15;
/// The first ones fill caches.
const ROUNDS_UNCOUNTED: usize = 5;
/// After each run: the kernel takes namespaces down in the background.
const PAUSE: Duration = Duration::from_millis(3);
/// Tells this program, started again, that it need not start itself again.
pub const CGROUPS_SEEN: &str = "--cgroups-seen";

struct Contender<'a> {
    name: String,
    run: Box<dyn FnMut() -> Duration + 'a>,
    times: Vec<Time>,
}

#[derive(Clone, Copy)]
struct Time {
    ms: f64,
    /// Begun while nobody else was running.
    quiet: bool,
}

pub(super) fn run(options: &Options) -> Measured {
    if !options.cgroups_seen && Path::new("/sys/fs/cgroup/unified").exists() && rustix::process::geteuid().is_root() {
        return Measured::Elsewhere(run_with_cgroups());
    }
    let priority = go_first();
    let earlier = process::with_children(&[std::process::id()]);
    let spawner = Spawner::start().expect("this process may fork");
    let spawner_pid = process::with_children(&[std::process::id()]).into_iter().find(|pid| !earlier.contains(pid));
    let spawner_pid = spawner_pid.expect("the spawner is our child");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let client = runtime.block_on(async { spawner.client() }).expect("the spawner was just started");
    let folder = tempfile::tempdir().expect("a temporary folder");
    peers::prepare(folder.path()).expect("a fresh folder takes a bundle");

    let mut contenders = vec![
        Contender::new("fork+exec", plain),
        Contender::new("parked", || parked(&runtime, &client)),
        Contender::new("built", || built(&runtime, &client)),
    ];
    for peer in std::iter::once(peers::BUBBLEWRAP).chain(peers::ENGINES) {
        match peer.tried(folder.path()) {
            Ok(()) => {
                let folder = folder.path();
                contenders.push(Contender::new(peer.name, move || others_as((peer.command)(folder))));
            }
            Err(reason) => println!("{reason}"),
        }
    }
    let quiet = take_turns(&mut contenders, spawner_pid);
    let priority = if priority { "above" } else { "at the priority of" };
    println!("{ROUNDS} rounds {priority} others; {quiet:.0} % of all runs began while nobody else was running");
    Measured::Rows(rows(&contenders))
}

/// Engines refuse a machine with both versions of control groups. In a mount namespace of its own they see version 2
/// alone, and so do all others, since everything is measured there. Returns whether all was fine.
fn run_with_cgroups() -> bool {
    let program = std::env::current_exe().expect("a running program has a path");
    let script = "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && exec \"$0\" bench box \"$1\"";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(program)
        .arg(CGROUPS_SEEN)
        .status();
    status.is_ok_and(|status| status.success())
}

impl<'a> Contender<'a> {
    fn new(name: &str, run: impl FnMut() -> Duration + 'a) -> Contender<'a> {
        Contender { name: name.to_owned(), run: Box::new(run), times: Vec::new() }
    }

    /// Over the quiet runs if they are enough for that.
    fn median(&self) -> f64 {
        let all = self.times.iter().map(|time| time.ms).collect::<Vec<_>>();
        let quiet = self.times.iter().filter(|time| time.quiet).map(|time| time.ms).collect::<Vec<_>>();
        median(if quiet.len() >= QUIET_ROUNDS_MIN { &quiet } else { &all })
    }
}

/// Returns how many runs in a hundred began undisturbed.
fn take_turns(contenders: &mut [Contender<'_>], spawner: u32) -> f64 {
    let (mut quiet, mut all) = (0.0, 0.0);
    for round in 0..ROUNDS + ROUNDS_UNCOUNTED {
        for contender in &mut *contenders {
            while process::with_children(&[spawner]).len() > 1 {
                std::thread::sleep(PAUSE);
            }
            std::thread::sleep(PAUSE);
            let began_quietly = quiet_moment();
            quiet += f64::from(u8::from(began_quietly));
            all += 1.0;
            let time = (contender.run)();
            if round >= ROUNDS_UNCOUNTED {
                contender.times.push(Time { ms: milliseconds(time), quiet: began_quietly });
            }
        }
    }
    100.0 * quiet / all
}

fn rows(contenders: &[Contender<'_>]) -> Vec<Row> {
    let of = |name: &str| contenders.iter().find(|one| one.name == name).map(Contender::median);
    let (plain, parked, built) = (of("fork+exec"), of("parked"), of("built"));
    let (plain, parked, built) = (plain.unwrap_or(0.0), parked.unwrap_or(0.0), built.unwrap_or(0.0));
    let mut rows = vec![
        Row::new("parked box, from go to end", "ms", parked, Goal::TimesPeer(1.4)).beside("fork+exec", plain),
        Row::new("box built and run", "ms", built, Goal::None).beside("fork+exec", plain),
    ];
    if let Some(bubblewrap) = of("bwrap") {
        rows.push(Row::new("box built and run", "ms", built, Goal::TimesPeer(0.6)).beside("bwrap", bubblewrap));
    }
    for name in ["crun", "runc"] {
        rows.extend(of(name).map(|other| Row::new("box built and run", "ms", built, Goal::None).beside(name, other)));
    }
    for one in contenders {
        let times: Vec<f64> = one.times.iter().map(|time| time.ms).collect();
        rows.push(Row::new(format!("{}, its fastest round", one.name), "ms", lowest(&times), Goal::None));
    }
    rows
}

fn null() -> OwnedFd {
    OwnedFd::from(File::open("/dev/null").expect("every machine has /dev/null"))
}

fn timed(run: impl FnOnce()) -> Duration {
    let began = world::clock::monotonic();
    run();
    world::clock::monotonic() - began
}

/// What the standard library does: `posix_spawn`, then `wait4`.
fn plain() -> Duration {
    others_as(Command::new(PROGRAM))
}

fn others_as(mut command: Command) -> Duration {
    command.stdin(Stdio::from(null())).stdout(Stdio::from(null())).stderr(Stdio::from(null()));
    timed(|| {
        let status = command.status();
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command:?}: {status:?}");
    })
}

fn strangers_box() -> BoxSpec {
    BoxSpec::new("bench", Trust::Untrusted, Root::Host)
}

fn program() -> sandbox::Command {
    sandbox::Command { argv: vec![PROGRAM.to_owned()], ..sandbox::Command::default() }
}

async fn run_in(box_: sandbox::Parked, stdio: [OwnedFd; 3]) {
    let outcome = box_.run(program(), stdio, RunLimits::default()).await.expect("a parked box runs its program");
    ended_well(&outcome);
}

fn ended_well(outcome: &Outcome) {
    assert_eq!((outcome.verdict, outcome.code), (Verdict::Exited, Some(0)), "{outcome:?}");
}

fn parked(runtime: &Runtime, client: &SpawnerClient) -> Duration {
    let box_ = runtime.block_on(client.park(&strangers_box())).expect("a box is built");
    // What building it left to do in the background is not of this run.
    std::thread::sleep(PAUSE);
    quiet_moment();
    let stdio = [null(), null(), null()];
    timed(|| runtime.block_on(run_in(box_, stdio)))
}

fn built(runtime: &Runtime, client: &SpawnerClient) -> Duration {
    let (spec, stdio) = (strangers_box(), [null(), null(), null()]);
    timed(|| {
        runtime.block_on(async {
            let outcome = client.run(&spec, program(), stdio, RunLimits::default()).await;
            ended_well(&outcome.expect("a box is built and runs its program"));
        });
    })
}
