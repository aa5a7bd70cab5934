//! What the parameters are chosen for: how soon a death is known, and that nothing else is taken for one.
//!
//! These are short runs. The long ones are made with the example `gossip`, which also replays a seed that fails here.

use super::simulation::{Plan, World, deaths, freezes, hours, percentile};
use std::hash::Hasher;

fn check_deaths(machines: usize, loss_percent: u64, seed: u64, times: usize, last_ms_max: u64) {
    let seen = deaths(Plan::new(machines, seed, loss_percent), times);
    let worst_ms = percentile(&seen.last_ms, 100);
    let replay = format!(
        "replay: cargo run --release -p membership --example gossip -- deaths {machines} {loss_percent} {seed} {times}"
    );
    println!("{machines} machines, {loss_percent} % loss: all know after {:?} ms", seen.last_ms);
    assert!(worst_ms <= last_ms_max, "a death was known after {worst_ms} ms; {replay}");
    assert!(percentile(&seen.returned_ms, 100) <= 3_000, "a start took {:?} ms; {replay}", seen.returned_ms);
    assert_eq!(seen.wrong, 0, "somebody alive was told to be silent; {replay}");
}

fn check_hours(machines: usize, loss_percent: u64, seed: u64, seconds: u64) {
    let seen = hours(Plan::new(machines, seed, loss_percent), seconds);
    let replay = format!(
        "replay: cargo run --release -p membership --example gossip -- hours {machines} {loss_percent} {seed} {seconds}"
    );
    println!(
        "{machines} machines, {loss_percent} % loss: {:.1} machine-hours, longest silence {} ms; each sends {} bytes/s in \
         {:.0} datagrams",
        seen.machine_hours, seen.silence_ms_max, seen.bytes_per_second, seen.datagrams_per_second
    );
    assert_eq!(seen.wrong, [], "somebody alive was told to be silent; {replay}");
}

#[test]
fn everybody_knows_of_a_death_within_two_and_a_half_seconds() {
    check_deaths(30, 5, 1, 3, 2_500);
    check_deaths(5, 5, 2, 30, 2_500);
    check_deaths(2, 0, 3, 30, 2_500);
}

#[test]
fn everybody_knows_of_a_death_on_a_bad_network() {
    check_deaths(30, 25, 4, 2, 4_000);
}

#[test]
fn nobody_alive_is_told_to_be_silent() {
    check_hours(30, 5, 5, 20);
    check_hours(5, 5, 6, 600);
    check_hours(2, 5, 7, 600);
}

#[test]
fn nobody_alive_is_told_to_be_silent_though_a_quarter_is_lost() {
    check_hours(30, 25, 8, 20);
    check_hours(5, 25, 9, 300);
}

fn check_freezes(machines: usize, loss_percent: u64, seed: u64, times: usize, for_ms: u64) {
    let seen = freezes(Plan::new(machines, seed, loss_percent), times, for_ms);
    let replay = format!(
        "replay: cargo run --release -p membership --example gossip -- freezes-of-{for_ms} {machines} {loss_percent} {seed} \
         {times}"
    );
    assert_eq!(seen.lost, 0, "not all came back; {replay}");
    assert_eq!(seen.wrong, 0, "somebody else was told to be silent; {replay}");
    if for_ms <= 1_000 {
        assert_eq!(seen.told, 0, "a short freeze was told; {replay}");
    } else {
        assert_eq!(seen.told, times, "a long freeze was not told; {replay}");
    }
}

#[test]
fn a_freeze_of_a_second_declares_nobody_silent() {
    check_freezes(30, 5, 14, 4, 1_000);
    check_freezes(5, 5, 15, 60, 1_000);
    check_freezes(2, 0, 16, 60, 1_000);
}

#[test]
fn a_freeze_of_five_seconds_comes_back_without_harm() {
    check_freezes(30, 5, 17, 2, 5_000);
    check_freezes(5, 5, 18, 20, 5_000);
    check_freezes(2, 5, 19, 20, 5_000);
}

#[test]
fn more_machines_take_longer_and_no_more_bytes() {
    // A datagram is said to hold ten machines here: what is shown is the same, and takes a second.
    let of = |machines| {
        let mut plan = Plan::new(machines, 10, 5);
        plan.settings.machines_per_datagram = 10;
        hours(plan, 20).bytes_per_second
    };
    let (ten, thirty) = (of(10), of(30));
    println!("10 machines: {ten} bytes/s each; 30: {thirty}");
    assert!(thirty < ten * 3 / 2, "{thirty} bytes/s, and {ten} among 10");
}

#[test]
fn more_machines_than_one_datagram_tells_of_know_each_other() {
    let mut world = World::new(Plan::new(70, 11, 5));
    world.run(3_000);
    assert_eq!(world.alive(), (70, 70));
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let run = |seed| {
        let mut world = World::new(Plan::new(8, seed, 10));
        world.run(20_000);
        world.freeze(3, 5_000);
        world.kill(4);
        world.run(10_000);
        (world.trace.finish(), world.told)
    };
    assert!(run(12) == run(12));
    assert_ne!(run(12).0, run(13).0);
}
