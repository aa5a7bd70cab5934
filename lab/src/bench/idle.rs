//! What a node uses while its example is up and nobody asks for anything: our processes, not the example's.

use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::{Node, node, process, wait};
use std::path::Path;
use std::time::Duration;

/// For what starting up leaves to do.
const SETTLING: Duration = Duration::from_secs(10);
pub(super) const MEGABYTE: f64 = 1e6;
pub(super) const SECONDS_PER_DAY: f64 = 86_400.0;
const EXAMPLE: &str = include_str!("../../../example/publishing/stack.yml");

pub(super) fn run(options: &Options) -> Measured {
    let node = Node::start();
    let built = node::binary("publishing");
    let folder = built.parent().expect("a program is in a folder");
    node.deployed("publishing", &example(folder, node::free_port()));
    wait::until("the example is ready", 60, || {
        let instances = node.instances();
        (instances.len() == 2 && instances.iter().all(|one| one["status"]["ready"] == true)).then_some(())
    });
    std::thread::sleep(SETTLING);
    let before = Used::by(&node);
    // Node, spawner, and for each of two instances its shim and, where we may look at it, its init.
    assert!(before.processes >= 4, "{} processes of ours: some are not found", before.processes);
    println!("{} processes of ours; looking for {} minutes", before.processes, options.minutes);
    std::thread::sleep(Duration::from_secs_f64(options.minutes * 60.0));
    let after = Used::by(&node);
    let seconds = options.minutes * 60.0;
    Measured::Rows(vec![
        Row::new("resident memory, all processes", "MB", after.resident_bytes / MEGABYTE, Goal::Below(80.0)),
        Row::new("of it private or shared in parts", "MB", after.proportional_bytes / MEGABYTE, Goal::None),
        Row::new("processor", "% of a core", Used::share(&before, &after, seconds), Goal::Below(1.0)),
        Row::new(
            "written",
            "MB a day",
            (after.written_bytes - before.written_bytes) / MEGABYTE * SECONDS_PER_DAY / seconds,
            Goal::Below(200.0),
        ),
    ])
}

/// The example as it is in the repository, with programs where they were built and a port of its own.
fn example(programs: &Path, port: u16) -> String {
    let programs = programs.to_string_lossy();
    let file = EXAMPLE
        .replace("${PUBLISHING_BIN:-../../target/release}", &programs)
        .replace("${PUBLISHING_PORT:-8080}", &format!("127.0.0.1:{port}"));
    assert!(
        !file.contains("${PUBLISHING_BIN") && !file.contains("${PUBLISHING_PORT"),
        "the example has other names now"
    );
    file
}

/// What the node, its spawner, shims and inits use together.
pub(super) struct Used {
    processes: usize,
    pub(super) resident_bytes: f64,
    proportional_bytes: f64,
    cpu: f64,
    pub(super) written_bytes: f64,
}

impl Used {
    pub(super) fn by(node: &Node) -> Used {
        let ours = process::of_data(node.data());
        let sum = |measure: &dyn Fn(u32) -> u64| ours.iter().map(|pid| measure(*pid) as f64).sum();
        Used {
            processes: ours.len(),
            resident_bytes: sum(&process::resident_bytes),
            proportional_bytes: sum(&proportional_bytes),
            cpu: sum(&process::cpu_ticks),
            written_bytes: sum(&process::written_bytes),
        }
    }

    /// How much of a core it took between two looks, in per cent.
    pub(super) fn share(before: &Used, after: &Used, seconds: f64) -> f64 {
        100.0 * (after.cpu - before.cpu) / process::TICKS_PER_SECOND / seconds
    }
}

/// Resident memory with each shared page counted once among those that share it.
fn proportional_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}
