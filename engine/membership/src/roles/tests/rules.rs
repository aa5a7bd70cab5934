//! Rule by rule, as people would tell them.

use super::{Quiet, id};
use crate::roles::{Change, Duty, Lease, Refused, Role, SETTLE_MS, Spec, Step, why};
use std::sync::Arc;

/// Seven machines: monitors, a pair, and two that only work.
fn seven() -> Quiet {
    Quiet::settled(7, Spec::default())
}

#[test]
fn two_heads_grow_where_one_is_cut_off() {
    let mut cluster = seven();
    cluster.down(2);
    let done = cluster.settle();
    let expected = [
        "take all roles from m2",
        "make m4, m5 monitor",
        "pair 0 of assigners is m5, m6",
        "give m6 a copy of the log",
        "let m1, m3, m4, m5, m6 vote",
        "pair 0 of assigners is m6, m7",
        "give m7 a copy of the log",
        "m5 steps down as monitor",
    ];
    assert_eq!(done[..8], expected, "{done:#?}");
    assert_eq!(cluster.assignment.voters.len(), 5);
}

#[test]
fn a_buddy_carries_on_and_gets_another() {
    let mut cluster = seven();
    cluster.down(4);
    let done = cluster.carry();
    assert_eq!(done[..2], ["take all roles from m4", "pair 0 of assigners is m5, m6"], "{done:#?}");
    let (_, pair) = cluster.assignment.pair_of("m5").expect("it carries on");
    assert!(pair.members[&id(5)].epoch < pair.members[&id(6)].epoch, "it goes on in its own epoch");
}

#[test]
fn nobody_takes_the_gateway_over_before_its_lease_has_run_out() {
    let mut cluster = seven();
    cluster.down(1);
    cluster.carry();
    let gateway = cluster.assignment.gateway.clone().expect("there is one");
    assert_eq!(gateway.holder, id(1));
    assert!(cluster.plan().waits.iter().any(|wait| wait.contains("before its lease has run out")));
    cluster.lease = Lease::Expired;
    cluster.carry();
    let heir = cluster.assignment.gateway.clone().expect("there is one");
    assert!(heir.holder != id(1) && heir.epoch == gateway.epoch + 1);
    assert!(cluster.assignment.orchestrates(&heir.holder));
}

#[test]
fn a_gateway_that_lets_its_lease_run_out_is_passed_over_though_it_seems_up() {
    let mut cluster = seven();
    cluster.lease = Lease::Expired;
    assert_eq!(cluster.carry(), ["make m2 the gateway, epoch 2"]);
    let mut alone = Quiet::settled(1, Spec::default());
    alone.lease = Lease::Expired;
    assert_eq!(alone.carry(), ["make m1 the gateway, epoch 2"]);
}

#[test]
fn the_gateway_is_another_than_who_leads() {
    let mut cluster = Quiet::of(2, Spec::default());
    cluster.machine(1).leads = true;
    cluster.settle();
    assert_eq!(cluster.assignment.gateway.as_ref().map(|gateway| &gateway.holder), Some(&id(2)));
    cluster.machine(1).leads = false;
    cluster.machine(2).leads = true;
    let done = cluster.settle();
    assert_eq!(done, ["ask the gateway to hand over", "make m1 the gateway, epoch 2"]);
    assert_eq!(cluster.settle(), Vec::<String>::new());
    cluster.down(1);
    cluster.settle();
    assert_eq!(
        cluster.assignment.gateway.as_ref().map(|gateway| &gateway.holder),
        Some(&id(2)),
        "nobody else is there"
    );
}

#[test]
fn who_was_asked_to_be_the_gateway_becomes_it_once_the_other_has_stopped() {
    let mut cluster = seven();
    cluster.machine(7).asked = Some(Role::Gateway);
    assert_eq!(cluster.carry(), ["ask the gateway to hand over"]);
    assert_eq!(cluster.carry(), Vec::<String>::new());
    cluster.lease = Lease::Released;
    assert_eq!(cluster.carry(), ["make m7 the gateway, epoch 2"]);
    assert_eq!(cluster.settle(), Vec::<String>::new());
}

#[test]
fn who_returns_is_empty_and_moves_nobody() {
    let mut cluster = Quiet::settled(7, Spec { workers: 5, ..Spec::default() });
    cluster.down(3);
    cluster.settle();
    assert_eq!(cluster.assignment.roles("m3"), []);
    let before = cluster.assignment.clone();
    cluster.up(3);
    assert_eq!(cluster.plan().steps, []);
    assert_eq!(why(&cluster.input(), "m3").len(), 1);
    assert!(why(&cluster.input(), "m3")[0].starts_with("empty: "));
    assert_eq!(before, cluster.assignment);
}

#[test]
fn a_voter_that_is_down_keeps_its_seat_until_another_can_take_it() {
    let mut cluster = Quiet::settled(3, Spec::default());
    cluster.down(3);
    cluster.settle();
    assert_eq!(cluster.table(), "GMAWv MAWv v");
    assert!(cluster.plan().waits.iter().any(|wait| wait.starts_with("m3 is down and keeps its vote")));
    cluster.machine(4);
    let done = cluster.settle();
    assert!(done.contains(&"let m1, m2, m4 vote".to_owned()), "{done:#?}");
}

#[test]
fn votes_stay_where_they_are_while_most_voters_are_down() {
    let mut cluster = Quiet::settled(4, Spec::default());
    cluster.down(2);
    cluster.down(3);
    let done = cluster.settle();
    assert!(!done.iter().any(|step| step.ends_with(" vote")), "{done:#?}");
}

#[test]
fn of_two_lone_assigners_the_one_that_stays_carries_on() {
    let mut cluster = Quiet::settled(4, Spec { pairs: 2, ..Spec::default() });
    let pairs: Vec<Vec<crate::roles::Id>> =
        cluster.assignment.pairs.values().map(|pair| pair.members.keys().cloned().collect()).collect();
    for pair in &pairs {
        cluster.machines.get_mut(&pair[0]).expect("a member").verdict = crate::roles::Verdict::Down;
    }
    // The first pair's member stays in one case, the second's in the other.
    for pair in &pairs {
        cluster.machines.get_mut(&pair[1]).expect("a member").duty = Duty::Draining;
        let plan = cluster.plan();
        let stays = pairs.iter().map(|pair| &pair[1]).find(|id| **id != pair[1]).expect("the other");
        assert!(plan.next.pair_of(stays).is_some(), "{plan:#?}");
        cluster.machines.get_mut(&pair[1]).expect("a member").duty = Duty::Open;
    }
}

#[test]
fn machines_that_leave_for_good_take_their_seats_with_them() {
    let mut cluster = Quiet::settled(3, Spec::default());
    cluster.machine(3).duty = Duty::Draining;
    cluster.settle();
    assert_eq!(cluster.table(), "GMAWv MAWl -");
    cluster.machines.remove(&id(3));
    assert_eq!(cluster.settle(), Vec::<String>::new());
    assert_eq!(cluster.assignment.voters.len(), 1);
}

#[test]
fn a_machine_removed_without_a_word_loses_its_vote() {
    let mut cluster = Quiet::settled(5, Spec::default());
    cluster.machines.remove(&id(5));
    cluster.settle();
    assert_eq!(cluster.assignment.voters.len(), 3);
    assert!(!cluster.assignment.voters.contains(&id(5)));
}

#[test]
fn draining_all_but_one_leaves_one_that_does_everything() {
    let mut cluster = seven();
    for number in 1..=6 {
        cluster.machine(number).duty = Duty::Draining;
    }
    cluster.settle();
    assert_eq!(cluster.table(), "- - - - - - GMAWv");
}

#[test]
fn draining_everything_changes_nothing() {
    let mut cluster = Quiet::settled(3, Spec::default());
    let table = cluster.table();
    for number in 1..=3 {
        cluster.machine(number).duty = Duty::Draining;
    }
    cluster.settle();
    assert_eq!(cluster.table(), table);
}

#[test]
fn a_cordoned_machine_keeps_what_it_has_and_gets_nothing() {
    let mut cluster = seven();
    cluster.machine(1).duty = Duty::Cordoned;
    cluster.machine(6).duty = Duty::Cordoned;
    assert_eq!(cluster.settle(), Vec::<String>::new());
    cluster.down(4);
    cluster.settle();
    assert!(!cluster.assignment.orchestrates("m6"));
    assert!(cluster.assignment.monitors.contains_key("m1"));
}

#[test]
fn slow_and_volatile_disks_hold_no_vote_and_no_log() {
    let mut cluster = Quiet::of(4, Spec::default());
    cluster.machine(2).fsync_p99_us = Some(400_000);
    cluster.machine(3).durable = false;
    cluster.machine(4).fsync_p99_us = None;
    cluster.settle();
    assert_eq!((cluster.assignment.voters.len(), cluster.assignment.learners.len()), (1, 0));
    assert_eq!(cluster.assignment.monitors.len(), 3);
    let told = why(&cluster.input(), "m2");
    assert!(told.iter().any(|line| line.contains("takes 400 ms to write for sure, 50 ms is the limit")), "{told:?}");
}

#[test]
fn an_orchestrator_that_may_not_vote_gives_way_to_one_that_may() {
    let mut cluster = Quiet::of(5, Spec::default());
    for number in 2..=5 {
        cluster.machine(number).durable = false;
    }
    cluster.settle();
    for number in 6..=7 {
        cluster.machine(number);
    }
    cluster.settle();
    assert_eq!(cluster.assignment.voters.len(), 3, "{}", cluster.table());
}

#[test]
fn considerate_machines_orchestrate_only_if_others_cannot() {
    let mut cluster = Quiet::of(7, Spec::default());
    cluster.machine(2).considerate = true;
    cluster.machine(4).considerate = true;
    cluster.settle();
    assert!(!cluster.assignment.orchestrates("m2") && !cluster.assignment.orchestrates("m4"), "{}", cluster.table());
}

#[test]
fn votes_are_in_more_than_one_zone() {
    let mut cluster = Quiet::of(9, Spec { voters_max: 3, ..Spec::default() });
    for number in 1..=9 {
        cluster.machine(number).zone = Some(Arc::from(if number < 7 { "cellar" } else { "attic" }));
    }
    cluster.settle();
    let zones: Vec<bool> = cluster.assignment.voters.iter().map(|id| **id < *"m7").collect();
    assert!(zones.contains(&true) && zones.contains(&false), "{}", cluster.table());
}

#[test]
fn buddies_are_in_two_zones() {
    let mut cluster = Quiet::of(9, Spec::default());
    for number in 1..=9 {
        cluster.machine(number).zone = Some(Arc::from(if number % 2 == 0 { "even" } else { "odd" }));
    }
    cluster.settle();
    let members: Vec<&crate::roles::Id> = cluster.assignment.pairs[&0].members.keys().collect();
    assert_ne!(cluster.machines[members[0]].zone, cluster.machines[members[1]].zone, "{members:?}");
}

#[test]
fn workers_follow_the_load_and_never_swing() {
    let mut cluster = Quiet::settled(9, Spec { workers: 2, apart: true, ..Spec::default() });
    let workers = |cluster: &Quiet| cluster.assignment.workers.len();
    assert_eq!(workers(&cluster), 2);
    for number in 1..=9 {
        cluster.machine(number).load_per_mille = 900;
    }
    cluster.settle();
    assert_eq!(workers(&cluster), 4, "all that do not orchestrate");
    for number in 1..=9 {
        cluster.machine(number).load_per_mille = 500;
    }
    assert_eq!(cluster.settle(), Vec::<String>::new());
    for number in 1..=9 {
        cluster.machine(number).load_per_mille = 10;
    }
    cluster.settle();
    assert_eq!(workers(&cluster), 2);
}

#[test]
fn what_can_wait_comes_one_at_a_time() {
    let mut cluster = seven();
    cluster.spec.monitors = 1;
    assert_eq!(cluster.carry(), ["m3 steps down as monitor"]);
    assert_eq!(cluster.plan().wake_at_ms, Some(cluster.assignment.changed_at_ms + SETTLE_MS));
    cluster.now_ms += SETTLE_MS - 1;
    assert_eq!(cluster.carry(), Vec::<String>::new());
    cluster.now_ms += 1;
    assert_eq!(cluster.carry()[0], "m2 steps down as monitor");
}

#[test]
fn half_a_plan_is_followed_by_the_rest() {
    let mut cluster = seven();
    cluster.down(2);
    cluster.down(4);
    let whole = cluster.plan();
    assert!(whole.steps.len() > 2);
    for done in 0..=whole.steps.len() {
        let mut half = seven();
        half.down(2);
        half.down(4);
        for step in &whole.steps[..done] {
            half.assignment.apply(step).expect("in order");
        }
        assert_eq!(half.plan().steps, whole.steps[done..]);
    }
}

#[test]
fn a_step_is_carried_out_once_and_only_in_its_place() {
    let mut cluster = seven();
    cluster.down(2);
    let plan = cluster.plan();
    let before = cluster.assignment.clone();
    let skipped = cluster.assignment.apply(&plan.steps[1]).expect_err("the first was lost");
    assert_eq!(skipped, Refused::Revision { planned: before.revision + 1, present: before.revision });
    assert_eq!(cluster.assignment, before);
    cluster.assignment.apply(&plan.steps[0]).expect("in order");
    cluster.assignment.apply(&plan.steps[0]).expect_err("it comes again");
}

#[test]
fn a_new_leader_makes_every_older_plan_void() {
    let mut cluster = seven();
    cluster.down(2);
    let old = cluster.plan();
    let mut input = cluster.input();
    input.term = 2;
    let new = crate::roles::plan(&input);
    assert_eq!(new.steps[0].change, Change::Lead { term: 2 });
    let mut assignment = cluster.assignment.clone();
    assignment.apply(&new.steps[0]).expect("it leads");
    for step in &old.steps {
        assignment.apply(step).expect_err("it was planned by the old leader");
    }
    let mut late = cluster.input();
    late.assignment = &assignment;
    assert_eq!(crate::roles::plan(&late).steps, [], "the old leader plans nothing more");
}

#[test]
fn no_step_leaves_what_must_never_be() {
    let cluster = seven();
    let check = |change: Change, expected: &str| {
        let mut assignment = cluster.assignment.clone();
        let step = Step { term: 1, revision: assignment.revision, at_ms: 0, change, why: String::new() };
        let refused = assignment.apply(&step).expect_err("it is refused");
        assert!(refused.to_string().ends_with(expected), "{refused}");
        assert_eq!(assignment, cluster.assignment);
    };
    check(Change::SetVoters { voters: [id(1), id(2)].into() }, "the number of voters would be even");
    check(Change::SetVoters { voters: [].into() }, "the number of voters would be even");
    check(Change::SetVoters { voters: [id(7)].into() }, "a voter would have no copy of the log");
    check(
        Change::Pair { pair: 1, members: [id(4), id(7)].into() },
        "a pair is one or two machines that are in no other",
    );
    check(Change::Grant { machine: id(2), epoch: 1 }, "the gateway's epoch would not rise");
    check(Change::Lead { term: 1 }, "the term is not later than the last leader's");
}

#[test]
fn every_role_has_its_sentence() {
    let cluster = seven();
    assert_eq!(
        why(&cluster.input(), "m1"),
        [
            "gateway in epoch 1: the cluster has no gateway yet",
            "monitor: 0 of 3 monitors: m1 is the best of those that may",
            "worker, a process for each core (1): every machine that may works",
            "voter: one of 5",
        ]
    );
    assert!(why(&cluster.input(), "m4")[0].starts_with("assigner, with m5 as buddy: "));
    assert_eq!(why(&cluster.input(), "m8"), ["empty: it does not belong to the cluster"]);
}
