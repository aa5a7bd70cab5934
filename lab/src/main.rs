//! Measurements of the real thing, beside others where there are others: `lab bench [NAME…] [--minutes N]`.

mod bench;

use bench::Options;
use std::process::ExitCode;

const USAGE: &str = "usage: lab bench [NAME…] [--minutes N]
  NAME         which measurements; all of them if none is named
  --minutes N  how long `idle` looks (default 10)";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("bench") => {}
        Some(bench::GATEWAY_ALONE) => return bench::serve_alone(arguments),
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

fn wrong(message: &str) -> ExitCode {
    eprintln!("lab: {message}\n{USAGE}");
    bench::list();
    ExitCode::from(2)
}
