//! A service under load, second by second: requests arrive, endpoints answer, fail, slow down and come back, and the
//! gateway sends once more what failed. The same seed gives the same run.

use crate::{Dice, endpoint};
use balancer::{Breaker, Outcome, Pool};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// How an endpoint does at a time.
#[derive(Clone, Copy)]
enum Doing {
    Well,
    /// Answers take so many times as long.
    Slow(u64),
    /// So many of a hundred answers are errors, quick ones.
    Failing(u64),
    Refusing,
}

type Script = fn(u64) -> Doing;

fn well(_: u64) -> Doing {
    Doing::Well
}

struct World {
    pool: Pool,
    dice: Dice,
    scripts: Vec<(Arc<str>, Script)>,
    /// By when it ends, in microseconds: the request, and what the gateway learns.
    under_way: BinaryHeap<Reverse<(u64, usize)>>,
    requests: Vec<Request>,
}

#[derive(Clone)]
struct Request {
    began_us: u64,
    /// Whom it was sent to, in order.
    sent: Vec<Arc<str>>,
    /// How the send under way ends.
    ends: Outcome,
    sent_us: u64,
    took_us: u64,
    failed: bool,
}

/// What the clients of a stretch of time saw.
#[derive(Debug)]
struct Told {
    requests: usize,
    failed: usize,
    slow: usize,
    /// Requests whose first send met an error: what clients without the retry would see.
    failed_once: usize,
}

impl Told {
    fn bad_percent(&self) -> f64 {
        100.0 * (self.failed + self.slow) as f64 / self.requests as f64
    }

    fn failed_once_percent(&self) -> f64 {
        100.0 * self.failed_once as f64 / self.requests as f64
    }
}

impl World {
    fn new(seed: u64, scripts: &[Script]) -> World {
        let scripts: Vec<_> =
            scripts.iter().enumerate().map(|(index, script)| (Arc::from(format!("e{index}")), *script)).collect();
        let mut pool = Pool::new();
        pool.update(0, scripts.iter().map(|(id, _)| endpoint(id)).collect());
        World { pool, dice: Dice(seed), scripts, under_way: BinaryHeap::new(), requests: Vec::new() }
    }

    /// Requests come at `per_second` with random gaps until `until_ms`.
    fn run(&mut self, per_second: u64, until_ms: u64) {
        let gap_us = 1_000_000 / per_second;
        let mut next_us = self.requests.last().map_or(0, |request| request.began_us);
        loop {
            next_us += self.dice.below(2 * gap_us) + 1;
            while let Some(Reverse((ends_us, index))) = self.under_way.peek().copied()
                && ends_us <= next_us
            {
                self.under_way.pop();
                self.end(index, ends_us);
            }
            if next_us > until_ms * 1_000 {
                return;
            }
            let request = Request {
                began_us: next_us,
                sent: Vec::new(),
                ends: Outcome::ClientGone,
                sent_us: 0,
                took_us: 0,
                failed: false,
            };
            self.requests.push(request);
            self.send(self.requests.len() - 1, next_us);
        }
    }

    fn send(&mut self, index: usize, now_us: u64) {
        let random = self.dice.roll();
        let request = &mut self.requests[index];
        let id = self.pool.pick_except(now_us / 1_000, random, &request.sent).expect("an endpoint");
        let script = self.scripts.iter().find(|(known, _)| *known == id).expect("listed").1;
        // 15 to 25 ms, a quick error 2 ms.
        let usual_us = 15_000 + self.dice.below(10_000);
        let (ends, took_us) = match script(now_us / 1_000) {
            Doing::Well => (Outcome::Ok { latency_us: usual_us }, usual_us),
            Doing::Slow(times) => (Outcome::Ok { latency_us: usual_us * times }, usual_us * times),
            Doing::Failing(percent) if self.dice.below(100) < percent => (Outcome::ServerError, 2_000),
            Doing::Failing(_) => (Outcome::Ok { latency_us: usual_us }, usual_us),
            Doing::Refusing => (Outcome::ConnectFailed, 500),
        };
        request.sent.push(id);
        request.sent_us = now_us;
        request.ends = ends;
        self.under_way.push(Reverse((now_us + took_us, index)));
    }

    fn end(&mut self, index: usize, now_us: u64) {
        let request = &mut self.requests[index];
        let id = request.sent.last().expect("sent").clone();
        self.pool.done(&id, now_us / 1_000, request.ends);
        request.took_us = now_us - request.began_us;
        request.failed = !matches!(request.ends, Outcome::Ok { .. });
        if request.failed && request.sent.len() == 1 {
            self.send(index, now_us);
        }
    }

    fn told(&self, from_ms: u64, to_ms: u64) -> Told {
        let within = (from_ms * 1_000)..(to_ms * 1_000);
        let asked: Vec<&Request> =
            self.requests.iter().filter(|request| within.contains(&request.began_us) && request.took_us > 0).collect();
        let mut took: Vec<u64> = asked.iter().map(|request| request.took_us).collect();
        took.sort_unstable();
        let median_us = took[took.len() / 2];
        Told {
            requests: asked.len(),
            failed: asked.iter().filter(|request| request.failed).count(),
            slow: asked.iter().filter(|request| !request.failed && request.took_us > 2 * median_us).count(),
            failed_once: asked.iter().filter(|request| request.sent.len() > 1).count(),
        }
    }

    /// Which part of the requests of a stretch of time were sent to an endpoint first, in percent.
    fn share(&self, id: &str, from_ms: u64, to_ms: u64) -> f64 {
        let within = (from_ms * 1_000)..(to_ms * 1_000);
        let asked: Vec<&Request> = self.requests.iter().filter(|request| within.contains(&request.began_us)).collect();
        100.0 * asked.iter().filter(|request| &*request.sent[0] == id).count() as f64 / asked.len() as f64
    }
}

/// The others of ten do well; trouble begins after 20 s. From 3 s on, nearly nobody may notice.
fn check_trouble(name: &str, troubles: &[Script]) {
    for (seed, per_second) in [(1, 1_000), (2, 200), (3, 3_000)] {
        let scripts: Vec<Script> = (0..10).map(|index| troubles.get(index).copied().unwrap_or(well)).collect();
        let mut world = World::new(seed, &scripts);
        world.run(per_second, 40_000);
        let first = world.told(20_000, 23_000);
        let told = world.told(23_000, 39_000);
        println!(
            "{name}, {per_second}/s: bad {:.3} % (first 3 s: {:.2} %), failed at first send {:.3} %",
            told.bad_percent(),
            first.bad_percent(),
            told.failed_once_percent()
        );
        assert!(told.bad_percent() < 0.5, "{name}, {per_second}/s: {told:?}");
    }
}

fn slow(now_ms: u64) -> Doing {
    if now_ms < 20_000 { Doing::Well } else { Doing::Slow(10) }
}

fn half_failing(now_ms: u64) -> Doing {
    if now_ms < 20_000 { Doing::Well } else { Doing::Failing(50) }
}

fn failing(now_ms: u64) -> Doing {
    if now_ms < 20_000 { Doing::Well } else { Doing::Failing(100) }
}

fn flapping(now_ms: u64) -> Doing {
    if now_ms < 20_000 || (now_ms / 2_000) % 2 == 1 { Doing::Well } else { Doing::Failing(100) }
}

fn refusing(now_ms: u64) -> Doing {
    if now_ms < 20_000 { Doing::Well } else { Doing::Refusing }
}

#[test]
fn one_of_ten_in_trouble_is_seen_by_nearly_nobody() {
    check_trouble("ten times as slow", &[slow]);
    check_trouble("every other answer an error", &[half_failing]);
    check_trouble("every answer an error", &[failing]);
    check_trouble("two seconds well, two seconds errors", &[flapping]);
    check_trouble("refusing", &[refusing]);
}

#[test]
fn four_of_ten_in_trouble_at_once_are_seen_by_nearly_nobody() {
    check_trouble("slow, failing by half, failing, flapping", &[slow, half_failing, failing, flapping]);
    check_trouble("three slow", &[slow, slow, slow]);
}

#[test]
fn a_still_failing_endpoint_is_seen_by_less_than_a_two_hundredth() {
    for (name, script) in [("all", failing as Script), ("half", half_failing)] {
        for (per_second, from_ms) in [(1_000, 23_000), (200, 23_000), (50, 30_000)] {
            let mut world = World::new(9, &[well, script, well]);
            world.run(per_second, 100_000);
            let told = world.told(from_ms, 99_000);
            println!("{name}, {per_second}/s: first sends that failed {:.3} %", told.failed_once_percent());
            assert!(told.failed_once_percent() < 0.5, "{name}, {per_second}/s: {told:?}");
        }
    }
}

fn boots_three_seconds(now_ms: u64) -> Doing {
    if now_ms < 3_000 { Doing::Failing(100) } else { Doing::Well }
}

fn boots_twenty_seconds(now_ms: u64) -> Doing {
    if now_ms < 20_000 { Doing::Failing(100) } else { Doing::Well }
}

/// The defect that was: some 503 while it booted, and a minute without a request.
#[test]
fn an_endpoint_that_failed_while_it_booted_is_soon_a_full_member() {
    for (script, ready_ms) in [(boots_three_seconds as Script, 3_000), (boots_twenty_seconds, 20_000)] {
        for per_second in [20, 100, 1_000] {
            let mut world = World::new(7, &[well, script, well]);
            world.run(per_second, 70_000);
            let good = world.requests.iter().find(|request| {
                &*request.sent[0] == "e1" && request.sent.len() == 1 && request.began_us / 1_000 >= ready_ms
            });
            let good_ms = good.expect("it is tried").began_us / 1_000;
            let share = world.share("e1", good_ms + 5_000, good_ms + 35_000);
            println!("boots {ready_ms} ms, {per_second}/s: good after {} ms, then {share:.1} %", good_ms - ready_ms);
            assert!(good_ms - ready_ms <= 15_000, "found late: {good_ms}");
            assert!((27.0..40.0).contains(&share), "{per_second}/s: {share} % from 5 s after its first good answer");
            assert_eq!(world.pool.breaker("e1", 70_000), Some(Breaker::Closed));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new(11, &[slow, half_failing, well, flapping]);
        world.run(500, 40_000);
        world.requests.iter().map(|request| (request.took_us, request.sent.clone())).collect::<Vec<_>>()
    };
    assert!(run() == run());
}
