//! `stack show`.

use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::{service, shown};
use clap::Args;
use std::process::ExitCode;
use wire::api::StackDetail;

#[derive(Args)]
pub struct Arguments {
    /// The stack
    name: String,
    /// Print the file the revision was made from
    #[arg(long)]
    source: bool,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let detail: StackDetail = remote.get(&format!("/v1/stacks/{}", segment(&arguments.name)?)).await?;
    if remote.json {
        shown::json(&detail);
    } else if arguments.source {
        print!("{}", detail.source);
    } else {
        let summary = &detail.summary;
        println!(
            "{}  revision {}  {}  changed {} ago",
            summary.name,
            summary.revision,
            summary.state,
            shown::age(summary.changed_ms)
        );
        service::ls::print(detail.services);
    }
    Ok(ExitCode::SUCCESS)
}
