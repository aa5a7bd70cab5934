//! `bramble cluster roles`.

use super::super::failure::Failure;
use super::super::remote::Remote;
use super::super::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::{RolesDetail, RolesWanted};

#[derive(Args)]
pub struct Arguments {
    /// At least so many machines collect heartbeats and say which machines are down
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    monitors: Option<u32>,
    /// At least so many pairs of machines give work to workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pairs: Option<u32>,
    /// At least so many processes run work, one for each core of a machine; `all` for as many as there can be
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<u32>,
    /// Whether monitors and assigners run no work where there are machines enough for both
    #[arg(long, value_name = "true|false")]
    apart: Option<bool>,
    /// So many machines vote at most; odd
    #[arg(long, value_name = "N")]
    voters_max: Option<u32>,
}

fn workers(text: &str) -> Result<u32, String> {
    if text == "all" {
        return Ok(u32::MAX);
    }
    text.parse().map_err(|_| "a number, or `all`".to_owned())
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { monitors, pairs, workers, apart, voters_max } = arguments;
    let wanted = RolesWanted { monitors, pairs, workers, apart, voters_max };
    if wanted != RolesWanted::default() {
        remote.put_only("/v1/cluster/roles", &wanted).await?;
    }
    let roles: RolesDetail = remote.get("/v1/cluster/roles").await?;
    if remote.json {
        shown::json(&roles);
        return Ok(ExitCode::SUCCESS);
    }
    if roles.machines.is_empty() {
        eprintln!("this machine is on its own and does everything; `bramble cluster token` lets others join");
        return Ok(ExitCode::SUCCESS);
    }
    let rows = roles.machines.into_iter().map(|machine| {
        let leads = roles.leader.as_ref() == Some(&machine.node);
        let fsync = machine.fsync_p99_us.map_or("-".to_owned(), |us| format!("{}.{} ms", us / 1_000, us % 1_000 / 100));
        let mut all = machine.roles;
        all.extend(leads.then(|| "leader".to_owned()));
        let all = if all.is_empty() { "-".to_owned() } else { all.join(", ") };
        vec![machine.node, machine.hostname, all, fsync, machine.why.join("; ")]
    });
    shown::table(&["NODE", "HOST", "ROLES", "FSYNC P99", "WHY"], rows.collect());
    Ok(ExitCode::SUCCESS)
}
