//! `stack plan`: what a deploy would change.

use super::file::{self, Loaded};
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::shown;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use wire::api::{Action, Plan, ServicePlan};

#[derive(Args)]
pub struct Arguments {
    /// The stack file [default: stack.yml, compose.yaml, docker-compose.yml here]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The stack's name [default: the name of the file's folder]
    name: Option<String>,
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let loaded = file::load(arguments.file.as_deref())?;
    let name = loaded.name(arguments.name.as_deref());
    let plan: Plan = remote
        .post(&format!("/v1/stacks/{}/plan", segment(&name)?), &loaded.body()?)
        .await
        .map_err(|failure| placed(failure, &loaded))?;
    if remote.json {
        shown::json(&plan);
    } else {
        print(&plan.services);
    }
    Ok(ExitCode::SUCCESS)
}

/// A failure with the file's errors shown in the file.
pub(super) fn placed(failure: Failure, loaded: &Loaded) -> Failure {
    let errors = failure.problem().diagnostics.clone();
    if errors.is_empty() {
        return failure;
    }
    let report = wire::diagnostic::Report { ok: false, errors, warnings: Vec::new() };
    let detail = stackfile::render(&report, &loaded.path.display().to_string(), &loaded.source);
    failure.detail(detail)
}

pub(super) fn print(services: &[ServicePlan]) {
    for service in services {
        let (sign, what) = match service.action {
            Action::Create => ("+", format!("create, {} to start", service.start)),
            Action::Update => ("~", format!("update, {} to replace", service.stop)),
            Action::Scale => ("~", format!("scale, {} to start, {} to stop", service.start, service.stop)),
            Action::Remove => ("-", format!("remove, {} to stop", service.stop)),
            Action::Keep => ("=", "unchanged".to_owned()),
        };
        println!("{sign} {}: {what}", service.service);
        for change in &service.changes {
            println!("    {change}");
        }
    }
}
