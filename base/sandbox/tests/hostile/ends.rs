//! Programs 30 and 32: crashes, programs that cannot start, and runners that are killed.

use crate::left;
use crate::world::{self, as_ordinary_user, as_this_user, null, program, usual, with_world};
use sandbox::{Command, RunError, StartError};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn p30_crashes() {
    with_world(async |world| {
        world.run(&["crash"]).await.dies_of(libc::SIGSEGV);
        world.run(&["aborts"]).await.dies_of(libc::SIGABRT);
        world.run(&["overflow"]).await.dies_of(libc::SIGSEGV);
    });
}

#[test]
fn p30_programs_that_cannot_start() {
    with_world(async |world| {
        let check = async |command: Command, expected: fn(&StartError) -> bool| {
            let error = world.run_in(&world.spec(), command, usual()).await.unwrap_err();
            match &error {
                RunError::Start(start) => assert!(expected(start), "{start:?}"),
                gone @ RunError::Gone { .. } => panic!("the runner failed: {gone:?}"),
            }
        };
        let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let too_long = |error: &StartError| matches!(error, StartError::Program { source, .. } if source.raw_os_error() == Some(libc::E2BIG));
        let mut long = program(&["crash"]);
        long.argv.push("x".repeat(8 << 20));
        check(long, too_long).await;
        let mut rich = program(&["crash"]);
        rich.env = (0..200).map(|number| (format!("V{number}"), "x".repeat(100 << 10))).collect();
        check(rich, too_long).await;
        let missing = |error: &StartError| matches!(error, StartError::NoSuchProgram { .. });
        check(Command { argv: argv(&["/no/such/program"]), ..Command::default() }, missing).await;
        check(Command { argv: argv(&["no-such-program"]), ..Command::default() }, missing).await;
        let closed = |error: &StartError| matches!(error, StartError::NotExecutable { .. });
        check(Command { argv: argv(&["/etc/passwd"]), ..Command::default() }, closed).await;
        check(Command { argv: argv(&["/etc"]), ..Command::default() }, closed).await;
        let senseless = |error: &StartError| matches!(error, StartError::Invalid { .. });
        check(Command::default(), senseless).await;
        check(Command { argv: argv(&["/bin/sh", "a\0b"]), ..Command::default() }, senseless).await;
    });
}

/// A script whose interpreter is not there is told apart from a program that is not there.
#[test]
fn p30_script_without_its_interpreter() {
    with_world(async |world| {
        let mut spec = world.spec();
        let content = b"#!/no/such/interpreter\n".to_vec();
        spec.files = vec![sandbox::File { target: "/tmp/script".into(), content, mode: 0o755, uid: 0, gid: 0 }];
        let command = Command { argv: vec!["/tmp/script".to_owned()], ..Command::default() };
        let error = world.run_in(&spec, command, usual()).await.unwrap_err();
        let RunError::Start(start) = error else { panic!("the runner failed: {error:?}") };
        assert!(start.to_string().contains("/tmp/script (the interpreter or loader it names)"), "{start}");
    });
}

/// Killed from outside, the spawner takes its boxes along; whoever waits for one is told.
#[test]
fn p32_spawner_killed() {
    with_world(async |world| {
        let parked = world.park(&world.spec()).await;
        let init = left::children(world.spawner_pid);
        let (reading, inside) = std::io::pipe().unwrap();
        let stdio = [null(), inside.into(), null()];
        let run = parked.run(program(&["sleeps"]), stdio, sandbox::RunLimits { output_bytes: None, ..usual() });
        let kill = async {
            let mut line = String::new();
            BufReader::new(reading).read_line(&mut line).unwrap();
            assert_eq!(line, "asleep\n");
            kill(world.spawner_pid);
        };
        // In this order: once the program is ordered, waiting for what it says may hold everything up.
        let (outcome, ()) = tokio::join!(biased; run, kill);
        assert!(matches!(outcome, Err(RunError::Gone { .. })), "{outcome:?}");
        until_gone(&init);
    });
}

/// A runner of a test's own, to be killed in the middle of a run.
#[test]
#[ignore = "started by p32_runner_killed"]
fn runner_to_be_killed() {
    as_this_user(async |world| {
        let parked = world.park(&world.spec()).await;
        let stdout = std::io::stdout();
        let copy = rustix::io::fcntl_dupfd_cloexec(&stdout, 3).unwrap();
        let limits = sandbox::RunLimits { output_bytes: None, ..usual() };
        parked.run(program(&["sleeps"]), [null(), copy, null()], limits).await.unwrap();
    });
}

#[test]
fn p32_runner_killed() {
    let _turn = world::turn();
    let check = |mut runner: std::process::Command| {
        runner.args(["--exact", "ends::runner_to_be_killed", "--ignored", "--nocapture"]).stdout(Stdio::piped());
        let mut runner = runner.spawn().unwrap();
        let mut said = BufReader::new(runner.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().ends_with("asleep")));
        let family = descendants(runner.id());
        // Spawner, init, the program.
        assert!(family.len() >= 3, "{family:?}");
        runner.kill().unwrap();
        runner.wait().unwrap();
        until_gone(&family);
        // Nobody holds the output any more.
        assert!(said.all(|line| line.is_ok()));
    };
    if rustix::process::geteuid().is_root() {
        let (ordinary, _folder) = as_ordinary_user();
        check(ordinary);
    }
    // What a killed runner could not remove goes with this.
    let folder = tempfile::tempdir().unwrap();
    let mut runner = std::process::Command::new("/proc/self/exe");
    runner.env("TMPDIR", folder.path());
    check(runner);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn descendants(of: u32) -> Vec<u32> {
    let mut found = left::children(of);
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let children = left::children(*pid);
        found.extend(children);
        next += 1;
    }
    found
}

/// A zombie waits only for its parent; it holds nothing any more.
fn until_gone(family: &[u32]) {
    let lives = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    };
    let mut looks = 0;
    while family.iter().any(lives) {
        looks += 1;
        assert!(looks < 2000, "still there: {:?}", family.iter().filter(|pid| lives(pid)).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(5));
    }
}
