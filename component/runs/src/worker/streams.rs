//! A program's streams, as the runner has them: pipes or one end of a terminal, and bytes between them and a [`Run`].

use super::run::Run;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
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
    /// A terminal's end.
    pub(super) fn terminal(fd: OwnedFd) -> io::Result<Stream> {
        Stream::new(fd, Interest::READABLE | Interest::WRITABLE)
    }

    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Stream(sandbox::watch(fd, interest)?))
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        self.0.get_ref()
    }
}

/// Our ends of three pipes.
pub(super) struct Pipes {
    /// `None` once the program has all of its input.
    pub(super) stdin: Option<Stream>,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
}

/// Both ends: ours, and the program's in the order of its descriptors. What there is of `input` goes in at once.
pub(super) fn pipes(input: Option<&Run>) -> io::Result<(Pipes, [OwnedFd; 3])> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((stdin, ours_in), (ours_out, stdout), (ours_err, stderr)) = (pipe()?, pipe()?, pipe()?);
    let ours = Pipes {
        stdin: input.map_or(Ok(None), |run| fill(run, ours_in))?,
        stdout: Stream::new(ours_out, Interest::READABLE)?,
        stderr: Stream::new(ours_err, Interest::READABLE)?,
    };
    Ok((ours, [stdin, stdout, stderr]))
}

/// Writes what there is; the rest is for the stream that is left, if there is any. Most inputs fit a pipe as a whole.
fn fill(run: &Run, pipe: OwnedFd) -> io::Result<Option<Stream>> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let over = {
        let mut input = run.input();
        while let Some(bytes) = input.next() {
            match rustix::io::write(&pipe, bytes) {
                Ok(count) => input.wrote(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        input.is_over()
    };
    run.wrote.notify_one();
    if over { Ok(None) } else { Stream::new(pipe, Interest::WRITABLE).map(Some) }
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
