//! The address itself, as people write it.

use crate::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address of one machine at a time. Its prefix is its own: machines have a route to its network already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Floating {
    ip: IpAddr,
    prefix: u8,
}

impl Floating {
    /// One that other machines of a link can be told of.
    pub fn new(ip: IpAddr, prefix: Option<u8>) -> Result<Floating, &'static str> {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix == 0 || prefix > bits {
            return Err("its prefix has more bits than it, or none");
        }
        let local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
        };
        if local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
            return Err("it is not an address of one machine for others");
        }
        Ok(Floating { ip, prefix })
    }

    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether a machine with this address and prefix is on the network it belongs to.
    pub(crate) fn is_beside(&self, ip: IpAddr, prefix: u8) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same_v4(own, other, prefix),
            (IpAddr::V6(own), IpAddr::V6(other)) => same_v6(own, other, prefix),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn same_v4(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(prefix)
}

fn same_v6(one: Ipv6Addr, other: Ipv6Addr, prefix: u8) -> bool {
    (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(prefix)
}

impl FromStr for Floating {
    type Err = Error;

    fn from_str(text: &str) -> Result<Floating, Error> {
        let refused = |why| Error::Text { text: text.to_owned(), why };
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix.parse().map_err(|_| refused("its prefix is no number of bits"))?)),
            None => (text, None),
        };
        let ip = ip.parse().map_err(|_| refused("it is not written as addresses are"))?;
        Floating::new(ip, prefix).map_err(refused)
    }
}

impl fmt::Display for Floating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Floating;

    #[test]
    fn addresses_of_one_machine_for_others_are_taken() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Floating>().ok().map(|floating| floating.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("192.0.2.80", Some("192.0.2.80/32"));
        check("192.0.2.80/24", Some("192.0.2.80/24"));
        check("2001:db8::80", Some("2001:db8::80/128"));
        for refused in ["", "x", "192.0.2.80/33", "192.0.2.80/0", "192.0.2.80/", "127.0.0.1", "224.0.0.1", "0.0.0.0"] {
            check(refused, None);
        }
        for refused in
            ["::", "::1", "fe80::1", "ff02::1", "::ffff:1.2.3.4", "2001:db8::80/129", "169.254.1.1", "1.2.3.4/-1"]
        {
            check(refused, None);
        }
    }

    #[test]
    fn a_network_is_known_by_its_prefix() {
        let check = |floating: &str, ip: &str, prefix: u8, expected: bool| {
            let floating: Floating = floating.parse().expect("an address");
            assert_eq!(
                floating.is_beside(ip.parse().expect("an address"), prefix),
                expected,
                "{floating} {ip}/{prefix}"
            );
        };
        check("10.1.2.3", "10.1.2.200", 24, true);
        check("10.1.2.3", "10.1.3.200", 24, false);
        check("10.1.2.3", "10.1.3.200", 23, true);
        check("10.1.2.3", "99.1.1.1", 0, true);
        check("2001:db8::5", "2001:db8::9", 64, true);
        check("2001:db8::5", "2001:db8:0:1::9", 64, false);
        check("10.1.2.3", "::10.1.2.4", 0, false);
    }
}
