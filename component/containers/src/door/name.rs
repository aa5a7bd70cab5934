//! Names inside containers: which service a name means, seen from an instance. Pure.

use super::route::{share_network, spec};
use control::view::Snapshot;
use std::net::Ipv4Addr;
use wire::resource::Instance;
use wire::spec::Service;

/// The domain every service is under, for names that must not mean anything else.
const DOMAIN: &str = ".internal";

/// The address of the service that `name` means to `from`.
///
/// `web`, an alias, `web.stack`, `stack_web`, a container name or host name, each also with `.internal`. A service of
/// the own stack wins over one of another stack on a shared network.
pub(crate) fn resolve(snapshot: &Snapshot, from: &Instance, name: &str) -> Option<Ipv4Addr> {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let name = lower.strip_suffix(DOMAIN).unwrap_or(&lower);
    let name = name.strip_prefix("tasks.").unwrap_or(name);
    let own = spec(snapshot, from);
    let mut best: Option<(bool, &str, &str)> = None;
    for (stack, service, other) in snapshot.services() {
        if !share_network(own, other) || !means(name, stack, service, own, other) {
            continue;
        }
        let near = stack == from.stack;
        if best.is_none_or(|(best_near, _, _)| near && !best_near) {
            best = Some((near, stack, service));
        }
    }
    let (_, stack, service) = best?;
    snapshot.addresses.get(&(stack.to_owned(), service.to_owned()))?.ip.parse().ok()
}

fn means(name: &str, stack: &str, service: &str, own: &Service, other: &Service) -> bool {
    let is = |candidate: &str| candidate.eq_ignore_ascii_case(name);
    let aliased = own.networks.keys().filter_map(|network| other.networks.get(network));
    is(service)
        || is(&format!("{service}.{stack}"))
        || is(&format!("{stack}_{service}"))
        || other.container_name.as_deref().is_some_and(is)
        || other.hostname.as_deref().is_some_and(is)
        || aliased.flat_map(|attachment| &attachment.aliases).any(|alias| is(alias))
}
