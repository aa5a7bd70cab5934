//! What machines of a link tell each other about who has an address: ARP (RFC 826, 5227) and neighbour discovery (RFC 4861),
//! as whole Ethernet frames. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of an interface on its link.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Somebody's word that an address is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) ip: IpAddr,
    pub(crate) mac: Mac,
}

const EVERYBODY: Mac = Mac([0xff; 6]);
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ETHERNET_BYTES: usize = 14;
/// Ethernet and IPv4: the addresses of the rest of an ARP packet have these sizes.
const ARP_BEGINS: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const IPV6_BYTES: usize = 40;
const ICMPV6: u8 = 58;
/// Nothing that a router has passed on has it, so that who says so is on the link.
const HOPS: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Whoever knows another interface for the address replaces it.
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_ADDRESS: u8 = 2;
/// Type, code, checksum, flags, target.
const ADVERTISEMENT_BYTES: usize = 24;

/// Frames that tell everybody on the link that `ip` is at `mac` now.
///
/// For IPv4 both forms of gratuitous ARP: some systems heed one, some the other.
pub(crate) fn announcements(ip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match ip {
        // In a reply that is gratuitous, Linux wants the target to be the sender; else it is an answer to nothing.
        IpAddr::V4(ip) => {
            vec![arp(ARP_REQUEST, mac, (mac, ip), (Mac([0; 6]), ip)), arp(ARP_REPLY, mac, (mac, ip), (mac, ip))]
        }
        IpAddr::V6(ip) => vec![advertisement(ip, mac)],
    }
}

/// A frame that whoever has `ip` answers, and that says nothing about who asks.
pub(crate) fn probe(ip: IpAddr, mac: Mac) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(ARP_REQUEST, mac, (mac, Ipv4Addr::UNSPECIFIED), (Mac([0; 6]), ip)),
        IpAddr::V6(ip) => solicitation(ip, mac),
    }
}

/// Reads who says that which address is theirs. Anything else is `None`.
pub(crate) fn claim(frame: &[u8]) -> Option<Claim> {
    let (head, rest) = frame.split_at_checked(ETHERNET_BYTES)?;
    match u16::from_be_bytes(*head.last_chunk()?) {
        ARP => arp_claim(rest),
        IPV6 => advertised(rest),
        _ => None,
    }
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes()].concat()
}

fn arp(operation: u8, from: Mac, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(EVERYBODY, from, ARP);
    frame.extend(ARP_BEGINS);
    frame.extend([0, operation]);
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
    frame
}

fn arp_claim(packet: &[u8]) -> Option<Claim> {
    let (begins, rest) = packet.split_first_chunk::<6>()?;
    let (operation, rest) = rest.split_first_chunk::<2>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (ip, _) = rest.split_first_chunk::<4>()?;
    let known = *begins == ARP_BEGINS && matches!(operation, [0, ARP_REQUEST | ARP_REPLY]);
    let ip = Ipv4Addr::from(*ip);
    (known && !ip.is_unspecified()).then_some(Claim { ip: ip.into(), mac: Mac(*mac) })
}

fn advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    body.extend(ip.octets());
    body.extend([TARGET_LINK_ADDRESS, 1]);
    body.extend(mac.0);
    icmpv6(mac, ip, everybody, body)
}

fn solicitation(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let [.., a, b, c] = ip.octets();
    let low = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    // Those whose address ends so, and few others.
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low(0xff, a), low(b, c));
    let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    body.extend(ip.octets());
    icmpv6(mac, Ipv6Addr::UNSPECIFIED, group, body)
}

fn icmpv6(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(from, to, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let [.., a, b, c, d] = to.octets();
    let mut frame = ethernet(Mac([0x33, 0x33, a, b, c, d]), mac, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, HOPS]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(body);
    frame
}

fn advertised(packet: &[u8]) -> Option<Claim> {
    let (head, body) = packet.split_at_checked(IPV6_BYTES)?;
    let (length, rest) = head.get(4..)?.split_first_chunk::<2>()?;
    let body = body.get(..usize::from(u16::from_be_bytes(*length)))?;
    let (next, rest) = rest.split_first_chunk::<2>()?;
    let (from, to) = rest.split_first_chunk::<16>()?;
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to.first_chunk::<16>()?));
    let (fixed, mut options) = body.split_at_checked(ADVERTISEMENT_BYTES)?;
    if *next != [ICMPV6, HOPS] || head[0] >> 4 != 6 || fixed[..2] != [ADVERTISEMENT, 0] || checksum(from, to, body) != 0
    {
        return None;
    }
    let ip = Ipv6Addr::from(*fixed.last_chunk::<16>()?);
    // Each is at least eight bytes long, so this ends.
    while let [kind, eights, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(eights) * 8)?;
        if kind == TARGET_LINK_ADDRESS {
            let mac = option.get(2..)?.first_chunk::<6>()?;
            return Some(Claim { ip: ip.into(), mac: Mac(*mac) });
        }
        if rest.len() == options.len() {
            return None;
        }
        options = rest;
    }
    None
}

/// Of the body and what stands for its head (RFC 4443): with the right sum in it, zero.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let pairs = head.chunks(2).chain(body.chunks(2));
    let sum: u64 = pairs.map(|pair| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from)).sum();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Claim, Mac, announcements, claim, probe};
    use proptest::prelude::*;
    use std::net::IpAddr;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_is_announced_is_read_as_a_claim_and_a_probe_is_none() {
        for ip in [ip("192.0.2.80"), ip("2001:db8::80")] {
            for frame in announcements(ip, MAC) {
                assert_eq!(claim(&frame), Some(Claim { ip, mac: MAC }));
            }
            assert_eq!(claim(&probe(ip, MAC)), None);
        }
    }

    #[test]
    fn frames_are_those_of_the_standards() {
        let hex = |frame: &[u8]| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let arps = announcements(ip("192.0.2.80"), MAC);
        assert_eq!(
            hex(&arps[0]),
            "ffffffffffff020000000007080600010800060400010200000000\
             07c0000250000000000000c0000250"
        );
        assert_eq!(
            hex(&arps[1]),
            "ffffffffffff020000000007080600010800060400020200000000\
             07c0000250020000000007c0000250"
        );
        let advertised = &announcements(ip("2001:db8::80"), MAC)[0];
        // As tcpdump has it: hop limit 255, override, target link-layer option.
        assert_eq!(
            hex(advertised),
            "33330000000102000000000786dd6000000000203aff\
             20010db8000000000000000000000080ff020000000000000000000000000001\
             8800f8262000000020010db80000000000000000000000800201020000000007"
        );
    }

    #[test]
    fn who_is_not_on_the_link_claims_nothing() {
        let mut passed_on = announcements(ip("2001:db8::80"), MAC).remove(0);
        passed_on[21] = 254;
        assert_eq!(claim(&passed_on), None);
        let mut broken = announcements(ip("2001:db8::80"), MAC).remove(0);
        broken[60] ^= 1;
        assert_eq!(claim(&broken), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = claim(&bytes);
        }

        #[test]
        fn a_frame_with_wrong_bytes_or_cut_off_is_read_without_harm(
            v6: bool, at in 0usize..90, to: u8, length in 0usize..100, options in proptest::collection::vec(any::<u8>(), 0..40)
        ) {
            let mut frame = announcements(ip(if v6 { "2001:db8::80" } else { "192.0.2.80" }), MAC).remove(0);
            frame.extend(options);
            if let Some(byte) = frame.get_mut(at) {
                *byte = to;
            }
            frame.truncate(length);
            if let Some(claim) = claim(&frame) {
                prop_assert!(claim.ip.is_ipv6() == v6 || at < 14);
            }
        }
    }
}
