//! `bramble stack …`.

pub(crate) mod check;
pub(crate) mod deploy;
pub(crate) mod diff;
mod file;
pub(crate) mod history;
pub(crate) mod ls;
pub(crate) mod plan;
pub(crate) mod revert;
pub(crate) mod rm;
pub(crate) mod show;

use super::failure::Failure;
use super::remote::Remote;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Verb {
    /// Find every error in a stack file, without a server
    Check(check::Arguments),
    /// Show what a deploy would change
    Plan(plan::Arguments),
    /// Make a stack file so, and wait until it serves
    Deploy(deploy::Arguments),
    /// List stacks
    Ls,
    /// Show a stack and its services
    Show(show::Arguments),
    /// List a stack's revisions
    History(history::Arguments),
    /// Show what lies between two revisions
    Diff(diff::Arguments),
    /// Make an earlier revision wanted again
    Revert(revert::Arguments),
    /// Stop a stack and forget it; named volumes stay
    Rm(rm::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Check(arguments) => check::run(remote, &arguments),
        Verb::Plan(arguments) => plan::run(remote, arguments).await,
        Verb::Deploy(arguments) => deploy::run(remote, arguments).await,
        Verb::Ls => ls::run(remote).await,
        Verb::Show(arguments) => show::run(remote, &arguments).await,
        Verb::History(arguments) => history::run(remote, &arguments).await,
        Verb::Diff(arguments) => diff::run(remote, &arguments).await,
        Verb::Revert(arguments) => revert::run(remote, &arguments).await,
        Verb::Rm(arguments) => rm::run(remote, &arguments).await,
    }
}
