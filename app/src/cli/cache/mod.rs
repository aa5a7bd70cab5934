//! `bramble cache …`.

mod purge;

use super::failure::Failure;
use super::remote::{Remote, encoded};
use super::shown;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use wire::api::{CacheListing, CacheService, CacheStats};

#[derive(Subcommand)]
pub enum Verb {
    /// List answers that are kept, those given most often first
    Ls(Arguments),
    /// Show how much is kept, and how often it was of use
    Stats,
    /// Forget answers, so that services are asked anew
    Purge(purge::Arguments),
}

#[derive(Args)]
pub struct Arguments {
    /// A host name, or a service as STACK/SERVICE
    of: Option<String>,
    /// How many to list
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls(arguments) => list(remote, &arguments).await,
        Verb::Stats => stats(remote).await,
        Verb::Purge(arguments) => purge::run(remote, &arguments).await,
    }
}

async fn list(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let of = arguments.of.as_ref().map(|of| format!("&of={}", encoded(of))).unwrap_or_default();
    let listing: CacheListing = remote.get(&format!("/v1/cache?limit={}{of}", arguments.limit)).await?;
    if remote.json {
        shown::json(&listing);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = listing.answers.into_iter().map(|one| {
        let left = if one.ttl_ms < 0 { "stale".to_owned() } else { format!("{}s", one.ttl_ms / 1_000) };
        let age = format!("{}s", one.age_ms / 1_000);
        let varies = if one.varies.is_empty() { "-".to_owned() } else { one.varies };
        let (status, hits) = (one.status.to_string(), one.hits.to_string());
        vec![one.address, one.service, status, shown::size(one.size_bytes), age, left, hits, varies]
    });
    shown::table(&["ADDRESS", "SERVICE", "STATUS", "SIZE", "AGE", "FRESH FOR", "HITS", "VARIES BY"], rows.collect());
    if listing.more {
        eprintln!("there are more: --limit");
    }
    Ok(ExitCode::SUCCESS)
}

async fn stats(remote: &Remote) -> Result<ExitCode, Failure> {
    let stats: CacheStats = remote.get("/v1/cache/stats").await?;
    if remote.json {
        shown::json(&stats);
        return Ok(ExitCode::SUCCESS);
    }
    let memory = (shown::size(stats.memory_bytes), shown::size(stats.memory_bytes_max));
    println!("memory: {} of {}, {} answers given up for others", memory.0, memory.1, stats.evicted);
    match (stats.disk_lost, stats.disk_bytes_max) {
        (true, _) => println!("disk: cannot be used; the node's log says why"),
        (false, 0) => println!("disk: none"),
        (false, max) => println!("disk: {} of {}", shown::size(stats.disk_bytes), shown::size(max)),
    }
    println!();
    let rows = stats.services.iter().map(|service| {
        let count = |result: &str| service.requests.get(result).copied().unwrap_or(0).to_string();
        let results = ["hit", "stale", "collapsed", "revalidated", "miss", "uncacheable", "bypass"].map(count);
        let served = shown::size(service.served_bytes);
        [service.service.clone()].into_iter().chain([share(service)]).chain(results).chain([served]).collect()
    });
    let header = ["SERVICE", "SERVED", "HIT", "STALE", "COLLAPSED", "VALIDATED", "MISS", "NOT KEPT", "BYPASS", "BYTES"];
    shown::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// The share of requests that the service had nothing to do with.
fn share(service: &CacheService) -> String {
    let all: u64 = service.requests.values().sum();
    let free: u64 = ["hit", "stale", "collapsed"].iter().filter_map(|result| service.requests.get(*result)).sum();
    if all == 0 { "-".to_owned() } else { format!("{:.0} %", free as f64 * 100.0 / all as f64) }
}
