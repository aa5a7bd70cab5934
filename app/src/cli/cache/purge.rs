//! `cache purge`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::CachePurge;

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Arguments {
    /// One address, as shop.example.org/logo.png; without a query, with every query
    url: Option<String>,
    /// All of one host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// All of one service, as STACK/SERVICE
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// All that the service marked so by Cache-Tag or Surrogate-Key
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { url, host, service, tag, all } = arguments;
    let purge =
        CachePurge { url: url.clone(), host: host.clone(), service: service.clone(), tag: tag.clone(), all: *all };
    remote.post_only("/v1/cache/purge", &purge).await?;
    if remote.json {
        shown::json(&serde_json::json!({"purged": purge}));
    } else {
        eprintln!("purged: what is asked for from now on comes from the service");
    }
    Ok(ExitCode::SUCCESS)
}
