//! `bramble cluster …`.

mod force;
mod token;

use super::failure::Failure;
use super::remote::Remote;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Print what lets another machine join: `bramble join TOKEN` there
    Token(token::Arguments),
    /// Have this machine decide alone, when those that voted with it are lost for good
    ForceLeader(force::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Token(arguments) => token::run(remote, arguments).await,
        Verb::ForceLeader(arguments) => force::run(arguments).await,
    }
}
