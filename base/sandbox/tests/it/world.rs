//! What tests share: a spawner, a folder, a way to say what to run.

use sandbox::{BoxSpec, Command, Root, ShimStart, Spawner, SpawnerClient, Trust};
use std::future::Future;
use std::path::{Path, PathBuf};

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spawner: SpawnerClient,
}

/// Runs `test` in a runtime, with a spawner forked before it.
pub(crate) fn with_world<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
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
        ShimStart { log_dir: dir.join("log"), dir, log_size_bytes_max: 1 << 20, spec, command }
    }
}

pub(crate) fn host_box(name: &str) -> BoxSpec {
    BoxSpec::new(name, Trust::Host, Root::Host)
}

pub(crate) fn shell(line: &str) -> Command {
    Command { argv: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(), ..Command::default() }
}

/// The texts of a log, without times.
pub(crate) fn log_lines(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("log/current")).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}
