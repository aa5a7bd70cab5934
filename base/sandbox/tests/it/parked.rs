use crate::world::{World, shell, with_world};
use sandbox::{BoxSpec, Collect, Command, Mount, MountSource, Outcome, Placed, Root, RunLimits, Then, Trust, Verdict};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Runs in a parked box; returns how it ended and what it wrote.
async fn run(world: &World, spec: &BoxSpec, command: Command, limits: RunLimits) -> (Outcome, String) {
    let parked = world.spawner.park(spec).await.unwrap();
    let (mut output, inside) = std::io::pipe().unwrap();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let stdio = [null(), OwnedFd::from(inside.try_clone().unwrap()), OwnedFd::from(inside)];
    let outcome = parked.run(command, stdio, limits).await.unwrap();
    let mut text = Vec::new();
    output.read_to_end(&mut text).unwrap();
    (outcome, String::from_utf8_lossy(&text).into_owned())
}

fn untrusted(name: &str) -> BoxSpec {
    BoxSpec::new(name, Trust::Untrusted, Root::Host)
}

#[test]
fn a_parked_box_runs_once() {
    with_world(|world| async move {
        let (outcome, output) = run(&world, &untrusted("run"), shell("echo hello; exit 5"), RunLimits::default()).await;
        assert_eq!((outcome.verdict, outcome.code, output.as_str()), (Verdict::Exited, Some(5), "hello\n"));
    });
}

#[test]
fn a_box_for_one_program_is_built_and_run_in_one_go() {
    with_world(|world| async move {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let run = async |spec: &BoxSpec, command: Command| {
            world.spawner.run(spec, command, [null(), null(), null()], RunLimits::default()).await
        };
        let outcome = run(&untrusted("one-go"), shell("exit 5")).await.unwrap();
        assert_eq!((outcome.verdict, outcome.code), (Verdict::Exited, Some(5)));

        let mut impossible = untrusted("impossible");
        impossible.sysctls = vec![("kernel.panic".to_owned(), "1".to_owned())];
        let error = run(&impossible, shell("true")).await.unwrap_err();
        assert!(error.to_string().contains("kernel.panic"), "{error}");
        let missing = Command { argv: vec!["/no/such".to_owned()], ..Command::default() };
        let error = run(&untrusted("missing"), missing).await.unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
    });
}

#[test]
fn a_run_over_its_time_is_killed() {
    with_world(|world| async move {
        let limits = RunLimits { wall_ms: Some(100), ..RunLimits::default() };
        let (outcome, _) = run(&world, &untrusted("wall"), shell("trap '' TERM; while :; do :; done"), limits).await;
        assert_eq!((outcome.verdict, outcome.signal), (Verdict::Wall, Some(9)));
    });
}

#[test]
fn strangers_have_no_capability_and_no_way_to_one() {
    with_world(|world| async move {
        let line = "grep -E 'Cap(Prm|Eff|Bnd|Inh)|NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/sys 2>&1; \
                    unshare -U true 2>&1; ls /sys | wc -l; cat /proc/1/environ 2>&1";
        let (outcome, output) = run(&world, &untrusted("caps"), shell(line), RunLimits::default()).await;
        assert!(outcome.signal.is_none());
        for expected in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "/proc/sys': No such file",
            "unshare failed: Operation not permitted",
            "environ: Permission denied",
        ] {
            assert!(output.contains(expected), "{expected} not in {output}");
        }
    });
}

#[test]
fn a_run_over_a_limit_says_which() {
    with_world(|world| async move {
        let check = async |name: &str, limits: RunLimits, line: &str, expected: Verdict| {
            let limits = RunLimits { wall_ms: Some(20_000), ..limits };
            let (outcome, output) = run(&world, &untrusted(name), shell(line), limits).await;
            assert_eq!(outcome.verdict, expected, "{name}: {outcome:?}");
            output
        };
        let none = RunLimits::default();
        let cpu = RunLimits { cpu_ms: Some(100), ..none.clone() };
        check("cpu", cpu.clone(), "while :; do :; done", Verdict::Cpu).await;
        check("cpu-children", cpu, "for n in 1 2 3 4; do (while :; do :; done) & done; wait", Verdict::Cpu).await;
        let memory = RunLimits { memory_bytes: Some(64 << 20), ..none.clone() };
        check("memory", memory, "head -c 300000000 /dev/zero | tail", Verdict::Memory).await;
        let output = RunLimits { output_bytes: Some(50_000), ..none.clone() };
        let text = check("output", output.clone(), "echo start; exec yes", Verdict::Output).await;
        assert_eq!(text.len(), 50_000);
        let text = check("output-within", output, "yes | head -c 49999; sleep 1000 & exit", Verdict::Exited).await;
        assert_eq!(text.len(), 49_999);
        let exact = RunLimits { output_bytes: Some(5), ..none };
        assert_eq!(check("output-exact", exact, "printf 12345", Verdict::Exited).await, "12345");
    });
}

/// Calls that strangers' code tries, each with what it should be answered.
const TRIES: &str = r#"
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    print(name, errno.errorcode.get(ctypes.get_errno(), 'fine') if result == -1 else 'fine')
def sock(name, *arguments):
    try:
        socket.socket(*arguments)
        print(name, 'fine')
    except OSError as error:
        print(name, errno.errorcode[error.errno])
call('memfd_create', 319, b'x', 0)
call('shmget', 29, 0, 4096, 0o1600)
call('msgget', 68, 0, 0o1600)
call('unshare', 272, 0x10000000)
call('clone-newuser', 56, 0x10000000 | 17, 0, 0, 0, 0)
call('clone3', 435, 0, 0)
call('setns', 308, 0, 0)
call('mount', 165, b'x', b'/tmp', b'ramfs', 0, 0)
call('open_tree', 428, -100, b'/', 1)
call('fsopen', 430, b'tmpfs', 0)
call('chroot', 161, b'/')
call('pivot_root', 155, b'.', b'.')
call('io_uring_setup', 425, 1, 0)
call('userfaultfd', 323, 0)
call('bpf', 321, 0, 0, 0)
call('keyctl', 250, 0, 0)
call('perf_event_open', 298, 0, 0, 0, 0, 0)
call('personality', 135, 0xffffffff)
call('ptrace', 101, 16, 1, 0, 0)
call('sched_setaffinity', 203, 0, 8, b'\1\0\0\0\0\0\0\0')
call('mknod', 133, b'/tmp/x', 0o20600, 259)
call('process_vm_readv', 310, 1, 0, 0, 0, 0, 0)
sock('netlink', socket.AF_NETLINK, socket.SOCK_RAW)
sock('vsock', 40, socket.SOCK_STREAM)
sock('packet', socket.AF_PACKET, socket.SOCK_RAW)
sock('alg', 38, socket.SOCK_SEQPACKET)
sock('raw', socket.AF_INET, socket.SOCK_RAW, 1)
sock('inet', socket.AF_INET, socket.SOCK_STREAM)
sock('unix', socket.AF_UNIX, socket.SOCK_STREAM)
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn what_strangers_try_is_refused() {
    with_world(|world| async move {
        let command =
            Command { argv: ["/usr/bin/python3", "-I", "-c", TRIES].map(str::to_owned).to_vec(), ..Command::default() };
        let (outcome, output) = run(&world, &untrusted("tries"), command, RunLimits::default()).await;
        assert_eq!(outcome.code, Some(0), "{outcome:?}: {output}");
        for line in output.lines() {
            let (name, answer) = line.split_once(' ').unwrap();
            let expected = match name {
                "clone3" => "ENOSYS",
                "inet" | "unix" => "fine",
                _refused => "EPERM",
            };
            assert_eq!(answer, expected, "{name}");
        }
        assert_eq!(output.lines().count(), 29);
    });
}

#[test]
fn strangers_kill_and_write_nothing_but_their_own() {
    with_world(|world| async move {
        let line = "kill -9 1; kill -STOP 1; for place in /usr/x /etc/x /proc/sys/x /dev/x /x; do \
                    (echo >$place) 2>/dev/null && echo wrote $place; done; echo >/tmp/x && echo alive; kill -9 -1; echo gone";
        let (outcome, output) = run(&world, &untrusted("kill"), shell(line), RunLimits::default()).await;
        assert!(output.contains("alive"), "{output}");
        assert!(
            !output.contains("wrote /usr") && !output.contains("wrote /etc") && !output.contains("wrote /x"),
            "{output}"
        );
        assert!(outcome.code.is_some() || outcome.signal == Some(9));
    });
}

#[test]
fn a_box_ends_with_everything_in_it() {
    with_world(|world| async move {
        let line = "(setsid sh -c 'trap \"\" TERM HUP; sleep 1000') & exit 3";
        let (outcome, output) = run(&world, &untrusted("daemon"), shell(line), RunLimits::default()).await;
        // That the output came to its end says that nobody is left who has it open.
        assert_eq!((outcome.code, output.as_str()), (Some(3), ""));
    });
}

#[test]
fn a_run_the_kernel_killed_for_memory_is_told_so() {
    with_world(|world| async move {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut spec = untrusted("oom");
        spec.limits.memory_bytes = Some(32 << 20);
        let (outcome, _) = run(&world, &spec, shell("exec tail /dev/zero"), RunLimits::default()).await;
        assert_eq!(outcome.verdict, Verdict::Memory);
    });
}

#[test]
fn a_run_nobody_waits_for_is_ended() {
    with_world(|world| async move {
        let parked = world.spawner.park(&untrusted("dropped")).await.unwrap();
        let (mut output, inside) = std::io::pipe().unwrap();
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let stdio = [null(), OwnedFd::from(inside), null()];
        let run = parked.run(shell("echo started; exec sleep 1000"), stdio, RunLimits::default());
        let started = tokio::time::timeout(std::time::Duration::from_millis(50), run).await;
        assert!(started.is_err());
        let mut text = String::new();
        // Its end, which comes only when nobody has it open.
        output.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text == "started\n");
    });
}

#[test]
fn the_kernel_kills_the_program_not_process_1() {
    with_world(|world| async move {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // Shared memory that no page table shows: by what it can see, process 1 is the largest.
        let hidden = "import mmap\nkept = []\nwhile True:\n    piece = mmap.mmap(-1, 1 << 20)\n    piece.write(b'x' * (1 << 20))\n    piece.madvise(mmap.MADV_DONTNEED)\n    kept.append(piece)";
        let mut spec = untrusted("hidden");
        spec.limits.memory_bytes = Some(48 << 20);
        let mut command = shell("");
        command.argv = ["/usr/bin/python3", "-I", "-c", hidden].map(str::to_owned).to_vec();
        let (outcome, output) = run(&world, &spec, command, RunLimits::default()).await;
        assert_eq!((outcome.verdict, outcome.signal), (Verdict::Memory, Some(9)), "{output}");
    });
}

#[test]
fn a_run_can_open_its_output_by_name() {
    with_world(|world| async move {
        for (name, limit) in [("plain", None), ("metered", Some(1000))] {
            let limits = RunLimits { output_bytes: limit, ..RunLimits::default() };
            let line = "echo one >/dev/stdout; echo two >/dev/stderr";
            let (outcome, output) = run(&world, &untrusted(name), shell(line), limits).await;
            // Metered, they are two pipes, and which is read first is open.
            let mut lines: Vec<&str> = output.lines().collect();
            lines.sort_unstable();
            assert_eq!((outcome.code, lines), (Some(0), vec!["one", "two"]));
        }
    });
}

/// A box with a folder of its own for files.
fn with_folder(name: &str) -> BoxSpec {
    let place = Mount { source: MountSource::Tmpfs { size_bytes: 1 << 20 }, target: "/mnt".into(), read_only: false };
    // The host's root is read-only, and has this folder.
    BoxSpec { mounts: vec![place], root: Root::Dir("/".into()), read_only: true, ..untrusted(name) }
}

fn pipes() -> (std::io::PipeReader, [OwnedFd; 3]) {
    let (output, inside) = std::io::pipe().unwrap();
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    (output, [null, OwnedFd::from(inside.try_clone().unwrap()), OwnedFd::from(inside)])
}

#[test]
fn files_are_placed_and_what_is_left_is_collected_from_inside() {
    with_world(|world| async move {
        let line = "cat in/a.txt; mkdir out; echo kept >out/b; ln -s /etc/passwd planted; ln -s out linked; mkfifo pipe; \
                    truncate -s 1T huge; (sleep 1000; echo late >out/b) & exit 0";
        let parked = world.spawner.park(&with_folder("files")).await.unwrap();
        let path = world.path("a.txt");
        std::fs::write(&path, "from outside\n").unwrap();
        let content = std::fs::File::open(&path).unwrap();
        let placed = [Placed { target: "/mnt/in/a.txt".to_owned(), mode: 0o644, text: None }];
        parked.place(&placed, &[content.as_fd()]).await.unwrap();
        let (mut output, stdio) = pipes();
        let command = Command { cwd: "/mnt".to_owned(), ..shell(line) };
        let collect = Collect { folder: "/mnt".to_owned(), files_max: 10, bytes_max: 1 << 20 };
        let mut running =
            parked.launch(command, stdio, RunLimits::default(), Then { collect: Some(collect), again: false }).await;
        let outcome = running.ended().await.unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!((outcome.code, text.as_str()), (Some(0), "from outside\n"));
        let mut left: Vec<(String, String)> = Vec::new();
        for (file, content) in running.collected() {
            let mut text = String::new();
            std::fs::File::from(content).read_to_string(&mut text).unwrap();
            left.push((file.name, text));
        }
        left.sort();
        let expected = [("in/a.txt", "from outside\n"), ("out/b", "kept\n")];
        assert_eq!(left, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    });
}

#[test]
fn a_file_that_cannot_be_placed_is_told_and_nothing_runs() {
    with_world(|world| async move {
        let parked = world.spawner.park(&with_folder("no-place")).await.unwrap();
        let content = std::fs::File::open("/dev/null").unwrap();
        parked
            .place(&[Placed { target: "/etc/x".to_owned(), mode: 0o644, text: None }], &[content.as_fd()])
            .await
            .unwrap();
        let (mut output, stdio) = pipes();
        let mut running = parked.launch(shell("echo ran"), stdio, RunLimits::default(), Then::default()).await;
        let error = running.ended().await.unwrap_err();
        assert!(error.to_string().contains("/etc/x"), "{error}");
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    });
}

#[test]
fn a_signal_reaches_the_whole_group() {
    with_world(|world| async move {
        let parked = world.spawner.park(&untrusted("group")).await.unwrap();
        let (mut output, stdio) = pipes();
        let line = "trap 'echo parent; exit 7' INT; sh -c 'trap \"echo child; exit\" INT; echo ready; while :; do sleep 0.01; done'; \
                    while :; do sleep 0.01; done";
        let mut running = parked.launch(shell(line), stdio, RunLimits::default(), Then::default()).await;
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        running.signal(2).await.unwrap();
        let outcome = running.ended().await.unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!((outcome.code, text.as_str()), (Some(7), "child\nparent\n"));
    });
}

#[test]
fn a_program_has_a_terminal_of_its_own() {
    with_world(|world| async move {
        let parked = world.spawner.park(&untrusted("terminal")).await.unwrap();
        let line = "read line; tty; echo got $line; stty size; exec cat";
        let (mut running, terminal) = parked.launch_on_terminal(shell(line), RunLimits::default(), None).await.unwrap();
        let size = rustix::termios::Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size).unwrap();
        let mut terminal = std::fs::File::from(terminal);
        terminal.write_all(b"hello\n").unwrap();
        let mut text = String::new();
        let mut until = |terminal: &mut std::fs::File, end: &str| {
            while !text.ends_with(end) {
                let mut bytes = [0; 256];
                let count = terminal.read(&mut bytes).unwrap();
                text.push_str(str::from_utf8(&bytes[..count]).unwrap());
            }
            text.clone()
        };
        let told = until(&mut terminal, "33 101\r\n");
        assert!(told.contains("/dev/pts/0") && told.contains("got hello"), "{told}");
        // The terminal's own echo, then the program's. A shell between two programs takes an interruption for itself.
        terminal.write_all(b"more\n").unwrap();
        until(&mut terminal, "more\r\nmore\r\n");
        // As a person presses Ctrl-C.
        terminal.write_all(b"\x03").unwrap();
        let outcome = running.ended().await.unwrap();
        assert_eq!((outcome.verdict, outcome.signal), (Verdict::Signalled, Some(2)));
    });
}
