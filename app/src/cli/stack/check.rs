//! `stack check`: every error of a file in its place. Needs no server.

use super::file;
use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct Arguments {
    /// The stack file
    file: Option<PathBuf>,
}

pub(crate) fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let loaded = file::load(arguments.file.as_deref())?;
    let report = loaded.check(&loaded.name(None));
    if remote.json {
        shown::json(&report);
    } else {
        let path = loaded.path.display().to_string();
        print!("{}", stackfile::render(&report, &path, &loaded.source));
        if report.ok {
            println!("{path}: ok, {} warnings", report.warnings.len());
        }
    }
    Ok(ExitCode::from(if report.ok { 0 } else { 1 }))
}
