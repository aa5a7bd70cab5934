//! The pool's promises: what is never picked, what always is, and how load spreads.

use balancer::{Endpoint, Outcome, Pool};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const OK: Outcome = Outcome::Ok { latency_ms: 5 };

fn endpoint(id: &str) -> Endpoint {
    Endpoint { id: id.to_owned(), weight: 1, draining: false }
}

fn pool(ids: &[&str]) -> Pool {
    let mut pool = Pool::new();
    pool.update(ids.iter().map(|id| endpoint(id)).collect());
    pool
}

/// A stream of random numbers that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// How often each endpoint is picked when every pick ends at once.
fn shares(pool: &mut Pool, picks: usize, now_ms: u64) -> BTreeMap<String, usize> {
    let mut dice = Dice(7);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let id = pool.pick(now_ms, dice.roll()).expect("an endpoint");
        *counts.entry(id.to_string()).or_default() += 1;
        pool.done(&id, now_ms, OK);
    }
    counts
}

#[test]
fn an_empty_pool_has_nothing_to_pick() {
    assert_eq!(Pool::new().pick(0, 0), None);
    assert_eq!(pool(&[]).pick(0, u64::MAX), None);
}

#[test]
fn idle_equal_endpoints_share_evenly() {
    let counts = shares(&mut pool(&["a", "b", "c"]), 3_000, 0);
    assert!(counts.values().all(|count| (800..1_200).contains(count)), "{counts:?}");
}

#[test]
fn weights_set_the_shares_of_idle_endpoints() {
    let mut pool = Pool::new();
    let heavy = Endpoint { weight: 3, ..endpoint("heavy") };
    pool.update(vec![heavy, endpoint("light"), Endpoint { weight: 0, ..endpoint("none") }]);
    // What is held is what shares: 400 held connections are spread three to one.
    let mut dice = Dice(3);
    let mut held = BTreeMap::new();
    for _ in 0..400 {
        *held.entry(pool.pick(0, dice.roll()).expect("an endpoint").to_string()).or_insert(0) += 1;
    }
    assert!((295..=305).contains(&held["heavy"]), "{held:?}");
    assert!(!held.contains_key("none"));
}

#[test]
fn held_connections_differ_by_little() {
    let mut pool = pool(&["a", "b", "c", "d", "e"]);
    let mut dice = Dice(1);
    for _ in 0..1_000 {
        pool.pick(0, dice.roll()).expect("an endpoint");
    }
    let held: Vec<usize> = ["a", "b", "c", "d", "e"].iter().map(|id| pool.in_flight(id)).collect();
    assert!(held.iter().all(|count| (195..=205).contains(count)), "{held:?}");
}

#[test]
fn a_slow_endpoint_gets_less() {
    let mut pool = pool(&["fast", "slow"]);
    for id in ["fast", "slow"] {
        let latency_ms = if id == "slow" { 2_000 } else { 10 };
        for _ in 0..20 {
            let other = if id == "slow" { "fast" } else { "slow" };
            let picked = pool.pick_except(0, 0, &[Arc::from(other)]).expect("an endpoint");
            pool.done(&picked, 0, Outcome::Ok { latency_ms });
        }
    }
    let counts = shares(&mut pool, 100, 0);
    assert_eq!(counts.get("slow"), None);
    let later = shares(&mut pool, 100, 60_000);
    assert!(later.contains_key("slow"), "a minute later it is tried again: {later:?}");
}

#[test]
fn a_refused_connection_leaves_the_endpoint_out_for_a_growing_time() {
    let mut pool = pool(&["dead", "live"]);
    let fail = |pool: &mut Pool, now_ms| {
        let id = pool.pick_except(now_ms, 0, &[Arc::from("live")]).expect("dead");
        pool.done(&id, now_ms, Outcome::ConnectFailed);
    };
    fail(&mut pool, 0);
    assert_eq!(shares(&mut pool, 200, 999).get("dead"), None);
    fail(&mut pool, 1_000);
    assert_eq!(shares(&mut pool, 200, 2_999).get("dead"), None);
    // Long after, its penalty is forgotten, it is tried, answers, and is a full member again.
    assert!(shares(&mut pool, 200, 120_000)["dead"] > 50);
}

#[test]
fn an_endpoint_on_trial_gets_one_pick_at_a_time() {
    let mut pool = pool(&["back", "live"]);
    let id = pool.pick_except(0, 0, &[Arc::from("live")]).expect("back");
    pool.done(&id, 0, Outcome::ConnectFailed);
    let mut dice = Dice(5);
    for _ in 0..100 {
        pool.pick(120_000, dice.roll()).expect("an endpoint");
    }
    assert_eq!(pool.in_flight("back"), 1);
    pool.done("back", 120_000, OK);
    for _ in 0..100 {
        pool.pick(120_000, dice.roll()).expect("an endpoint");
    }
    assert!(pool.in_flight("back") > 50);
}

#[test]
fn a_trial_that_lasts_ends_by_working() {
    let mut pool = pool(&["back", "live"]);
    let back = |pool: &mut Pool, now_ms| pool.pick_except(now_ms, 0, &[Arc::from("live")]).expect("back");
    let id = back(&mut pool, 0);
    pool.done(&id, 0, Outcome::ConnectFailed);
    // The other is busy, so that whoever is tried at all is tried now.
    for _ in 0..20 {
        pool.pick_except(0, 0, &[Arc::from("back")]).expect("live");
    }
    back(&mut pool, 120_000);
    assert_eq!(shares(&mut pool, 100, 120_500).get("back"), None, "one trial at a time");
    assert!(shares(&mut pool, 100, 121_000).contains_key("back"), "and another after a second");
    let id = back(&mut pool, 240_000);
    pool.done(&id, 240_000, Outcome::ConnectFailed);
    back(&mut pool, 400_000);
    pool.answered("back", 400_000, 1);
    let mut dice = Dice(5);
    for _ in 0..100 {
        pool.pick(400_000, dice.roll()).expect("an endpoint");
    }
    assert!(pool.in_flight("back") > 30, "{}", pool.in_flight("back"));
}

#[test]
fn five_server_errors_in_a_row_leave_it_out_but_never_most() {
    let mut pool = pool(&["a", "b"]);
    let fail = |pool: &mut Pool, id: &str, other: &str| {
        let picked = pool.pick_except(0, 0, &[Arc::from(other)]).expect("an endpoint");
        assert_eq!(&*picked, id);
        pool.done(id, 0, Outcome::ServerError);
    };
    for _ in 0..5 {
        fail(&mut pool, "a", "b");
    }
    assert_eq!(shares(&mut pool, 100, 100).get("a"), None);
    for _ in 0..5 {
        fail(&mut pool, "b", "a");
    }
    let id = pool.pick(100, 0).expect("the other stays in");
    assert_eq!(&*id, "b");
}

#[test]
fn when_all_are_left_out_they_are_tried_all_the_same() {
    let mut pool = pool(&["a", "b"]);
    for _ in 0..2 {
        let id = pool.pick(0, 0).expect("an endpoint");
        pool.done(&id, 0, Outcome::ConnectFailed);
    }
    assert!(pool.pick(1, 0).is_some());
}

#[test]
fn draining_and_removed_endpoints_finish_what_they_have() {
    let mut pool = pool(&["a", "b"]);
    let first = pool.pick_except(0, 0, &[Arc::from("b")]).expect("a");
    pool.update(vec![Endpoint { draining: true, ..endpoint("a") }, endpoint("b")]);
    assert!(!pool.takes_picks("a"));
    assert_eq!(shares(&mut pool, 50, 0).get("a"), None);
    assert!(pool.done(&first, 0, OK), "drained");

    let second = pool.pick(0, 0).expect("b");
    pool.update(vec![endpoint("a")]);
    assert_eq!(pool.in_flight("b"), 1);
    assert!(pool.done(&second, 0, OK), "gone");
    assert_eq!(pool.ids().map(|id| &**id).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_update_keeps_what_is_known() {
    let mut pool = pool(&["a", "b"]);
    let id = pool.pick_except(0, 0, &[Arc::from("b")]).expect("a");
    pool.done(&id, 0, Outcome::ConnectFailed);
    pool.pick(0, 0).expect("b");
    pool.update(["c", "b", "a"].into_iter().map(endpoint).collect());
    assert_eq!(pool.in_flight("b"), 1);
    assert_eq!(shares(&mut pool, 100, 0).get("a"), None, "still left out");
}

#[test]
fn an_endpoint_that_comes_back_begins_anew() {
    let mut pool = pool(&["a", "b"]);
    let not_b = [Arc::from("b")];
    pool.pick_except(0, 0, &not_b).expect("a");
    let id = pool.pick_except(0, 0, &not_b).expect("a");
    pool.done(&id, 0, Outcome::ConnectFailed);
    assert_eq!(shares(&mut pool, 100, 0).get("a"), None);
    pool.update(vec![endpoint("b")]);
    pool.update(vec![endpoint("a"), endpoint("b")]);
    assert_eq!(pool.in_flight("a"), 1, "what it had is still counted");
    pool.done("a", 0, Outcome::ClientGone);
    assert!(shares(&mut pool, 100, 0)["a"] > 20);
}

#[derive(Debug, Clone)]
enum Step {
    Update(Vec<(u8, u32, bool)>),
    Pick(u64),
    Done(usize, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop::collection::vec((0..6_u8, prop_oneof![Just(0), 1..4_u32, Just(u32::MAX)], any::<bool>()), 0..6)
            .prop_map(Step::Update),
        6 => any::<u64>().prop_map(Step::Pick),
        4 => (any::<usize>(), 0..4_u8).prop_map(|(which, outcome)| Step::Done(which, outcome)),
        1 => (0..u64::MAX / 4).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A model that only knows who is listed and what is held agrees with the pool after any steps.
    #[test]
    fn picks_come_from_the_list_and_counts_are_exact(steps in prop::collection::vec(step(), 0..80)) {
        let mut pool = Pool::new();
        let mut listed: BTreeMap<String, (u32, bool)> = BTreeMap::new();
        let mut held: Vec<Arc<str>> = Vec::new();
        let mut now_ms = 0_u64;
        for step in steps {
            match step {
                Step::Update(endpoints) => {
                    listed.clear();
                    let mut wanted = Vec::new();
                    for (id, weight, draining) in endpoints {
                        let id = format!("i{id}");
                        if !listed.contains_key(&id) {
                            listed.insert(id.clone(), (weight, draining));
                            wanted.push(Endpoint { id, weight, draining });
                        }
                    }
                    pool.update(wanted);
                }
                Step::Pick(random) => {
                    let possible = listed.values().any(|(weight, draining)| *weight > 0 && !draining);
                    let picked = pool.pick(now_ms, random);
                    prop_assert_eq!(picked.is_some(), possible);
                    if let Some(id) = picked {
                        let (weight, draining) = listed[&*id];
                        prop_assert!(weight > 0 && !draining);
                        held.push(id);
                    }
                }
                Step::Done(which, outcome) => {
                    if !held.is_empty() {
                        let id = held.swap_remove(which % held.len());
                        let outcome = match outcome {
                            0 => OK,
                            1 => Outcome::ConnectFailed,
                            2 => Outcome::ServerError,
                            _ => Outcome::ClientGone,
                        };
                        let free = pool.done(&id, now_ms, outcome);
                        let left = held.iter().filter(|other| **other == id).count();
                        let active = listed.get(&*id).is_some_and(|(_, draining)| !draining);
                        prop_assert_eq!(free, left == 0 && !active);
                    }
                }
                Step::Wait(time_ms) => now_ms = now_ms.saturating_add(time_ms),
            }
            prop_assert_eq!(pool.in_flight_total(), held.len());
            for id in pool.ids() {
                prop_assert_eq!(pool.in_flight(id), held.iter().filter(|other| *other == id).count());
            }
        }
    }
}
