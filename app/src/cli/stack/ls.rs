//! `stack ls`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use std::process::ExitCode;
use wire::api::StackSummary;

pub(crate) async fn run(remote: &Remote) -> Result<ExitCode, Failure> {
    let stacks: Vec<StackSummary> = remote.get("/v1/stacks").await?;
    if remote.json {
        shown::json(&stacks);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = stacks.into_iter().map(|stack| {
        let ready = format!("{}/{}", stack.instances_ready, stack.instances_wanted);
        let services = stack.services.to_string();
        vec![stack.name, stack.revision.to_string(), services, ready, shown::age(stack.changed_ms), stack.state]
    });
    shown::table(&["STACK", "REVISION", "SERVICES", "READY", "CHANGED", "STATE"], rows.collect());
    Ok(ExitCode::SUCCESS)
}
