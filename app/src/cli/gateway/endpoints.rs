//! `gateway endpoints`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::{EndpointState, ServedPort};

#[derive(Args)]
pub struct Arguments {
    /// Only those of a service, as STACK/SERVICE
    service: Option<String>,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut ports: Vec<ServedPort> = remote.get("/v1/gateway/endpoints").await?;
    if let Some(service) = &arguments.service {
        ports.retain(|port| port.service == *service);
        if ports.is_empty() {
            let hint = "`bramble gateway endpoints` lists all that are served";
            return Err(Failure::local(format!("no port of {service} is served")).hint(hint));
        }
    }
    if remote.json {
        shown::json(&ports);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = ports.iter().flat_map(|port| port.endpoints.iter().map(|one| row(port, one)));
    shown::table(&["SERVICE", "PORT", "INSTANCE", "BREAKER", "SINCE", "TRIED AGAIN", "IN FLIGHT"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

fn row(port: &ServedPort, one: &EndpointState) -> Vec<String> {
    let retry = if one.retry_ms == 0 { "-".to_owned() } else { shown::until(one.retry_ms) };
    vec![
        port.service.clone(),
        port.port.to_string(),
        one.instance.clone(),
        breaker(one),
        shown::age(one.since_ms),
        retry,
        one.in_flight.to_string(),
    ]
}

/// How an instance stands, and why if it is not well.
pub(in crate::cli) fn breaker(one: &EndpointState) -> String {
    match (one.draining, one.why.as_str()) {
        (true, _) => "draining".to_owned(),
        (false, "") => one.breaker.clone(),
        (false, why) => format!("{}: {why}", one.breaker),
    }
}
