//! Sockets made inside the box for use outside.

use crate::build::network::{BACKLOG, DoorSockets};
use crate::channel;
use crate::protocol::{DoorAnswer, SocketKind};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sockets handed out at once: a burst of connections, and nothing against what a program may have open.
const SOCKETS_MAX: u8 = 32;

/// A socket of this network namespace, non-blocking, not connected.
pub(super) fn socket(kind: SocketKind) -> Result<OwnedFd, Errno> {
    let (family, kind) = match kind {
        SocketKind::Tcp4 => (AddressFamily::INET, SocketType::STREAM),
        SocketKind::Tcp6 => (AddressFamily::INET6, SocketType::STREAM),
        SocketKind::Udp4 => (AddressFamily::INET, SocketType::DGRAM),
    };
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// A socket that listens (or receives, for UDP) at an address of the box.
pub(super) fn listener(address: SocketAddr, kind: SocketKind) -> Result<OwnedFd, Errno> {
    let socket = socket(kind)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    match kind {
        SocketKind::Tcp4 | SocketKind::Tcp6 => listen(&socket, BACKLOG)?,
        SocketKind::Udp4 => {}
    }
    Ok(socket)
}

/// The listeners that exist since the box does.
pub(super) fn dns(sockets: &DoorSockets) -> Vec<BorrowedFd<'_>> {
    sockets.dns_udp.iter().chain(&sockets.dns_tcp).map(AsFd::as_fd).collect()
}

/// Answers with new sockets. Fewer than asked for is fine, none is not.
pub(super) fn answer_sockets(channel: BorrowedFd<'_>, kind: SocketKind, count: u8) -> std::io::Result<()> {
    let mut sockets = Vec::new();
    for _socket in 0..count.clamp(1, SOCKETS_MAX) {
        match socket(kind) {
            Ok(made) => sockets.push(made),
            Err(errno) if sockets.is_empty() => return answer(channel, Err(errno)),
            Err(_) => break,
        }
    }
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    answer(channel, Ok(&borrowed))
}

/// Answers with sockets or with why there are none. Whether that arrives is the asker's concern.
pub(super) fn answer(channel: BorrowedFd<'_>, made: Result<&[BorrowedFd<'_>], Errno>) -> std::io::Result<()> {
    match made {
        Ok(fds) => channel::send(channel, &DoorAnswer::Sockets, fds),
        Err(errno) => channel::send(channel, &DoorAnswer::Failed { errno: errno.raw_os_error() }, &[]),
    }
}
