//! `bramble gateway …`.

mod bans;
pub(super) mod endpoints;
mod log;
mod trace;

use super::failure::Failure;
use super::remote::Remote;
use clap::Subcommand;
use std::process::ExitCode;
use wire::api::{End, RequestRecord};

#[derive(Subcommand)]
pub enum Verb {
    /// Clients that routes turn away for a while
    #[command(subcommand)]
    Bans(bans::Verb),
    /// List the instances behind every served port: which are asked, which left out, since when and why
    Endpoints(endpoints::Arguments),
    /// Show and follow what requests came in, and what became of them
    Log(log::Arguments),
    /// Show where the time of one request went
    Trace(trace::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Bans(verb) => bans::run(remote, verb).await,
        Verb::Endpoints(arguments) => endpoints::run(remote, &arguments).await,
        Verb::Log(arguments) => log::run(remote, &arguments).await,
        Verb::Trace(arguments) => trace::run(remote, &arguments).await,
    }
}

/// What became of it, in a word or two.
fn outcome(record: &RequestRecord) -> String {
    let status = if record.status == 0 { "-".to_owned() } else { record.status.to_string() };
    match record.end {
        End::Complete if record.code.is_empty() => status,
        End::Complete => format!("{status} {}", record.code),
        End::Left => format!("{status} client left"),
        End::Cut => format!("{status} cut off"),
    }
}

/// A time of which only the first digits matter.
fn span(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1}ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", us / 1_000),
        1_000_000.. => format!("{:.1}s", us as f64 / 1e6),
    }
}
