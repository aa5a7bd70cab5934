//! `bramble cluster force-leader`.

use super::super::failure::Failure;
use crate::cluster::Home;
use crate::config;
use crate::handover::Terms;
use crate::handover::asking::{Answer, ask};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use wire::diagnostic::chain;

#[derive(Args)]
pub struct Arguments {
    /// Folder of the node's data [default: as for `up`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The machines that are lost will not come back before this one has taken over
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let data = config::data_folder(arguments.data.as_deref())
        .map_err(|error| Failure::local(error.to_string()).hint(error.hint()))?;
    let home = Home::of(&data);
    let standing = home.standing().map_err(|error| Failure::local(chain(&error)))?;
    if standing.is_none() {
        return Err(Failure::local(format!("the node of {} is in no cluster", data.display()))
            .hint("--data says which folder is the node's"));
    }
    if !arguments.yes {
        eprintln!(
            "This machine will decide alone, with what it knows. What the others agreed on without it is lost, and those\n\
             of them that are only cut off must not go on by themselves: switch them off, or be sure that they are gone."
        );
        return Err(Failure::local("nothing was changed").hint("say --yes to go on"));
    }
    home.force().map_err(|error| Failure::local(chain(&error)))?;
    // The next process of the node does it; the node goes on serving.
    match ask(&data, &Terms::default()).await {
        Ok(Answer::Serves { .. }) => {
            eprintln!("this machine leads; others that come back follow it");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Answer::Refused { reason }) => {
            Err(Failure::local(format!("take the lead: {reason}")).hint("it is tried again when the node starts"))
        }
        Err(_) => {
            eprintln!("the node does not run; it takes the lead when `bramble up` starts it");
            Ok(ExitCode::SUCCESS)
        }
    }
}
