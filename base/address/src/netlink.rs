//! The kernel's language for links and addresses (rtnetlink(7)), as bytes. Pure.
//!
//! Only what a floating address needs: to add one with a lifetime, to take one away, and to read which links and addresses
//! there are. Numbers are the machine's own byte order.

use crate::frame::Mac;
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Everything that was asked for was told.
    Done,
    /// What was asked was done.
    Fine,
    Refused(Errno),
    Link(Link),
    Address(Address),
    /// Nothing that was asked for.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Of Ethernet, and what looks like it.
    pub(crate) mac: Option<Mac>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
    /// It has no lifetime: a person or a DHCP client without end put it there.
    pub(crate) permanent: bool,
}

/// What would be a message is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Garbled;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;

const REQUEST: u16 = 0x001;
const ACKNOWLEDGE: u16 = 0x004;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const ETHERNET: [u8; 2] = 1u16.to_ne_bytes();

const IP: u16 = 1;
const IP_LOCAL: u16 = 2;
const LIFETIMES: u16 = 6;
const FLAGS: u16 = 8;
/// Of IPv6: it is used at once. Asking whether somebody has it takes the kernel a second, and is done here where it is needed.
const NO_DAD: u32 = 0x02;
const PERMANENT: u32 = 0x80;
/// It brings no route to its network: the machine has one, and the address comes and goes.
const NO_ROUTE: u32 = 0x200;

/// Adds an address to a link for so many seconds, or gives one that is there that time from now on.
///
/// It is told as deprecated: the machine answers at it, and begins no connection of its own from it that would break when
/// the address moves.
pub(crate) fn set_address(sequence: u32, index: u32, ip: IpAddr, prefix: u8, seconds: u32) -> Vec<u8> {
    let mut body = address_body(index, ip, prefix);
    let lifetimes = [0, seconds, 0, 0].map(u32::to_ne_bytes).concat();
    attribute(&mut body, LIFETIMES, &lifetimes);
    attribute(&mut body, FLAGS, &(NO_DAD | NO_ROUTE).to_ne_bytes());
    message(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE | REPLACE, sequence, &body)
}

pub(crate) fn remove_address(sequence: u32, index: u32, ip: IpAddr, prefix: u8) -> Vec<u8> {
    message(DELETE_ADDRESS, REQUEST | ACKNOWLEDGE, sequence, &address_body(index, ip, prefix))
}

pub(crate) fn all_links(sequence: u32) -> Vec<u8> {
    message(GET_LINK, REQUEST | DUMP, sequence, &[0; LINK_BYTES])
}

pub(crate) fn all_addresses(sequence: u32) -> Vec<u8> {
    message(GET_ADDRESS, REQUEST | DUMP, sequence, &[0; ADDRESS_BYTES])
}

/// Reads the next of several messages: its number, what it says, and the bytes after it.
pub(crate) fn next(bytes: &[u8]) -> Result<(u32, Message, &[u8]), Garbled> {
    let field = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|four| u32::from_ne_bytes(*four));
    let length = usize::try_from(field(0).ok_or(Garbled)?).map_err(|_| Garbled)?;
    let kind = u16::from_ne_bytes(*bytes.get(4..).and_then(<[u8]>::first_chunk).ok_or(Garbled)?);
    let sequence = field(8).ok_or(Garbled)?;
    let body = bytes.get(HEADER_BYTES..length).ok_or(Garbled)?;
    let rest = bytes.get(padded(length)..).unwrap_or_default();
    let told = match kind {
        ERROR => error(body)?,
        DONE => Message::Done,
        NEW_LINK => link(body)?,
        NEW_ADDRESS => address(body)?,
        _ => Message::Other,
    };
    Ok((sequence, told, rest))
}

fn error(body: &[u8]) -> Result<Message, Garbled> {
    let code = i32::from_ne_bytes(*body.first_chunk().ok_or(Garbled)?);
    match code.checked_neg() {
        Some(0) => Ok(Message::Fine),
        // What the kernel may say; rustix would not have anything else.
        Some(number @ 1..4096) => Ok(Message::Refused(Errno::from_raw_os_error(number))),
        Some(_) | None => Err(Garbled),
    }
}

fn link(body: &[u8]) -> Result<Message, Garbled> {
    let (fixed, attributes) = body.split_at_checked(LINK_BYTES).ok_or(Garbled)?;
    let ethernet = fixed[2..4] == ETHERNET;
    let index = u32::from_ne_bytes(*fixed[4..].first_chunk().ok_or(Garbled)?);
    let mut link = Link { index, name: String::new(), mac: None };
    for (kind, value) in Attributes(attributes) {
        match kind {
            LINK_ADDRESS if ethernet => link.mac = value.try_into().ok().map(Mac),
            LINK_NAME => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                link.name = String::from_utf8_lossy(&value[..end]).into_owned();
            }
            _ => {}
        }
    }
    Ok(Message::Link(link))
}

fn address(body: &[u8]) -> Result<Message, Garbled> {
    let (fixed, attributes) = body.split_at_checked(ADDRESS_BYTES).ok_or(Garbled)?;
    let index = u32::from_ne_bytes(*fixed[4..].first_chunk().ok_or(Garbled)?);
    let mut permanent = u32::from(fixed[2]) & PERMANENT != 0;
    let (mut ip, mut local) = (None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            IP => ip = read_ip(value),
            IP_LOCAL => local = read_ip(value),
            FLAGS => permanent = value.first_chunk().is_some_and(|flags| u32::from_ne_bytes(*flags) & PERMANENT != 0),
            _ => {}
        }
    }
    // Where both are there, the one is that of the other end.
    let Some(ip) = local.or(ip) else { return Ok(Message::Other) };
    Ok(Message::Address(Address { index, ip, prefix: fixed[1], permanent }))
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|four| Ipv4Addr::from(four).into());
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).into());
    v4().or_else(v6)
}

/// Kind and value, one after the other; ends at the first that is none.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        /// The rest of the kind's bits say how the value is to be read.
        const KIND: u16 = 0x3fff;
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & KIND;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(padded(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn address_body(index: u32, ip: IpAddr, prefix: u8) -> Vec<u8> {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = vec![u8::try_from(family).unwrap_or_default(), prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let value = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    attribute(&mut body, IP_LOCAL, &value);
    attribute(&mut body, IP, &value);
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(padded(body.len()), 0);
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::{Address, Errno, Garbled, Link, Message, attribute, message, next, remove_address, set_address};
    use crate::frame::Mac;
    use proptest::prelude::*;

    fn only(bytes: &[u8]) -> Message {
        let (sequence, told, rest) = next(bytes).expect("a message");
        assert_eq!((sequence, rest), (7, &[][..]));
        told
    }

    #[test]
    fn an_address_that_is_set_is_read_back() {
        for (ip, prefix) in [("192.0.2.80", 32), ("2001:db8::80", 128)] {
            let ip = ip.parse().expect("an address");
            let expected = Message::Address(Address { index: 3, ip, prefix, permanent: false });
            assert_eq!(only(&set_address(7, 3, ip, prefix, 2)), expected);
            assert_eq!(only(&remove_address(7, 3, ip, prefix)), Message::Other);
        }
    }

    #[test]
    fn links_and_answers_are_read() {
        let mut body = [0, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        attribute(&mut body, 3, b"eth0\0");
        attribute(&mut body, 99, b"whatever");
        attribute(&mut body, 1, &[2, 0, 0, 0, 0, 9]);
        let link = Link { index: 5, name: "eth0".to_owned(), mac: Some(Mac([2, 0, 0, 0, 0, 9])) };
        assert_eq!(only(&message(16, 0, 7, &body)), Message::Link(link));
        let mut tunnel = body.clone();
        tunnel[2..4].copy_from_slice(&65534u16.to_ne_bytes());
        let link = Link { index: 5, name: "eth0".to_owned(), mac: None };
        assert_eq!(only(&message(16, 0, 7, &tunnel)), Message::Link(link));
        assert_eq!(only(&message(2, 0, 7, &0i32.to_ne_bytes())), Message::Fine);
        assert_eq!(only(&message(2, 0, 7, &(-1i32).to_ne_bytes())), Message::Refused(Errno::PERM));
        assert_eq!(only(&message(3, 0, 7, &[])), Message::Done);
        for garbled in [0i32.wrapping_add(1), i32::MIN, -5000] {
            assert_eq!(next(&message(2, 0, 7, &garbled.to_ne_bytes())), Err(Garbled), "{garbled}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm_and_reading_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut rest = &bytes[..];
            while let Ok((_, _, after)) = next(rest) {
                prop_assert!(after.len() < rest.len());
                rest = after;
            }
        }

        #[test]
        fn a_message_with_wrong_bytes_is_read_without_harm(
            at in 0usize..80, to: u8, kind in 0u16..30, length in 0usize..100, more in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut bytes = set_address(7, 3, "2001:db8::80".parse().expect("an address"), 128, 2);
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(more);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(length);
            let mut rest = &bytes[..];
            while let Ok((_, _, after)) = next(rest) {
                prop_assert!(after.len() < rest.len());
                rest = after;
            }
        }
    }
}
