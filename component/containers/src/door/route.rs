//! Where a connection out of a container may go. Pure: (snapshot, who, where to) → decision.

use control::view::Snapshot;
use std::net::{Ipv4Addr, SocketAddrV4};
use wire::resource::Instance;
use wire::spec::Service;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Service {
        stack: String,
        service: String,
    },
    /// Out of the cluster, from this machine.
    Outside,
    Refused(String),
}

/// Decides for a connection to `to`. `name` is what the container looked up to get the address, if it did.
pub(crate) fn route(snapshot: &Snapshot, from: &Instance, to: SocketAddrV4, name: Option<&str>) -> Route {
    let ip = to.ip().to_string();
    let own = spec(snapshot, from);
    if let Some(((stack, service), _)) = snapshot.addresses.iter().find(|(_, address)| address.ip == ip) {
        let other = snapshot.service(stack, service);
        return match other {
            Some(other) if share_network(own, other) => {
                Route::Service { stack: stack.clone(), service: service.clone() }
            }
            Some(_) => Route::Refused(format!("{stack}/{service} is on none of this service's networks")),
            None => Route::Refused(format!("{stack}/{service} is not wanted any more")),
        };
    }
    if may_leave(&own.egress, to, name) {
        return Route::Outside;
    }
    let wanted = name.map_or_else(|| to.ip().to_string(), str::to_owned);
    let private = if is_private(*to.ip()) { ", a private address, which has to be named as a network" } else { "" };
    Route::Refused(format!("egress to {wanted}:{}{private} is not declared under x-bramble.egress", to.port()))
}

/// An instance's service as it is wanted now; while it is being removed, as the instance was made.
pub(crate) fn spec<'a>(snapshot: &'a Snapshot, from: &'a Instance) -> &'a Service {
    snapshot.service(&from.stack, &from.service).unwrap_or(&from.spec)
}

pub(crate) fn share_network(one: &Service, other: &Service) -> bool {
    one.networks.keys().any(|network| other.networks.contains_key(network))
}

/// Whether an egress rule covers the destination. `*` and `*.name` never cover private addresses: a home network has
/// to be meant to be reached.
pub(crate) fn may_leave(rules: &[String], to: SocketAddrV4, name: Option<&str>) -> bool {
    rules.iter().any(|rule| {
        let (host, port) = split_port(rule);
        if port.is_some_and(|port| port != to.port()) {
            return false;
        }
        let private = is_private(*to.ip());
        if host == "*" {
            return !private;
        }
        if let Some((network, bits)) = network(host) {
            return contains(network, bits, *to.ip());
        }
        name.is_some_and(|name| covers(host, name) && (!private || !host.starts_with("*.")))
    })
}

/// Whether any rule lets a name be looked up.
pub(crate) fn may_look_up(rules: &[String], name: &str) -> bool {
    rules.iter().any(|rule| {
        let (host, _) = split_port(rule);
        // Whoever may reach networks by number has to be able to find the numbers.
        host == "*" || network(host).is_some() || covers(host, name)
    })
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => name.len() > domain.len() + 1 && ends_with_label(name, domain),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

fn ends_with_label(name: &str, domain: &str) -> bool {
    let Some(start) = name.len().checked_sub(domain.len()) else { return false };
    name.is_char_boundary(start) && name[start..].eq_ignore_ascii_case(domain) && name[..start].ends_with('.')
}

fn split_port(rule: &str) -> (&str, Option<u16>) {
    match rule.rsplit_once(':') {
        Some((host, port)) => port.parse().map_or((rule, None), |port| (host, Some(port))),
        None => (rule, None),
    }
}

fn network(text: &str) -> Option<(Ipv4Addr, u32)> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    Some((address.parse().ok()?, bits.parse().ok().filter(|bits| *bits <= 32)?))
}

fn contains(network: Ipv4Addr, bits: u32, address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

/// Everything that is not the public Internet.
fn is_private(address: Ipv4Addr) -> bool {
    const SPECIAL: [(Ipv4Addr, u32); 5] = [
        // This network; shared by carriers; IETF protocols; benchmarks (our own services); reserved.
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(240, 0, 0, 0), 4),
    ];
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || SPECIAL.iter().any(|(network, bits)| contains(*network, *bits, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &[&str], to: &str, name: Option<&str>, allowed: bool) {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let to = to.parse().expect("an address and a port");
        assert_eq!(may_leave(&rules, to, name), allowed, "{rules:?} {to} {name:?}");
    }

    #[test]
    fn nothing_leaves_undeclared() {
        check(&[], "93.184.216.34:443", Some("example.org"), false);
        check(&["example.com"], "93.184.216.34:443", Some("example.org"), false);
        check(&["example.org:80"], "93.184.216.34:443", Some("example.org"), false);
        check(&["*.example.org"], "93.184.216.34:443", Some("evil-example.org"), false);
        check(&["*.example.org"], "93.184.216.34:443", Some("example.org"), false);
    }

    #[test]
    fn what_is_declared_leaves() {
        check(&["*"], "93.184.216.34:443", None, true);
        check(&["example.org"], "93.184.216.34:443", Some("EXAMPLE.org"), true);
        check(&["*.example.org:443"], "93.184.216.34:443", Some("a.b.example.org"), true);
        check(&["93.184.0.0/16:443"], "93.184.216.34:443", None, true);
    }

    #[test]
    fn private_addresses_have_to_be_meant() {
        for private in ["192.168.1.1:80", "10.0.0.1:80", "169.254.169.254:80", "127.0.0.1:80", "198.18.0.5:80"] {
            check(&["*"], private, None, false);
            check(&["*.example.org"], private, Some("rebind.example.org"), false);
        }
        check(&["192.168.1.0/24"], "192.168.1.1:80", None, true);
        check(&["nas.home"], "192.168.1.1:80", Some("nas.home"), true);
    }
}
