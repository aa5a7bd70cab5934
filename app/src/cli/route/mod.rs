//! `bramble route …`.

mod test;

use super::failure::Failure;
use super::gateway::endpoints::breaker;
use super::remote::Remote;
use super::shown;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use wire::api::{EndpointState, RouteState};

#[derive(Subcommand)]
pub enum Verb {
    /// List the routes of all services
    Ls,
    /// Show the routes of one host or service, with the instances behind them
    Show(Arguments),
    /// Explain where a request would go, and why
    Test(test::Arguments),
}

#[derive(Args)]
pub struct Arguments {
    /// A host name, or a service as STACK/SERVICE
    what: String,
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => list(remote, None).await,
        Verb::Show(arguments) => list(remote, Some(&arguments.what)).await,
        Verb::Test(arguments) => test::run(remote, &arguments).await,
    }
}

async fn list(remote: &Remote, what: Option<&str>) -> Result<ExitCode, Failure> {
    let mut routes: Vec<RouteState> = remote.get("/v1/routes").await?;
    if let Some(what) = what {
        routes.retain(|route| route.service == what || route.hosts.iter().any(|host| host == what));
        if routes.is_empty() {
            return Err(Failure::local(format!("no route is for {what}: `bramble route ls` lists them")));
        }
    }
    if remote.json {
        shown::json(&routes);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = routes.iter().map(|route| {
        let ready = route.endpoints.iter().filter(|endpoint| !endpoint.draining).count();
        vec![hosts(route), route.path.clone(), notes(route), target(route), ready.to_string()]
    });
    shown::table(&["HOST", "PATH", "BESIDES", "SERVICE", "READY"], rows.collect());
    if what.is_some() {
        println!();
        let mut shown_ports = Vec::new();
        for route in routes.iter().filter(|route| !route.endpoints.is_empty()) {
            if !shown_ports.contains(&target(route)) {
                shown_ports.push(target(route));
                endpoints(&route.endpoints);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn endpoints(endpoints: &[EndpointState]) {
    let rows = endpoints.iter().map(|one| {
        let breaker = breaker(one);
        let latency = one.latency_ms.map_or_else(|| "-".to_owned(), |latency_ms| format!("{latency_ms:.1} ms"));
        let (penalty, load) = (format!("{:.0} ms", one.penalty_ms), format!("{:.0} %", one.load * 100.0));
        vec![one.instance.clone(), breaker, one.in_flight.to_string(), latency, penalty, load]
    });
    shown::table(&["INSTANCE", "BREAKER", "IN FLIGHT", "ANSWERS IN", "PENALTY", "MACHINE"], rows.collect());
}

pub(super) fn hosts(route: &RouteState) -> String {
    if route.hosts.is_empty() { "*".to_owned() } else { route.hosts.join(" ") }
}

pub(super) fn target(route: &RouteState) -> String {
    format!("{}:{}", route.service, route.port)
}

/// What of a route is not its host and path, in a word each.
pub(super) fn notes(route: &RouteState) -> String {
    if route.notes.is_empty() { "-".to_owned() } else { route.notes.join(", ") }
}
