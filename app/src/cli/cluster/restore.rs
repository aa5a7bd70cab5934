//! `bramble cluster restore`.

use super::super::failure::Failure;
use super::super::remote::Remote;
use super::super::shown;
use super::backup::{tell, unusable};
use crate::boot;
use crate::cluster::restore::{self, RestoreError};
use crate::config;
use clap::Args;
use control::backup::{self, BackupError, Restored};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wire::diagnostic::chain;

#[derive(Args)]
pub struct Arguments {
    /// What `bramble cluster backup` wrote; `-` for standard input
    file: PathBuf,
    /// Look whether it is whole and say what is in it; change nothing
    #[arg(long)]
    check: bool,
    /// Folder for the data of the machine that is to be the first [default: as for `up`]
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    data: Option<PathBuf>,
    /// Where other machines of the cluster will reach this one
    #[arg(long, value_name = "ADDR", default_value = config::PEERS_DEFAULT, conflicts_with = "check")]
    peers: String,
    /// What the cluster decided after the backup is lost, also where it still runs
    #[arg(long, conflicts_with = "check")]
    yes: bool,
}

pub(crate) fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let file = &arguments.file;
    if arguments.check {
        let contents = backup::check(opened(file)?).map_err(|error| unusable(file, &error))?;
        if remote.json {
            shown::json(&contents);
        } else {
            tell(file, &contents);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wrong = |error: config::ConfigError| Failure::local(error.to_string()).hint(error.hint());
    let data = config::data_folder(arguments.data.as_deref()).map_err(wrong)?;
    let listen = config::peers(&arguments.peers).map_err(wrong)?;
    if !arguments.yes {
        eprintln!(
            "The machine of {} will decide alone, with what is in the backup. What the cluster decided after it is lost, and\n\
             machines of before that still run give up what they have when they meet this one: switch them off if that is not \
             meant.",
            data.display()
        );
        return Err(Failure::local("nothing was changed").hint("say --yes to go on"));
    }
    let refused = |error: RestoreError| match &error {
        RestoreError::Backup(damaged) => unusable(file, damaged),
        RestoreError::Occupied { .. }
        | RestoreError::Record { .. }
        | RestoreError::Folder { .. }
        | RestoreError::State(_)
        | RestoreError::Enrol(_)
        | RestoreError::Home(_) => {
            Failure::local(format!("restore {}: {}", file.display(), chain(&error))).code("B0803").hint(error.hint())
        }
    };
    // The file first, whole: a folder is only made for a good one.
    let restored = Restored::read(opened(file)?).map_err(|error| unusable(file, &error))?;
    let (data, _lock) = boot::hold(&data).map_err(|error| {
        Failure::local(format!("restore {}: {}", file.display(), chain(&error))).code("B0803").hint(error.hint())
    })?;
    restore::refuse_occupied(&data).map_err(refused)?;
    let me = boot::machine(&data).map_err(|error| Failure::local(chain(&error)).code("B0803").hint(error.hint()))?;
    let contents = restore::restore(&data, &me, listen, restored).map_err(refused)?;
    if remote.json {
        shown::json(&contents);
        return Ok(ExitCode::SUCCESS);
    }
    tell(file, &contents);
    eprintln!(
        "Machine {me} has that state now: `bramble up --data {}` starts it. Machines of before are told of as down; those that\n\
         come back follow, those that are gone for good are removed with `bramble node rm`. Volumes are where they were.",
        data.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn opened(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let opened = File::open(file).map_err(|error| unusable(file, &BackupError::Io(error)))?;
    Ok(Box::new(BufReader::new(opened)))
}
