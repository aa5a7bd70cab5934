//! [`crate::channel`] for tasks: the same packets, waiting without a thread.

use crate::channel;
use crate::sys;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Messages with file descriptors to and from another process of ours.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl Channel {
    /// The most descriptors one message takes: the kernel's bound, and one for a long message itself.
    pub const FDS_MAX: usize = channel::FDS_MAX - 1;

    /// A channel and its other end.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = channel::pair()?;
        Ok((Channel::new(ours)?, theirs))
    }

    /// `socket` as a channel; it has to be one of packets (`SOCK_SEQPACKET`).
    pub fn new(socket: OwnedFd) -> io::Result<Channel> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Channel { socket: sys::watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Sends one message. Dropped while it waits, nothing is sent.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(result) = ready.try_io(|socket| channel::send(socket, message, fds)) {
                return result;
            }
        }
    }

    /// The next message; `None` when the other side is closed. Dropped while it waits, nothing is lost.
    pub async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(result) = ready.try_io(|socket| channel::receive(socket)) {
                return result;
            }
        }
    }
}
