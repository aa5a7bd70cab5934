//! Who is chosen by which rule, and what weighs in.

use crate::{Dice, OK, endpoint, pool};
use balancer::{Choice, Endpoint, NotPicked, Outcome, Pool, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whom `picks` picks go to that stay in flight.
fn held(pool: &mut Pool, picks: usize, now_ms: u64) -> BTreeMap<String, usize> {
    let mut dice = Dice(7);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        *counts.entry(pool.pick(now_ms, dice.roll()).expect("an endpoint").to_string()).or_default() += 1;
    }
    counts
}

/// Whom picks go to that end at once.
fn passed(pool: &mut Pool, picks: usize, now_ms: u64) -> BTreeMap<String, usize> {
    let mut dice = Dice(8);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let id = pool.pick(now_ms, dice.roll()).expect("an endpoint");
        *counts.entry(id.to_string()).or_default() += 1;
        pool.done(&id, now_ms, OK);
    }
    counts
}

#[test]
fn weights_count_with_and_without_a_queue() {
    let mut pool = pool(&["light"]);
    pool.update(0, vec![endpoint("light"), Endpoint { weight: 3, ..endpoint("heavy") }]);
    let idle = passed(&mut pool, 4_000, 0);
    assert!((2_850..3_150).contains(&idle["heavy"]), "{idle:?}");
    let busy = held(&mut pool, 4_000, 0);
    assert!((2_950..3_050).contains(&busy["heavy"]), "{busy:?}");
}

#[test]
fn a_busy_machine_gets_less_and_nothing_is_forgotten() {
    let mut pool = pool(&["a", "b"]);
    pool.set_load("a", 0.75);
    // 1 - 0.9 x 0.75 = 0.325 of what b has to spare.
    let busy = held(&mut pool, 1_325, 0);
    assert!((315..335).contains(&busy["a"]), "{busy:?}");
    pool.set_load("a", 1.0);
    assert!(!passed(&mut pool, 1_000, 0).contains_key("a"), "what it has in flight is known");
    pool.set_load("a", f64::NAN);
    assert_eq!(pool.seen(0).next().map(|seen| seen.load), Some(0.0));
}

#[test]
fn a_slow_answer_counts_at_once_and_fades() {
    let mut pool = pool(&["a", "b"]);
    passed(&mut pool, 100, 0);
    let b = [Arc::from("b")];
    let id = pool.pick_except(0, 0, &b).expect("a");
    pool.done(&id, 0, Outcome::Ok { latency_us: 50_000 });
    assert_eq!(passed(&mut pool, 100, 0).get("a"), None);
    assert_eq!(passed(&mut pool, 100, 5_000).get("a"), None);
    let later = passed(&mut pool, 1_000, 30_000);
    assert!(later["a"] > 400, "{later:?}");
}

#[test]
fn a_new_endpoint_gets_a_growing_share() {
    let mut pool = pool(&["a", "b", "c"]);
    pool.update(60_000, ["a", "b", "c", "d"].into_iter().map(endpoint).collect());
    let share = |pool: &mut Pool, now_ms| passed(pool, 4_000, now_ms).get("d").copied().unwrap_or(0);
    let shares: Vec<usize> = [60_000, 62_500, 65_000, 67_500, 70_000].map(|now_ms| share(&mut pool, now_ms)).to_vec();
    assert!((60..240).contains(&shares[0]), "{shares:?}");
    assert!(shares.windows(2).all(|pair| pair[0] < pair[1]), "{shares:?}");
    assert!((900..1_100).contains(&shares[4]), "{shares:?}");

    let mut pool = Pool::with(Settings { slow_start_ms: 0, ..Settings::default() });
    pool.update(0, vec![endpoint("a")]);
    pool.update(60_000, vec![endpoint("a"), endpoint("b")]);
    assert!(passed(&mut pool, 1_000, 60_000)["b"] > 400);
}

#[test]
fn a_key_keeps_its_endpoint_and_moves_only_when_that_goes() {
    let ids = ["a", "b", "c", "d"];
    let owners = |pool: &mut Pool| -> Vec<Arc<str>> {
        let owner = |key| {
            let id = pool.pick_by(0, 0, Choice::Hash(key), &[]).expect("an endpoint");
            pool.done(&id, 0, OK);
            id
        };
        (0..4_000).map(owner).collect()
    };
    let mut pool = pool(&ids);
    let before = owners(&mut pool);
    assert_eq!(before, owners(&mut pool));
    for id in ids {
        let count = before.iter().filter(|owner| &***owner == id).count();
        assert!((900..1_100).contains(&count), "{id}: {count}");
    }
    pool.update(0, ["a", "b", "d"].into_iter().map(endpoint).collect());
    for (old, new) in before.iter().zip(owners(&mut pool)) {
        assert!(**old == *new || &**old == "c", "{old} became {new}");
    }
    let heavy = Endpoint { weight: 3, ..endpoint("a") };
    pool.update(0, vec![heavy, endpoint("b")]);
    let count = owners(&mut pool).iter().filter(|owner| &***owner == "a").count();
    assert!((2_900..3_100).contains(&count), "{count}");
}

#[test]
fn a_hot_key_spreads_beyond_a_bound() {
    let mut pool = pool(&["a", "b", "c", "d"]);
    for _ in 0..400 {
        pool.pick_by(0, 0, Choice::Hash(42), &[]).expect("an endpoint");
        let most = pool.seen(0).map(|seen| seen.in_flight).max().unwrap_or(0);
        let bound = (1.25 * pool.in_flight_total() as f64 / 4.0).ceil() as usize;
        assert!(most <= bound, "{most} of {}", pool.in_flight_total());
    }
}

#[test]
fn a_key_leaves_an_endpoint_that_is_out_and_returns_when_it_is_back() {
    let mut pool = pool(&["a", "b", "c"]);
    let owner = pool.pick_by(0, 0, Choice::Hash(1), &[]).expect("an endpoint");
    pool.done(&owner, 0, Outcome::ConnectFailed);
    let other = pool.pick_by(0, 0, Choice::Hash(1), &[]).expect("an endpoint");
    assert_ne!(owner, other);
    pool.done(&other, 0, OK);
    assert_eq!(pool.pick_by(2_000, 0, Choice::Hash(1), &[]).as_ref(), Ok(&owner), "its trial");
    pool.done(&owner, 2_000, OK);
    assert_eq!(pool.pick_by(2_000, 0, Choice::Hash(1), &[]), Ok(owner));
}

#[test]
fn sticky_stays_while_it_may() {
    let mut pool = Pool::with(Settings { in_flight_max: 3, ..Settings::default() });
    pool.update(0, ["a", "b"].into_iter().map(endpoint).collect());
    for _ in 0..3 {
        assert_eq!(pool.pick_by(0, 0, Choice::Sticky("b"), &[]).as_deref(), Ok("b"));
    }
    assert_eq!(pool.pick_by(0, 0, Choice::Sticky("b"), &[]).as_deref(), Ok("a"), "b is full");
    pool.done("b", 0, Outcome::ConnectFailed);
    assert_eq!(pool.pick_by(0, 0, Choice::Sticky("b"), &[]).as_deref(), Ok("a"), "b is left out");
    assert_eq!(pool.pick_by(0, 0, Choice::Sticky("gone"), &[]).as_deref(), Ok("a"));
}

#[test]
fn near_comes_first_until_it_is_crowded_or_out() {
    let zone = |name: &str| Some(Arc::from(name));
    let near = |id| Endpoint { zone: zone("here"), ..endpoint(id) };
    let far = |id| Endpoint { zone: zone("there"), ..endpoint(id) };
    let settings = Settings { zone: zone("here"), ..Settings::default() };
    let mut pool = Pool::with(settings);
    pool.update(0, vec![near("n1"), near("n2"), far("f1"), far("f2")]);
    let keys = |counts: BTreeMap<String, usize>| counts.into_keys().collect::<Vec<_>>();
    assert_eq!(keys(passed(&mut pool, 200, 0)), ["n1", "n2"]);
    assert_eq!(keys(held(&mut pool, 16, 0)), ["n1", "n2"]);
    let counts = held(&mut pool, 200, 0);
    let away = counts["f1"] + counts["f2"];
    assert!((80..110).contains(&away), "near keeps about eight each more: {counts:?}");

    pool.done("n1", 0, Outcome::ConnectFailed);
    pool.done("n2", 0, Outcome::ConnectFailed);
    let keys = keys(passed(&mut pool, 20, 0));
    assert!(keys.iter().all(|id| id.starts_with('f')), "{keys:?}");
}

#[test]
fn full_tried_and_nobody_are_different_answers() {
    let mut pool = Pool::with(Settings { in_flight_max: 2, ..Settings::default() });
    assert_eq!(pool.pick(0, 0), Err(NotPicked::Nobody));
    pool.update(0, ["a", "b"].into_iter().map(endpoint).collect());
    assert_eq!(held(&mut pool, 4, 0).into_values().collect::<Vec<_>>(), [2, 2]);
    assert_eq!(pool.pick(0, 0), Err(NotPicked::Full));
    assert_eq!(pool.pick_by(0, 0, Choice::Hash(1), &[]), Err(NotPicked::Full));
    assert_eq!(pool.pick_except(0, 0, &[Arc::from("a")]), Err(NotPicked::Full));
    assert_eq!(pool.pick_except(0, 0, &[Arc::from("a"), Arc::from("b")]), Err(NotPicked::Tried));
    pool.done("a", 0, OK);
    assert_eq!(pool.pick(0, 0).as_deref(), Ok("a"));
    pool.update(0, vec![Endpoint { draining: true, ..endpoint("a") }]);
    assert_eq!(pool.pick(0, 0), Err(NotPicked::Nobody));
}
