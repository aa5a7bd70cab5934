//! Who is left out, for how long, and how it comes back.

use crate::{Dice, OK, endpoint, pool};
use balancer::{Breaker, Cause, Endpoint, Outcome, Pool, Settings};
use std::sync::Arc;

/// Sends one request to `id` and no other.
fn send(pool: &mut Pool, id: &str, now_ms: u64, outcome: Outcome) {
    let except: Vec<Arc<str>> = pool.ids().filter(|other| &***other != id).cloned().collect();
    let picked = pool.pick_except(now_ms, 0, &except).expect("listed");
    assert_eq!(&*picked, id);
    pool.done(id, now_ms, outcome);
}

fn until(pool: &Pool, id: &str, now_ms: u64) -> Option<u64> {
    pool.seen(now_ms).find(|seen| &**seen.id == id).and_then(|seen| seen.ejected_until_ms)
}

#[test]
fn the_breaker_opens_tries_and_closes() {
    let mut pool = pool(&["a", "b", "c"]);
    for _ in 0..4 {
        send(&mut pool, "a", 0, Outcome::ServerError);
    }
    assert_eq!(pool.breaker("a", 0), Some(Breaker::Closed));
    send(&mut pool, "a", 0, Outcome::ServerError);
    assert_eq!(pool.breaker("a", 999), Some(Breaker::Open));
    assert_eq!(until(&pool, "a", 999), Some(1_000));
    assert_eq!(pool.breaker("a", 1_000), Some(Breaker::HalfOpen));
    for _ in 0..4 {
        send(&mut pool, "a", 1_000, OK);
    }
    assert_eq!(pool.breaker("a", 1_000), Some(Breaker::HalfOpen));
    send(&mut pool, "a", 1_000, OK);
    assert_eq!(pool.breaker("a", 1_000), Some(Breaker::Closed));
    assert!(pool.seen(1_000).all(|seen| seen.penalty_ms == 0.0), "nothing is held against it");
    assert_eq!(pool.breaker("nobody", 0), None);
}

#[test]
fn one_failed_trial_opens_it_again_for_twice_as_long_up_to_a_bound() {
    let mut pool = pool(&["a", "b"]);
    let mut now_ms = 0;
    for time_ms in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000] {
        send(&mut pool, "a", now_ms, Outcome::ConnectFailed);
        now_ms = until(&pool, "a", now_ms).expect("left out");
        assert_eq!(pool.breaker("a", now_ms - 1), Some(Breaker::Open));
        assert_eq!(pool.breaker("a", now_ms - time_ms), Some(Breaker::Open));
        assert_eq!(pool.breaker("a", now_ms), Some(Breaker::HalfOpen));
    }
    // Back for a while, each ten seconds of it forgive one time out.
    send(&mut pool, "a", now_ms, OK);
    assert_eq!(pool.breaker("a", now_ms), Some(Breaker::Closed));
    send(&mut pool, "a", now_ms + 70_000, Outcome::ConnectFailed);
    assert_eq!(until(&pool, "a", now_ms + 70_000), Some(now_ms + 71_000));
}

#[test]
fn it_is_known_since_when_and_why_one_is_left_out_whatever_its_trials_came_to() {
    let mut pool = pool(&["a", "b"]);
    let check = |pool: &Pool, now_ms: u64, expected: (Breaker, u64, Option<Cause>)| {
        let seen = pool.seen(now_ms).find(|seen| &**seen.id == "a").expect("listed");
        assert_eq!((seen.breaker, seen.since_ms, seen.cause), expected, "at {now_ms}");
    };
    check(&pool, 500, (Breaker::Closed, 0, None));
    send(&mut pool, "a", 700, Outcome::ConnectFailed);
    check(&pool, 900, (Breaker::Open, 700, Some(Cause::Unreachable)));
    check(&pool, 1_700, (Breaker::HalfOpen, 700, Some(Cause::Unreachable)));
    // The trial finds a program that answers, but badly.
    send(&mut pool, "a", 1_800, Outcome::ServerError);
    check(&pool, 1_900, (Breaker::Open, 700, Some(Cause::Errors)));
    for _ in 0..5 {
        send(&mut pool, "a", 4_000, OK);
    }
    check(&pool, 4_100, (Breaker::Closed, 4_000, None));
}

#[test]
fn answers_to_what_was_asked_before_do_not_bring_it_back() {
    let mut pool = pool(&["a", "b"]);
    let b: [Arc<str>; 1] = [Arc::from("b")];
    for _ in 0..10 {
        pool.pick_except(0, 0, &b).expect("a");
    }
    for _ in 0..5 {
        send(&mut pool, "a", 0, Outcome::ServerError);
    }
    for _ in 0..10 {
        pool.done("a", 10, OK);
    }
    assert_eq!(pool.breaker("a", 10), Some(Breaker::Open));
}

#[test]
fn an_endpoint_that_fails_far_more_often_than_the_others_is_left_out() {
    let mut pool = pool(&["a", "b", "c"]);
    for step in 0..400 {
        send(&mut pool, "b", step * 10, OK);
        send(&mut pool, "c", step * 10, if step % 10 == 0 { Outcome::ServerError } else { OK });
        // Never five in a row.
        send(&mut pool, "a", step * 10, if step % 3 == 0 { Outcome::ServerError } else { OK });
        if pool.breaker("a", step * 10) == Some(Breaker::Open) {
            assert!(step >= 50, "a few answers say nothing");
            assert_eq!(pool.breaker("c", step * 10), Some(Breaker::Closed));
            return;
        }
    }
    panic!("it stays in");
}

#[test]
fn errors_leave_out_half_at_most_and_refusals_all() {
    let ids = ["a", "b", "c", "d", "e"];
    let mut pool = pool(&ids);
    for id in ids {
        for _ in 0..9 {
            send(&mut pool, id, 0, Outcome::ServerError);
        }
    }
    let open = pool.seen(0).filter(|seen| seen.breaker == Breaker::Open).count();
    assert_eq!(open, 2);
    assert_eq!(pool.breaker_of_all(0), Breaker::Closed);
    for id in ids {
        send(&mut pool, id, 0, Outcome::ConnectFailed);
    }
    assert_eq!(pool.breaker_of_all(0), Breaker::Open);
    assert!(pool.pick(0, 0).is_ok(), "a guess is better than a refusal");
    assert_eq!(pool.breaker_of_all(1_000), Breaker::HalfOpen);
}

#[test]
fn when_too_few_are_healthy_those_left_out_for_errors_take_part() {
    let ids = ["a", "b", "c", "d"];
    let mut pool = pool(&ids);
    for id in ["a", "b"] {
        for _ in 0..5 {
            send(&mut pool, id, 0, Outcome::ServerError);
        }
    }
    let mut dice = Dice(1);
    let mut picked = |pool: &mut Pool| {
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..200 {
            *counts.entry(pool.pick(10, dice.roll()).expect("an endpoint").to_string()).or_insert(0) += 1;
        }
        counts
    };
    assert_eq!(picked(&mut pool).into_keys().collect::<Vec<_>>(), ["c", "d"], "half are healthy");
    send(&mut pool, "c", 10, Outcome::ConnectFailed);
    let counts = picked(&mut pool);
    assert!(counts.contains_key("a") && counts.contains_key("b") && !counts.contains_key("c"), "{counts:?}");
}

#[test]
fn where_all_fail_alike_nobody_is_preferred() {
    let mut pool = pool(&["a", "b", "c", "d"]);
    let mut dice = Dice(2);
    let mut counts = std::collections::BTreeMap::new();
    for step in 0..8_000 {
        let id = pool.pick(step * 5, dice.roll()).expect("an endpoint");
        *counts.entry(id.to_string()).or_insert(0) += 1;
        pool.done(&id, step * 5, if dice.below(100) < 10 { Outcome::ServerError } else { OK });
    }
    assert!(counts.values().all(|count| (1_400..2_600).contains(count)), "{counts:?}");
}

#[test]
fn trials_of_many_doubtful_endpoints_stay_few() {
    let ids: Vec<String> = (0..20).map(|index| format!("e{index:02}")).collect();
    let mut pool = Pool::new();
    pool.update(0, ids.iter().map(|id| endpoint(id)).collect());
    let mut dice = Dice(4);
    let mut errors = 0;
    for step in 0..40_000_u64 {
        let now_ms = step * 2;
        let id = pool.pick(now_ms, dice.roll()).expect("an endpoint");
        let fails = *id < *"e08";
        if fails && now_ms > 3_000 {
            errors += 1;
        }
        pool.done(&id, now_ms, if fails { Outcome::ServerError } else { OK });
    }
    assert!(errors < 200, "{errors} of 40000");
}

#[test]
fn the_state_is_there_to_be_seen() {
    let mut pool = Pool::with(Settings { slow_start_ms: 0, ..Settings::default() });
    let a = Endpoint { weight: 3, zone: Some(Arc::from("attic")), ..endpoint("a") };
    let none = Endpoint { weight: 0, ..endpoint("c") };
    pool.update(0, vec![none.clone()]);
    assert_eq!(pool.seen(0).next().map(|seen| seen.penalty_ms), Some(0.0), "nobody else is there");
    pool.update(0, vec![a, Endpoint { draining: true, ..endpoint("b") }, none]);
    pool.set_load("a", 7.0);
    pool.pick(0, 0).expect("a");
    pool.done("a", 0, Outcome::Ok { latency_us: 2_500 });
    pool.pick(0, 0).expect("a");
    let seen: Vec<_> = pool.seen(0).collect();
    assert_eq!((seen[0].weight, seen[0].load, seen[0].in_flight), (3, 1.0, 1));
    assert_eq!((seen[0].latency_ms, seen[0].zone.map(|zone| &**zone)), (Some(2.5), Some("attic")));
    assert_eq!((seen[1].draining, seen[1].latency_ms, seen[1].breaker), (true, None, Breaker::Closed));
}
