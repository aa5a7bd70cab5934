//! A program's streams, as the runner has them: pipes or one end of a terminal, and bytes between them and a [`Run`].

use super::run::Run;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::unix::AsyncFd;
use wire::run::Channel;

/// What one read takes: all of a pipe.
const READ_BYTES: usize = 64 << 10;
/// What a terminal takes for the end of its input.
const END_OF_TRANSMISSION: &[u8] = b"\x04";

thread_local! {
    /// One for all runs of this thread, since a thousand that wait for a person would have a thousand.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One end, waited for by tasks.
pub(super) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Stream(sandbox::watch(fd)?))
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        self.0.get_ref()
    }
}

/// Both ends of three pipes: ours, and the program's in the order of its descriptors.
pub(super) struct Pipes {
    pub(super) stdin: Stream,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
}

pub(super) fn pipes() -> io::Result<(Pipes, [OwnedFd; 3])> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((stdin, ours_in), (ours_out, stdout), (ours_err, stderr)) = (pipe()?, pipe()?, pipe()?);
    let ours = Pipes { stdin: Stream::new(ours_in)?, stdout: Stream::new(ours_out)?, stderr: Stream::new(ours_err)? };
    Ok((ours, [stdin, stdout, stderr]))
}

/// How reading came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// Nobody writes any more.
    End,
    /// The program wrote more than it may.
    Over,
}

/// Reads what the program writes for as long as there is room for it. Without room the program waits, and nobody else.
pub(super) async fn drain(run: &Run, stream: &Stream, channel: Channel) -> io::Result<Drained> {
    loop {
        run.has_room().await;
        let mut ready = stream.0.readable().await?;
        let read = ready.try_io(|fd| {
            SCRATCH.with_borrow_mut(|buffer| match rustix::io::read(fd.get_ref().as_fd(), buffer.as_mut_slice()) {
                // A terminal whose other side is closed says so.
                Ok(0) | Err(Errno::IO) => Ok(Some(Drained::End)),
                Ok(count) if channel == Channel::Compiler => {
                    // It has a bound of its own, kept by its box.
                    run.push(channel, &buffer[..count]);
                    Ok(None)
                }
                Ok(count) => Ok((!run.write(channel, &buffer[..count])).then_some(Drained::Over)),
                Err(errno) => Err(io::Error::from(errno)),
            })
        });
        match read {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(drained))) => return Ok(drained),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

/// Writes what comes to the program until that ends. The end of a pipe is its closing, which dropping `stream` is.
pub(super) async fn feed(run: &Run, stream: &Stream, is_terminal: bool) -> io::Result<()> {
    loop {
        let fed = run.fed.notified();
        let (waits, over) = {
            let input = run.input();
            (input.next().is_some(), input.is_over())
        };
        if over {
            if is_terminal {
                rustix::io::write(stream.fd(), END_OF_TRANSMISSION)?;
            }
            return Ok(());
        }
        if !waits {
            fed.await;
            continue;
        }
        let mut ready = stream.0.writable().await?;
        let wrote = ready.try_io(|fd| {
            let mut input = run.input();
            let Some(bytes) = input.next() else { return Ok(()) };
            let count = rustix::io::write(fd.get_ref().as_fd(), bytes)?;
            input.wrote(count);
            Ok(())
        });
        match wrote {
            Ok(Ok(())) => run.wrote.notify_one(),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // The program reads no more; what it is sent is nothing to anybody.
            Ok(Err(_)) => {
                run.input().discard();
                run.wrote.notify_one();
                return Ok(());
            }
            Err(_would_block) => {}
        }
    }
}
