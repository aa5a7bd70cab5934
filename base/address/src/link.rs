//! A socket on a link: frames out, and in what others of the link say about addresses.

use crate::Error;
use crate::frame::{self, Claim, Mac};
use crate::sys::{FilterStep, LinkAddress, attach_filter};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::net::IpAddr;
use std::num::NonZeroU32;

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Longer than any frame that tells of an address and is heeded.
const FRAME_BYTES_MAX: usize = 512;
/// At most so many frames in a row, so that a flood of them does not keep the holder from its times.
const FRAMES_MAX: usize = 64;

/// Of IPv6 only neighbour advertisements: a gateway's other traffic is a thousand times as much.
const ADVERTISEMENTS: [FilterStep; 6] = {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        // The header after IPv6's own is ICMPv6, and the type of that.
        (LOAD_BYTE, 0, 0, 20),
        (JUMP_IF_EQUAL, 0, 3, 58),
        (LOAD_BYTE, 0, 0, 54),
        (JUMP_IF_EQUAL, 0, 1, 136),
        (RETURN, 0, 0, 0xffff),
        (RETURN, 0, 0, 0),
    ]
};

pub(crate) struct Socket {
    fd: OwnedFd,
    to: LinkAddress,
    mac: Mac,
    ip: IpAddr,
}

impl Socket {
    /// Opens a socket on the link with this number, for frames about `ip` from `mac`.
    pub(crate) fn open(index: u32, mac: Mac, ip: IpAddr) -> Result<Socket, Error> {
        let kernel = |what| move |source| Error::Kernel { what, source };
        let kind = if ip.is_ipv4() { ARP } else { IPV6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Of no kind until it is bound: otherwise it would have frames of every link in it.
        let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
            .map_err(kernel("open a socket on the link"))?;
        if !ip.is_ipv4() {
            attach_filter(fd.as_fd(), &ADVERTISEMENTS).map_err(|error| Error::Kernel {
                what: "filter frames of the link",
                source: Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
            })?;
        }
        rustix::net::bind(&fd, &LinkAddress::new(index, kind)).map_err(kernel("listen on the link"))?;
        Ok(Socket { fd, to: LinkAddress::new(index, kind), mac, ip })
    }

    /// Whether this program may open such a socket at all.
    pub(crate) fn may_open() -> bool {
        let kind: Option<Protocol> = NonZeroU32::new(u32::from(ARP.to_be())).map(Protocol::from_raw);
        let opened = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, kind);
        !matches!(opened, Err(Errno::PERM))
    }

    /// Tells everybody that the address is here.
    pub(crate) fn announce(&self) -> Result<(), Errno> {
        frame::announcements(self.ip, self.mac).iter().try_for_each(|frame| self.send(frame))
    }

    /// Asks whether somebody has it.
    pub(crate) fn probe(&self) -> Result<(), Errno> {
        self.send(&frame::probe(self.ip, self.mac))
    }

    fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        rustix::net::sendto(&self.fd, frame, SendFlags::empty(), &self.to).map(|_| ())
    }

    /// What was said since the last time by others who claim the address.
    pub(crate) fn heard(&self) -> Result<Vec<Mac>, Errno> {
        let mut claims = Vec::new();
        let mut bytes = [0; FRAME_BYTES_MAX];
        for _ in 0..FRAMES_MAX {
            let length = match rustix::net::recv(&self.fd, &mut bytes, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error),
            };
            let read = bytes.get(..length).and_then(frame::claim);
            claims.extend(read.filter(|claim| self.is_others(claim)).map(|claim| claim.mac));
        }
        Ok(claims)
    }

    fn is_others(&self, claim: &Claim) -> bool {
        claim.ip == self.ip && claim.mac != self.mac
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
