//! A box built ahead, waiting for a program.

use super::channel::Channel;
use super::error::{RunError, StartError};
use crate::protocol::{Collect, Collected, NetworkReport, Order, Outcome, Placed, Report, RunLimits};
use crate::spec::{Command, Ids, SINGLE_OUTSIDE_AS_ROOT};
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::process::geteuid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is wanted when a program has ended.
#[derive(Debug, Default)]
pub struct Then {
    /// Of what it leaves ([`Running::collected`]).
    pub collect: Option<Collect>,
    /// That the box stays for another one, where it can be as new ([`Running::again`]).
    pub again: bool,
}

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

    /// Puts files where the program expects them. The content of those without text is read from where the next descriptor
    /// stands.
    pub async fn place(&self, files: &[Placed], contents: &[BorrowedFd<'_>]) -> Result<(), RunError> {
        let mut contents = contents;
        for files in files.chunks(Channel::FDS_MAX) {
            let described = files.iter().filter(|file| file.text.is_none()).count();
            let (these, rest) =
                contents.split_at_checked(described).ok_or(io::ErrorKind::InvalidInput).map_err(gone)?;
            contents = rest;
            let order = Order::Place(files.to_vec());
            self.channel.send(&order, these).await.map_err(gone)?;
        }
        Ok(())
    }

    /// Starts the program with these streams. Nothing is waited for: why it could not be started is what its end is.
    pub async fn launch(self, command: Command, stdio: [OwnedFd; 3], limits: RunLimits, then: Then) -> Running {
        let [stdin, stdout, stderr] = &stdio;
        [stdout, stderr].into_iter().for_each(|stream| self.give(stream, &command));
        let Then { collect, again } = then;
        let order = Order::Launch { command, limits, collect, again };
        let refused = self.channel.send(&order, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]).await.err();
        // The box has its own now; whoever reads the other ends waits for their closing.
        drop(stdio);
        Running { parked: self, refused, collected: Vec::new(), outcome: None }
    }

    /// Starts the program on a terminal of its own; returns the end of the terminal that a person sits at.
    pub async fn launch_on_terminal(
        self,
        command: Command,
        limits: RunLimits,
        collect: Option<Collect>,
    ) -> Result<(Running, OwnedFd), RunError> {
        let order = Order::Launch { command: Command { tty: true, ..command }, limits, collect, again: false };
        let refused = self.channel.send(&order, &[]).await.err();
        let mut running = Running { parked: self, refused, collected: Vec::new(), outcome: None };
        loop {
            match running.report().await? {
                (Report::Launched, mut fds) => {
                    let terminal = fds.pop().ok_or_else(|| gone(io::ErrorKind::InvalidData))?;
                    return Ok((running, terminal));
                }
                (Report::Built { .. }, _) => {}
                (Report::Failed(failure), _) => return Err(StartError::from_failure(failure).into()),
                (Report::Ended(_) | Report::Started { .. } | Report::Collected(_), _) => {
                    return Err(gone(io::ErrorKind::InvalidData));
                }
            }
        }
    }

    /// Runs the program to its end. Dropped while it waits, the box is killed.
    pub async fn run(self, command: Command, stdio: [OwnedFd; 3], limits: RunLimits) -> Result<Outcome, RunError> {
        self.launch(command, stdio, limits, Then::default()).await.ended().await
    }
}

fn gone(source: impl Into<io::Error>) -> RunError {
    RunError::Gone { source: source.into() }
}

/// A program in its box. Dropped, the box is killed.
#[derive(Debug)]
pub struct Running {
    parked: Parked,
    /// Why the order to start was not taken; what was said before it explains more.
    refused: Option<io::Error>,
    collected: Vec<(Collected, OwnedFd)>,
    /// Its end, which is told once.
    outcome: Option<Outcome>,
}

impl Running {
    /// Sends a signal to the program and the processes of its group.
    pub async fn signal(&self, number: i32) -> io::Result<()> {
        self.parked.channel.send(&Order::SignalGroup(number), &[]).await
    }

    /// Waits for the program's end. May be dropped and asked again.
    pub async fn ended(&mut self) -> Result<Outcome, RunError> {
        if let Some(outcome) = &self.outcome {
            return Ok(outcome.clone());
        }
        loop {
            match self.report().await? {
                // The first when the order was sent ahead.
                (Report::Built { .. } | Report::Launched, _) => {}
                (Report::Collected(files), fds) => self.collected.extend(files.into_iter().zip(fds)),
                (Report::Ended(outcome), _) => {
                    self.outcome = Some(outcome.clone());
                    return Ok(outcome);
                }
                (Report::Failed(failure), _) => return Err(StartError::from_failure(failure).into()),
                (Report::Started { .. }, _) => return Err(gone(io::ErrorKind::InvalidData)),
            }
        }
    }

    /// What the program left, once it has ended. Whatever kind of file it was, each is plain now, and nobody else has it open.
    pub fn collected(&mut self) -> Vec<(Collected, OwnedFd)> {
        std::mem::take(&mut self.collected)
    }

    /// The box for another program, once this one has ended and when nothing is left of it.
    pub fn again(self) -> Option<Parked> {
        self.outcome.is_some_and(|outcome| outcome.again).then_some(self.parked)
    }

    async fn report(&mut self) -> Result<(Report, Vec<OwnedFd>), RunError> {
        loop {
            match self.parked.channel.receive().await {
                Ok(Some(report)) => return Ok(report),
                // The order was not read any more. What was said before comes behind this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.refused.is_none() => {
                    self.refused = Some(error);
                }
                Err(error) => return Err(gone(error)),
                Ok(None) => {
                    let refused = self.refused.take();
                    return Err(gone(refused.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())));
                }
            }
        }
    }
}
