//! A box built ahead, waiting for its one program.

use super::channel::Channel;
use super::error::{RunError, StartError};
use crate::protocol::{NetworkReport, Order, Outcome, Report, RunLimits};
use crate::spec::{Command, Ids, SINGLE_OUTSIDE_AS_ROOT};
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::process::geteuid;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Dropped, it is taken down.
#[derive(Debug)]
pub struct Parked {
    channel: Channel,
    network: NetworkReport,
    ids: Ids,
}

impl Parked {
    pub(super) fn new(channel: Channel, network: NetworkReport, ids: Ids) -> Parked {
        Parked { channel, network, ids }
    }

    pub fn network(&self) -> &NetworkReport {
        &self.network
    }

    /// Makes a pipe the program's own, so that it can open it by name, as in `echo >/dev/stderr`. Only root can, and
    /// only then are the program's user and this one not the same.
    fn give(&self, stream: &OwnedFd, command: &Command) {
        if !geteuid().is_root() {
            return;
        }
        let (uid, gid) = match self.ids {
            Ids::Single => (SINGLE_OUTSIDE_AS_ROOT, SINGLE_OUTSIDE_AS_ROOT),
            Ids::Range { outside_start, .. } => {
                (outside_start.saturating_add(command.user.uid), outside_start.saturating_add(command.user.gid))
            }
        };
        let pipe = fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if pipe {
            // Without, opening by name fails, and nothing else.
            let _ = fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }

    /// Runs the program to its end. Dropped while it waits, the box is killed.
    pub async fn run(self, command: Command, stdio: [OwnedFd; 3], limits: RunLimits) -> Result<Outcome, RunError> {
        let gone = |source| RunError::Gone { source };
        let [stdin, stdout, stderr] = &stdio;
        [stdout, stderr].into_iter().for_each(|stream| self.give(stream, &command));
        let order = Order::Launch { command, limits };
        let mut refused = self.channel.send(&order, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).await.err();
        // The box has its own now; whoever reads the other ends waits for their closing.
        drop(stdio);
        loop {
            match self.channel.receive().await {
                // The first when the order was sent ahead.
                Ok(Some((Report::Built { .. } | Report::Launched, _))) => {}
                Ok(Some((Report::Ended(outcome), _))) => return Ok(outcome),
                Ok(Some((Report::Failed(failure), _))) => return Err(StartError::from_failure(failure).into()),
                Ok(Some((Report::Started { .. }, _))) => return Err(gone(io::ErrorKind::InvalidData.into())),
                // The order was not read any more. What was said before comes behind this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && refused.is_none() => {
                    refused = Some(error);
                }
                Err(error) => return Err(gone(error)),
                Ok(None) => return Err(gone(refused.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
            }
        }
    }
}
