//! `stack revert`.

use super::deploy;
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{Deployed, Revert};

#[derive(Args)]
pub struct Arguments {
    /// The stack
    name: String,
    /// The revision to go back to [default: the one before the current]
    revision: Option<u64>,
    /// Return as soon as the revision is accepted
    #[arg(long)]
    detach: bool,
    /// Give up waiting after so many seconds; the deploy itself goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = format!("/v1/stacks/{}/revert", segment(&arguments.name)?);
    let deployed: Deployed = remote.post(&path, &Revert { to: arguments.revision }).await?;
    if !remote.json {
        super::plan::print(&deployed.plan.services);
    }
    if !arguments.detach {
        deploy::wait(remote, &deployed, Duration::from_secs(arguments.timeout)).await?;
    }
    if remote.json {
        shown::json(&deployed);
    }
    Ok(ExitCode::SUCCESS)
}
