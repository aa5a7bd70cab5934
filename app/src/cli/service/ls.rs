//! `service ls`, also `ps`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use std::process::ExitCode;
use wire::api::ServiceSummary;

pub(crate) async fn run(remote: &Remote) -> Result<ExitCode, Failure> {
    let services: Vec<ServiceSummary> = remote.get("/v1/services").await?;
    if remote.json {
        shown::json(&services);
    } else {
        print(services);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn print(services: Vec<ServiceSummary>) {
    let rows = services.into_iter().map(|one| {
        let ready = format!("{}/{}", one.instances_ready, one.instances_wanted);
        vec![format!("{}/{}", one.stack, one.service), ready, one.image, one.endpoints.join(" "), one.state]
    });
    shown::table(&["SERVICE", "READY", "IMAGE", "ENDPOINTS", "STATE"], rows.collect());
}
