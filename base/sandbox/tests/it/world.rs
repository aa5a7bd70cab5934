//! What tests share: a spawner, a folder, a way to say what to run.

use sandbox::{BoxSpec, Command, Ids, Mount, MountSource, Root, ShimStart, Spawner, SpawnerClient, Trust};
use std::any::type_name;
use std::error::Error;
use std::future::Future;
use std::path::{Path, PathBuf};

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spawner: SpawnerClient,
}

/// An ordinary user that owns nothing and is in no group.
const ORDINARY: u32 = 54_321;

/// Runs `test` in a runtime, with a spawner forked before it; as root, then once more as an ordinary user.
pub(crate) fn with_world<T: FnOnce(World) -> F, F: Future<Output = ()>>(test: T) {
    as_this_user(test);
    if rustix::process::geteuid().is_root() {
        let path = type_name::<T>();
        let name = path.trim_start_matches("it::").trim_end_matches("::{{closure}}");
        let status = std::process::Command::new("setpriv")
            .arg(format!("--reuid={ORDINARY}"))
            .arg(format!("--regid={ORDINARY}"))
            .args(["--clear-groups", "--inh-caps=-all", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .status()
            .unwrap();
        assert!(status.success(), "as an ordinary user");
    }
}

pub(crate) fn as_this_user<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let spawner = Spawner::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World { dir: tempfile::tempdir().unwrap(), spawner: spawner.client().unwrap() };
        test(world).await;
    });
}

impl World {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn start(&self, spec: BoxSpec, command: Command) -> ShimStart {
        let dir = self.path(&spec.name);
        ShimStart { log_dir: dir.join("log"), dir, log_size_bytes_max: 1 << 20, spec, command, ends_boot_ms: None }
    }
}

pub(crate) fn host_box(name: &str) -> BoxSpec {
    BoxSpec::new(name, Trust::Host, Root::Host)
}

pub(crate) fn shell(line: &str) -> Command {
    Command { argv: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(), ..Command::default() }
}

/// An image of sorts: an own folder with the machine's programs mounted.
pub(crate) fn overlay_box(world: &World, name: &str) -> BoxSpec {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|part| world.path(&format!("{name}.{part}")));
    for folder in [&upper, &work, &lower, &lower.join("etc")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(lower.join("etc/from-image"), "image").unwrap();
    for link in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), lower.join(link)).unwrap();
    }
    let mut spec = BoxSpec::new(name, Trust::Service, Root::Overlay { lowers: vec![lower], upper, work });
    spec.mounts = vec![Mount { source: MountSource::Bind("/usr".into()), target: "/usr".into(), read_only: true }];
    if rustix::process::geteuid().is_root() {
        spec.ids = Ids::Range { outside_start: 1_000_000, count: 65_536 };
    }
    spec
}

/// Runs a line in a box to its end and returns what it said, sorted, with how it ended.
pub(crate) async fn said(world: &World, spec: BoxSpec, line: &str) -> (Vec<String>, String) {
    let start = world.start(spec, shell(line));
    let dir = start.dir.clone();
    let shim = world.spawner.start(start).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.source()));
    let record = shim.exited().await;
    (log_lines(&dir), record.reason)
}

/// The texts of a log, without times.
pub(crate) fn log_lines(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("log/current")).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// Lets others run until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
