//! `bramble service …`.

pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod scale;
pub(crate) mod show;
pub(crate) mod why;

use super::failure::Failure;
use super::remote::{Remote, segment};
use clap::Subcommand;
use std::process::ExitCode;
use wire::api::ServiceSummary;

#[derive(Subcommand)]
pub enum Verb {
    /// List services
    Ls,
    /// Show a service and its instances
    Show(show::Arguments),
    /// Explain where its instances are, and why one has no machine
    Why(why::Arguments),
    /// Change how many instances run
    Scale(scale::Arguments),
    /// Replace every instance, by the service's update policy
    Restart(restart::Arguments),
    /// Show and follow a service's log
    Logs(logs::Arguments),
    /// Take a service out of its stack
    Rm(rm::Arguments),
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => ls::run(remote).await,
        Verb::Show(arguments) => show::run(remote, &arguments).await,
        Verb::Why(arguments) => why::run(remote, &arguments).await,
        Verb::Scale(arguments) => scale::run(remote, &arguments).await,
        Verb::Restart(arguments) => restart::run(remote, &arguments).await,
        Verb::Logs(arguments) => logs::run(remote, arguments).await,
        Verb::Rm(arguments) => rm::run(remote, &arguments).await,
    }
}

/// The API path of `stack/service`, of `stack_service`, or of a service name that only one stack has.
pub(crate) async fn path(remote: &Remote, name: &str) -> Result<String, Failure> {
    if let Some((stack, service)) = name.split_once('/') {
        return Ok(format!("/v1/services/{}/{}", segment(stack)?, segment(service)?));
    }
    let services: Vec<ServiceSummary> = remote.get("/v1/services").await?;
    let matching: Vec<&ServiceSummary> =
        services.iter().filter(|one| one.service == name || format!("{}_{}", one.stack, one.service) == name).collect();
    match matching[..] {
        [one] => Ok(format!("/v1/services/{}/{}", one.stack, one.service)),
        [] => Err(Failure::local(format!("no service is called {name}")).hint("`bramble ps` lists the services")),
        [_, _, ..] => {
            let names: Vec<String> = matching.iter().map(|one| format!("{}/{}", one.stack, one.service)).collect();
            Err(Failure::usage(format!("several services are called {name}"))
                .hint(format!("say which: {}", names.join(", "))))
        }
    }
}
