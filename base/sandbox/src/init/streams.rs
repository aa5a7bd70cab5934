//! Standard streams of the box's program: given, or made here, inside, so that they belong to the program's user.

use crate::failure::{During, Failure, Step};
use crate::spec::Command;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a terminal nobody looks at is as large as.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Both sides of the standard streams; the outer one is empty for given ones.
pub(super) struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    /// `None`: as standard output.
    stderr: Option<OwnedFd>,
    pub(super) outside: Vec<OwnedFd>,
}

impl Streams {
    pub(super) fn given(fds: Vec<OwnedFd>) -> Result<Streams, Failure> {
        let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|_other| Failure::plain(Step::Invalid, "not three standard streams"))?;
        Ok(Streams { stdin, stdout, stderr: Some(stderr), outside: Vec::new() })
    }

    pub(super) fn make(command: &Command) -> Result<Streams, Failure> {
        let made = if command.tty { terminal(command) } else { pipes(command) };
        made.during(Step::Program, || "its standard streams".to_owned())
    }

    /// With other outputs; returns the ones from before.
    pub(super) fn replace_outputs(
        mut self,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<(Streams, OwnedFd, OwnedFd), Failure> {
        let before = std::mem::replace(&mut self.stdout, stdout);
        let before_error = self.stderr.replace(stderr);
        let before_error = match before_error {
            Some(given) => given,
            None => {
                rustix::io::fcntl_dupfd_cloexec(&before, 0).during(Step::Program, || "standard error".to_owned())?
            }
        };
        Ok((self, before, before_error))
    }

    pub(super) fn inside(&self) -> [BorrowedFd<'_>; 3] {
        [self.stdin.as_fd(), self.stdout.as_fd(), self.stderr.as_ref().unwrap_or(&self.stdout).as_fd()]
    }
}

fn pipes(command: &Command) -> Result<Streams, Errno> {
    let pipe = || -> Result<(OwnedFd, OwnedFd), Errno> {
        let (outside, inside) = pipe_with(PipeFlags::CLOEXEC)?;
        own(&inside, command)?;
        Ok((outside, inside))
    };
    let ((stdout_outside, stdout), (stderr_outside, stderr)) = (pipe()?, pipe()?);
    let stdin = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Streams { stdin, stdout, stderr: Some(stderr), outside: vec![stdout_outside, stderr_outside] })
}

fn terminal(command: &Command) -> Result<Streams, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    let outside = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&outside)?;
    let name = ptsname(&outside, Vec::new())?;
    let stdin = rustix::fs::open(name, flags, Mode::empty())?;
    tcsetwinsize(&outside, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 })?;
    own(&stdin, command)?;
    let stdout = rustix::io::fcntl_dupfd_cloexec(&stdin, 0)?;
    Ok(Streams { stdin, stdout, stderr: None, outside: vec![outside] })
}

/// Gives a stream to the program's user. Where only one user exists it is theirs already.
fn own(stream: &OwnedFd, command: &Command) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(command.user.uid), Gid::from_raw(command.user.gid));
    match rustix::fs::fchown(stream, Some(uid), Some(gid)) {
        Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// `/dev/null` for a program that gets no input.
pub(super) fn null() -> Result<OwnedFd, Failure> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .during(Step::Program, || "/dev/null".to_owned())
}
