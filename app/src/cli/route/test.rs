//! `route test`.

use super::{endpoints, hosts, notes, target};
use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::{RouteAnswer, RouteQuestion};

#[derive(Args)]
pub struct Arguments {
    /// The address asked for, as https://shop.example.org/api
    url: String,
    /// The method of the request
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header of the request; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let question = RouteQuestion {
        url: arguments.url.clone(),
        method: arguments.method.clone(),
        headers: arguments.header.clone(),
    };
    let answer: RouteAnswer = remote.post("/v1/routes/test", &question).await?;
    let code = if answer.tried.iter().any(|tried| tried.share > 0.0) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if remote.json {
        shown::json(&answer);
        return Ok(code);
    }
    let mut tried = answer.tried;
    tried.sort_by(|one, other| other.share.total_cmp(&one.share));
    let rows = tried.iter().map(|tried| {
        let route = &tried.route;
        vec![tried.why.clone(), hosts(route), route.path.clone(), notes(route), target(route)]
    });
    shown::table(&["VERDICT", "HOST", "PATH", "BESIDES", "SERVICE"], rows.collect());
    for taken in tried.iter().filter(|tried| tried.share > 0.0) {
        println!();
        if taken.route.endpoints.is_empty() {
            println!("{} has no ready instance: `bramble service show {}`", target(&taken.route), taken.route.service);
        } else {
            endpoints(&taken.route.endpoints);
        }
    }
    Ok(code)
}
