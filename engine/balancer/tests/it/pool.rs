//! The pool's promises: what is never picked, what always is, and how load spreads.

use crate::{Dice, OK, endpoint, pool};
use balancer::{Breaker, Choice, Endpoint, NotPicked, Outcome, Pool, Settings};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    assert_eq!(Pool::new().pick(0, 0), Err(NotPicked::Nobody));
    assert_eq!(pool(&[]).pick(0, u64::MAX), Err(NotPicked::Nobody));
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
    pool.update(0, vec![heavy, endpoint("light"), Endpoint { weight: 0, ..endpoint("none") }]);
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
        let latency_us = if id == "slow" { 2_000_000 } else { 10_000 };
        for _ in 0..20 {
            let other = if id == "slow" { "fast" } else { "slow" };
            let picked = pool.pick_except(0, 0, &[Arc::from(other)]).expect("an endpoint");
            pool.done(&picked, 0, Outcome::Ok { latency_us });
        }
    }
    let counts = shares(&mut pool, 100, 0);
    assert_eq!(counts.get("slow"), None);
    let later = shares(&mut pool, 100, 90_000);
    assert!(later.contains_key("slow"), "after a while it is tried again: {later:?}");
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
    pool.answered("back", 400_000);
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
    assert!(pool.pick(1, 0).is_ok());
}

#[test]
fn draining_and_removed_endpoints_finish_what_they_have() {
    let mut pool = pool(&["a", "b"]);
    let first = pool.pick_except(0, 0, &[Arc::from("b")]).expect("a");
    pool.update(0, vec![Endpoint { draining: true, ..endpoint("a") }, endpoint("b")]);
    assert!(!pool.takes_picks("a"));
    assert_eq!(shares(&mut pool, 50, 0).get("a"), None);
    assert!(pool.done(&first, 0, OK), "drained");

    let second = pool.pick(0, 0).expect("b");
    pool.update(0, vec![endpoint("a")]);
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
    pool.update(0, ["c", "b", "a"].into_iter().map(endpoint).collect());
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
    pool.update(0, vec![endpoint("b")]);
    pool.update(0, vec![endpoint("a"), endpoint("b")]);
    assert_eq!(pool.in_flight("a"), 1, "what it had is still counted");
    pool.done("a", 0, Outcome::ClientGone);
    assert!(shares(&mut pool, 100, 10_000)["a"] > 20);
}

#[derive(Debug, Clone)]
enum Step {
    Update(Vec<(u8, u32, bool)>),
    /// With which rule, 0 to 2.
    Pick(u64, u8),
    Load(u8, f64),
    Done(usize, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop::collection::vec((0..6_u8, prop_oneof![Just(0), 1..4_u32, Just(u32::MAX)], any::<bool>()), 0..6)
            .prop_map(Step::Update),
        6 => (any::<u64>(), 0..3_u8).prop_map(|(random, rule)| Step::Pick(random, rule)),
        1 => (0..6_u8, any::<f64>()).prop_map(|(which, load)| Step::Load(which, load)),
        4 => (any::<usize>(), 0..4_u8).prop_map(|(which, outcome)| Step::Done(which, outcome)),
        1 => prop_oneof![0..5_000_u64, 0..u64::MAX / 4].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A model that only knows who is listed and what is held agrees with the pool after any steps.
    #[test]
    fn picks_come_from_the_list_and_counts_are_exact(
        in_flight_max in 0..4_usize,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let zone = |number: u8| (number > 0).then(|| Arc::from(number.to_string()));
        let mut pool = Pool::with(Settings { in_flight_max, zone: zone(1), ..Settings::default() });
        let mut listed: BTreeMap<String, (u32, bool)> = BTreeMap::new();
        let mut held: Vec<Arc<str>> = Vec::new();
        let mut now_ms = 0_u64;
        for step in steps {
            match step {
                Step::Update(endpoints) => {
                    listed.clear();
                    let mut wanted = Vec::new();
                    for (number, weight, draining) in endpoints {
                        let id = format!("i{number}");
                        if !listed.contains_key(&id) {
                            listed.insert(id.clone(), (weight, draining));
                            wanted.push(Endpoint { zone: zone(number % 3), id, weight, draining });
                        }
                    }
                    pool.update(now_ms, wanted);
                }
                Step::Pick(random, rule) => {
                    let full = |id: &str| {
                        in_flight_max > 0 && held.iter().filter(|other| &***other == id).count() >= in_flight_max
                    };
                    let takes: Vec<_> =
                        listed.iter().filter(|(_, (weight, draining))| *weight > 0 && !draining).collect();
                    let expected = if takes.is_empty() {
                        Err(NotPicked::Nobody)
                    } else if takes.iter().all(|(id, _)| full(id)) {
                        Err(NotPicked::Full)
                    } else {
                        Ok(())
                    };
                    let wish = format!("i{}", random % 6);
                    let choice = match rule {
                        0 => Choice::LeastLoad,
                        1 => Choice::Hash(random),
                        _ => Choice::Sticky(&wish),
                    };
                    let picked = pool.pick_by(now_ms, random, choice, &[]);
                    prop_assert_eq!(picked.as_ref().map(|_| ()), expected.as_ref().map(|&()| ()));
                    if let Ok(id) = picked {
                        prop_assert!(takes.iter().any(|(listed, _)| ***listed == *id) && !full(&id));
                        held.push(id);
                    }
                }
                Step::Load(which, load) => pool.set_load(&format!("i{which}"), load),
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
            for seen in pool.seen(now_ms) {
                prop_assert!((0.0..=1.0).contains(&seen.load) && seen.penalty_ms.is_finite() && seen.penalty_ms >= 0.0);
                prop_assert!(seen.latency_ms.is_none_or(|latency_ms| latency_ms.is_finite() && latency_ms >= 0.0));
                prop_assert_eq!(seen.ejected_until_ms.is_some(), seen.breaker == Breaker::Open);
            }
            for id in pool.ids() {
                prop_assert_eq!(pool.in_flight(id), held.iter().filter(|other| *other == id).count());
            }
        }
    }
}
