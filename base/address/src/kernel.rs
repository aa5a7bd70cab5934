//! Asks the kernel: which links and addresses there are; puts an address on a link and takes it away.

use crate::netlink::{self, Address, Link, Message};
use crate::{Error, Floating};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::time::Duration;

/// The kernel answers while it is asked, so this is never waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// What the kernel sends at once, at most.
const ANSWER_BYTES_MAX: usize = 32 << 10;
/// More datagrams than any machine's links and addresses fill.
const ANSWERS_MAX: usize = 4_096;

pub(crate) struct Kernel {
    socket: OwnedFd,
    sequence: u32,
}

impl Kernel {
    pub(crate) fn open() -> Result<Kernel, Error> {
        let kernel = |what| move |source| Error::Kernel { what, source };
        // Without a number, the kind that is about routes and addresses.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(kernel("ask the kernel for addresses"))?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_MAX))
            .map_err(kernel("bound the kernel's answers"))?;
        Ok(Kernel { socket, sequence: 0 })
    }

    /// Whether this program may change addresses: asks for what cannot be done, which is refused for another reason first.
    pub(crate) fn may_change(&mut self, address: Floating) -> Result<bool, Error> {
        self.sequence += 1;
        let nowhere = netlink::remove_address(self.sequence, 0, address.ip(), address.prefix());
        Ok(self.ask(&nowhere)? != Err(Errno::PERM))
    }

    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.sequence += 1;
        let mut links = Vec::new();
        self.told(&netlink::all_links(self.sequence), |message| {
            if let Message::Link(link) = message {
                links.push(link);
            }
        })?;
        Ok(links)
    }

    pub(crate) fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        self.sequence += 1;
        let mut addresses = Vec::new();
        self.told(&netlink::all_addresses(self.sequence), |message| {
            if let Message::Address(address) = message {
                addresses.push(address);
            }
        })?;
        Ok(addresses)
    }

    /// Puts an address on a link for so many seconds from now on, whether it is there already or not.
    pub(crate) fn set(&mut self, index: u32, address: Floating, seconds: u32) -> Result<(), Error> {
        self.sequence += 1;
        let message = netlink::set_address(self.sequence, index, address.ip(), address.prefix(), seconds);
        match self.ask(&message)? {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => Err(Error::MayNotChange { address }),
            Err(source) => Err(Error::Kernel { what: "put the address on its interface", source }),
        }
    }

    /// Takes an address away; one that is not there, or whose link is gone, is fine.
    pub(crate) fn remove(&mut self, index: u32, address: Floating) -> Result<(), Error> {
        self.sequence += 1;
        let message = netlink::remove_address(self.sequence, index, address.ip(), address.prefix());
        match self.ask(&message)? {
            Ok(()) | Err(Errno::ADDRNOTAVAIL | Errno::NODEV) => Ok(()),
            Err(Errno::PERM) => Err(Error::MayNotChange { address }),
            Err(source) => Err(Error::Kernel { what: "take the address off its interface", source }),
        }
    }

    /// Sends what is answered with yes or no.
    fn ask(&mut self, message: &[u8]) -> Result<Result<(), Errno>, Error> {
        let mut answer = None;
        self.exchange(message, |told| {
            match told {
                Message::Fine => answer = Some(Ok(())),
                Message::Refused(errno) => answer = Some(Err(errno)),
                Message::Done | Message::Link(_) | Message::Address(_) | Message::Other => return false,
            }
            true
        })?;
        answer.ok_or(Error::Answer { what: "change an address" })
    }

    /// Sends what is answered with a list.
    fn told(&mut self, message: &[u8], mut tell: impl FnMut(Message)) -> Result<(), Error> {
        let mut refused = None;
        self.exchange(message, |told| match told {
            Message::Done | Message::Fine => true,
            Message::Refused(errno) => {
                refused = Some(errno);
                true
            }
            message @ (Message::Link(_) | Message::Address(_) | Message::Other) => {
                tell(message);
                false
            }
        })?;
        refused.map_or(Ok(()), |source| Err(Error::Kernel { what: "list links and addresses", source }))
    }

    /// Sends a message and reads answers to it until `is_last`.
    fn exchange(&mut self, message: &[u8], mut is_last: impl FnMut(Message) -> bool) -> Result<(), Error> {
        let kernel = |what| move |source| Error::Kernel { what, source };
        rustix::net::send(&self.socket, message, SendFlags::empty()).map_err(kernel("ask the kernel"))?;
        let mut bytes = vec![0; ANSWER_BYTES_MAX];
        for _ in 0..ANSWERS_MAX {
            let length = match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(source) => return Err(Error::Kernel { what: "hear the kernel's answer", source }),
            };
            let mut rest = bytes.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let (sequence, told, after) =
                    netlink::next(rest).map_err(|_| Error::Answer { what: "read links and addresses" })?;
                // What comes late from a question that was given up.
                if sequence == self.sequence && is_last(told) {
                    return Ok(());
                }
                rest = after;
            }
        }
        Err(Error::Answer { what: "list links and addresses" })
    }
}
