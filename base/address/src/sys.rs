//! What rustix has no words for: the address of a link, and the filter of a socket.

#![expect(unsafe_code, reason = "a socket's address of a link and its filter are made of memory that the kernel reads")]

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use std::os::fd::{AsRawFd, BorrowedFd};

/// One kind of frames of one link.
pub(crate) struct LinkAddress(libc::sockaddr_ll);

impl LinkAddress {
    pub(crate) fn new(index: u32, protocol: u16) -> LinkAddress {
        LinkAddress(libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: protocol.to_be(),
            sll_ifindex: i32::try_from(index).unwrap_or_default(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        })
    }
}

// SAFETY: the pointer is to a whole `sockaddr_ll` with its family in it, the length is its size, and it lives as long as the
// borrow of `self` that the closure runs within.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const LENGTH: SocketAddrLen = size_of::<libc::sockaddr_ll>() as SocketAddrLen;
        f(std::ptr::from_ref(&self.0).cast(), LENGTH)
    }
}

/// One step of a filter: what to do, where to go if it is so and if not, and with what.
pub(crate) type FilterStep = (u16, u8, u8, u32);

/// Has the kernel drop what the filter gives zero bytes of, before it is copied.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, steps: &[FilterStep]) -> std::io::Result<()> {
    let mut steps: Vec<libc::sock_filter> =
        steps.iter().map(|(code, jt, jf, k)| libc::sock_filter { code: *code, jt: *jt, jf: *jf, k: *k }).collect();
    let length = u16::try_from(steps.len()).map_err(std::io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: steps.as_mut_ptr() };
    const LENGTH: libc::socklen_t = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so open; the kernel reads a `sock_fprog` of the length given and as many steps as it
    // names, all of which live until the call returns, and keeps a copy.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            LENGTH,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The socket has no filter any more.
pub(crate) fn detach_filter(socket: BorrowedFd<'_>) -> std::io::Result<()> {
    let nothing: libc::c_int = 0;
    const LENGTH: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so open; the kernel reads an `int`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            std::ptr::from_ref(&nothing).cast(),
            LENGTH,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
