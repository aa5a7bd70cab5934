use crate::world::{World, host_box, log_lines, overlay_box, said, shell, with_world};
use sandbox::Shim;

fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

async fn started(world: &World, name: &str, line: &str) -> Shim {
    world.spawner.start(world.start(host_box(name), shell(line))).await.unwrap()
}

#[test]
fn a_service_over_its_memory_limit_is_told_so() {
    with_world(|world| async move {
        let mut spec = overlay_box(&world, "oom");
        spec.limits.memory_bytes = Some(32 << 20);
        // Not too fast for an ordinary user's, which is looked at every now and then.
        let line = "(while :; do head -c 8000000 /dev/zero; sleep 0.1; done) | tail -c 1000000000";
        let line = if as_root() { "exec tail /dev/zero" } else { line };
        let (_, reason) = said(&world, spec, line).await;
        assert_eq!(reason, "killed: over its 32 MiB memory limit");
    });
}

#[test]
fn processes_are_bounded() {
    with_world(|world| async move {
        let mut spec = host_box("pids");
        spec.limits.pids = Some(8);
        let (lines, _) = said(&world, spec, "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all").await;
        assert!(!lines.contains(&"o all".to_owned()) && lines.iter().any(|line| line.contains("fork")), "{lines:?}");
    });
}

#[test]
fn limits_per_process_are_set_and_cut_to_the_machines() {
    with_world(|world| async move {
        let mut spec = host_box("rlimits");
        spec.limits.rlimits =
            vec![("nofile".to_owned(), 123, 456), ("core".to_owned(), 0, 0), ("nproc".to_owned(), u64::MAX, u64::MAX)];
        let (lines, reason) = said(&world, spec, "ulimit -Sn; ulimit -Hn; ulimit -c").await;
        assert_eq!(
            (lines.as_slice(), reason.as_str()),
            (["o 123", "o 456", "o 0"].map(str::to_owned).as_slice(), "exited with 0")
        );
    });
}

#[test]
fn usage_is_of_the_box() {
    with_world(|world| async move {
        let shim =
            started(&world, "usage", "head -c 50000000 /dev/zero | sha256sum; echo done; sleep 1000 & sleep 1000")
                .await;
        while !log_lines(&world.path("usage")).contains(&"o done".to_owned()) {
            tokio::task::yield_now().await;
        }
        let mut usage = shim.usage().await.unwrap();
        while usage.processes < 4 {
            usage = shim.usage().await.unwrap();
        }
        // Init, the shell, two sleeps.
        assert_eq!(usage.processes, 4);
        assert!(usage.cpu_usec > 10_000, "{usage:?}");
        assert!((100_000..64 << 20).contains(&usage.memory_bytes), "{usage:?}");
        shim.kill().await.unwrap();
        shim.exited().await;
    });
}

#[test]
fn a_log_stays_within_its_bound_and_splits_long_lines() {
    with_world(|world| async move {
        let line =
            "head -c 40000 /dev/zero | tr '\\0' x; echo; for n in $(seq 2000); do echo line $n; done; printf end";
        let mut start = world.start(host_box("log"), shell(line));
        start.log_size_bytes_max = 100_000;
        let dir = start.dir.clone();
        world.spawner.start(start).await.unwrap().exited().await;
        let current = std::fs::read_to_string(dir.join("log/current")).unwrap();
        let previous = std::fs::read_to_string(dir.join("log/previous")).unwrap();
        assert!(
            current.len() <= 50_000 + 20_000 && previous.len() <= 50_000 + 20_000,
            "{} {}",
            current.len(),
            previous.len()
        );
        let lines: Vec<&str> =
            previous.lines().chain(current.lines()).map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
        let lengths: Vec<usize> = lines.iter().map(|line| line.len()).take(3).collect();
        assert!(lengths.starts_with(&[16_384, 16_384, 7_232]) || !lines[0].starts_with('x'), "{lengths:?}");
        assert_eq!(lines[lines.len() - 2..], ["line 2000", "end"]);
    });
}

#[test]
fn the_machine_is_described() {
    with_world(|_world| async move {
        let found = sandbox::capabilities();
        assert!(found.user_namespaces, "{found:?}");
        assert_eq!(found.memory_limit, found.cgroup_version > 0);
        assert_eq!(found.lacks.iter().any(|lack| lack.starts_with("memory limits")), !found.memory_limit);
        assert!(found.lacks.iter().all(|lack| lack.contains(": ")), "{:?}", found.lacks);
    });
}

#[test]
fn memory_file_systems_are_bounded() {
    with_world(|world| async move {
        let mut spec = host_box("tmpfs");
        spec.shm_size_bytes = 0;
        let tmpfs = |size_bytes| sandbox::MountSource::Tmpfs { size_bytes };
        let mount = |target: &str, size_bytes| sandbox::Mount {
            source: tmpfs(size_bytes),
            target: target.into(),
            read_only: false,
        };
        spec.mounts = vec![mount("/run/none", 0), mount("/run/some", 1 << 20)];
        let line = "for place in /dev/shm /run/none /run/some; do head -c 3000000 /dev/zero 2>/dev/null >$place/x; \
                    stat -c %s $place/x; done";
        let (lines, _) = said(&world, spec, &format!("{line} 2>/dev/null")).await;
        assert_eq!(lines, ["o 4096", "o 4096", "o 1048576"]);
    });
}
