//! `bramble cluster address`.

use super::super::failure::Failure;
use super::super::remote::{Remote, encoded};
use super::super::shown;
use clap::Subcommand;
use reqwest::Method;
use std::process::ExitCode;
use wire::api::{FloatingState, FloatingWanted};

#[derive(Subcommand)]
pub enum Verb {
    /// List the addresses that float, and which machine is the gateway
    Ls,
    /// Have an address float: one of the machines' own network that none of them has
    Add {
        /// As 192.168.1.80 or 2001:db8::80, with a prefix if it is to be more than that one address
        address: String,
        /// Where it belongs, on every machine [default: the one with an address of the same network]
        #[arg(long, value_name = "NAME")]
        interface: Option<String>,
    },
    /// Have an address float no more
    Rm {
        /// As it was added
        address: String,
    },
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => {
            let all: Vec<FloatingState> = remote.get("/v1/cluster/addresses").await?;
            if remote.json {
                shown::json(&all);
                return Ok(ExitCode::SUCCESS);
            }
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let rows = all.into_iter().map(|one| vec![one.address, or_dash(one.interface), or_dash(one.gateway)]);
            shown::table(&["ADDRESS", "INTERFACE", "GATEWAY"], rows.collect());
        }
        Verb::Add { address, interface } => {
            let path = format!("/v1/cluster/addresses/{}", encoded(&address));
            remote.put_only(&path, &FloatingWanted { interface }).await?;
            eprintln!(
                "{address} is the gateway's from now on; `bramble cluster address ls` shows which machine that is"
            );
        }
        Verb::Rm { address } => {
            remote.tell(Method::DELETE, &format!("/v1/cluster/addresses/{}", encoded(&address))).await?;
            eprintln!("{address} floats no more");
        }
    }
    Ok(ExitCode::SUCCESS)
}
