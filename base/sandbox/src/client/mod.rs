//! The agent's side, async: asking the spawner for boxes, and talking to those that run.
//!
//! Each request to a shim is a connection of its own, so a [`Shim`] holds no state that an agent's restart would
//! lose, and any call may be dropped while it waits.

mod channel;
mod error;
mod parked;
mod shim;

pub use channel::Channel;
pub use error::{ConnectError, RequestError, RunError, StartError};
pub use parked::{Parked, Running, Then};
pub use shim::{Found, Shim};

use crate::channel::pair;
use crate::protocol::{NetworkReport, Outcome, Report, RunLimits, SpawnRequest};
use crate::shim::record::Folder;
use crate::spec::{BoxSpec, Command, ShimStart};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A connection to the spawner.
#[derive(Debug)]
pub struct SpawnerClient {
    channel: Channel,
}

impl SpawnerClient {
    pub(crate) fn new(channel: OwnedFd) -> io::Result<SpawnerClient> {
        Ok(SpawnerClient { channel: Channel::new(channel)? })
    }

    /// Starts a shim that builds the box and runs the command; returns once that runs. Dropped while it waits, the
    /// box may run all the same: it is found through its folder.
    pub async fn start(&self, start: ShimStart) -> Result<Shim, StartError> {
        let dir = start.dir.clone();
        let (answer, _reply) = self.ask(&SpawnRequest::Shim(Box::new(start))).await?;
        match answer {
            Report::Started { pid, network } => Ok(Shim::new(&dir, pid, network)),
            Report::Failed(failure) => Err(StartError::from_failure(failure)),
            other @ (Report::Built { .. } | Report::Launched | Report::Collected(_) | Report::Ended(_)) => {
                Err(unexpected(&other))
            }
        }
    }

    /// Builds a box ahead. It dies with this process.
    pub async fn park(&self, spec: &BoxSpec) -> Result<Parked, StartError> {
        let (answer, reply) = self.ask(&SpawnRequest::Park(Box::new(spec.clone()))).await?;
        match answer {
            Report::Built { network } => Ok(Parked::new(reply, network, spec.ids)),
            Report::Failed(failure) => Err(StartError::from_failure(failure)),
            other @ (Report::Started { .. } | Report::Launched | Report::Collected(_) | Report::Ended(_)) => {
                Err(unexpected(&other))
            }
        }
    }

    /// Builds a box for one program and runs that to its end; sooner done than parking first, since the box goes on by
    /// itself when it is built. Dropped while it waits, the box is killed.
    pub async fn run(
        &self,
        spec: &BoxSpec,
        command: Command,
        stdio: [OwnedFd; 3],
        limits: RunLimits,
    ) -> Result<Outcome, RunError> {
        let reply = self.request(&SpawnRequest::Park(Box::new(spec.clone()))).await?;
        Parked::new(reply, NetworkReport::default(), spec.ids).run(command, stdio, limits).await
    }

    async fn ask(&self, request: &SpawnRequest) -> Result<(Report, Channel), StartError> {
        let reply = self.request(request).await?;
        match reply.receive().await.map_err(|source| StartError::Spawner { source })? {
            Some((answer, _)) => Ok((answer, reply)),
            None => Err(StartError::Died { what: "the process that built it".to_owned() }),
        }
    }

    /// Returns the channel at which the answer comes.
    async fn request(&self, request: &SpawnRequest) -> Result<Channel, StartError> {
        let (ours, theirs) = pair().map_err(|errno| StartError::Spawner { source: errno.into() })?;
        let reply = Channel::new(ours).map_err(|source| StartError::Spawner { source })?;
        self.channel.send(request, &[theirs.as_fd()]).await.map_err(|source| StartError::Spawner { source })?;
        Ok(reply)
    }
}

fn unexpected(report: &Report) -> StartError {
    StartError::Died { what: format!("the process that built it, which said {report:?},") }
}

/// Removes the run folder of a box that is gone, and its control groups. Refuses when it lives.
pub fn forget(dir: &Path) -> io::Result<()> {
    match Folder::open(dir) {
        Ok(folder) => folder.forget(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
