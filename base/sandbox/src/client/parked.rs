//! A box built ahead, waiting for its one program.

use super::channel::Channel;
use super::error::{RunError, StartError};
use crate::protocol::{NetworkReport, Order, Outcome, Report, RunLimits};
use crate::spec::Command;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Dropped, it is taken down.
#[derive(Debug)]
pub struct Parked {
    channel: Channel,
    network: NetworkReport,
}

impl Parked {
    pub(super) fn new(channel: Channel, network: NetworkReport) -> Parked {
        Parked { channel, network }
    }

    pub fn network(&self) -> &NetworkReport {
        &self.network
    }

    /// Runs the program to its end. Dropped while it waits, the box is killed.
    pub async fn run(self, command: Command, stdio: [OwnedFd; 3], limits: RunLimits) -> Result<Outcome, RunError> {
        let gone = |source| RunError::Gone { source };
        let [stdin, stdout, stderr] = &stdio;
        let order = Order::Launch { command, limits };
        self.channel.send(&order, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).await.map_err(gone)?;
        // The box has its own now; whoever reads the other ends waits for their closing.
        drop(stdio);
        loop {
            match self.channel.receive().await.map_err(gone)? {
                Some((Report::Launched, _)) => {}
                Some((Report::Ended(outcome), _)) => return Ok(outcome),
                Some((Report::Failed(failure), _)) => return Err(StartError::from_failure(failure).into()),
                Some((Report::Built { .. } | Report::Started { .. }, _)) => {
                    return Err(gone(io::ErrorKind::InvalidData.into()));
                }
                None => return Err(gone(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}
