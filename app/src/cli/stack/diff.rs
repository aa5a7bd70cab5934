//! `stack diff`.

use super::plan;
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::Diff;

#[derive(Args)]
pub struct Arguments {
    /// The stack
    name: String,
    /// The older revision [default: the one before the newer]
    from: Option<u64>,
    /// The newer revision [default: the current one]
    to: Option<u64>,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let numbers = [("from", arguments.from), ("to", arguments.to)];
    let query: Vec<String> = numbers.iter().filter_map(|(key, number)| Some(format!("{key}={}", (*number)?))).collect();
    let diff: Diff = remote.get(&format!("/v1/stacks/{}/diff?{}", segment(&arguments.name)?, query.join("&"))).await?;
    if remote.json {
        shown::json(&diff);
    } else {
        println!("revision {} -> {}", diff.from, diff.to);
        plan::print(&diff.services);
    }
    Ok(ExitCode::SUCCESS)
}
