//! What a request asks for, read strictly.
//!
//! Owns the checks that keep two readers of one message from understanding different things: one host, and a plain host
//! name. Bad names, bad lengths and bad framing have been refused before. Pure.

use crate::answer::Refusal;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Uri;
use http::{Method, Version};

/// A name of 253 characters (RFC 1035), brackets and a port.
const HOST_BYTES_MAX: usize = 262;

/// The host a request is for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// As it goes into headers: with the port, as the client wrote it. Empty for HTTP/1.0 without one.
    pub(crate) host: HeaderValue,
}

impl Asked {
    pub(crate) fn read(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Asked, Refusal> {
        if *method == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        if uri.path() == "*" && *method != Method::OPTIONS {
            return Err(Refusal::Malformed("only OPTIONS asks about a host as a whole"));
        }
        let mut hosts = headers.get_all(header::HOST).into_iter();
        let named = hosts.next();
        if hosts.next().is_some() {
            return Err(Refusal::Malformed("more than one host header"));
        }
        let host = match (uri.authority(), named) {
            // RFC 9112, section 3.2.2: an absolute target overrules the header.
            (Some(authority), _) => HeaderValue::from_str(authority.as_str())
                .map_err(|_| Refusal::Malformed("the host is not a host name"))?,
            (None, Some(named)) => named.clone(),
            (None, None) if version == Version::HTTP_10 => HeaderValue::from_static(""),
            (None, None) => return Err(Refusal::Malformed("no host header")),
        };
        if !is_host(host.as_bytes()) {
            return Err(Refusal::Malformed("the host is not a host name"));
        }
        Ok(Asked { host })
    }

    /// The host without its port, in lower case, without a final dot.
    pub(crate) fn name(&self) -> String {
        let text = self.host.to_str().unwrap_or_default();
        let name = match text.rfind(':') {
            // The colons of an IPv6 address are within brackets.
            Some(at) if !text.get(at..).is_some_and(|rest| rest.contains(']')) => text.get(..at).unwrap_or_default(),
            Some(_) | None => text,
        };
        name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
    }
}

fn is_host(host: &[u8]) -> bool {
    host.len() <= HOST_BYTES_MAX && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte))
}
