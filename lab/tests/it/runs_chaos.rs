//! Runs while machines are killed, lose their power, freeze and are cut off at random: every client has exactly its program's
//! bytes and one end.
//!
//! `BRAMBLE_CHAOS_RUNS` says how many, `BRAMBLE_CHAOS_SEED` which ones; a seed that failed is printed.

use crate::runs_machines::ready;
use lab::machines::Verb;
use lab::run::{Event, Stream, code, with};
use lab::{Machines, wait};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use wire::run::{Channel, RunVerdict};

const MACHINES: usize = 5;
const RUNS: usize = 60;
/// Runs at once.
const CLIENTS: usize = 6;
/// Between two misfortunes.
const PAUSE: Duration = Duration::from_millis(1_500);
/// A client that was cut off looks for its run for so long: what nobody watches is killed after fifteen seconds.
const COMES_BACK: Duration = Duration::from_secs(14);

/// Writes lines that follow from its seed for a second or two; the kind that is spoken with asks for every twentieth.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    unsigned x = strtoul(argv[1], 0, 10), spoken = argc > 2, seed = x;
    char line[64];
    for (int n = 0; n < 400; n++) {
        x = x * 1664525u + 1013904223u;
        printf("%d %u\n", n, x);
        fflush(stdout);
        if (spoken && n % 20 == 19) {
            if (!fgets(line, sizeof line, stdin)) return 99;
            printf("heard %s", line);
            fflush(stdout);
        }
        usleep(1000 + x % 8000);
    }
    return seed % 5;
}
"#;

fn expected(seed: u32, spoken: bool) -> String {
    let mut text = String::new();
    let mut x = seed;
    for n in 0..400 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += &format!("{n} {x}\n");
        if spoken && n % 20 == 19 {
            text += &format!("heard {}\n", n / 20);
        }
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "a test is told its seed")]
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Random enough, and the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }
}

/// What became of one run.
#[derive(Debug, PartialEq)]
enum Fate {
    /// All that it should have written, and its exit code.
    Whole,
    /// The client was told that its machine is gone.
    Lost,
}

struct Client<'a> {
    doors: &'a [(SocketAddr, String)],
    dice: Dice,
    resumed: &'a AtomicUsize,
}

impl Client<'_> {
    fn door(&mut self) -> (SocketAddr, String) {
        let at = self.dice.roll(self.doors.len());
        self.doors[at].clone()
    }

    /// One run to its one end, however often the line breaks.
    fn run(&mut self, seed: u32, spoken: bool) -> Fate {
        let more = if spoken {
            json!({ "args": [seed.to_string(), "spoken"] })
        } else {
            json!({ "args": [seed.to_string()], "stdin": "", "repeatable": true })
        };
        let wanted = with(code("c", PROGRAM), more);
        let mut stream = self.begin(&wanted);
        let (mut text, mut answers) = (String::new(), 0);
        loop {
            let again = stream.again;
            let event = stream.hear();
            if stream.again != again {
                text.clear();
            }
            match event {
                Event::Wrote(Channel::Stdout, bytes) => {
                    text += std::str::from_utf8(&bytes).expect("whole characters");
                    // After every twentieth line it waits for an answer.
                    while spoken && answers < 20 && text.contains(&format!("\n{} ", answers * 20 + 19)) {
                        // If it breaks, it is said again when the run is found.
                        stream.try_feed(format!("{answers}\n").as_bytes());
                        answers += 1;
                    }
                }
                Event::Wrote(..) | Event::Told(..) => {}
                Event::Closed => {
                    let Some(back) = self.find(&stream) else { return Fate::Lost };
                    self.resumed.fetch_add(1, Ordering::Relaxed);
                    let had = usize::try_from(back.next_input - 1).expect("few");
                    stream = back;
                    for answer in had..answers {
                        stream.try_feed(format!("{answer}\n").as_bytes());
                    }
                }
            }
            if let Some(ended) = &stream.ended {
                if ended.verdict == RunVerdict::Lost {
                    return Fate::Lost;
                }
                assert_eq!(text, expected(seed, spoken), "seed {seed}: {ended:?}");
                assert_eq!(ended.exit_code, i32::try_from(seed % 5).ok(), "{ended:?}");
                return Fate::Whole;
            }
        }
    }

    /// A run that a worker has, from whoever listens.
    fn begin(&mut self, wanted: &serde_json::Value) -> Stream {
        wait::until("somebody takes the run", 60, || {
            let (api, token) = self.door();
            let mut stream = Stream::at(api, &token).ok()?;
            stream.ask(wanted).then_some(stream)
        })
    }

    /// The same run through another machine. `None`: it is gone.
    fn find(&mut self, broken: &Stream) -> Option<Stream> {
        let until = world::clock::monotonic() + COMES_BACK;
        while world::clock::monotonic() < until {
            let (api, token) = self.door();
            if let Ok(mut stream) = Stream::at(api, &token)
                && stream.come_back(&broken.id, broken.arrived)
            {
                return Some(stream);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        None
    }
}

/// What happened, and how often.
type Counts = BTreeMap<&'static str, usize>;

/// One misfortune after the other, each over before the next: more than half of the machines are always there.
fn misfortunes(mut machines: Machines, mut dice: Dice, over: &AtomicBool) -> (Machines, Counts) {
    let mut counts = Counts::new();
    let kinds = if machines.place().is_some() { 5 } else { 3 };
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        let (which, next) = (1 + dice.roll(MACHINES), 1 + dice.roll(MACHINES - 1));
        let other = (which + next - 1) % MACHINES + 1;
        let away = Duration::from_millis(200 + 100 * dice.roll(25) as u64);
        let (name, begins, ends) = match dice.roll(kinds) {
            0 => ("killed", Verb::Kill(which), Verb::Rejoin(which)),
            1 => ("without power", Verb::PowerCut(Some(which)), Verb::Rejoin(which)),
            2 => ("frozen", Verb::Freeze(which), Verb::Thaw(which)),
            3 => ("cut off", Verb::Partition(which, None), Verb::Heal),
            _ => ("not heard by one", Verb::OneWay(which, other), Verb::Heal),
        };
        *counts.entry(name).or_default() += 1;
        machines.act(begins).expect("it happens");
        std::thread::sleep(away);
        machines.act(ends).expect("it is over");
    }
    (machines, counts)
}

#[test]
fn every_run_has_its_bytes_and_one_end_while_machines_come_and_go() {
    let seed = told("BRAMBLE_CHAOS_SEED").unwrap_or_else(world::clock::unix_ms);
    let count = told("BRAMBLE_CHAOS_RUNS").map_or(RUNS, |count| usize::try_from(count).expect("fewer"));
    println!("BRAMBLE_CHAOS_SEED={seed}");
    let machines = Machines::start(MACHINES).expect("machines begin");
    let nodes = || (1..=MACHINES).map(|number| machines.node(number));
    ready(&nodes().collect::<Vec<_>>(), "c");
    let doors: Vec<(SocketAddr, String)> = nodes().map(|node| (node.api, node.token())).collect();
    let (over, next, whole, lost, resumed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (machines, counts) = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| misfortunes(machines, Dice(seed), &over));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (doors, next, whole, lost, resumed) = (&doors, &next, &whole, &lost, &resumed);
                scope.spawn(move || {
                    let mut client = Client { doors, dice: Dice(seed + client as u64 + 1), resumed };
                    loop {
                        let run = next.fetch_add(1, Ordering::Relaxed);
                        if run >= count {
                            return;
                        }
                        match client.run(u32::try_from(run).expect("few") + 1, run % 2 == 0) {
                            Fate::Whole => whole.fetch_add(1, Ordering::Relaxed),
                            Fate::Lost => lost.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let after = chaos.join().expect("misfortunes end");
        assert!(ended.iter().all(Result::is_ok), "seed {seed}: a client failed");
        after
    });
    let (whole, lost) = (whole.into_inner(), lost.into_inner());
    println!(
        "{whole} whole, {lost} lost with their machine; machines: {counts:?}; clients that came back: {}",
        resumed.into_inner()
    );
    assert_eq!(whole + lost, count);
    // Power that is cut takes what runs there along; all else takes nothing.
    let without_power = counts.get("without power").copied().unwrap_or(0);
    assert!(lost <= without_power * CLIENTS, "seed {seed}: {lost} lost");
    for node in (1..=MACHINES).map(|number| machines.node(number)) {
        wait::until("no box is left behind", 40, || {
            let text = node.call("GET", "/metrics", "").text();
            text.lines().any(|line| line == "bramble_runs_running 0").then_some(())
        });
    }
    assert!(whole * 2 > count, "seed {seed}: most are whole");
}
