//! Where this machine can be reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The kernel's own list, which needs no rights to be read.
const ROUTES: &str = "/proc/net/fib_trie";
/// More interfaces than peers would try.
const ADDRESSES_MAX: usize = 8;

/// What to tell peers when this machine listens at `listen`: that, or every address it has.
pub fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    let table = std::fs::read_to_string(ROUTES).unwrap_or_default();
    let mut own = local(&table);
    if own.is_empty() {
        own.push(Ipv4Addr::LOCALHOST);
    }
    own.into_iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(IpAddr::V4(ip), listen.port())).collect()
}

/// The machine's own addresses in the kernel's table of routes, those that reach nobody else left out.
fn local(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|address| !address.is_loopback() && !found.contains(address))
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{local, reachable};
    use std::net::Ipv4Addr;

    #[test]
    fn own_addresses_are_found_once_without_loopback() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 127.0.0.0/8 2 0 2\n        \
             |-- 127.0.0.1\n              /32 host LOCAL\n     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
             /32 link BROADCAST\nLocal:\n     |-- 192.0.2.2\n        /32 host LOCAL\n";
        assert_eq!(local(table), [Ipv4Addr::new(192, 0, 2, 2)]);
        assert_eq!(local(""), [] as [Ipv4Addr; 0]);
    }

    #[test]
    fn who_listens_at_one_address_is_there() {
        let listen = "127.0.0.2:7701".parse().expect("an address");
        assert_eq!(reachable(listen), [listen]);
    }
}
