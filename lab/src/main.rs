//! Measurements of the real thing, beside others where there are others, and attacks on it: `lab bench [NAME…]`,
//! `lab attack [NAME…]`.

mod attack;
mod bench;

use bench::Options;
use std::process::ExitCode;
use std::time::Duration;

/// Looked at after instances fall ill.
const ILL_SECONDS: usize = 15;

const USAGE: &str = "usage: lab bench [NAME…] [--minutes N]
       lab attack [NAME…] [--short] [--beside]
       lab mixed [--minutes N]
       lab ill
       lab nodes N
  NAME         which measurements or attacks; all of them if none is named
  --minutes N  how long `idle` looks (default 10), or the load of `mixed` lasts (default 30)
  --short      a few attackers for a few seconds
  N            so many machines in a network of their own, and verbs to break them; `help` there lists them
  --beside     HAProxy is attacked too, in the same run";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bench") => {}
        Some("attack") => return attack(arguments),
        Some(attack::ATTACKED) => return attack::serve(arguments.next()),
        Some(attack::SERVED) => return attack::serve_alone(),
        Some("mixed") => return mixed(arguments),
        Some("nodes") => return nodes(arguments),
        Some("ill") => {
            lab::ill::run(ILL_SECONDS, |line| println!("{line}"));
            return ExitCode::SUCCESS;
        }
        Some(bench::HELD_THERE) => return bench::hold(arguments.next()),
        Some(bench::SERVED_THERE) => return bench::serve(arguments.next()),
        Some(bench::GATEWAY_ALONE) => return bench::serve_alone(arguments),
        Some(lab::program::PROGRAM) => return lab::program::run(arguments),
        Some(_) | None => {
            eprintln!("{USAGE}");
            bench::list();
            return ExitCode::from(2);
        }
    }
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--minutes" => match arguments.next().and_then(|number| number.parse().ok()) {
                Some(minutes) => options.minutes = minutes,
                None => return wrong("--minutes takes a number"),
            },
            bench::CGROUPS_SEEN => options.cgroups_seen = true,
            name if bench::knows(name) => options.names.push(name.to_owned()),
            other => return wrong(&format!("there is no measurement `{other}`")),
        }
    }
    if bench::run(&options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attack(arguments: impl Iterator<Item = String>) -> ExitCode {
    let (mut names, mut short, mut beside) = (Vec::new(), false, false);
    for argument in arguments {
        match argument.as_str() {
            "--short" => short = true,
            "--beside" => beside = true,
            name if attack::knows(name) => names.push(name.to_owned()),
            other => {
                eprintln!("lab: there is no attack `{other}`\n{USAGE}");
                attack::list();
                return ExitCode::from(2);
            }
        }
    }
    if attack::run(&names, short, beside) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The drill of everything at once.
fn mixed(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    const MINUTES: f64 = 30.0;
    const PAUSE: Duration = Duration::from_secs(5);
    let mut minutes = MINUTES;
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next().and_then(|number| number.parse().ok())) {
            ("--minutes", Some(number)) => minutes = number,
            _ => return wrong("mixed takes --minutes and a number"),
        }
    }
    let plan = lab::mixed::Plan { seconds: minutes * 60.0, pause: PAUSE };
    let outcome = lab::mixed::run(plan, |line| println!("{line}"));
    println!(
        "{} requests, {} changes, {} of which could not be made",
        outcome.requests,
        outcome.changes,
        outcome.stuck.len()
    );
    for line in outcome.excused.iter().map(|line| format!("excused: {line}")) {
        println!("{line}");
    }
    if outcome.failures.is_empty() && outcome.stuck.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A cluster to play with.
fn nodes(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let Some(count) = arguments.next().and_then(|number| number.parse().ok()) else {
        return wrong("nodes takes a number of machines");
    };
    match lab::console::run(count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wrong(message: &str) -> ExitCode {
    eprintln!("lab: {message}\n{USAGE}");
    bench::list();
    ExitCode::from(2)
}
