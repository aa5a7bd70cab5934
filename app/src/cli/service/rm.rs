//! `service rm`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::Deployed;

#[derive(Args)]
pub struct Arguments {
    /// The service, as STACK/SERVICE or by a name only one stack has
    service: String,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let deployed: Deployed = remote.delete(&super::path(remote, &arguments.service).await?).await?;
    if remote.json {
        shown::json(&deployed);
    } else {
        eprintln!("removed {} at revision {} of {}", arguments.service, deployed.revision, deployed.stack);
    }
    Ok(ExitCode::SUCCESS)
}
