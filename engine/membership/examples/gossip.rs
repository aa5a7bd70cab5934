//! Measures the gossip in simulated time, or replays what a test met: `docs/decisions/membership.md` has the results.
//!
//! ```sh
//! cargo run --release -p membership --example gossip -- deaths <machines> <loss %> <seed> <times>
//! cargo run --release -p membership --example gossip -- hours <machines> <loss %> <seed> <seconds>
//! ```

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/alive/simulation.rs"]
mod simulation;

use simulation::{Plan, deaths, hours, percentile};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (Some(what), [machines, loss, seed, amount]) = (arguments.first(), numbers.as_slice()) else {
        eprintln!("usage: gossip deaths|hours <machines> <loss %> <seed> <times|seconds>");
        std::process::exit(2);
    };
    let plan = Plan::new(usize::try_from(*machines).unwrap_or(30), *seed, *loss);
    match what.as_str() {
        "deaths" => print_deaths(plan, usize::try_from(*amount).unwrap_or(1)),
        _ => print_hours(plan, *amount),
    }
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
