//! `bramble image …`.

mod pull;

use super::failure::Failure;
use super::remote::{Remote, encoded};
use super::shown;
use clap::{Args, Subcommand};
use reqwest::Method;
use std::process::ExitCode;
use wire::api::{Image, Pruned};

#[derive(Subcommand)]
pub enum Verb {
    /// List images
    Ls,
    /// Fetch an image, or what its tag names now
    Pull(pull::Arguments),
    /// Remove an image's name
    Rm(Arguments),
    /// Remove images and layers that nothing uses
    Prune,
}

#[derive(Args)]
pub struct Arguments {
    /// The image
    reference: String,
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => ls(remote).await,
        Verb::Pull(arguments) => pull::run(remote, &arguments).await,
        Verb::Rm(arguments) => {
            remote.tell(Method::DELETE, &format!("/v1/images?reference={}", encoded(&arguments.reference))).await?;
            if remote.json {
                shown::json(&serde_json::json!({"removed": [arguments.reference]}));
            } else {
                eprintln!("removed {}", arguments.reference);
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Prune => prune(remote).await,
    }
}

async fn ls(remote: &Remote) -> Result<ExitCode, Failure> {
    let images: Vec<Image> = remote.get("/v1/images").await?;
    if remote.json {
        shown::json(&images);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = images.into_iter().map(|one| {
        let name = if one.references.is_empty() { "-".to_owned() } else { one.references.join(" ") };
        let digest = one.digest.chars().take(19).collect();
        vec![name, digest, shown::size(one.size_bytes), one.instances.to_string(), shown::age(one.created_ms)]
    });
    shown::table(&["IMAGE", "DIGEST", "SIZE", "INSTANCES", "PULLED"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn prune(remote: &Remote) -> Result<ExitCode, Failure> {
    let pruned: Pruned = remote.post("/v1/images/prune", &()).await?;
    if remote.json {
        shown::json(&pruned);
    } else {
        println!("removed {} images, {} freed", pruned.images, shown::size(pruned.freed_bytes));
    }
    Ok(ExitCode::SUCCESS)
}
