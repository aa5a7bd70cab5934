//! Newcomers at an address that is about to go elsewhere: who asks for a connection is not answered, and asks again.

use crate::sys::{FilterStep, attach_filter, detach_filter};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

/// A listening socket at which nobody begins a connection to certain addresses, for as long as this is held. A client's TCP asks
/// again after a second, and whoever has the address by then answers; those that are connected notice nothing.
#[derive(Debug)]
pub struct Shut(OwnedFd);

impl Shut {
    /// # Errors
    /// What the kernel said to the filter.
    pub fn new(socket: OwnedFd, addresses: &[IpAddr]) -> io::Result<Shut> {
        attach_filter(socket.as_fd(), &newcomers_to(addresses))?;
        Ok(Shut(socket))
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        if let Err(error) = detach_filter(self.0.as_fd()) {
            tracing::warn!(%error, "a port goes on not to answer at an address this machine had");
        }
    }
}

/// Loads a byte, loads a word, jumps if equal, takes bits, gives a number of bytes: the words of the kernel's packet filters.
const BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const BITS: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const GIVE: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// The filter of a TCP socket sees the segment; from here on are the bytes of the packet it came in.
const PACKET: u32 = libc::SKF_NET_OFF as u32;
const FLAGS_AT: u32 = 13;
const SYN: u32 = 0x02;
const SYN_AND_ACK: u32 = 0x12;
const ALL: u32 = u32::MAX;

/// Drops the first segments of connections to these addresses, and nothing else.
fn newcomers_to(addresses: &[IpAddr]) -> Vec<FilterStep> {
    let mut steps = vec![(BYTE, 0, 0, FLAGS_AT), (BITS, 0, 0, SYN_AND_ACK), (EQUAL, 1, 0, SYN), (GIVE, 0, 0, ALL)];
    for address in addresses {
        let (version, at, words) = match address {
            IpAddr::V4(ip) => (0x40, 16, vec![u32::from(*ip)]),
            IpAddr::V6(ip) => (0x60, 24, ip.octets().chunks_exact(4).map(word).collect()),
        };
        let count = u8::try_from(words.len()).unwrap_or_default();
        // Each word that is another leads to the next address.
        steps.extend([(BYTE, 0, 0, PACKET), (BITS, 0, 0, 0xf0), (EQUAL, 0, count * 2 + 1, version)]);
        for (number, word) in (0..count).zip(words) {
            steps.push((WORD, 0, 0, PACKET + at + u32::from(number) * 4));
            steps.push((EQUAL, 0, (count - number - 1) * 2 + 1, word));
        }
        steps.push((GIVE, 0, 0, 0));
    }
    steps.push((GIVE, 0, 0, ALL));
    steps
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    const SHORT: Duration = Duration::from_millis(300);

    fn connects(to: SocketAddr) -> bool {
        TcpStream::connect_timeout(&to, SHORT).is_ok()
    }

    #[test]
    fn newcomers_at_one_address_are_not_answered_and_all_others_are() {
        let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let at = |last| SocketAddr::from(([127, 0, 0, last], socket.local_addr().unwrap().port()));
        let before = TcpStream::connect(at(2)).unwrap();
        let away: Vec<IpAddr> = vec!["::1".parse().unwrap(), at(2).ip(), at(4).ip()];
        let shut = Shut::new(socket.as_fd().try_clone_to_owned().unwrap(), &away).unwrap();
        assert!(!connects(at(2)) && connects(at(3)) && !connects(at(4)) && connects(at(1)));
        let (mut there, _) = socket.accept().unwrap();
        std::io::Write::write_all(&mut there, b"!").unwrap();
        std::io::Read::read_exact(&mut &before, &mut [0]).unwrap();
        drop(shut);
        assert!(connects(at(2)) && connects(at(4)));
    }

    #[test]
    fn the_same_of_addresses_of_the_sixth_version() {
        let Ok(socket) = TcpListener::bind("[::]:0") else {
            println!("skipped: this machine has no IPv6");
            return;
        };
        let port = socket.local_addr().unwrap().port();
        let (own, other) =
            (SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)), SocketAddr::from(([127, 0, 0, 2], port)));
        let shut = Shut::new(socket.as_fd().try_clone_to_owned().unwrap(), &[own.ip()]).unwrap();
        assert!(!connects(own) && connects(other));
        drop(shut);
        let shut = Shut::new(socket.as_fd().try_clone_to_owned().unwrap(), &[other.ip()]).unwrap();
        assert!(connects(own) && !connects(other));
        drop(shut);
    }
}
