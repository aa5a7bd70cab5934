//! `bramble certificate …`.

use super::failure::Failure;
use super::remote::Remote;
use super::shown;
use clap::Subcommand;
use std::process::ExitCode;
use wire::api::{AuthorityCertificate, CertificateState};

#[derive(Subcommand)]
pub enum Verb {
    /// List what the gateway shows to clients that come by TLS
    Ls,
    /// Print the authority's own certificate, for browsers and programs that are to trust it
    Authority,
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => ls(remote).await,
        Verb::Authority => {
            let authority: AuthorityCertificate = remote.get("/v1/certificates/authority").await?;
            if remote.json {
                shown::json(&authority);
            } else {
                print!("{}", authority.pem);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn ls(remote: &Remote) -> Result<ExitCode, Failure> {
    let certificates: Vec<CertificateState> = remote.get("/v1/certificates").await?;
    if remote.json {
        shown::json(&certificates);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = certificates.into_iter().map(|one| {
        let until = if one.problem.is_empty() { shown::until(one.not_after_ms) } else { one.problem };
        let trouble = match one.last_error.as_str() {
            "" => String::new(),
            why => format!("{why}; again {}", shown::until(one.retry_ms)),
        };
        vec![one.names.join(" "), one.source, one.issuer, until, trouble]
    });
    shown::table(&["NAMES", "FROM", "ISSUER", "ENDS", "LAST ERROR"], rows.collect());
    Ok(ExitCode::SUCCESS)
}
