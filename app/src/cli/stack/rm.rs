//! `stack rm`.

use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::shown;
use clap::Args;
use reqwest::Method;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::StackSummary;

/// How long to wait for the last instance, and how often to look.
const DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Arguments {
    /// The stacks
    #[arg(required = true)]
    names: Vec<String>,
    /// Return as soon as the removal is accepted
    #[arg(long)]
    detach: bool,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    for name in &arguments.names {
        remote.tell(Method::DELETE, &format!("/v1/stacks/{}", segment(name)?)).await?;
    }
    if !arguments.detach {
        let gone = tokio::time::timeout(DEADLINE, gone(remote, &arguments.names)).await;
        gone.map_err(|_| {
            Failure::local("instances are still stopping").hint("`bramble stack ls` shows what is left")
        })??;
    }
    if remote.json {
        shown::json(&serde_json::json!({"removed": arguments.names}));
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.names {
        eprintln!("removed {name}; its named volumes stay");
    }
    Ok(ExitCode::SUCCESS)
}

async fn gone(remote: &Remote, names: &[String]) -> Result<(), Failure> {
    loop {
        let left: Vec<StackSummary> = remote.get("/v1/stacks").await?;
        if !left.iter().any(|stack| names.contains(&stack.name)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
