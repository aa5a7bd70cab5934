//! What the name in a client's hello leads to, before there is any request: a passage to instances that end TLS
//! themselves, or a door that asks for the client's certificate.
//!
//! Owns the look-up by name, made anew with every table. Hosts that have neither cost one look. Does not know HTTP.

use crate::caller::Door;
use crate::table::{Route, Table};
use crate::tls::Tls;
use crate::upstream::Upstream;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use wire::spec::ProxyProtocol;

/// Where a connection is carried unopened.
#[derive(Clone)]
pub(crate) struct Passage {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

/// Values by host: exact, and by the part after `*.`.
struct ByHost<T> {
    exact: HashMap<String, T>,
    wildcard: HashMap<String, T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        ByHost { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> ByHost<T> {
    /// The first for a host is the one that counts.
    fn add(&mut self, host: &str, value: T) {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_insert(value),
            None => self.exact.entry(host).or_insert(value),
        };
    }

    fn find(&self, host: &str) -> Option<&T> {
        let wildcard = || self.wildcard.get(host.split_once('.').filter(|(label, _)| !label.is_empty())?.1);
        self.exact.get(host).or_else(wildcard)
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }
}

/// Everything that depends on the name.
#[derive(Default)]
pub(crate) struct Named {
    passages: ByHost<Passage>,
    doors: ByHost<Arc<Door>>,
    /// For names that no other door is for.
    any: Option<Arc<Door>>,
    /// By their authorities: kept from table to table, so that clients' sessions are.
    made: HashMap<BTreeSet<String>, Arc<Door>>,
}

impl Named {
    /// What `table` asks for. `before` is what there was; `upstream` says what stands for a service's port. Returns the
    /// hosts whose authority cannot be used too, with the reason: nobody gets in there.
    pub(crate) fn new(
        table: &Table,
        before: &Named,
        tls: &Tls,
        upstream: impl Fn(&str, u16) -> Arc<Upstream>,
    ) -> (Named, Vec<(String, String)>) {
        let (mut named, mut failed) = (Named::default(), Vec::new());
        for passage in &table.passages {
            let upstream = upstream(&passage.service, passage.port);
            for host in &passage.hosts {
                let proxy_protocol = passage.proxy_protocol;
                named.passages.add(host, Passage { upstream: Arc::clone(&upstream), proxy_protocol });
            }
        }
        let asking: Vec<(&Route, &str)> = table.routes.iter().filter_map(|one| Some((one, authority(one)?))).collect();
        let hosts: BTreeSet<&str> =
            asking.iter().flat_map(|(route, _)| route.hosts.iter().map(String::as_str)).collect();
        let for_all = asking.iter().any(|(route, _)| route.hosts.is_empty()).then_some("");
        for host in hosts.into_iter().chain(for_all) {
            // Whichever route a request at this host takes: its authority is among them.
            let serves =
                |route: &Route| route.hosts.is_empty() || route.hosts.iter().any(|one| pki::matches(one, host));
            let relevant = asking.iter().filter(|(route, _)| serves(route));
            let authorities: BTreeSet<String> = relevant.map(|(_, authority)| (*authority).to_owned()).collect();
            let known = named.made.get(&authorities).or_else(|| before.made.get(&authorities)).cloned();
            let door = match known.map_or_else(|| Door::new(&authorities, tls).map(Arc::new), Ok) {
                Ok(door) => door,
                Err(why) => {
                    failed.push((if host.is_empty() { "*" } else { host }.to_owned(), why));
                    continue;
                }
            };
            if host.is_empty() {
                named.any = Some(Arc::clone(&door));
            } else {
                named.doors.add(host, Arc::clone(&door));
            }
            named.made.insert(authorities, door);
        }
        (named, failed)
    }

    /// Whether a connection's name has to be read before TLS begins.
    pub(crate) fn has_passages(&self) -> bool {
        !self.passages.is_empty()
    }

    pub(crate) fn passage(&self, host: &str) -> Option<&Passage> {
        self.passages.find(host)
    }

    pub(crate) fn has_doors(&self) -> bool {
        self.any.is_some() || !self.doors.is_empty()
    }

    /// The door for a client that asks for `host`; `None` is the usual one.
    pub(crate) fn door(&self, host: Option<&str>) -> Option<&Arc<Door>> {
        let named = host.and_then(|host| self.doors.find(&host.to_ascii_lowercase()));
        named.or(self.any.as_ref())
    }
}

fn authority(route: &Route) -> Option<&str> {
    Some(&route.rules.as_ref()?.client_certificates.as_ref()?.authority)
}
