//! A program run beside the box's own for whoever asked: its output's end, its deadline, its answer.

use super::{launch, streams};
use crate::channel;
use crate::clock;
use crate::failure::{During, Failure, Step};
use crate::protocol::{DoorAnswer, ExecResult};
use crate::spec::Command;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How much of the output is kept: what fits a message for a person.
const OUTPUT_BYTES_MAX: usize = 4 << 10;
const READ_BYTES: usize = 4 << 10;
/// Reads in one go before others get their turn.
const READS_MAX: usize = 16;

pub(super) struct Execution {
    pid: Pid,
    /// Where the answer goes.
    channel: OwnedFd,
    /// `None` once it is closed.
    output: Option<OwnedFd>,
    tail: Vec<u8>,
    pub(super) deadline_ms: u64,
    timed_out: bool,
}

impl Execution {
    pub(super) fn start(
        confines: launch::Confines<'_>,
        command: &Command,
        timeout_ms: u64,
        channel: OwnedFd,
    ) -> Result<Execution, (Failure, OwnedFd)> {
        let start = || -> Result<(Pid, OwnedFd), Failure> {
            let null = streams::null()?;
            let (output, written) = pipe_with(PipeFlags::CLOEXEC).during(Step::Program, || "pipe".to_owned())?;
            rustix::io::ioctl_fionbio(&output, true).during(Step::Program, || "pipe".to_owned())?;
            let plain = Command { tty: false, ..command.clone() };
            let pid = launch::launch(confines, &plain, [null.as_fd(), written.as_fd(), written.as_fd()])?;
            Ok((pid, output))
        };
        match start() {
            Ok((pid, output)) => Ok(Execution {
                pid,
                channel,
                output: Some(output),
                tail: Vec::new(),
                deadline_ms: clock::monotonic_ms().saturating_add(timeout_ms),
                timed_out: false,
            }),
            Err(failure) => Err((failure, channel)),
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there, keeping the end of it.
    pub(super) fn read(&mut self) {
        let mut bytes = [0; READ_BYTES];
        for _read in 0..READS_MAX {
            let Some(output) = &self.output else { return };
            match rustix::io::read(output, &mut bytes) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    self.tail.extend_from_slice(&bytes[..count]);
                    let over = self.tail.len().saturating_sub(OUTPUT_BYTES_MAX);
                    self.tail.drain(..over);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_broken) => self.output = None,
            }
        }
    }

    /// Kills its session once its time is over. Its end is then reaped like any other.
    pub(super) fn check_deadline(&mut self) {
        if !self.timed_out && clock::monotonic_ms() >= self.deadline_ms {
            self.timed_out = true;
            self.deadline_ms = u64::MAX;
            // Gone already when it fails.
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Answers with how it ended and gives the channel back.
    pub(super) fn finish(mut self, status: ExitStatus) -> OwnedFd {
        self.read();
        let signal = status.signal().map(|signal| 128 + signal);
        let code = status.code().or(signal).unwrap_or(255);
        let result = ExecResult { code, output: self.tail, timed_out: self.timed_out };
        // An asker that is gone needs no answer.
        let _ = channel::send(&self.channel, &DoorAnswer::Executed(result), &[]);
        self.channel
    }
}
