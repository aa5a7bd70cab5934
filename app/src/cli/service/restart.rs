//! `service restart`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use crate::cli::stack::deploy;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::Deployed;

#[derive(Args)]
pub struct Arguments {
    /// The service, as STACK/SERVICE or by a name only one stack has
    service: String,
    /// Return as soon as the change is accepted
    #[arg(long)]
    detach: bool,
    /// Give up waiting after so many seconds; the change itself goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = format!("{}/restart", super::path(remote, &arguments.service).await?);
    let deployed: Deployed = remote.post(&path, &()).await?;
    if !arguments.detach {
        deploy::wait(remote, &deployed, Duration::from_secs(arguments.timeout)).await?;
    }
    if remote.json {
        shown::json(&deployed);
    }
    Ok(ExitCode::SUCCESS)
}
