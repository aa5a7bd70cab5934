//! `bramble cluster …`.

mod address;
mod backup;
mod force;
mod restore;
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
    /// Addresses that are always the gateway's, whichever machine that is
    #[command(subcommand)]
    Address(address::Verb),
    /// Who has which role, and why; with options, how many of each there are to be at least
    Roles(roles::Arguments),
    /// Write what the cluster has agreed on to one file: stacks, members, secrets; not volumes
    Backup(backup::Arguments),
    /// Make this machine, while its node does not run, the first of a cluster with the state of a backup
    Restore(restore::Arguments),
    /// Have this machine decide alone, when those that voted with it are lost for good
    ForceLeader(force::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Token(arguments) => token::run(remote, arguments).await,
        Verb::Address(verb) => address::run(remote, verb).await,
        Verb::Roles(arguments) => roles::run(remote, arguments).await,
        Verb::Backup(arguments) => backup::run(remote, arguments).await,
        Verb::Restore(arguments) => restore::run(remote, &arguments),
        Verb::ForceLeader(arguments) => force::run(arguments).await,
    }
}
