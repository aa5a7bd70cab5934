//! Messages with file descriptors between our processes: one JSON value per `SOCK_SEQPACKET` packet.
//!
//! Promises: a message arrives whole or not at all; nothing longer than [`MESSAGE_BYTES_MAX`] is read. A message too
//! long for a packet travels in a memfd. Knows no message.

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What goes in a packet: all but the largest messages, in a single page, since a fresh process pays for each it touches.
const PACKET_BYTES_MAX: usize = 4 << 10;
/// A box's files (configs and secrets, Docker allows 500 KB each) in hex, with room for a hundred of them.
const MESSAGE_BYTES_MAX: u64 = 128 << 20;
/// The kernel's own bound (`SCM_MAX_FD`) on descriptors in one message.
pub(crate) const FDS_MAX: usize = 253;
const INLINE: u8 = 0;
const IN_MEMFD: u8 = 1;

pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message. Waits only as the socket itself does: a non-blocking one answers `WouldBlock`.
pub(crate) fn send<T: Serialize>(channel: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut packet = vec![INLINE];
    serde_json::to_writer(&mut packet, message)?;
    if packet.len() <= PACKET_BYTES_MAX {
        return send_packet(channel, &packet, fds);
    }
    let mut file = File::from(memfd_create("message", MemfdFlags::CLOEXEC)?);
    file.write_all(&packet[1..])?;
    let mut all = vec![file.as_fd()];
    all.extend_from_slice(fds);
    send_packet(channel, &[IN_MEMFD], &all)
}

fn send_packet(channel: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many file descriptors for one message"));
    }
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(fds).size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let packet = [IoSlice::new(packet)];
    rustix::io::retry_on_intr(|| sendmsg(&channel, &packet, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message with its descriptors; `None` when the other side is closed.
pub(crate) fn receive<T: DeserializeOwned>(channel: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&channel, &mut [IoSliceMut::new(&mut packet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    match packet.get(..received.bytes).unwrap_or_default() {
        [] => Ok(None),
        [INLINE, json @ ..] => Ok(Some((serde_json::from_slice(json)?, fds))),
        [IN_MEMFD] if !fds.is_empty() => Ok(Some((read_memfd(fds.remove(0))?, fds))),
        [_, ..] => Err(io::Error::new(io::ErrorKind::InvalidData, "a packet of no known kind")),
    }
}

fn read_memfd<T: DeserializeOwned>(memfd: OwnedFd) -> io::Result<T> {
    let size = u64::try_from(fstat(&memfd)?.st_size).unwrap_or(u64::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message over its size limit"));
    }
    let mut file = File::from(memfd);
    file.rewind()?;
    let mut json = Vec::new();
    file.take(MESSAGE_BYTES_MAX).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
