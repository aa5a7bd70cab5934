//! Which requests of the gateway a service answers, and what is done with them on the way.
//!
//! Every later field has a default that is left out when written, so that a spec stored before it reads, and equals
//! what the same file makes today.

use super::Delivery;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests by host name, path, method and headers that the service answers through the gateway's HTTP port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Host names, lower case; `*.example.org` matches one label; empty matches every host.
    pub hosts: Vec<String>,
    /// Starts with `/`; matches whole segments.
    pub path_prefix: String,
    /// The instances' port.
    pub port: u16,
    /// Cut `path_prefix` off before the request goes on.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Higher wins; equal ones go by the longer host, exact before prefix, the longer path, then more conditions.
    #[serde(default)]
    pub priority: i32,
    /// Whether the gateway serves it with TLS only.
    #[serde(default)]
    pub tls: bool,
    /// TLS is not opened, but carried to the instances as it is: nothing but the hosts counts then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passthrough: bool,
    /// Instances that end TLS themselves are told of their clients first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What a request must have besides.
    #[serde(default, skip_serializing_if = "Conditions::is_none")]
    pub conditions: Conditions,
    /// The share of the requests among routes that match alike, one of which states a weight; there, `None` counts
    /// as 1. Where none does, the first by name answers all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Box<Rules>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Box<Delivery>>,
}

/// For fields that older specs lack.
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

/// What a request must have besides host and path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// The path itself and nothing below it.
    pub exact: bool,
    /// Upper case; empty matches every method.
    pub methods: Vec<String>,
    /// Names in lower case, with the value each must have; an empty one asks for presence.
    pub headers: BTreeMap<String, String>,
    /// It came without TLS.
    pub plain: bool,
}

impl Conditions {
    pub fn is_none(&self) -> bool {
        *self == Conditions::default()
    }
}

/// What is done with the requests of a route besides passing them on. The order: ban, address, redirect, certificate, preflight,
/// maintenance, rate, password, size, leave of another service; then copies, path and headers; then, on the way back,
/// pages, headers and coding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Put before the path, after a prefix was cut off. Starts with `/`, does not end with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// Takes the path's place; the query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Names in lower case; an empty value removes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
    /// Addresses and networks of clients; empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Wins over `allow`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<u64>,
    /// From the last byte of a request to the head of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_deadline_ms: Option<u64>,
    /// What is answered instead of passing requests on; empty for the gateway's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_auth: Option<ForwardAuth>,
    /// What clients see instead of an answer of this status: `404`, or `5xx` for all of a class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub error_pages: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Of a request's headers, names and values together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ban: Option<Ban>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

impl Rules {
    /// Whether a rule may keep people out.
    pub fn guards(&self) -> bool {
        !self.allow.is_empty()
            || !self.deny.is_empty()
            || self.basic_auth.is_some()
            || self.rate_limit.is_some()
            || self.maintenance.is_some()
            || self.client_certificates.is_some()
            || self.forward_auth.is_some()
            || self.ban.is_some()
    }

    /// The other services that requests of the route concern.
    pub fn asides(&self) -> impl Iterator<Item = &Aside> {
        let asked = self.forward_auth.as_ref().map(|auth| &auth.to);
        asked.into_iter().chain(self.mirror.as_ref().map(|mirror| &mirror.to))
    }

    pub fn asides_mut(&mut self) -> impl Iterator<Item = &mut Aside> {
        let asked = self.forward_auth.as_mut().map(|auth| &mut auth.to);
        asked.into_iter().chain(self.mirror.as_mut().map(|mirror| &mut mirror.to))
    }
}

/// How instances are told of their clients before they hear from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    V2,
}

/// Whose certificates clients show in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientCertificates {
    /// PEM: who signs them.
    pub authority: String,
    /// Clients without are let through too; the instance is told of those that have one.
    pub optional: bool,
}

/// What browsers are told of a host (RFC 6797).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Hsts {
    pub max_age_s: u32,
    pub include_subdomains: bool,
    pub preload: bool,
}

/// Where a browser is sent instead.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Redirect {
    /// May hold `{host}` (without port) and `{path}` (with the query).
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Requests that came with TLS are not redirected: that is where the others are sent.
    #[serde(default)]
    pub plain_only: bool,
}

/// Names and passwords (RFC 7617).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BasicAuth {
    /// Names with hashes as `htpasswd` writes them: bcrypt, apr1 or SHA1.
    pub users: BTreeMap<String, String>,
    pub realm: String,
    /// The instance does not see the password.
    #[serde(default)]
    pub hide: bool,
}

/// How many requests are let through.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RateLimit {
    pub requests: u32,
    pub period_ms: u64,
    /// How many may come at once.
    pub burst: u32,
    #[serde(default)]
    pub by: RateKey,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateKey {
    #[default]
    Address,
    /// By the value of this header, named in lower case.
    Header(String),
    Route,
}

/// Which pages of other origins may read the answers (the Fetch standard).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Cors {
    /// `https://shop.example.org`; `*` alone is every origin.
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub credentials: bool,
    pub max_age_s: Option<u32>,
}

/// Where requests of a route go besides its own service.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Aside {
    /// A service of the same stack, or `http://` with a host that is none.
    pub service: String,
    pub port: u16,
}

impl Aside {
    /// The host, where it is no service.
    pub fn outside(&self) -> Option<&str> {
        self.service.strip_prefix("http://")
    }
}

/// How answers are made smaller on their way to the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Compress {
    /// Of those the client likes best, the first is taken. Empty is the gateway's own order.
    pub codings: Vec<Coding>,
    /// A shorter answer goes as it is.
    pub bytes_min: Option<u64>,
    /// Types such as `text/html` or `text/*`; empty for those that are known to become smaller.
    pub types: Vec<String>,
    /// Of those, the ones that go as they are.
    pub except: Vec<String>,
}

/// A coding of answers, as HTTP names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}

/// A service that is asked whether a request may go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ForwardAuth {
    pub to: Aside,
    /// What is asked for there, with its query.
    pub path: String,
    /// Of its answer, those the route's service gets; the client's own of these names are removed. Lower case.
    #[serde(default)]
    pub response_headers: Vec<String>,
    /// Of the client's request, those it sees; empty for all.
    #[serde(default)]
    pub request_headers: Vec<String>,
    pub deadline_ms: u64,
}

/// A service that gets copies of requests, whose answers nobody sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mirror {
    pub to: Aside,
    /// How many of ten thousand requests.
    pub share: u32,
    /// A request with a longer body is not copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<u64>,
}

/// For how long a client is turned away who got certain answers too often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ban {
    pub statuses: Vec<u16>,
    pub times: u32,
    pub within_ms: u64,
    pub for_ms: u64,
}

/// Which answers the gateway keeps and gives again. What an answer says of it itself (RFC 9111) goes before this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// How long an answer is fresh that does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ttl_ms: Option<u64>,
    /// How long it is used after that while it is asked for anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate_ms: Option<u64>,
    /// The same while the service fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error_ms: Option<u64>,
    /// Larger answers are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "IgnoreQuery::is_nothing")]
    pub ignore_query: IgnoreQuery,
    /// Headers of requests by which answers differ, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vary: Vec<String>,
    /// Keep answers that set cookies, cookies and all.
    pub keep_cookies: bool,
    /// Do as `cache-control` of requests says.
    pub obey_clients: bool,
}

/// Which part of a query tells no answers apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoreQuery {
    #[default]
    Nothing,
    All,
    Names(Vec<String>),
}

impl IgnoreQuery {
    fn is_nothing(&self) -> bool {
        *self == IgnoreQuery::Nothing
    }
}

/// Headers that say where a message ends, whom it is for or what the connection is: nobody's to change.
pub const FRAMING_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
