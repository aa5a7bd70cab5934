//! `bramble gateway …`.

mod bans;

use super::failure::Failure;
use super::remote::Remote;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Clients that routes turn away for a while
    #[command(subcommand)]
    Bans(bans::Verb),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Bans(verb) => bans::run(remote, verb).await,
    }
}
