//! `bramble upgrade`: the running node gives its place to another process, without a request that fails.

use super::failure::Failure;
use super::remote::Remote;
use super::shown;
use crate::config;
use crate::handover::asking::{Answer, ask};
use crate::handover::{FAILED, Terms};
use clap::Args;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct Arguments {
    /// The binary to run [default: the file the node was started from, as it is now]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Folder of the node's data [default: as for `up`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seconds the new process may take until it serves; after that the old one goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    ready: u64,
    /// Seconds that requests under way may take to end in the old process
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    requests: u64,
    /// Seconds that WebSockets and other tunnels may go on in the old process
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    drain: u64,
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let data = config::data_folder(arguments.data.as_deref())
        .map_err(|error| Failure::local(error.to_string()).hint(error.hint()))?;
    let program = arguments.binary.map(|given| {
        // The node has a working folder of its own.
        given.canonicalize().map_err(|error| Failure::local(format!("find {}: {error}", given.display())))
    });
    let terms = Terms {
        program: program.transpose()?,
        ready_ms: arguments.ready * 1_000,
        requests_ms: arguments.requests * 1_000,
        tunnels_ms: arguments.drain * 1_000,
    };
    let place = data.display();
    let answer = ask(&data, &terms).await.map_err(|error| {
        let failure = Failure::local(format!("ask the node of {place} for an upgrade: {error}"));
        failure.hint(if error.kind() == ErrorKind::PermissionDenied {
            "only the user the node runs as may do that"
        } else if error.kind() == ErrorKind::UnexpectedEof {
            "it ended meanwhile; `bramble up` starts it again"
        } else {
            "is `bramble up` running on this machine? --data says which folder is its"
        })
    })?;
    match &answer {
        Answer::Refused { reason } => Err(Failure::local(format!("the upgrade failed: {reason}"))
            .code(FAILED)
            .hint("the node goes on as it was, with every connection")),
        Answer::Serves { version, pid, previous_version, previous_pid, connections } => {
            if remote.json {
                shown::json(&answer);
            } else {
                eprintln!("bramble {version} serves as process {pid}");
                eprintln!(
                    "bramble {previous_version}, process {previous_pid}, finishes {connections} connections and ends"
                );
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
