//! `stack history`.

use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::RevisionSummary;

#[derive(Args)]
pub struct Arguments {
    /// The stack
    name: String,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let history: Vec<RevisionSummary> =
        remote.get(&format!("/v1/stacks/{}/revisions", segment(&arguments.name)?)).await?;
    if remote.json {
        shown::json(&history);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = history.into_iter().map(|revision| {
        let current = if revision.current { "*" } else { "" };
        vec![revision.number.to_string(), current.to_owned(), shown::time(revision.created_ms), revision.cause]
    });
    shown::table(&["REVISION", "", "CREATED", "CAUSE"], rows.collect());
    Ok(ExitCode::SUCCESS)
}
