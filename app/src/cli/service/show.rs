//! `service show`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::{InstanceDetail, ServiceDetail};
use wire::resource::{Health, Phase};

#[derive(Args)]
pub struct Arguments {
    /// The service, as STACK/SERVICE or by a name only one stack has
    service: String,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let detail: ServiceDetail = remote.get(&super::path(remote, &arguments.service).await?).await?;
    if remote.json {
        shown::json(&detail);
        return Ok(ExitCode::SUCCESS);
    }
    let one = &detail.summary;
    println!("{}/{}  {}/{} ready  {}", one.stack, one.service, one.instances_ready, one.instances_wanted, one.state);
    println!("image {}  address {}  revision {}", one.image, one.address, one.revision);
    for endpoint in &one.endpoints {
        println!("{endpoint}");
    }
    let header = ["INSTANCE", "PHASE", "HEALTH", "RESTARTS", "CPU", "MEMORY", "AGE", "MESSAGE"];
    shown::table(&header, detail.instances.into_iter().map(row).collect());
    Ok(ExitCode::SUCCESS)
}

fn row(one: InstanceDetail) -> Vec<String> {
    let phase = match one.status.phase {
        Phase::Waiting => "waiting",
        Phase::Pulling => "pulling",
        Phase::Starting => "starting",
        Phase::Running if one.status.ready => "ready",
        Phase::Running => "running",
        Phase::BackingOff => "backing off",
        Phase::Stopping => "stopping",
        Phase::Exited => "exited",
        Phase::Failed => "failed",
    };
    let health = match one.status.health {
        Health::None => "-",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    };
    vec![
        one.instance.id,
        phase.to_owned(),
        health.to_owned(),
        one.status.restarts.to_string(),
        format!("{:.2}", one.usage.cpu_cores),
        shown::size(one.usage.memory_bytes),
        shown::age(one.status.started_ms),
        one.status.message,
    ]
}
