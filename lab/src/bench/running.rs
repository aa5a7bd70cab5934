//! Code that is run: how long until its first byte is here beside the bare program, how many runs a second, how fast one
//! streams, and a thousand that wait for a person at once.

use super::figures::{median, milliseconds};
use super::peers::{self, Isolate};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::node::{Node, Settings};
use lab::run::{Event, Stream, code, with};
use lab::{process, wait};
use serde_json::{Value, json};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;
use wire::run::Channel;

const ROUNDS: usize = 300;
/// The first ones compile, copy and fill caches.
const ROUNDS_UNCOUNTED: usize = 20;
/// Runs of a program that does nothing, and how often all kinds of them take their turn.
const RUNS: usize = 400;
const TURNS: usize = 5;
const FLOOD_BYTES: usize = 1 << 30;
const FLOODS: usize = 5;
const SLOW_READERS: usize = 100;
const MACHINES: usize = 5;
const INTERACTIVE: usize = 1_000;
const LINES: usize = 10;

const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"hello\"); }";
const NOTHING: &str = "int main(void) { return 0; }";
/// As fast as a program can.
const FLOOD: &str = "#include <string.h>\n#include <unistd.h>\nint main(void) { static char block[65536]; memset(block, 'x', \
                     sizeof block); for (;;) if (write(1, block, sizeof block) < 0) return 1; }";
const ECHO: &str = "#include <stdio.h>\nint main(void) { static char line[100]; setvbuf(stdout, 0, _IOLBF, 0); while \
                    (fgets(line, sizeof line, stdin)) fputs(line, stdout); }";

pub(super) fn run(_options: &Options) -> Measured {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rows = Vec::new();
    {
        let (_others, front) = machines();
        for busy in [false, true] {
            rows.extend(first_byte(&front, folder.path(), ("five machines", busy)));
        }
    }
    let node = Node::with(Settings::default());
    rows.extend(first_byte(&node, folder.path(), ("one machine", false)));
    rows.extend(throughput(&node, folder.path()));
    rows.extend(floods(&node));
    // What is known by then is known, whatever becomes of a thousand.
    match catch_unwind(AssertUnwindSafe(|| interactive(&node))) {
        Ok(more) => rows.extend(more),
        Err(_) => println!("{INTERACTIVE} at once: not measured"),
    }
    Measured::Rows(rows)
}

/// Machines of one cluster, and one of them that does not assign: from it the way is the longest.
fn machines() -> (Vec<Node>, Node) {
    let mut nodes = vec![Node::with(Settings::default())];
    for _ in 1..MACHINES {
        let joined = nodes[0].join();
        nodes.push(joined);
    }
    let holders = |node: &Node, role: &str| -> Vec<String> {
        let roles = node.json(&["cluster", "roles"]);
        let has = |one: &&Value| one["roles"].as_array().is_some_and(|roles| roles.iter().any(|has| has == role));
        let all = roles["machines"].as_array().cloned().unwrap_or_default();
        all.iter().filter(has).filter_map(|one| one["node"].as_str().map(str::to_owned)).collect()
    };
    for node in &nodes {
        wait::until("all work, and two assign", 60, || {
            (holders(node, "worker").len() == MACHINES && holders(node, "assigner").len() == 2).then_some(())
        });
        for language in ["c", "python"] {
            assert_eq!(node.call("POST", &format!("/v1/languages/{language}/prepare"), "").status, 204);
        }
    }
    let assigners = holders(&nodes[0], "assigner");
    let at = nodes.iter().position(|node| !assigners.contains(&node.id())).expect("five are more than two");
    let front = nodes.swap_remove(at);
    wait::until("everybody knows who can run what", 30, || {
        let languages: Value = serde_json::from_slice(&front.call("GET", "/v1/languages", "").body).ok()?;
        let copied = |one: &Value| {
            one["machines"].as_array().map_or(0, |on| on.iter().filter(|on| on["copied"] == true).count())
        };
        let all = languages.as_array()?.iter().filter(|one| one["name"] == "c" || one["name"] == "python");
        all.map(copied).all(|count| count == MACHINES).then_some(())
    });
    (nodes, front)
}

/// A program compiled on the machine itself.
fn compiled(folder: &Path, name: &str, source: &str) -> std::path::PathBuf {
    let (text, program) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&text, source).expect("written");
    let made = Command::new("gcc").args(["-std=gnu17", "-O2", "-o"]).arg(&program).arg(&text).status().expect("gcc");
    assert!(made.success(), "{name} compiles");
    program
}

fn quantile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share) as usize]
}

/// Processes that keep both cores half busy.
struct Busy(Vec<std::process::Child>);

impl Busy {
    fn start(wanted: bool) -> Busy {
        let half = "import time\nwhile True:\n    end = time.monotonic() + 0.005\n    while time.monotonic() < end: pass\n    time.sleep(0.005)";
        let count = if wanted { std::thread::available_parallelism().map_or(1, usize::from) } else { 0 };
        let one = |_| Command::new("/usr/bin/python3").args(["-c", half]).spawn().expect("python starts");
        Busy((0..count).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// From the frame that asks to the first byte of output, in turns with the bare program.
fn first_byte(node: &Node, folder: &Path, (on, busy): (&str, bool)) -> Vec<Row> {
    let hello = compiled(folder, "hello", HELLO);
    let python = "print('hello')";
    let script = folder.join("hello.py");
    std::fs::write(&script, python).expect("written");
    let kinds: [(&str, Value, Vec<std::ffi::OsString>); 2] = [
        ("C", code("c", HELLO), vec![hello.into()]),
        ("Python", code("python", python), vec!["/usr/bin/python3".into(), script.into()]),
    ];
    let _busy = Busy::start(busy);
    let mut rows = Vec::new();
    for (name, wanted, command) in kinds {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS + ROUNDS_UNCOUNTED {
            let (one, other) = (through(node, &wanted), plain(&command));
            if round >= ROUNDS_UNCOUNTED {
                ours.push(milliseconds(one));
                bare.push(milliseconds(other));
            }
        }
        let state = if busy { "cores half busy" } else { "quiet" };
        for (what, share, goal) in [("p50", 0.5, 5.0), ("p99", 0.99, 20.0)] {
            let (ours, bare) = (quantile(&mut ours, share), quantile(&mut bare, share));
            let goal = if busy == (what == "p99") { Goal::Below(goal) } else { Goal::None };
            rows.push(
                Row::new(format!("{on}, hello in {name}, {state}, {what}"), "ms", ours, Goal::None)
                    .beside("bare", bare),
            );
            rows.push(Row::new(format!("{on}, hello in {name}, {state}, {what}: above bare"), "ms", ours - bare, goal));
        }
    }
    rows
}

fn through(node: &Node, wanted: &Value) -> Duration {
    let mut stream = Stream::open(node);
    let began = world::clock::monotonic();
    stream.say(&json!({ "run": wanted }));
    while !matches!(stream.hear(), Event::Wrote(Channel::Stdout, _)) {}
    let took = began.elapsed();
    stream.to_the_end();
    took
}

fn plain(command: &[std::ffi::OsString]) -> Duration {
    let began = world::clock::monotonic();
    let mut child = Command::new(&command[0]).args(&command[1..]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut byte = [0];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut byte).expect("a byte");
    let took = began.elapsed();
    child.wait().expect("it ends");
    took
}

/// Runs a second of a program that does nothing, on all cores.
fn throughput(node: &Node, folder: &Path) -> Vec<Row> {
    let nothing = compiled(folder, "nothing", NOTHING);
    let wanted =
        with(code("c", NOTHING), json!({ "inputs": vec![""; RUNS], "limits": { "output_bytes": 1_000 } })).to_string();
    let ours = || {
        let began = world::clock::monotonic();
        let answer = node.call("POST", "/v1/runs", &wanted);
        assert_eq!(answer.status, 200, "{}", answer.text());
        RUNS as f64 / began.elapsed().as_secs_f64()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let single = with(code("c", NOTHING), json!({ "limits": { "output_bytes": 1_000 } })).to_string();
    let each_asked = || {
        let began = world::clock::monotonic();
        std::thread::scope(|scope| {
            for _ in 0..2 * threads {
                scope.spawn(|| {
                    for _ in 0..RUNS / threads / 2 {
                        assert_eq!(node.call("POST", "/v1/runs", &single).status, 200);
                    }
                });
            }
        });
        RUNS as f64 / began.elapsed().as_secs_f64()
    };
    let mut rivals = vec![Rival::new("fork+exec", Goal::LeastTimesPeer(0.45), |_| vec![Command::new(&nothing)])];
    let is_there = |tried: Result<(), String>| tried.map_err(|reason| println!("{reason}")).is_ok();
    if is_there(peers::BUBBLEWRAP.tried(folder)) {
        let run = |_| vec![(peers::BUBBLEWRAP.command)(folder)];
        rivals.push(Rival::new("bwrap", Goal::LeastTimesPeer(1.5), run));
    }
    if is_there(Isolate::of(0).tried()) {
        let run = |thread| Isolate::of(thread).steps().into();
        rivals.push(Rival::new("isolate", Goal::None, run));
    }
    ours();
    let (mut of_ours, mut of_each) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        of_ours.push(ours());
        of_each.push(each_asked());
        rivals.iter_mut().for_each(|rival| rival.rates.push(rate(threads, &*rival.run)));
    }
    let row = |rates: &[f64], what, goal| Row::new(what, "/s", median(rates), goal);
    let mut rows = Vec::new();
    for rival in &rivals {
        let row = row(&of_ours, "a program that does nothing, runs/s", rival.goal);
        rows.push(row.beside(rival.name, median(&rival.rates)));
    }
    let each = row(&of_each, "the same, each asked for by itself on a connection of its own", Goal::None);
    rows.push(each.beside(rivals[0].name, median(&rivals[0].rates)));
    rows
}

/// Another way to run a program: what a thread of this number starts for it, one after the other.
struct Rival<'a> {
    name: &'static str,
    goal: Goal,
    run: Box<dyn Fn(usize) -> Vec<Command> + Sync + 'a>,
    rates: Vec<f64>,
}

impl<'a> Rival<'a> {
    fn new(name: &'static str, goal: Goal, run: impl Fn(usize) -> Vec<Command> + Sync + 'a) -> Rival<'a> {
        Rival { name, goal, run: Box::new(run), rates: Vec::new() }
    }
}

/// Runs a second of it, on all cores.
fn rate(threads: usize, run: &(dyn Fn(usize) -> Vec<Command> + Sync)) -> f64 {
    let began = world::clock::monotonic();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for mut command in (0..RUNS / threads).flat_map(|_| run(thread)) {
                    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("it starts");
                    assert!(status.success());
                }
            });
        }
    });
    RUNS as f64 / began.elapsed().as_secs_f64()
}

/// One run that streams as fast as it can, alone and beside many of the kind that nobody reads.
fn floods(node: &Node) -> [Row; 2] {
    let limits = json!({ "limits": { "output_bytes": 1_u64 << 40, "cpu_ms": 600_000, "wall_ms": 600_000 } });
    let wanted = with(code("c", FLOOD), limits);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..FLOODS {
        alone.extend([flood(node, &wanted), flood(node, &wanted)]);
        let unread: Vec<Stream> = (0..SLOW_READERS).map(|_| Stream::run(node, &wanted)).collect();
        // They fill what there is between them and us first.
        flood(node, &wanted);
        beside.extend([flood(node, &wanted), flood(node, &wanted)]);
        unread.into_iter().for_each(Stream::leave);
        wait::until("nothing is left of them", 20, || {
            let metrics = node.call("GET", "/metrics", "").text();
            metrics.lines().any(|line| line == "bramble_runs_running 0").then_some(())
        });
    }
    let (alone, beside) = (median(&alone), median(&beside));
    [
        Row::new("one run as fast as it can, MB/s", "MB/s", alone, Goal::AtLeast(200.0)),
        Row::new(
            format!("the same beside {SLOW_READERS} that nobody reads"),
            "MB/s",
            beside,
            Goal::LeastTimesPeer(0.9),
        )
        .beside("alone", alone),
    ]
}

fn flood(node: &Node, wanted: &Value) -> f64 {
    let mut stream = Stream::run(node, wanted);
    stream.acknowledges = false;
    let (mut bytes, mut unacknowledged) = (0, 0);
    let mut began = None;
    while bytes < FLOOD_BYTES {
        let Event::Wrote(Channel::Stdout, payload) = stream.hear() else { continue };
        began.get_or_insert_with(world::clock::monotonic);
        bytes += payload.len();
        unacknowledged += payload.len();
        stream.written.clear();
        if unacknowledged > 128 << 10 {
            unacknowledged = 0;
            stream.acknowledge();
        }
    }
    let seconds = began.map_or(1.0, |began| began.elapsed().as_secs_f64());
    stream.leave();
    bytes as f64 / 1e6 / seconds
}

/// Many that wait for a person, each of whom types a line a second.
fn interactive(node: &Node) -> Vec<Row> {
    let before: u64 = process::of_data(node.data()).into_iter().map(process::resident_bytes).sum();
    let limits = json!({ "limits": { "wall_ms": 600_000 } });
    let wanted = with(code("c", ECHO), limits);
    drop(Stream::run(node, &wanted));
    let free = available_bytes();
    let opened = world::clock::monotonic();
    // Several at once: who is opened first has to answer a ping before the last is.
    let threads = 4;
    let each = INTERACTIVE / threads;
    let mut streams: Vec<Stream> = std::thread::scope(|scope| {
        let open = || (0..each).map(|_| Stream::run(node, &wanted)).collect::<Vec<_>>();
        let opening: Vec<_> = (0..threads).map(|_| scope.spawn(open)).collect();
        opening.into_iter().flat_map(|opening| opening.join().expect("they open")).collect()
    });
    let taken = free.saturating_sub(available_bytes());
    println!("{INTERACTIVE} at once: opened within {:.1} s", opened.elapsed().as_secs_f64());
    let barrier = Barrier::new(threads);
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let typing: Vec<_> = streams
            .chunks_mut(each)
            .map(|some| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let mut times = Vec::new();
                    let pause = Duration::from_secs(1) / u32::try_from(some.len()).unwrap_or(1);
                    for number in 0..LINES {
                        for stream in some.iter_mut() {
                            let due = world::clock::monotonic() + pause;
                            let line = format!("line {number}\n");
                            let began = world::clock::monotonic();
                            stream.feed(line.as_bytes());
                            stream.until(Channel::Stdout, &line);
                            times.push(milliseconds(began.elapsed()));
                            // Who falls behind goes on from where it is: what is measured is an echo, not a queue.
                            std::thread::sleep(due.saturating_duration_since(world::clock::monotonic()));
                        }
                    }
                    times
                })
            })
            .collect();
        typing.into_iter().flat_map(|typing| typing.join().expect("it types")).collect()
    });
    let after: u64 = process::of_data(node.data()).into_iter().map(process::resident_bytes).sum();
    println!("{INTERACTIVE} at once: resident memory of our processes was {before} bytes and is {after}");
    let p99 = quantile(&mut times, 0.99);
    streams.into_iter().for_each(Stream::leave);
    vec![
        Row::new(
            format!("{INTERACTIVE} that wait for a line: p50 of an echo"),
            "ms",
            quantile(&mut times, 0.5),
            Goal::None,
        ),
        Row::new(format!("{INTERACTIVE} that wait for a line: p99 of an echo"), "ms", p99, Goal::Below(50.0)),
        Row::new(
            format!("{INTERACTIVE} that wait for a line: memory each"),
            "MB",
            taken as f64 / 1e6 / INTERACTIVE as f64,
            Goal::Below(1.0),
        ),
    ]
}

/// What the machine has left, by the kernel's own estimate.
fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
