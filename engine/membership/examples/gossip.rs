//! Measures the gossip in simulated time, or replays what a test met: `docs/decisions/membership.md` has the results.
//!
//! ```sh
//! cargo run --release -p membership --example gossip -- deaths <machines> <loss %> <seed> <times>
//! cargo run --release -p membership --example gossip -- freezes-of-<ms> <machines> <loss %> <seed> <times>
//! cargo run --release -p membership --example gossip -- hours <machines> <loss %> <seed> <seconds>
//! ```
//!
//! `fanout=2`, `usual=400` and `phi=4.25` after that try other settings.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/alive/simulation.rs"]
mod simulation;

use simulation::{Plan, deaths, freezes, hours, percentile};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (Some(what), [machines, loss, seed, amount]) = (arguments.first(), numbers.as_slice()) else {
        eprintln!("usage: gossip deaths|hours <machines> <loss %> <seed> <times|seconds>");
        std::process::exit(2);
    };
    let mut plan = Plan::new(usize::try_from(*machines).unwrap_or(30), *seed, *loss);
    for (name, value) in arguments.iter().filter_map(|argument| argument.split_once('=')) {
        match (name, value.parse::<f64>()) {
            ("fanout", Ok(value)) => plan.settings.fanout = value as usize,
            ("usual", Ok(value)) => plan.settings.usual_ms_min = value as u64,
            ("phi", Ok(value)) => plan.settings.phi_silent = value,
            _ => eprintln!("not known here: {name}={value}"),
        }
    }
    let times = usize::try_from(*amount).unwrap_or(1);
    match what.split_once("freezes-of-").map(|(_, for_ms)| for_ms.parse()) {
        Some(for_ms) => print_freezes(plan, times, for_ms.unwrap_or(1_000)),
        None if what == "deaths" => print_deaths(plan, times),
        None => print_hours(plan, *amount),
    }
}

fn print_freezes(plan: Plan, times: usize, for_ms: u64) {
    let (machines, loss, seed) = (plan.machines, plan.loss_percent, plan.seed);
    let seen = freezes(plan, times, for_ms);
    println!(
        "{machines} machines, {loss} % loss, seed {seed}: {times} freezes of {for_ms} ms; told {}, somebody else {}, not \
         all back after 3 s {}",
        seen.told, seen.wrong, seen.lost
    );
}

fn print_deaths(plan: Plan, times: usize) {
    let (machines, loss, seed) = (plan.machines, plan.loss_percent, plan.seed);
    let seen = deaths(plan, times);
    let [first, last, back] =
        [&seen.first_ms, &seen.last_ms, &seen.returned_ms].map(|times| [50, 99, 100].map(|p| percentile(times, p)));
    println!(
        "{machines} machines, {loss} % loss, seed {seed}: {times} deaths; p50, p99, max in ms: first knows {first:?}, \
         all know {last:?}, all know the next life {back:?}; wrong {}",
        seen.wrong
    );
}

fn print_hours(plan: Plan, seconds: u64) {
    let (machines, loss, seed) = (plan.machines, plan.loss_percent, plan.seed);
    let seen = hours(plan, seconds);
    println!(
        "{machines} machines, {loss} % loss, seed {seed}: {:.1} machine-hours; wrong {}, longest silence {} ms; {} \
         bytes/s and {:.1} datagrams/s sent by each",
        seen.machine_hours,
        seen.wrong.len(),
        seen.silence_ms_max,
        seen.bytes_per_second,
        seen.datagrams_per_second
    );
    for told in seen.wrong.iter().take(10) {
        println!("  {told:?}");
    }
}
