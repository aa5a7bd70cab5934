//! Descriptors a runtime waits for.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Hands `fd` to the current runtime's poller, which tells of nothing else than what is of interest.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor for as long as it is owned, and nobody replaces it
    // inside: it is only lent out by shared reference.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| io::Error::other(error.to_string()))
}
