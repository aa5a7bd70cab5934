//! Freezes, moves, cuts, restarts, wrong clocks and copied keys.

use super::simulation::{Plan, World};
use membership::alive::{Event, Standing};

/// A cluster in which everybody knows everybody.
fn formed(machines: usize, seed: u64, loss_percent: u64) -> World {
    let mut world = World::new(Plan::new(machines, seed, loss_percent));
    world.run(10_000);
    assert_eq!(world.alive(), (machines, machines), "seed {seed}");
    world.told.clear();
    world
}

fn is_verdict(event: &Event) -> bool {
    matches!(event, Event::Silent(_) | Event::Restarted(_) | Event::Left(_) | Event::Forgotten(_) | Event::Twins { .. })
}

#[test]
fn a_freeze_of_five_seconds_is_told_once_and_blames_nobody() {
    for (seed, machines) in [(5, 12), (6, 3), (7, 2)] {
        let mut world = formed(machines, seed, 5);
        let id = world.nodes[1].id;
        world.freeze(1, 5_000);
        world.run(12_000);
        let others = machines - 1;
        assert_eq!(world.told_since(0, |event| *event == Event::Silent(id)).len(), others, "seed {seed}");
        assert_eq!(world.told_since(0, |event| *event == Event::Back(id)).len(), others, "seed {seed}");
        assert_eq!(world.told_since(0, is_verdict).len(), others, "nobody else was blamed, seed {seed}");
        assert_eq!(world.alive(), (machines, machines), "seed {seed}");
    }
}

#[test]
fn all_may_freeze_at_once() {
    let mut world = formed(10, 8, 5);
    (0..10).for_each(|index| world.freeze(index, 5_000 + 10 * index as u64));
    world.run(12_000);
    assert_eq!(world.told_since(0, is_verdict), []);
}

#[test]
fn a_machine_that_moves_alone_is_not_missed() {
    let mut world = formed(30, 9, 5);
    world.readdress(7);
    world.run(5_000);
    assert_eq!(world.told_since(0, is_verdict), []);
    let (id, address) = (world.nodes[7].id, world.nodes[7].address);
    for index in (0..30).filter(|index| *index != 7) {
        let seen = world.gossip(index).peer(world.local_ms(index), &id).expect("it is known");
        assert_eq!(seen.record.addresses, [address]);
    }
}

#[test]
fn all_may_move_at_once_and_meet_at_one_contact() {
    let mut world = formed(30, 10, 5);
    (0..30).for_each(|index| world.readdress(index));
    world.run(10_000);
    let meeting = world.nodes[17].address;
    (0..30).filter(|index| *index != 17).for_each(|index| world.contact(index, meeting));
    world.run(10_000);
    assert_eq!(world.alive(), (30, 30));
    assert_eq!(world.told_since(0, |event| matches!(event, Event::Restarted(_) | Event::Came(_))), []);
}

#[test]
fn all_may_move_at_once_with_a_chain_of_contacts() {
    let mut world = formed(12, 11, 5);
    (0..12).for_each(|index| world.readdress(index));
    for index in 1..12 {
        let before = world.nodes[index - 1].address;
        world.contact(index, before);
    }
    world.run(15_000);
    assert_eq!(world.alive(), (12, 12));
}

#[test]
fn who_is_out_of_reach_of_one_is_alive_and_seen_to_be_out_of_reach() {
    let mut world = formed(10, 12, 5);
    world.cut(2, 3);
    world.run(30_000);
    assert_eq!(world.told_since(0, is_verdict), []);
    let ago = |world: &World, by: usize, of: usize| {
        let now_ms = world.local_ms(by);
        let seen = world.gossip(by).peer(now_ms, &world.nodes[of].id).expect("it is known");
        let ago = |at: Option<u64>| now_ms - at.expect("they talked before");
        (seen.standing, ago(seen.heard_ms), ago(seen.answered_ms))
    };
    let (standing, heard_ms, answered_ms) = ago(&world, 3, 2);
    assert_eq!(standing, Standing::Alive);
    assert!(heard_ms > 25_000 && answered_ms > 25_000, "3 does not hear 2: {heard_ms} {answered_ms}");
    let (standing, heard_ms, answered_ms) = ago(&world, 2, 3);
    assert_eq!(standing, Standing::Alive);
    assert!(heard_ms < 10_000, "2 hears 3: {heard_ms}");
    assert!(answered_ms > 25_000, "but is not heard by it: {answered_ms}");
    let (_, heard_ms, answered_ms) = ago(&world, 4, 5);
    assert!(heard_ms < 10_000 && answered_ms < 15_000, "{heard_ms} {answered_ms}");
}

#[test]
fn parts_that_were_cut_off_meet_again() {
    let mut world = formed(10, 13, 5);
    for one in 0..5 {
        for other in 5..10 {
            world.cut(one, other);
            world.cut(other, one);
        }
    }
    world.run(60_000);
    assert_eq!(world.alive(), (5, 5));
    world.cut.clear();
    world.run(10_000);
    assert_eq!(world.alive(), (10, 10));
    assert_eq!(world.told_since(0, |event| matches!(event, Event::Came(_) | Event::Restarted(_))), []);
}

/// Nobody remembers the other side any more; where the cluster began is all that is left.
#[test]
fn parts_that_forgot_each_other_meet_at_a_contact() {
    let mut plan = Plan::new(6, 14, 5);
    plan.settings.forget_ms = 20_000;
    let mut world = World::new(plan);
    world.run(10_000);
    for one in 0..3 {
        for other in 3..6 {
            world.cut(one, other);
            world.cut(other, one);
        }
    }
    world.run(60_000);
    assert!((0..6).all(|index| world.gossip(index).peers(world.local_ms(index)).count() == 2));
    world.cut.clear();
    world.run(60_000);
    assert_eq!(world.alive(), (6, 6));
}

#[test]
fn clocks_do_not_matter() {
    let mut world = World::new(Plan::new(8, 15, 5));
    let year_ms = 365 * 86_400_000;
    for (index, wall_ms) in [(1, year_ms), (2, -year_ms)] {
        world.nodes[index].wall_ms = wall_ms;
        world.kill(index);
        world.start(index);
    }
    world.run(10_000);
    assert_eq!(world.alive(), (8, 8));
    world.told.clear();
    world.run(20_000);
    assert_eq!(world.told_since(0, is_verdict), []);
}

#[test]
fn a_restart_is_told_as_one_at_once() {
    for (seed, back_ms) in [(16, 0), (17, 3_600_000), (18, 365 * 86_400_000_i64)] {
        let mut world = formed(10, seed, 5);
        let id = world.nodes[4].id;
        let before = world.now_ms;
        world.kill(4);
        // Its wall clock was set back meanwhile: its new number is less than the one before.
        world.nodes[4].wall_ms -= back_ms;
        world.start(4);
        world.run(10_000);
        let restarted = world.told_since(before, |event| *event == Event::Restarted(id));
        assert_eq!(restarted.len(), 9, "seed {seed}");
        let last_ms = restarted.iter().map(|told| told.at_ms - before).max().expect("some");
        let usual_ms = if back_ms == 0 { 2_000 } else { 5_000 };
        assert!(last_ms < usual_ms, "{last_ms} ms, seed {seed}");
        assert_eq!(world.told_since(before, |event| matches!(event, Event::Twins { .. })), [], "seed {seed}");
        assert_eq!(world.alive(), (10, 10), "seed {seed}");
    }
}

#[test]
fn a_number_used_again_is_counted_on_from() {
    let mut world = formed(5, 19, 5);
    let generation = world.gossip(2).generation();
    world.kill(2);
    world.start_as(2, generation);
    world.run(10_000);
    assert_eq!(world.alive(), (5, 5));
    assert!(world.gossip(2).generation() > generation);
}

#[test]
fn who_leaves_is_told_to_have_left_at_once_and_may_come_again() {
    let mut world = formed(30, 20, 5);
    let (id, before) = (world.nodes[6].id, world.now_ms);
    world.leave(6);
    world.run(900);
    world.kill(6);
    let left = world.told_since(before, |event| *event == Event::Left(id));
    assert_eq!(left.len(), 29);
    let mut after_ms: Vec<u64> = left.iter().map(|told| told.at_ms - before).collect();
    after_ms.sort_unstable();
    assert!(after_ms[20] < 50, "most hear it from the machine itself: {after_ms:?}");
    world.run(10_000);
    assert_eq!(world.told_since(before, |event| matches!(event, Event::Silent(_) | Event::Back(_))), []);
    world.start(6);
    world.run(10_000);
    assert_eq!(world.told_since(before, |event| *event == Event::Came(id)).len(), 29);
    assert_eq!(world.alive(), (30, 30));
}

#[test]
fn who_was_gone_for_long_does_not_bring_back_the_dead() {
    let mut plan = Plan::new(8, 21, 5);
    plan.settings.forget_ms = 10_000;
    let mut world = World::new(plan);
    world.run(8_000);
    let dead = world.nodes[5].id;
    world.freeze(3, 30_000);
    world.run(100);
    world.kill(5);
    world.run(20_000);
    assert_eq!(world.told_since(0, |event| *event == Event::Forgotten(dead)).len(), 6);
    let forgotten_ms = world.now_ms;
    // It still takes the dead one for alive.
    world.run(20_000);
    assert_eq!(world.told_since(forgotten_ms, |event| *event == Event::Came(dead)), []);
    assert_eq!(world.alive(), (7, 7));
}

#[test]
fn two_machines_with_one_key_are_reported_and_nothing_flaps() {
    for (seed, later_ms) in [(22, 0), (23, 60_000)] {
        let mut world = formed(8, seed, 5);
        world.run(later_ms);
        world.told.clear();
        let id = world.nodes[3].id;
        let twin = world.add_as(id);
        let before = world.now_ms;
        world.run(40_000);
        let twins = world.told_since(before, |event| matches!(event, Event::Twins { id: of, .. } if *of == id));
        let by: std::collections::BTreeSet<usize> = twins.iter().map(|told| told.by).collect();
        assert!((0..8).all(|index| by.contains(&index)), "all know, the elder included, seed {seed}: {by:?}");
        assert!(twins.iter().all(|told| told.at_ms < before + 30_000), "seed {seed}");
        assert!(twins.len() <= 9, "and say so once a minute: {}", twins.len());
        let both = [world.nodes[3].address, world.nodes[twin].address];
        let names_both = |event: &Event| {
            let Event::Twins { addresses, .. } = event else { return false };
            both.iter().all(|address| addresses.contains(address))
        };
        let named = twins.iter().filter(|told| names_both(&told.event));
        assert!(named.count() >= 7, "with both addresses, seed {seed}");
        let flaps = world.told_since(before, |event| matches!(event, Event::Silent(_) | Event::Back(_)));
        assert_eq!(flaps, [], "seed {seed}");
        let restarts = world.told_since(before, |event| matches!(event, Event::Restarted(_)));
        assert!(restarts.len() <= 7, "one for each of the others: {}, seed {seed}", restarts.len());
    }
}

#[test]
fn twins_with_one_number_are_reported_too() {
    let mut world = formed(6, 24, 5);
    let (id, generation) = (world.nodes[2].id, world.gossip(2).generation());
    let twin = world.add_as(id);
    world.start_as(twin, generation);
    world.told.clear();
    world.run(40_000);
    let twins = world.told_since(0, |event| matches!(event, Event::Twins { id: of, .. } if *of == id));
    assert!(twins.iter().any(|told| ![2, twin].contains(&told.by)), "{twins:?}");
    assert_eq!(world.told_since(0, |event| matches!(event, Event::Silent(_) | Event::Back(_))), []);
}
