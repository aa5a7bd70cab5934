//! Which clients a route is for, by their address.
//!
//! Pure. An entry that cannot be read denies: a stored spec that is wrong must not open a route.

use std::net::IpAddr;

#[derive(Debug)]
pub(crate) struct Addresses {
    /// Empty is everybody.
    allow: Vec<Network>,
    /// Wins.
    deny: Vec<Network>,
    readable: bool,
}

/// The addresses that begin with the first `bits` of `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Addresses {
    /// `None` when everybody is welcome.
    pub(crate) fn new(allow: &[String], deny: &[String]) -> Option<Addresses> {
        if allow.is_empty() && deny.is_empty() {
            return None;
        }
        let read = |texts: &[String]| -> Vec<Network> { texts.iter().filter_map(|text| Network::read(text)).collect() };
        let (allowed, denied) = (read(allow), read(deny));
        let readable = allowed.len() == allow.len() && denied.len() == deny.len();
        Some(Addresses { allow: allowed, deny: denied, readable })
    }

    pub(crate) fn admit(&self, client: IpAddr) -> bool {
        // A client that came over IPv4 to a socket for both has an IPv4 address.
        let client = client.to_canonical();
        let within = |networks: &[Network]| networks.iter().any(|network| network.contains(client));
        self.readable && !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

impl Network {
    fn read(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(bits_max);
        (bits <= bits_max).then_some(Network { address, bits })
    }

    fn contains(self, client: IpAddr) -> bool {
        match (self.address, client) {
            (IpAddr::V4(network), IpAddr::V4(client)) => {
                let differing = network.to_bits() ^ client.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V6(network), IpAddr::V6(client)) => {
                let differing = network.to_bits() ^ client.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(allow: &[&str], deny: &[&str], client: &str) -> bool {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let addresses = Addresses::new(&list(allow), &list(deny));
        addresses.is_none_or(|addresses| addresses.admit(client.parse().expect("an address")))
    }

    #[test]
    fn networks_hold_their_addresses() {
        let check = |network: &str, client: &str, expected: bool| {
            assert_eq!(admits(&[network], &[], client), expected, "{network} {client}");
            assert_eq!(admits(&[], &[network], client), !expected, "{network} {client}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3/8", "10.9.9.9", true);
        check("192.168.1.7", "192.168.1.7", true);
        check("192.168.1.7", "192.168.1.8", false);
        check("192.168.1.8/31", "192.168.1.9", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("::/0", "2001:db8::1", true);
        check("2001:db8::/32", "2001:db8:1::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("::1", "::1", true);
    }

    #[test]
    fn denied_is_denied_and_what_cannot_be_read_denies() {
        assert!(!admits(&["10.0.0.0/8"], &["10.0.0.1"], "10.0.0.1"));
        assert!(admits(&["10.0.0.0/8"], &["10.0.0.1"], "10.0.0.2"));
        assert!(!admits(&[], &["10.0.0.0/33"], "1.1.1.1"));
        assert!(!admits(&["10.0.0.0/8", "nonsense"], &[], "10.0.0.1"));
        assert!(admits(&[], &[], "1.1.1.1"));
    }
}
