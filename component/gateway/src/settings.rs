//! What the gateway is told once, at its start: bounds, deadlines, and the doors it cannot make itself.
//!
//! Owns every bound of the gateway with its reason. The defaults are what is meant to run; tests shorten them.

use crate::pace;
use crate::seen::AccessSink;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use wire::spec::AccessLog;
use wire::spec::Protocol;

/// Client connections at once, if there are descriptors for them. Each costs one and a half KiB at rest, two and some in use.
const CONNECTIONS_MAX: usize = 16_384;
/// Of one client, by its address: the programs of a household or a small office. It takes sixteen clients to have all.
const CONNECTIONS_PER_CLIENT_MAX: usize = CONNECTIONS_MAX / 16;
/// Requests of one client at once, whatever carries them: with HTTP/2 a few connections hold as many as it likes.
const REQUESTS_PER_CLIENT_MAX: usize = CONNECTIONS_PER_CLIENT_MAX;
/// What a request line and its headers may take. nginx takes 4 × 8 KiB, HAProxy 16 KiB; cookies grow.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// From a request's first byte to the end of its headers: a slow line needs one, a slow-loris many.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A client connection without a request. Browsers keep theirs for minutes; nginx closes after 75 s.
const IDLE_DEADLINE: Duration = Duration::from_secs(75);
/// No byte could be moved to or from the client within a request: it is gone or stalls on purpose.
const STALL_DEADLINE: Duration = Duration::from_secs(60);
/// Connecting to an instance: one lost SYN (1 s) is survived.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// From the last byte of a request to the first of its answer. Long polls wait a minute or two; five are a hang.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);
/// How long a request waits for an endpoint: a restart of a program takes a second or a few.
const HOLD_DEADLINE: Duration = Duration::from_secs(10);
/// Requests of one service that wait at once: what a service of a thousand requests a second holds in a second.
const HELD_MAX: usize = 1_024;
/// Unused connections kept per instance and port: as many as one busy machine uses at once. What nobody needs ends by its
/// deadline; with 128, four clients with a hundred streams each had it connect anew again and again, a fifth of what they cost.
const IDLE_UPSTREAM_MAX: usize = 1_024;
/// Unused connections are closed after this. Servers close theirs after 5 s (Node) to 75 s (nginx); one that
/// did first costs a retry, never an error.
const IDLE_UPSTREAM_DEADLINE: Duration = Duration::from_secs(30);
/// The pages and images that most of a site's requests are for; the rest lies on disk.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// A larger answer would push out hundreds of others.
const CACHED_ANSWER_BYTES_MAX: usize = 8 << 20;
/// Clients of one published UDP port at once.
const FLOWS_MAX: usize = 4_096;
/// A UDP client that said and heard nothing for this long is forgotten (RFC 4787 asks for two minutes at least).
const FLOW_IDLE_DEADLINE: Duration = Duration::from_secs(120);

/// Of open files, those for clients' ends: two in three. Most connections are silent at any time, and those have no
/// instance's end; where more are not, requests wait or are shed long before.
const FILES_SHARES: u64 = 3;
const FILES_CLIENTS: u64 = 2;
/// Open files for everything else: listeners, stores, logs, what was accepted and has no place yet.
const FILES_ELSE: u64 = 512;

/// As many client connections, up to `wanted`, as this process may have open files for. It takes all it may have: the
/// usual soft limit of 1024 is for programs that use `select`.
pub(crate) fn affordable(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "cannot have as many open files as allowed");
    }
    let files = getrlimit(Resource::Nofile).current;
    let most = within(wanted, files);
    if most < wanted {
        tracing::warn!(
            files,
            connections = most,
            wanted,
            "fewer client connections than usual: raise the limit of open files"
        );
    }
    most
}

/// As many unused connections to an instance, up to `wanted`, as fit beside so many client connections: of the files that are
/// not theirs, an eighth.
pub(crate) fn kept(wanted: usize, connections: usize) -> usize {
    wanted.min((connections / 16).max(1))
}

/// Never none, however few files there are.
fn within(wanted: usize, files: Option<u64>) -> usize {
    let room = files.map_or(u64::MAX, |files| files.saturating_sub(FILES_ELSE) / FILES_SHARES * FILES_CLIENTS);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX).max(1))
}

/// A UDP socket being connected.
pub type UdpDialing<'a> = Pin<Box<dyn Future<Output = std::io::Result<UdpSocket>> + Send + 'a>>;

/// Makes UDP sockets that are connected to a port of an instance.
pub trait UdpDialer: Send + Sync {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, client: SocketAddr) -> UdpDialing<'a>;
}

/// A socket that is served at already, by the address it was wanted at.
#[derive(Debug)]
pub struct Socket {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub socket: OwnedFd,
}

/// What the gateway is started with.
#[derive(Default)]
pub struct Settings {
    /// Sockets held from before: taken over instead of bound. Those that the first table does not name are closed.
    pub inherited: Vec<Socket>,
    /// Without it, published UDP ports are refused.
    pub udp: Option<Arc<dyn UdpDialer>>,
    /// Addresses and networks of balancers in front of us, which may say for whom they speak: by the PROXY protocol, or by
    /// `x-forwarded-for` and `x-forwarded-proto`. What cannot be read trusts nobody.
    pub trusted: Vec<String>,
    /// Without it, no route has a cache.
    pub cache: Option<CacheSettings>,
    /// Where the gateway is: instances in the same zone are preferred.
    pub zone: Option<Arc<str>>,
    /// Where requests are told of. Without it there is no access log.
    pub access: Option<Arc<dyn AccessSink>>,
    /// Which of them, where a route does not say.
    pub access_log: Option<AccessLog>,
    pub limits: Limits,
    /// Threads of its own that serve clients. With none, they are served where the gateway is started.
    pub threads: usize,
}

/// Where answers of routes with a cache are kept.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    pub memory_bytes_max: usize,
    /// A folder and how much of it.
    pub disk: Option<(PathBuf, usize)>,
    /// No route may have larger ones kept.
    pub answer_bytes_max: usize,
}

impl Default for CacheSettings {
    fn default() -> Self {
        CacheSettings { memory_bytes_max: CACHE_BYTES_MAX, disk: None, answer_bytes_max: CACHED_ANSWER_BYTES_MAX }
    }
}

/// Bounds and deadlines; the reasons are with the defaults in this file.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_client_max: usize,
    pub requests_per_client_max: usize,
    pub head_bytes_max: usize,
    pub head_deadline: Duration,
    pub idle_deadline: Duration,
    pub stall_deadline: Duration,
    /// What the body of a request is waited for before its rate counts, and the least rate.
    pub body_grace: Duration,
    pub body_bytes_per_s_min: u64,
    pub connect_deadline: Duration,
    pub answer_deadline: Duration,
    pub hold_deadline: Duration,
    pub held_max: usize,
    pub idle_upstream_max: usize,
    pub idle_upstream_deadline: Duration,
    pub flows_max: usize,
    pub flow_idle_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: CONNECTIONS_MAX,
            connections_per_client_max: CONNECTIONS_PER_CLIENT_MAX,
            requests_per_client_max: REQUESTS_PER_CLIENT_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
            head_deadline: HEAD_DEADLINE,
            idle_deadline: IDLE_DEADLINE,
            stall_deadline: STALL_DEADLINE,
            body_grace: pace::GRACE,
            body_bytes_per_s_min: pace::BYTES_PER_S_MIN,
            connect_deadline: CONNECT_DEADLINE,
            answer_deadline: ANSWER_DEADLINE,
            hold_deadline: HOLD_DEADLINE,
            held_max: HELD_MAX,
            idle_upstream_max: IDLE_UPSTREAM_MAX,
            idle_upstream_deadline: IDLE_UPSTREAM_DEADLINE,
            flows_max: FLOWS_MAX,
            flow_idle_deadline: FLOW_IDLE_DEADLINE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{kept, within};

    #[test]
    fn there_are_no_more_connections_than_files() {
        for (files, expected) in
            [(None, 16_384), (Some(1_048_576), 16_384), (Some(20_000), 12_992), (Some(1_024), 340), (Some(256), 1)]
        {
            assert_eq!(within(16_384, files), expected, "{files:?}");
        }
    }

    #[test]
    fn fewer_connections_are_kept_where_there_are_fewer() {
        assert_eq!([16_384, 12_992, 340, 1].map(|connections| kept(1_024, connections)), [1_024, 812, 21, 1]);
        assert_eq!(kept(8, 16_384), 8, "as it was wanted");
    }
}
