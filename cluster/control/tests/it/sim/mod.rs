//! Whole clusters in one process, from a seed: the real log, group, key space and space of several machines, on disks, clocks and a
//! network that are broken while clients use them. What comes out is checked; see `docs/decisions/simulated-clusters.md`.
//!
//! A run that fails prints its seed and the command that repeats it, step by step. Longer ones:
//! `BRAMBLE_SIM_MINUTES=6000 cargo test --release -p control --test it -- --ignored --nocapture sim::long`.

mod careless;
mod clients;
mod cluster;
mod faults;
mod known;
mod linear;
mod network;
mod record;
mod run;
mod verdict;

use careless::Careless;
use run::{Plan, explore, run};

/// Simulated minutes of each of the tests below: together they are more than an hour.
const MINUTES: u64 = 11;

#[test]
fn three_machines_stay_linearizable_while_they_are_broken() {
    explore("sim::three_machines_stay_linearizable_while", Plan::of(3, MINUTES));
}

#[test]
fn three_machines_stay_linearizable_once_more() {
    explore("sim::three_machines_stay_linearizable_once", Plan::of(3, MINUTES));
}

#[test]
fn three_busy_machines_stay_linearizable() {
    explore("sim::three_busy", Plan { clients: 12, think_ms: 300, ..Plan::of(3, MINUTES) });
}

#[test]
fn five_machines_stay_linearizable_while_they_are_broken() {
    explore("sim::five_machines_stay_linearizable_while", Plan::of(5, MINUTES));
}

#[test]
fn five_machines_stay_linearizable_once_more() {
    explore("sim::five_machines_stay_linearizable_once", Plan::of(5, MINUTES));
}

#[test]
fn five_busy_machines_stay_linearizable() {
    explore("sim::five_busy", Plan { clients: 12, think_ms: 300, ..Plan::of(5, MINUTES) });
}

#[test]
fn fifty_power_cuts_of_all_machines_at_once_lose_nothing() {
    explore("sim::fifty_power_cuts", Plan { blackouts: 50, clients: 8, think_ms: 150, ..Plan::of(3, 0) });
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    for machines in [3, 5] {
        let plan = Plan::of(machines, 3);
        let (first, again, other) = (run(plan, 11), run(plan, 11), run(plan, 12));
        assert_eq!((first.trace, first.calls), (again.trace, again.calls), "{machines} machines");
        assert_ne!(first.trace, other.trace);
    }
}

#[test]
fn careless_members_are_found_out() {
    let short = Plan::of(3, 5);
    for (careless, plan) in
        [(Careless::Reads, short), (Careless::PassesOn, short), (Careless::Syncs, Plan { blackouts: 5, ..short })]
    {
        let plan = Plan { careless: Some(careless), ..plan };
        let seeds = 1..=12;
        let found = seeds.clone().find(|seed| !run(plan, *seed).violations.is_empty());
        println!("{careless:?}: found by seed {found:?}");
        assert!(found.is_some(), "{careless:?} is not found by seeds {seeds:?}");
    }
}

#[test]
#[ignore = "hours of simulated time, as many as BRAMBLE_SIM_MINUTES says"]
fn long() {
    run::long();
}
