//! `gateway bans`.

use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, encoded};
use crate::cli::shown;
use clap::Subcommand;
use std::process::ExitCode;
use wire::api::{BanLifted, BanState};

#[derive(Subcommand)]
pub enum Verb {
    /// List who is banned, by which service, and for how long still
    Ls,
    /// Let a client in again before its time
    Lift {
        /// The client's address; of an IPv6 network, any address in it
        address: String,
    },
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => {
            let bans: Vec<BanState> = remote.get("/v1/gateway/bans").await?;
            if remote.json {
                shown::json(&bans);
                return Ok(ExitCode::SUCCESS);
            }
            let rows = bans.into_iter().map(|ban| vec![ban.client, ban.service, left(ban.left_ms)]);
            shown::table(&["CLIENT", "SERVICE", "LEFT"], rows.collect());
        }
        Verb::Lift { address } => {
            let path = format!("/v1/gateway/bans/{}", encoded(&address));
            let lifted: BanLifted = remote.delete(&path).await?;
            if remote.json {
                shown::json(&lifted);
            } else {
                println!("{address} is let in again");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Minutes and seconds: bans are short.
fn left(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000);
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}
