//! What the gateway is to serve: the whole of it, as one value.
//!
//! Owns the words the agent speaks to the gateway with. Plain data: the agent derives a table from control's
//! state, the gateway makes itself so.

use pki::Certificate;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use wire::spec::{Conditions, Delivery, Protocol, ProxyProtocol, Rules};

/// Everything the gateway serves. Equal tables change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    pub passages: Vec<Passage>,
    /// The ready endpoints of each service, by `stack/service`.
    pub services: BTreeMap<String, Vec<Endpoint>>,
    /// For listeners with TLS. Of several for one name the first is shown; the first of all to clients that ask for
    /// none of the names.
    pub certificates: Vec<Arc<Certificate>>,
}

impl Table {
    /// How much an instance is given at once through this port; 0 is no bound.
    pub(crate) fn in_flight_max(&self, service: &str, port: u16) -> usize {
        let routes = self.routes.iter().filter(|route| route.service == service && route.port == port);
        let bounds = routes.filter_map(|route| route.delivery.as_ref()?.in_flight_max);
        bounds.min().map_or(0, |bound| usize::try_from(bound).unwrap_or(usize::MAX))
    }
}

/// One address to listen at. Port 0 takes a free one and keeps it for as long as the listener is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub kind: ListenerKind,
    /// What connections to a published TCP port speak.
    pub speaks: Speaks,
    /// Connections begin with TLS, which ends here.
    pub tls: bool,
    /// Instances behind a published TCP port are told of their clients first.
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerKind {
    /// The shared HTTP port: the service is chosen by host and path.
    Routed,
    /// A published port: everything goes to `port` of one service.
    Service { service: String, port: u16, protocol: Protocol },
}

/// What connections to a published port speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speaks {
    /// Learned per connection from whichever side speaks first.
    #[default]
    Detect,
    Http,
    Tcp,
}

/// Which requests at a [`ListenerKind::Routed`] port a service answers, and by what rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// Lower case; `*.example.org` matches one label; empty matches every host.
    pub hosts: Vec<String>,
    /// Matches whole segments.
    pub path_prefix: String,
    /// Cut `path_prefix` off before the request goes on.
    pub strip_prefix: bool,
    /// Higher wins; equal ones go by the longer host, exact before prefix, the longer path, then more conditions.
    pub priority: i32,
    pub conditions: Conditions,
    /// The share among routes that match alike, as soon as one of them states it.
    pub weight: Option<u32>,
    pub rules: Option<Box<Rules>>,
    pub delivery: Option<Box<Delivery>>,
    /// `stack/service`.
    pub service: String,
    pub port: u16,
}

/// Hosts whose TLS is not opened at [`ListenerKind::Routed`] ports, but carried to a service as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// As those of a [`Route`].
    pub hosts: Vec<String>,
    /// `stack/service`.
    pub service: String,
    pub port: u16,
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// An instance that serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    pub instance: String,
    /// Where it runs: what is told of that machine's load counts for it.
    pub machine: String,
    /// What is near to what.
    pub zone: Option<Arc<str>>,
    /// Finishes what it has and gets nothing new.
    pub draining: bool,
}

/// What became of a table's listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The address wanted and the one listened at, which differ for port 0.
    pub listening: Vec<(SocketAddr, SocketAddr)>,
    /// The address and why it is not served, with what to do about it.
    pub failed: Vec<(SocketAddr, String)>,
    /// The names of certificates that cannot be shown, and hosts whose clients' authority cannot be used; and why.
    pub unusable: Vec<(String, String)>,
}
