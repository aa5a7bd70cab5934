//! `bramble cluster token`.

use super::super::failure::Failure;
use super::super::remote::Remote;
use super::super::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::{JoinToken, JoinTokenWanted};

#[derive(Args)]
pub struct Arguments {
    /// What the machine is to be, if that is not to be found out
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Where it stands: machines of one zone may fail together
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Minutes the token is good for
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=525_600))]
    ttl: u32,
    /// Good for many machines, not only for one
    #[arg(long)]
    many: bool,
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { role, zone, ttl, many } = arguments;
    let wanted = JoinTokenWanted { role, zone, ttl_s: u64::from(ttl) * 60, many };
    let token: JoinToken = remote.post("/v1/cluster/tokens", &wanted).await?;
    if remote.json {
        shown::json(&token);
        return Ok(ExitCode::SUCCESS);
    }
    let whom = if many { "other machines" } else { "another machine" };
    eprintln!("run this on {whom} within {ttl} minutes; whoever has the token can join:");
    println!("bramble join {}", token.token);
    Ok(ExitCode::SUCCESS)
}
