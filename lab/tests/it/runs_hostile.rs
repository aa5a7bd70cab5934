//! Programs that mean harm, through the public stream: each ends with the verdict it should, and leaves nothing behind.
//!
//! The first thirty are those that boxes are tested with; here they are handed in as code and compiled in a box themselves.

use lab::node::{Node, Settings};
use lab::process;
use lab::run::{Stream, code, with};
use serde_json::{Value, json};
use wire::run::RunVerdict::{self, Finished, Killed, OutOfMemory, OutOfTime, TooMuchOutput, WrongExit};
use wire::run::{Channel, Ended};

const SOURCES: [(&str, &str); 8] = [
    ("main.c", include_str!("../../../base/sandbox/tests/hostile/programs/main.c")),
    ("hostile.h", include_str!("../../../base/sandbox/tests/hostile/programs/hostile.h")),
    ("processes.c", include_str!("../../../base/sandbox/tests/hostile/programs/processes.c")),
    ("memory.c", include_str!("../../../base/sandbox/tests/hostile/programs/memory.c")),
    ("files.c", include_str!("../../../base/sandbox/tests/hostile/programs/files.c")),
    ("kernel.c", include_str!("../../../base/sandbox/tests/hostile/programs/kernel.c")),
    ("streams.c", include_str!("../../../base/sandbox/tests/hostile/programs/streams.c")),
    ("again.c", include_str!("../../../base/sandbox/tests/hostile/programs/again.c")),
];

/// An ordinary user, whatever its name.
const ORDINARY: u32 = 47_114;

/// What is in the environment of each run of a node, so that what it leaves is found.
fn mark(node: &Node) -> String {
    node.id()
}

fn watched(node: &Node, wanted: Value) -> (Ended, String) {
    let mut stream = Stream::run(node, &with(wanted, json!({ "env": { "HOSTILE": mark(node) } })));
    stream.end_input();
    let ended = stream.to_the_end();
    let all = [Channel::Stdout, Channel::Stderr, Channel::Compiler].map(|channel| stream.text(channel)).concat();
    // Of a flood, the first drops.
    (ended, all.chars().take(10_000).collect())
}

fn nothing_is_left(node: &Node, of: &str) {
    let mark = format!("HOSTILE={}", mark(node));
    let is_hostile = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let left: Vec<String> = process::all()
        .into_iter()
        .filter(is_hostile)
        .filter(|pid| process::runs(*pid))
        .map(process::command_line)
        .collect();
    assert!(left.is_empty(), "{of} left {left:?}");
}

fn sources() -> Vec<Value> {
    SOURCES.iter().map(|(name, text)| json!({ "name": name, "content": text })).collect()
}

/// Boxes are used again: each program prints all that it finds, and that is the same after whatever was left.
#[test]
fn what_one_leaves_the_next_does_not_find() {
    let node = Node::start();
    let files = sources();
    let run = |arguments: &[&str]| {
        let (ended, said) = watched(&node, json!({ "language": "c", "files": files, "args": arguments }));
        assert_eq!(ended.verdict, Finished, "{arguments:?}: {ended:?} {said}");
        said
    };
    let fresh = run(&["look"]);
    for what in
        ["nothing", "files", "names", "deep", "closed", "mark", "limit", "nice", "idle", "lingers", "ring", "daemon"]
    {
        run(&["leave", what]);
        // More than there are workers, so that the box that was left is among them, if it is used again.
        for _look in 0..4 {
            let found = run(&["look"]);
            let new: Vec<&str> = found.lines().filter(|line| !fresh.lines().any(|known| known == *line)).collect();
            assert!(found == fresh, "after {what}: {new:#?}");
        }
    }
}

#[test]
fn the_thirty_each_with_its_verdict() {
    let node = Node::start();
    let files = sources();
    let usual = json!({ "wall_ms": 20_000, "cpu_ms": 10_000, "memory_bytes": 512 << 20, "output_bytes": 1 << 20 });
    let check = |arguments: &[&str], limits: Value, verdict: RunVerdict, signal: Option<i32>| {
        let limits = with(usual.clone(), limits);
        let (ended, said) =
            watched(&node, json!({ "language": "c", "files": files, "args": arguments, "limits": limits }));
        assert_eq!((ended.verdict, ended.signal), (verdict, signal), "{arguments:?}: {ended:?} {said}");
        nothing_is_left(&node, arguments[0]);
        said
    };
    let fine = |name: &str| drop(check(&[name], json!({}), Finished, None));
    let killed = Some(9);
    for name in [
        "fork-bomb",
        "thread-bomb",
        "daemon-left-behind",
        "inode-fill",
        "deep-folders",
        "sparse-ignored",
        "probes",
        "looks-into-others",
        "mounts",
        "namespaces",
        "families",
        "calls",
        "memfd-bomb",
        "shm-bomb",
        "buffer-hoard",
        "descriptor-hoard",
        "side-channels",
    ] {
        fine(name);
    }
    // Some of what it would write to is not even there.
    let said = check(&["writes"], json!({}), WrongExit, None);
    assert!(said.lines().all(|line| line.ends_with("No such file or directory")), "{said}");
    check(&["kills", &node.pid().to_string()], json!({}), Finished, None);
    check(&["connects", &node.api.port().to_string()], json!({}), Finished, None);
    check(&["abstract-socket", "nosuch"], json!({}), Finished, None);
    check(&["fork-bomb-endless"], json!({ "wall_ms": 500 }), OutOfTime, killed);
    check(&["stubborn"], json!({ "wall_ms": 300 }), OutOfTime, killed);
    check(&["spin-everywhere"], json!({ "cpu_ms": 300 }), OutOfTime, killed);
    check(&["malloc-bomb"], json!({ "memory_bytes": 128 << 20 }), OutOfMemory, killed);
    check(&["memory-bomb-shared-out"], json!({}), OutOfMemory, killed);
    check(&["hidden-bomb"], json!({ "memory_bytes": 256 << 20 }), OutOfMemory, killed);
    check(&["flood", "1"], json!({}), TooMuchOutput, killed);
    check(&["flood", "2"], json!({}), TooMuchOutput, killed);
    check(&["flood", "12"], json!({}), TooMuchOutput, killed);
    check(&["sparse"], json!({}), Killed, Some(25));
    check(&["crash"], json!({}), Killed, Some(11));
    check(&["aborts"], json!({}), Killed, Some(6));
    check(&["overflow"], json!({}), Killed, Some(11));
    #[cfg(target_arch = "x86_64")]
    check(&["other-architecture"], json!({}), Killed, Some(31));
}

/// Name, language, code, verdict, a part of what it says.
type Case = (&'static str, &'static str, &'static str, RunVerdict, &'static str);

const MORE: [Case; 24] = [
    ("a child that holds the output open", "bash", "sleep 1000 & echo ended", Finished, "ended\n"),
    ("a session of its own that holds it", "bash", "setsid sleep 1000 & echo ended", Finished, "ended\n"),
    ("closes all it has", "python", "import os\nos.closerange(0, 100)\nos._exit(0)", Finished, ""),
    ("goes on without output", "python", "import os, time\nos.closerange(0, 3)\ntime.sleep(1000)", OutOfTime, ""),
    ("reads what never comes to an end", "bash", "cat /dev/zero >/dev/null", OutOfTime, ""),
    ("a pipe nobody opens", "bash", "mkfifo p; cat p", OutOfTime, ""),
    ("recursion without end", "python", "def f(): return f()\nf()", WrongExit, "RecursionError"),
    (
        "recursion without end, deep",
        "python",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        OutOfMemory,
        "",
    ),
    ("fills its folder", "bash", "head -c 200000000 /dev/zero >f; ls -s f | cut -d' ' -f2", Finished, "f"),
    ("fills /tmp", "python", "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20))", WrongExit, "OSError"),
    (
        "fills shared memory",
        "python",
        "f = open('/dev/shm/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        WrongExit,
        "No space left",
    ),
    (
        "more files than fit",
        "python",
        "n = 0\nwhile True:\n    open(str(n), 'w')\n    n += 1",
        WrongExit,
        "No space left",
    ),
    ("makes its folder unreadable", "bash", "chmod 000 /box; echo done", Finished, "done\n"),
    (
        "puts a folder in its own code's place",
        "bash",
        "rm -rf /box/*; mkdir /box/main.sh; echo done",
        Finished,
        "done\n",
    ),
    ("links to the machine", "bash", "ln -s /proc/1/root/etc x; cat x/shadow", WrongExit, "x/shadow"),
    ("writes to its own root", "bash", "echo x >/usr/bin/sh", WrongExit, "Read-only"),
    ("sets a user", "python", "import os\nos.setuid(1000)", WrongExit, "Invalid argument"),
    ("looks for others", "bash", "ls -d /proc/[0-9]* | wc -l", Finished, "\n"),
    ("reads the machine's load", "bash", "cat /proc/loadavg /proc/meminfo /proc/version", WrongExit, "No such file"),
    (
        "asks for more than there is of everything",
        "bash",
        "ulimit -n 100000 || ulimit -u 100000 || echo refused",
        Finished,
        "refused",
    ),
    ("kills all it can", "bash", "kill -9 -1; echo alive", Finished, "alive"),
    ("stops itself", "bash", "kill -STOP $$", OutOfTime, ""),
    (
        "a word too long",
        "python",
        "import os\nos.execv('/bin/sh', ['sh'] + ['x' * 200_000] * 20)",
        WrongExit,
        "too long",
    ),
    (
        "connects to what the machine has",
        "python",
        "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)",
        WrongExit,
        "refused",
    ),
];

#[test]
fn two_dozen_more() {
    let node = Node::start();
    for (name, language, text, verdict, part) in MORE {
        let limits =
            json!({ "limits": { "wall_ms": 1_500, "output_bytes": 1 << 20, "file_bytes": 32 << 20 }, "collect": true });
        let (ended, said) = watched(&node, with(code(language, text), limits));
        assert_eq!(ended.verdict, verdict, "{name}: {ended:?} {said}");
        assert!(said.contains(part), "{name}: {said}");
        assert!(ended.files.iter().all(|file| !file.name.contains("shadow")), "{name}: {:?}", ended.files);
        nothing_is_left(&node, name);
    }
}

/// Frames that no client sends.
#[test]
fn frames_that_are_none_end_their_own_run_and_nothing_else() {
    let node = Node::start();
    let waits = code("python", "print('ready', flush=True)\ninput()");
    let mut other = Stream::run(&node, &waits);
    other.until(Channel::Stdout, "ready\n");
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice
    };
    for round in 0..60_u64 {
        let mut stream = Stream::run(&node, &waits);
        let bytes: Vec<u8> = (0..roll() % 40).map(|_| roll() as u8).collect();
        let message: tokio_tungstenite::tungstenite::Message = match round % 4 {
            0 => bytes.into(),
            1 => String::from_utf8_lossy(&bytes).into_owned().into(),
            // A block of input with a gap, or on a channel that is not the client's.
            2 => [&(2 + roll() % 5).to_be_bytes()[..], &[0], &bytes].concat().into(),
            _ => [&1_u64.to_be_bytes()[..], &[1 + (roll() % 255) as u8], &bytes].concat().into(),
        };
        stream.try_send(message);
        stream.try_send(r#"{"signal": "NOSUCH"}"#.into());
        while stream.hear() != lab::run::Event::Closed && stream.ended.is_none() {}
    }
    // More input than anybody waits for.
    let mut stream = Stream::run(&node, &code("python", "import time\ntime.sleep(1000)"));
    for number in 1..=40_u64 {
        let block = [&number.to_be_bytes()[..], &[0], &[b'x'; 16 << 10]].concat();
        if !stream.try_send(block.into()) {
            break;
        }
    }
    while stream.hear() != lab::run::Event::Closed && stream.ended.is_none() {}
    other.feed(b"\n");
    assert_eq!(other.to_the_end().verdict, Finished);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// Binds a port and a name without a path, connects to itself, and leaves a connection that lingers.
const NETWORKS: &str = r#"
import socket, time
listener = socket.socket()
listener.bind(("127.0.0.1", 5000))
listener.listen()
name = socket.socket(socket.AF_UNIX)
name.bind("\0mine")
one = socket.create_connection(("127.0.0.1", 5000))
other, _ = listener.accept()
one.sendall(b"hello"); assert other.recv(5) == b"hello"
other.close(); one.recv(1); one.close()
try:
    socket.create_connection(("192.0.2.1", 80), 1)
    print("out")
except OSError:
    print("alone", flush=True)
time.sleep(0.3)
"#;

/// Networks are used by one box after the other: none is used by two, and none finds what another left.
fn have_networks_to_themselves(node: &Node) {
    for _ in 0..3 {
        let mut together: Vec<Stream> = (0..6).map(|_| Stream::run(node, &code("python", NETWORKS))).collect();
        for stream in &mut together {
            let ended = stream.to_the_end();
            let said = stream.text(Channel::Stdout) + &stream.text(Channel::Stderr);
            assert_eq!((ended.verdict, said.as_str()), (Finished, "alone\n"));
        }
    }
    // The spawners of the workers keep some.
    let keeps = |pid: &u32| {
        let held = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links = held.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("net:")).count() > 1
    };
    assert!(node.processes().iter().any(keeps), "networks are kept");
}

#[test]
fn each_box_has_its_network_to_itself() {
    have_networks_to_themselves(&Node::start());
}

#[test]
fn each_box_of_an_ordinary_user_has_its_network_to_itself() {
    if !process::is_root() {
        println!("skipped: the other test is by an ordinary user then");
        return;
    }
    have_networks_to_themselves(&Node::with(Settings { user: Some(ORDINARY), ..Settings::default() }));
}
