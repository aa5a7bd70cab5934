//! `bramble cluster …`.

mod token;

use super::failure::Failure;
use super::remote::Remote;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Print what lets another machine join: `bramble join TOKEN` there
    Token(token::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Token(arguments) => token::run(remote, arguments).await,
    }
}
