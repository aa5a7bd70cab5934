use crate::world::{World, host_box, log_lines, overlay_box, said, shell, until, with_world};
use sandbox::{File, Found, Mount, MountSource, RequestError, Root, Shim, StartError};
use std::time::Duration;

#[test]
fn a_service_runs_says_something_and_its_end_is_written_down() {
    with_world(|world| async move {
        let start = world.start(host_box("hello"), shell("echo hello; echo oops >&2; exit 3"));
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        let record = shim.exited().await;
        assert_eq!((record.code, record.reason.as_str()), (Some(3), "exited with 3"));
        let mut lines = log_lines(&dir);
        lines.sort();
        assert_eq!(lines, ["e oops", "o hello"]);
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Exited(found) if found == record));
        sandbox::forget(&dir).unwrap();
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Nothing));
    });
}

#[test]
fn a_missing_program_is_told_apart() {
    with_world(|world| async move {
        let mut command = shell("");
        command.argv = vec!["no-such-program".to_owned()];
        let start = world.start(host_box("missing"), command);
        let dir = start.dir.clone();
        let error = world.spawner.start(start).await.unwrap_err();
        assert!(matches!(&error, StartError::NoSuchProgram { program } if program == "no-such-program"), "{error:?}");
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Nothing));
    });
}

#[test]
fn an_overlay_keeps_changes_in_its_upper_folder_with_owners_translated() {
    with_world(|world| async move {
        let spec = overlay_box(&world, "overlay");
        let line =
            "cat /etc/from-image; stat -c %u /etc/from-image; echo new >/etc/new; rm /etc/from-image; id -u; ls /";
        let (lines, reason) = said(&world, spec, line).await;
        assert_eq!(reason, "exited with 0", "{lines:?}");
        assert_eq!(lines[0], "o image0");
        assert_eq!(lines[1], "o 0");
        assert!(lines.contains(&"o proc".to_owned()), "{lines:?}");
        let new = std::fs::metadata(world.path("overlay.upper/etc/new")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), rustix::process::geteuid().as_raw());
        assert!(world.path("overlay.lower/etc/from-image").exists());
    });
}

#[test]
fn a_bind_mount_belongs_to_container_root() {
    with_world(|world| async move {
        let data = world.path("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "").unwrap();
        for (spec, name) in [(overlay_box(&world, "range"), "range"), (host_box("single"), "single")] {
            let mut spec = spec;
            // Below a folder that the host's root has, since that cannot get new ones.
            spec.mounts.push(Mount {
                source: MountSource::Bind(data.clone()),
                target: "/tmp/data".into(),
                read_only: false,
            });
            let (lines, reason) =
                said(&world, spec, &format!("stat -c %u /tmp/data/file; echo x >/tmp/data/{name}")).await;
            assert_eq!((lines, reason.as_str()), (vec!["o 0".to_owned()], "exited with 0"));
            let made = std::fs::metadata(data.join(name)).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), rustix::process::geteuid().as_raw());
        }
    });
}

#[test]
fn files_are_laid_over_the_root() {
    with_world(|world| async move {
        let mut spec = overlay_box(&world, "files");
        let file = |target: &str, content: &[u8], mode| File {
            target: target.into(),
            content: content.to_vec(),
            mode,
            uid: 0,
            gid: 0,
        };
        spec.files =
            vec![file("/run/secrets/key", b"s3cret\n", 0o400), file("/etc/from-image", &[b'x'; 20_000], 0o644)];
        let line = "cat /run/secrets/key; stat -c %a /run/secrets/key; wc -c </etc/from-image; ls /dev/shm | wc -l";
        let (lines, reason) = said(&world, spec, line).await;
        assert_eq!(lines, ["o s3cret", "o 400", "o 20000", "o 0"]);
        assert_eq!(reason, "exited with 0");
        assert_eq!(std::fs::read(world.path("files.upper/run/secrets/key")).unwrap(), b"");
    });
}

#[test]
fn a_box_outlives_its_spawner_and_is_found_again() {
    with_world(|world| async move {
        let start = world.start(host_box("survivor"), shell("echo $$; trap 'exit 7' TERM; while :; do sleep 1; done"));
        let dir = start.dir.clone();
        let pid = world.spawner.start(start).await.unwrap().pid();
        let World { spawner, dir: folder } = world;
        drop(spawner);
        let Found::Alive(shim) = Shim::connect(&dir).await.unwrap() else { panic!("not found") };
        assert_eq!(shim.pid(), pid);
        assert!(sandbox::forget(&dir).is_err());
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(title.starts_with(b"bramble-init survivor\0"), "{}", String::from_utf8_lossy(&title));
        // Only once the trap is set would the signal have the code; its line says nothing about that, so ask twice.
        let result = shim.exec(shell("echo hi; echo there >&2; exit 4"), Duration::from_secs(10)).await.unwrap();
        assert_eq!((result.code, result.timed_out), (4, false));
        assert_eq!(result.output, b"hi\nthere\n");
        shim.kill().await.unwrap();
        let record = shim.exited().await;
        assert_eq!(record.reason, "killed by SIGKILL");
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        sandbox::forget(&dir).unwrap();
        drop(folder);
    });
}

#[test]
fn a_signal_reaches_the_program() {
    with_world(|world| async move {
        let start = world.start(
            host_box("signal"),
            shell("trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done"),
        );
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        until(|| log_lines(&dir).contains(&"o ready".to_owned())).await;
        shim.signal(15).await.unwrap();
        assert_eq!(shim.exited().await.code, Some(7));
        assert_eq!(log_lines(&dir), ["o ready", "o got it"]);
    });
}

#[test]
fn an_execution_over_its_time_is_killed() {
    with_world(|world| async move {
        let shim = world.spawner.start(world.start(host_box("exec"), shell("sleep 1000"))).await.unwrap();
        let result = shim.exec(shell("echo before; sleep 1000"), Duration::from_millis(200)).await.unwrap();
        assert!(result.timed_out);
        assert_eq!(result.output, b"before\n");
        let mut missing = shell("");
        missing.argv = vec!["/no/such".to_owned()];
        let error = shim.exec(missing, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, RequestError::Start(StartError::NoSuchProgram { .. })), "{error:?}");
        shim.kill().await.unwrap();
        shim.exited().await;
    });
}

#[test]
fn the_box_dies_with_its_shim() {
    with_world(|world| async move {
        let start = world.start(host_box("killed"), shell("sleep 1000"));
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("state.json")).unwrap()).unwrap();
        let owner = i32::try_from(state["shim_pid"].as_i64().unwrap()).unwrap();
        let owner = rustix::process::Pid::from_raw(owner).unwrap();
        rustix::process::kill_process(owner, rustix::process::Signal::KILL).unwrap();
        let init = std::path::PathBuf::from(format!("/proc/{}", shim.pid()));
        until(|| !init.exists()).await;
        assert_eq!(shim.exited().await.signal, Some(9));
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Exited(record) if record.signal == Some(9)));
        sandbox::forget(&dir).unwrap();
    });
}

#[test]
fn standard_output_can_be_opened_by_name_by_any_user() {
    with_world(|world| async move {
        let spec = overlay_box(&world, "named");
        let mut command = shell("echo by name >/dev/stdout; id -u; id -g; id -G");
        if rustix::process::geteuid().is_root() {
            command.user = sandbox::User { uid: 999, gid: 998, groups: vec![997] };
        }
        let start = world.start(spec, command.clone());
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        assert_eq!(shim.exited().await.reason, "exited with 0", "{:?}", log_lines(&dir));
        let groups = if command.user.uid == 0 { "o 0 65534" } else { "o 998 997" };
        let lines = log_lines(&dir);
        assert_eq!(
            lines[..3],
            ["o by name".to_owned(), format!("o {}", command.user.uid), format!("o {}", command.user.gid)]
        );
        assert!(lines[3] == groups || lines[3] == "o 0", "{lines:?}");
    });
}

#[test]
fn a_terminal_is_one() {
    with_world(|world| async move {
        let mut command = shell("tty; stty size; test -t 0 && test -t 2 && echo all");
        command.tty = true;
        let start = world.start(host_box("tty"), command);
        let dir = start.dir.clone();
        world.spawner.start(start).await.unwrap().exited().await;
        assert_eq!(log_lines(&dir), ["o /dev/pts/0", "o 24 80", "o all"]);
    });
}

#[test]
fn a_sysctl_of_the_machine_is_refused() {
    with_world(|world| async move {
        let mut spec = host_box("sysctl");
        spec.sysctls = vec![("kernel.core_pattern".to_owned(), "|/bin/true".to_owned())];
        let error = world.spawner.start(world.start(spec, shell("true"))).await.unwrap_err();
        assert!(matches!(error, StartError::Sysctl { .. }), "{error:?}");
        let mut spec = host_box("own");
        spec.sysctls = vec![("net.core.somaxconn".to_owned(), "77".to_owned())];
        let (lines, _) = said(&world, spec, "cat /proc/sys/net/core/somaxconn").await;
        assert_eq!(lines, ["o 77"]);
    });
}

#[test]
fn a_link_to_nowhere_is_followed_to_place_a_file() {
    with_world(|world| async move {
        let mut spec = overlay_box(&world, "link");
        let lower = world.path("link.lower");
        std::os::unix::fs::symlink("../run/resolver/resolv.conf", lower.join("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink("loop", lower.join("etc/loop")).unwrap();
        let file =
            |target: &str| File { target: target.into(), content: b"ours\n".to_vec(), mode: 0o644, uid: 0, gid: 0 };
        spec.files = vec![file("/etc/resolv.conf")];
        let (lines, _) = said(&world, spec.clone(), "cat /etc/resolv.conf; ls /run/resolver").await;
        assert_eq!(lines, ["o ours", "o resolv.conf"]);
        spec.files = vec![file("/etc/loop")];
        let error = world.spawner.start(world.start(spec, shell("true"))).await.unwrap_err();
        assert!(matches!(&error, StartError::Mount { what, .. } if what == "/etc/loop"), "{error:?}");
    });
}

#[test]
fn an_image_cannot_lead_our_mounts_astray() {
    with_world(|world| async move {
        for name in ["proc", "dev", "sys"] {
            let spec = overlay_box(&world, name);
            std::os::unix::fs::symlink("etc", world.path(&format!("{name}.lower")).join(name)).unwrap();
            let error = world.spawner.start(world.start(spec, shell("true"))).await.unwrap_err();
            assert!(matches!(&error, StartError::Mount { what, .. } if *what == format!("/{name}")), "{error:?}");
        }
    });
}

/// Only where somebody gave the ordinary user a range in /etc/subuid.
#[test]
fn an_ordinary_user_with_a_range_of_ids_has_several_users() {
    with_world(|world| async move {
        let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        let start = ranges.lines().next().and_then(|line| line.split(':').nth(1)?.parse().ok());
        let (Some(outside_start), true, false) =
            (start, sandbox::capabilities().id_ranges, rustix::process::geteuid().is_root())
        else {
            return;
        };
        let mut spec = host_box("ranges");
        spec.ids = sandbox::Ids::Range { outside_start, count: 65_536 };
        let mut command =
            shell("id -u; id -g; id -G; echo x >/tmp/x; stat -c %u /tmp/x; tr -s ' ' </proc/self/uid_map");
        command.user = sandbox::User { uid: 33, gid: 34, groups: vec![35] };
        let start = world.start(spec, command);
        let dir = start.dir.clone();
        world.spawner.start(start).await.unwrap().exited().await;
        let me = rustix::process::geteuid().as_raw();
        let maps = [format!("o  0 {me} 1"), format!("o  1 {outside_start} 65535")];
        assert_eq!(log_lines(&dir), ["o 33", "o 34", "o 34 35", "o 33", maps[0].as_str(), maps[1].as_str()]);
    });
}

#[test]
fn system_folders_show_the_box_alone() {
    with_world(|world| async move {
        let line = "cut -d: -f3 /proc/self/cgroup | sort -u; ls /sys/class/net; stat -fc %T /sys/fs/cgroup; \
                    echo x >/sys/fs/cgroup/cgroup.procs; ls /proc | grep -c '^[0-9]'; cat /proc/self/oom_score_adj";
        let (lines, _) = said(&world, overlay_box(&world, "system"), &format!("({line}) 2>/dev/null")).await;
        let groups = lines.iter().filter(|line| line.starts_with("o /")).count();
        if rustix::process::geteuid().is_root() {
            assert_eq!(lines[..groups], ["o /".to_owned()], "{lines:?}");
        }
        assert_eq!(lines[groups..groups + 2], ["o lo", "o cgroup2fs"], "{lines:?}");
        assert_eq!(lines.last().map(String::as_str), Some("o 100"), "{lines:?}");
    });
}

#[test]
fn a_start_nobody_waited_for_is_found_through_its_folder() {
    with_world(|world| async move {
        let start = world.start(host_box("unacknowledged"), shell("sleep 1000"));
        let dir = start.dir.clone();
        {
            let starting = world.spawner.start(start);
            tokio::select! {
                biased;
                // Given up as soon as there is somebody at work on it.
                () = until(|| dir.exists()) => {}
                _started = starting => {}
            }
        }
        let World { spawner, dir: folder } = world;
        drop(spawner);
        let shim = loop {
            match Shim::connect(&dir).await.unwrap() {
                Found::Alive(shim) => break shim,
                Found::Exited(record) => panic!("{record:?}"),
                Found::Nothing => tokio::task::yield_now().await,
            }
        };
        shim.kill().await.unwrap();
        assert_eq!(shim.exited().await.signal, Some(9));
        drop(folder);
    });
}

#[test]
fn boxes_start_beside_each_other() {
    with_world(|world| async move {
        let start = |name: &str| world.spawner.start(world.start(host_box(name), shell("exit 0")));
        let (one, two, three) = tokio::join!(start("one"), start("two"), start("three"));
        for shim in [one, two, three] {
            assert_eq!(shim.unwrap().exited().await.code, Some(0));
        }
        // The folder of a box that lives is not taken.
        let lives = world.spawner.start(world.start(host_box("lives"), shell("sleep 1000"))).await.unwrap();
        let error = world.spawner.start(world.start(host_box("lives"), shell("true"))).await.unwrap_err();
        assert!(matches!(error, StartError::Folder { .. }), "{error:?}");
        lives.kill().await.unwrap();
        lives.exited().await;
    });
}

#[test]
fn layers_cover_each_other_as_images_say() {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
    with_world(|world| async move {
        let mut spec = overlay_box(&world, "layers");
        let (bottom, top) = (world.path("layers.lower"), world.path("layers.top"));
        for (layer, file, content) in [
            (&bottom, "gone", "bottom"),
            (&bottom, "both", "bottom"),
            (&bottom, "opaque/below", "bottom"),
            (&top, "both", "top"),
            (&top, "opaque/above", "top"),
        ] {
            let path = layer.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        mknodat(CWD, top.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        setxattr(top.join("opaque"), "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        let Root::Overlay { lowers, .. } = &mut spec.root else { panic!("an overlay") };
        lowers.insert(0, top);
        let line = "ls /gone 2>&1 | grep -c 'No such file'; cat /both; echo; ls /opaque; rm /both; mkdir /gone; rm -r /opaque; \
                    ls -d /both /gone /opaque 2>/dev/null";
        let (lines, _) = said(&world, spec, line).await;
        assert_eq!(lines, ["o 1", "o top", "o above", "o /gone"]);
    });
}

/// The clock that a box's time is counted by.
fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000 + u64::try_from(now.tv_nsec).unwrap() / 1_000_000
}

const TREE: &str = "(trap '' TERM; sleep 1000) & (setsid sleep 1000 &) ; echo up; wait";

#[test]
fn a_box_whose_time_is_over_is_killed_whole_though_nobody_is_there() {
    with_world(|world| async move {
        let ends_boot_ms = boot_ms() + 1_500;
        let start =
            sandbox::ShimStart { ends_boot_ms: Some(ends_boot_ms), ..world.start(host_box("overdue"), shell(TREE)) };
        let dir = start.dir.clone();
        let pid = world.spawner.start(start).await.unwrap().pid();
        let World { spawner, dir: folder } = world;
        drop(spawner);
        until(|| dir.join("exit.json").exists()).await;
        assert!(boot_ms() >= ends_boot_ms, "not before");
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        let Found::Exited(record) = Shim::connect(&dir).await.unwrap() else { panic!("it lives") };
        assert!(record.overdue && record.signal == Some(9), "{record:?}");
        assert_eq!(record.reason, "killed: its time was over and nobody had prolonged it");
        drop(folder);
    });
}

#[test]
fn a_box_that_is_prolonged_lives_on_and_what_was_given_is_not_taken_back() {
    with_world(|world| async move {
        let start = world.start(host_box("prolonged"), shell("exec sleep 1000"));
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        let ends = boot_ms() + 1_000;
        shim.prolong(Some(ends)).await.unwrap();
        shim.prolong(Some(boot_ms() + 600_000)).await.unwrap();
        shim.prolong(Some(ends)).await.unwrap();
        until(|| boot_ms() > ends + 200).await;
        let ends = boot_ms() + 700_000;
        shim.prolong(Some(ends)).await.unwrap();
        shim.prolong(None).await.unwrap();
        let ends = boot_ms() + 500;
        shim.prolong(Some(ends)).await.unwrap();
        shim.prolong(None).await.unwrap();
        until(|| boot_ms() > ends + 1_000).await;
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Alive(_)));
        shim.kill().await.unwrap();
        let record = shim.exited().await;
        assert_eq!((record.overdue, record.reason.as_str()), (false, "killed by SIGKILL"));
    });
}

#[test]
fn a_box_whose_shim_is_stopped_is_killed_by_the_kernel() {
    with_world(|world| async move {
        let start = sandbox::ShimStart {
            ends_boot_ms: Some(boot_ms() + 1_000),
            ..world.start(host_box("stopped"), shell(TREE))
        };
        let dir = start.dir.clone();
        let pid = world.spawner.start(start).await.unwrap().pid();
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("state.json")).unwrap()).unwrap();
        let shim_pid = state["shim_pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).unwrap();
        rustix::process::kill_process(shim_pid, rustix::process::Signal::STOP).unwrap();
        until(|| !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
        let Found::Exited(record) = Shim::connect(&dir).await.unwrap() else { panic!("it lives") };
        assert_eq!(record.reason, "killed with its shim, or with the machine");
    });
}
