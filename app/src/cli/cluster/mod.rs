//! `bramble cluster …`.

mod force;
mod roles;
mod token;

use super::failure::Failure;
use super::remote::Remote;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Print what lets another machine join: `bramble join TOKEN` there
    Token(token::Arguments),
    /// Who has which role, and why; with options, how many of each there are to be at least
    Roles(roles::Arguments),
    /// Have this machine decide alone, when those that voted with it are lost for good
    ForceLeader(force::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Token(arguments) => token::run(remote, arguments).await,
        Verb::Roles(arguments) => roles::run(remote, arguments).await,
        Verb::ForceLeader(arguments) => force::run(arguments).await,
    }
}
