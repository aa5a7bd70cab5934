//! What tests share: a spawner, a box for strangers, and the look around afterwards.

use crate::left::{self, Before, Suspect};
use crate::programs;
use sandbox::{
    BoxSpec, Command, Mount, MountSource, Outcome, Parked, Root, RunError, RunLimits, Spawner, SpawnerClient, Then,
    Trust, Verdict,
};
use std::any::type_name;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Ordinary users of tests are this and up: one for each process, so that whatever runs as it is ours.
const ORDINARY_FIRST: u32 = 1_234_000_000;
/// After so many looks what is left is left for good. One takes some milliseconds.
const LOOKS_MAX: u32 = 1000;
const LOOK_PAUSE: Duration = Duration::from_millis(5);
const MIB: u64 = 1 << 20;

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) spawner: SpawnerClient,
    pub(crate) spawner_pid: u32,
    pub(crate) programs: PathBuf,
    box_name: String,
    namespaces: RefCell<BTreeSet<String>>,
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) output: Vec<u8>,
}

/// Runs `test`, then looks for what it left; as this user, and if that is root once more as an ordinary one.
pub(crate) fn with_world<T: AsyncFnOnce(&World)>(test: T) {
    as_this_user(test);
    if rustix::process::geteuid().is_root() {
        let path = type_name::<T>();
        let name = path.trim_start_matches("hostile::").trim_end_matches("::{{closure}}");
        let (mut again, _folder) = as_ordinary_user();
        let status = again.args(["--exact", name, "--nocapture"]).status().unwrap();
        assert!(status.success(), "as an ordinary user");
    }
}

/// This program as a user nobody else is, with a folder of its own. By a path every process has: the build's folders
/// may be closed to others.
pub(crate) fn as_ordinary_user() -> (std::process::Command, tempfile::TempDir) {
    let user = ORDINARY_FIRST + std::process::id();
    let folder = tempfile::Builder::new().prefix("hostile-").tempdir().unwrap();
    chown(folder.path(), Some(user), Some(user)).unwrap();
    let mut command = std::process::Command::new("/proc/self/exe");
    command.uid(user).gid(user).current_dir(folder.path()).env("TMPDIR", folder.path()).env("HOME", folder.path());
    (command, folder)
}

pub(crate) fn as_this_user<T: AsyncFnOnce(&World)>(test: T) {
    let _turn = turn();
    let earlier: BTreeSet<u32> = left::children(std::process::id()).into_iter().collect();
    let spawner = Spawner::start().unwrap();
    let spawner_pid = left::children(std::process::id()).into_iter().find(|pid| !earlier.contains(pid)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let world = World {
            programs: programs::folder(folder.path()),
            folder,
            spawner: spawner.client().unwrap(),
            spawner_pid,
            box_name: format!("hostile-{}", std::process::id()),
            namespaces: RefCell::default(),
        };
        // Opened on first use, for good.
        let _ = world.spawner.park(&world.spec()).await.unwrap();
        let before = world.settled().await;
        test(&world).await;
        world.nothing_is_left(&before).await;
    });
    drop(runtime);
    reap(spawner_pid);
}

/// What is counted is of the whole process, so its tests take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits for our child's end.
fn reap(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
}

/// A box as for anybody's code, with limits that hold without any control group.
impl World {
    pub(crate) fn spec(&self) -> BoxSpec {
        let mut spec = BoxSpec::new(self.box_name.as_str(), Trust::Untrusted, Root::Host);
        let programs = MountSource::Bind(self.programs.clone());
        spec.mounts = vec![Mount { source: programs, target: "/programs".into(), read_only: true }];
        let limits = [("nproc", 64), ("nofile", 256), ("fsize", 32 * MIB), ("core", 0), ("as", 4096 * MIB)];
        spec.limits.rlimits = limits.iter().map(|(name, most)| ((*name).to_owned(), *most, *most)).collect();
        spec
    }

    /// Parks a box and remembers its namespaces.
    pub(crate) async fn park(&self, spec: &BoxSpec) -> Parked {
        let parked = self.spawner.park(spec).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let own = left::namespaces(std::process::id());
        for init in left::children(self.spawner_pid) {
            self.namespaces.borrow_mut().extend(left::namespaces(init).difference(&own).cloned());
        }
        parked
    }

    /// Runs a program of ours with the usual limits.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_within(arguments, usual()).await
    }

    pub(crate) async fn run_within(&self, arguments: &[&str], limits: RunLimits) -> Ended {
        self.run_in(&self.spec(), program(arguments), limits).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Runs any command in any box, reading all it writes. A box that can be used again is as one that never was.
    pub(crate) async fn run_in(&self, spec: &BoxSpec, command: Command, limits: RunLimits) -> Result<Ended, RunError> {
        let (ended, box_again) = self.run_once(self.park(spec).await, command, limits).await?;
        if let Some(box_again) = box_again {
            let used = self.look(box_again).await;
            same(&used, &self.look(self.park(spec).await).await);
        }
        Ok(ended)
    }

    /// All that a program finds in a box.
    pub(crate) async fn look(&self, parked: Parked) -> String {
        let (ended, _again) = self.run_once(parked, program(&["look"]), usual()).await.unwrap();
        ended.exits_with(0).text()
    }

    /// Runs a command in a box; with it comes the box, if it can be used again.
    pub(crate) async fn run_once(
        &self,
        parked: Parked,
        command: Command,
        limits: RunLimits,
    ) -> Result<(Ended, Option<Parked>), RunError> {
        let (mut reading, inside) = std::io::pipe().unwrap();
        // Reading ends when the last holder of the other end is gone, so that too is a sign that nobody lives on.
        let reader = std::thread::spawn(move || {
            let mut output = Vec::new();
            reading.read_to_end(&mut output).map(|_count| output)
        });
        let stdio = [null(), OwnedFd::from(inside.try_clone().unwrap()), OwnedFd::from(inside)];
        let mut running = parked.launch(command, stdio, limits, Then { collect: None, again: true }).await;
        let outcome = running.ended().await;
        let again = running.again();
        // Whoever gave the box up waits for its end as for the output's.
        let output = reader.join().unwrap().unwrap();
        Ok((Ended { outcome: outcome?, output }, again))
    }

    fn suspect<'a>(&'a self, namespaces: &'a BTreeSet<String>) -> Suspect<'a> {
        Suspect { spawner: self.spawner_pid, box_name: &self.box_name, folder: self.folder.path(), namespaces }
    }

    /// The state without any box.
    async fn settled(&self) -> Before {
        let none = BTreeSet::new();
        while !left::children(self.spawner_pid).is_empty() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        left::before(&self.suspect(&none))
    }

    /// Looks until nothing is found. The spawner lives on, as it does in a node.
    async fn nothing_is_left(&self, before: &Before) {
        let namespaces = self.namespaces.borrow().clone();
        let suspect = self.suspect(&namespaces);
        let mut found = Vec::new();
        for look in 0..LOOKS_MAX {
            found = left::found(before, &suspect);
            if found.is_empty() {
                println!("all gone at look {look}");
                return;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        panic!("left behind: {found:#?}");
    }
}

/// Limits of a run in a classroom, scaled down to a test's patience.
pub(crate) fn usual() -> RunLimits {
    RunLimits { wall_ms: Some(20_000), cpu_ms: Some(10_000), memory_bytes: Some(512 * MIB), output_bytes: Some(MIB) }
}

pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut argv = vec![format!("/programs/{}", programs::PROGRAM)];
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Command { argv, ..Command::default() }
}

/// A box that was used says what one says that was not.
pub(crate) fn same(used: &str, fresh: &str) {
    let lines = |one: &str, other: &str| -> Vec<String> {
        let others: BTreeSet<&str> = other.lines().collect();
        one.lines().filter(|line| !others.contains(line)).map(str::to_owned).collect()
    };
    assert!(
        used == fresh,
        "only in a used box: {:#?}, only in a fresh one: {:#?}",
        lines(used, fresh),
        lines(fresh, used)
    );
}

pub(crate) fn null() -> OwnedFd {
    OwnedFd::from(std::fs::File::open("/dev/null").unwrap())
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    fn is(self, verdict: Verdict, code: Option<i32>, signal: Option<i32>) -> Ended {
        let found = (self.outcome.verdict, self.outcome.code, self.outcome.signal);
        // The first part says enough of an output that has no end.
        let said: String = self.text().chars().take(2000).collect();
        assert_eq!(found, (verdict, code, signal), "{:?}: {said}", self.outcome);
        self
    }

    /// It tried everything and nothing it should not do was possible.
    pub(crate) fn achieved_nothing(self) -> Ended {
        self.exits_with(0)
    }

    pub(crate) fn exits_with(self, code: i32) -> Ended {
        self.is(Verdict::Exited, Some(code), None)
    }

    pub(crate) fn dies_of(self, signal: i32) -> Ended {
        self.is(Verdict::Signalled, None, Some(signal))
    }

    /// Over a limit: killed for it.
    pub(crate) fn ends_killed_for(self, verdict: Verdict) -> Ended {
        self.is(verdict, None, Some(libc::SIGKILL))
    }
}
