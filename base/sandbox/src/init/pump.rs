//! Output on its way out through a meter: a run's standard output and error, up to a number of bytes.
//!
//! The bytes never enter this process (`splice`), and a slow reader holds the program up, not us.

use super::streams::Streams;
use crate::failure::{During, Failure, Step};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::os::fd::OwnedFd;

/// A pipe's own size: one call empties it.
const CHUNK_BYTES: u64 = 64 << 10;

/// One stream.
struct Pump {
    from: OwnedFd,
    to: OwnedFd,
    /// The reader has no room.
    blocked: bool,
}

/// Both streams with what they may still carry.
#[derive(Default)]
pub(super) struct Pumps {
    pumps: Vec<Pump>,
    left_bytes: u64,
    pub(super) over: bool,
}

impl Pumps {
    /// Puts itself between the program and the streams it was given.
    pub(super) fn between(streams: Streams, limit_bytes: u64) -> Result<(Streams, Pumps), Failure> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).during(Step::Program, || "pipe".to_owned());
        let ((stdout_from, stdout), (stderr_from, stderr)) = (pipe()?, pipe()?);
        for from in [&stdout_from, &stderr_from] {
            rustix::io::ioctl_fionbio(from, true).during(Step::Program, || "pipe".to_owned())?;
        }
        let (streams, given_stdout, given_stderr) = streams.replace_outputs(stdout, stderr)?;
        let pump = |from, to| Pump { from, to, blocked: false };
        let pumps = vec![pump(stdout_from, given_stdout), pump(stderr_from, given_stderr)];
        Ok((streams, Pumps { pumps, left_bytes: limit_bytes, over: false }))
    }

    pub(super) fn len(&self) -> usize {
        self.pumps.len()
    }

    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.pumps.iter().map(|pump| match pump.blocked {
            true => PollFd::new(&pump.to, PollFlags::OUT),
            false => PollFd::new(&pump.from, PollFlags::IN),
        })
    }

    /// Moves what can be moved; a stream that ended is let go of, which its reader sees.
    pub(super) fn serve(&mut self, ready: &[bool]) {
        for (index, _) in ready.iter().enumerate().rev().filter(|(_, ready)| **ready) {
            if !self.serve_one(index) {
                self.pumps.swap_remove(index);
            }
        }
    }

    fn serve_one(&mut self, index: usize) -> bool {
        let Some(pump) = self.pumps.get_mut(index) else { return false };
        if self.left_bytes == 0 && !pump.blocked {
            // Something is there that may not go out any more, unless it is the end.
            let more = rustix::io::ioctl_fionread(&pump.from).is_ok_and(|count| count > 0);
            self.over |= more;
            return more;
        }
        let chunk = usize::try_from(self.left_bytes.min(CHUNK_BYTES)).unwrap_or(0);
        pump.blocked = false;
        match splice(&pump.from, None, &pump.to, None, chunk, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Ok(0) => return false,
            Ok(count) => self.left_bytes = self.left_bytes.saturating_sub(count as u64),
            // Something was there to read, or room was there to write: the other side is what lacks.
            Err(Errno::AGAIN) => pump.blocked = rustix::io::ioctl_fionread(&pump.from).is_ok_and(|count| count > 0),
            Err(Errno::INTR) => {}
            // The reader is gone. The program learns it as it would without us: by SIGPIPE.
            Err(_) => return false,
        }
        true
    }
}
