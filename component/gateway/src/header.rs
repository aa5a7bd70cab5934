//! Which headers cross the gateway, and which it sets.
//!
//! Owns RFC 9110's hop-by-hop rule and the `Forwarded` family. What a client claims about who it is is never
//! passed on: the gateway is the first that knows. Pure.

use crate::rule::Addresses;
use crate::trace::{self, Identity};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{self, Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What instances are told of a client's certificate.
pub(crate) const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What a header is to the gateway. Told by its name alone, in one look: a table of headers is asked for a name at some
/// cost, and nearly all requests have none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// About one connection only (RFC 9110, section 7.6.1, and its forerunners).
    HopByHop,
    /// Answered or said by the gateway alone.
    Ours,
    Other,
}

fn kind(name: &HeaderName) -> Kind {
    match name.as_str() {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "transfer-encoding"
        | "upgrade" => Kind::HopByHop,
        // It is answered when the instance asks for the body; the others are who the client claims to be.
        "expect"
        | "x-forwarded-client-cert"
        | "x-real-ip"
        | "x-forwarded-port"
        | "x-forwarded-server"
        | "x-forwarded-ssl"
        | "x-forwarded-prefix" => Kind::Ours,
        _ => Kind::Other,
    }
}

/// Who the client is, written out once per connection.
pub(crate) struct ClientName {
    ip: IpAddr,
    /// The address; with those of the balancers before us, when one of them named the client.
    address: HeaderValue,
    /// How it reached us: `http` or `https`.
    scheme: &'static str,
    /// The first host it asked for, and `Forwarded` for that: most clients ask for no other.
    forwarded: OnceLock<(HeaderValue, HeaderValue)>,
}

impl ClientName {
    pub(crate) fn new(address: IpAddr, secure: bool) -> ClientName {
        // A client that came over IPv4 to a socket for both is named by its IPv4 address.
        let ip = address.to_canonical();
        let address = HeaderValue::try_from(ip.to_string()).expect("an address is a header value");
        ClientName { ip, address, scheme: if secure { "https" } else { "http" }, forwarded: OnceLock::new() }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The client that a trusted balancer speaks for, whose own name this is: the last in `x-forwarded-for` that is not
    /// trusted itself. Whatever stands before that one is what somebody claimed.
    pub(crate) fn of_another(&self, headers: &HeaderMap, trusted: &Addresses) -> Option<ClientName> {
        let all = headers.get_all(X_FORWARDED_FOR).into_iter();
        let texts: Vec<&str> = all.map(HeaderValue::to_str).collect::<Result<_, _>>().ok()?;
        let mut chain = Vec::new();
        for text in texts.iter().flat_map(|text| text.split(',')).rev() {
            // Some write a port, and brackets around IPv6.
            let text = text.trim();
            let ip = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok();
            let Some(ip) = ip.map(|ip: IpAddr| ip.to_canonical()) else { break };
            chain.push(ip);
            if !trusted.admit(ip) {
                break;
            }
        }
        let client = *chain.last()?;
        let secure = match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(proto) => proto.eq_ignore_ascii_case(b"https"),
            None => self.is_secure(),
        };
        let way: Vec<String> = chain.iter().rev().chain([&self.ip]).map(IpAddr::to_string).collect();
        let address = HeaderValue::try_from(way.join(", ")).ok()?;
        Some(ClientName { address, ..ClientName::new(client, secure) })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }
}

/// The protocol an `Upgrade` request asks for: only when `Connection` says so too. Never another version of
/// HTTP: its requests would pass by routes and policy inside a tunnel, and RFC 9113 gave that upgrade up.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(header::UPGRADE)?;
    let names = |protocol: &[u8]| {
        wanted.as_bytes().split(|byte| *byte == b',').any(|name| {
            name.trim_ascii().get(..protocol.len()).is_some_and(|start| start.eq_ignore_ascii_case(protocol))
        })
    };
    if names(b"h2c") || names(b"http/") {
        return None;
    }
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(b"upgrade")).then(|| wanted.clone())
}

/// Whether a request opens a WebSocket within a stream of HTTP/2 (RFC 8441).
pub(crate) fn opens_websocket<B>(request: &Request<B>) -> bool {
    let protocol = || request.extensions().get::<Protocol>().map(Protocol::as_str);
    request.method() == Method::CONNECT && protocol().is_some_and(|name| name.eq_ignore_ascii_case("websocket"))
}

/// Makes such a request into the handshake that HTTP/1.1 has for it. The key proves nothing between us and an instance,
/// but instances insist on one.
pub(crate) fn to_websocket_handshake<B>(request: &mut Request<B>, [high, low, _]: [u64; 3]) {
    *request.method_mut() = Method::GET;
    request.extensions_mut().remove::<Protocol>();
    let key = BASE64.encode([high.to_ne_bytes(), low.to_ne_bytes()].concat());
    if let Ok(key) = HeaderValue::try_from(key) {
        request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

/// Makes the instance's agreement to a handshake into an answer for a stream.
pub(crate) fn to_websocket_answer<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
}

/// Makes a client's headers into those an instance gets. `decide` says whether the request is to be told of: as its
/// sender asks, or by an even number where it says nothing.
pub(crate) fn to_instance(
    headers: &mut HeaderMap,
    client: &ClientName,
    host: &HeaderValue,
    prefix: Option<&str>,
    random: impl FnOnce() -> [u64; 3],
    decide: impl FnOnce(Option<u64>) -> bool,
) -> Identity {
    remove(headers, |kind| kind != Kind::Other);
    join_cookies(headers);
    headers.insert(X_FORWARDED_FOR, client.address.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(header::FORWARDED, forwarded(client, host));
    if let Some(Ok(prefix)) = prefix.map(HeaderValue::from_str) {
        headers.insert(X_FORWARDED_PREFIX, prefix);
    }
    identify(headers, random, decide)
}

/// Whether a request is gRPC, whose answers end with trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Makes a request for HTTP/1.1 into one for HTTP/2, which names the host in its target.
pub(crate) fn to_http_2(head: &mut Parts) {
    let authority = head.headers.remove(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let target = std::mem::take(&mut head.uri).into_parts();
    let mut parts = uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    parts.path_and_query = Some(target.path_and_query.unwrap_or(PathAndQuery::from_static("/")));
    head.uri = Uri::from_parts(parts).unwrap_or_default();
    head.version = Version::HTTP_2;
    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Makes an instance's headers into those the client gets.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    remove(headers, |kind| kind == Kind::HopByHop);
}

/// Says that the connection changes to `protocol` with this message.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// The trace a request belongs to, as text for the log.
pub(crate) fn traceparent(headers: &HeaderMap) -> &str {
    headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// HTTP/2 may send cookies one by one; to HTTP/1 they are one header (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).into_iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

fn forwarded(client: &ClientName, host: &HeaderValue) -> HeaderValue {
    let (known, forwarded) = client.forwarded.get_or_init(|| (host.clone(), write_forwarded(client, host)));
    if known == host { forwarded.clone() } else { write_forwarded(client, host) }
}

fn write_forwarded(client: &ClientName, host: &HeaderValue) -> HeaderValue {
    // `asked` lets only host names, addresses and ports through: nothing to quote.
    let host = host.to_str().unwrap_or_default();
    let scheme = client.scheme;
    let text = match client.ip {
        IpAddr::V4(ip) => format!("for={ip};host=\"{host}\";proto={scheme}"),
        // In brackets and quotes (RFC 7239, section 6).
        IpAddr::V6(ip) => format!("for=\"[{ip}]\";host=\"{host}\";proto={scheme}"),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("for=unknown"))
}

fn identify(
    headers: &mut HeaderMap,
    random: impl FnOnce() -> [u64; 3],
    decide: impl FnOnce(Option<u64>) -> bool,
) -> Identity {
    let came = headers.get(TRACEPARENT).filter(|value| trace::is_traceparent(value.as_bytes())).cloned();
    let mut identity = Identity::default();
    let traceparent = match &came {
        Some(came) => {
            identity.asked = trace::is_sampled(came.as_bytes()) && decide(None);
            identity.sampled = identity.asked;
            if identity.asked {
                let [span, ..] = random();
                let next = trace::next_hop(came, span);
                headers.insert(TRACEPARENT, next.clone());
                next
            } else {
                came.clone()
            }
        }
        None => {
            let random = random();
            identity.sampled = decide(Some(random[1]));
            let made = trace::traceparent(random, identity.sampled);
            headers.insert(TRACEPARENT, made.clone());
            headers.remove(TRACESTATE);
            made
        }
    };
    match headers.get(X_REQUEST_ID).filter(|value| trace::is_request_id(value.as_bytes())) {
        Some(id) => identity.request_id = Some(id.clone()),
        None => {
            if let Some(id) = trace::trace_id(&traceparent) {
                headers.insert(X_REQUEST_ID, id);
            }
        }
    }
    identity.came = came;
    identity.traceparent = Some(traceparent);
    identity
}

fn remove(headers: &mut HeaderMap, goes: impl Fn(Kind) -> bool) {
    // What `connection` names, but for the words that are no headers, and those that would change what the message is.
    let named = |token: &&[u8]| {
        let words: [&[u8]; 5] = [b"keep-alive", b"close", b"upgrade", b"host", b"content-length"];
        !words.iter().any(|word| token.eq_ignore_ascii_case(word))
    };
    let named: Vec<HeaderName> =
        connection_tokens(headers).filter(named).filter_map(|token| HeaderName::from_bytes(token).ok()).collect();
    for name in named {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| goes(kind(name))).cloned() {
        headers.remove(name);
    }
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
