//! What a route answers to those it does not let through.
//!
//! Owns the codes of these refusals and the words they are counted under.

use crate::answer::told;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// A service under maintenance is looked at again by browsers and robots after this.
const MAINTENANCE_RETRY_S: u64 = 60;

/// Why a request does not reach the route's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    Address,
    /// The client showed no certificate that counts here.
    Certificate,
    /// It was not asked for one, since it came under another name or without TLS.
    Misdirected,
    Password {
        challenge: HeaderValue,
    },
    Rate {
        wait_ns: u64,
    },
    Size {
        bytes_max: u64,
    },
    /// With the words of the stack file, or empty.
    Maintenance {
        text: String,
    },
    /// The headers are too long.
    Head {
        bytes_max: u64,
    },
    Banned {
        left_ns: u64,
    },
    /// The service that is asked for leave gave no answer.
    Unasked,
}

/// What refusals are counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Address,
    Certificate,
    Password,
    Rate,
    Size,
    Maintenance,
    /// The instance took longer than the route allows.
    Late,
    Head,
    Banned,
    /// The service that is asked for leave said no, or nothing.
    Leave,
}

impl Reason {
    pub(crate) const COUNT: usize = 10;

    pub(crate) fn word(self) -> &'static str {
        match self {
            Reason::Address => "address",
            Reason::Certificate => "certificate",
            Reason::Password => "password",
            Reason::Rate => "rate",
            Reason::Size => "size",
            Reason::Maintenance => "maintenance",
            Reason::Late => "late",
            Reason::Head => "head",
            Reason::Banned => "banned",
            Reason::Leave => "leave",
        }
    }
}

impl Denial {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Denial::Address => Reason::Address,
            Denial::Certificate | Denial::Misdirected => Reason::Certificate,
            Denial::Password { .. } => Reason::Password,
            Denial::Rate { .. } => Reason::Rate,
            Denial::Size { .. } => Reason::Size,
            Denial::Maintenance { .. } => Reason::Maintenance,
            Denial::Head { .. } => Reason::Head,
            Denial::Banned { .. } => Reason::Banned,
            Denial::Unasked => Reason::Leave,
        }
    }

    /// The answer as it goes to the client.
    pub(crate) fn response(&self, service: &str) -> Response<Bytes> {
        let (status, code) = match self {
            Denial::Address => (StatusCode::FORBIDDEN, "B0620"),
            Denial::Certificate => (StatusCode::FORBIDDEN, "B0625"),
            Denial::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "B0626"),
            Denial::Password { .. } => (StatusCode::UNAUTHORIZED, "B0621"),
            Denial::Rate { .. } => (StatusCode::TOO_MANY_REQUESTS, "B0622"),
            Denial::Size { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "B0623"),
            Denial::Maintenance { .. } => (StatusCode::SERVICE_UNAVAILABLE, "B0624"),
            Denial::Head { .. } => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "B0630"),
            Denial::Banned { .. } => (StatusCode::FORBIDDEN, "B0631"),
            Denial::Unasked => (StatusCode::SERVICE_UNAVAILABLE, "B0627"),
        };
        let (message, hint) = self.words(service);
        let mut response = told(status, code, &message, hint);
        let headers = response.headers_mut();
        match self {
            Denial::Address | Denial::Certificate | Denial::Misdirected | Denial::Head { .. } | Denial::Unasked => {}
            // Nothing more is read from it, so that whoever is out costs little.
            Denial::Banned { left_ns } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_s(*left_ns)));
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Denial::Password { challenge } => drop(headers.insert(header::WWW_AUTHENTICATE, challenge.clone())),
            Denial::Rate { wait_ns } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_s(*wait_ns)));
            }
            // What follows is the rest of the body, not a request.
            Denial::Size { .. } => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
            Denial::Maintenance { text } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(MAINTENANCE_RETRY_S));
                if !text.is_empty() {
                    *response.body_mut() = Bytes::from(format!("{text}\n"));
                }
            }
        }
        response
    }

    fn words(&self, service: &str) -> (String, &'static str) {
        match self {
            Denial::Address => (
                format!("this address may not use service {service}"),
                "ask whoever deployed it: `allow` and `deny` of its route say who may",
            ),
            Denial::Certificate => (
                format!("service {service} asks for a certificate of its own authority"),
                "send one that is good for clients and has not ended",
            ),
            Denial::Misdirected => (
                format!("service {service} asks for a certificate, and this connection was not asked for one"),
                "come by https, on a connection of its own that asks for this host's name",
            ),
            Denial::Password { .. } => (
                format!("service {service} asks for a name and password"),
                "send those that `basic_auth` of its route knows",
            ),
            Denial::Rate { .. } => {
                (format!("too many requests to service {service}"), "wait as long as `retry-after` says, in seconds")
            }
            Denial::Size { bytes_max } => (
                format!("service {service} takes no body of more than {bytes_max} bytes"),
                "send less, or raise `body_max` of its route",
            ),
            Denial::Maintenance { .. } => {
                (format!("service {service} is under maintenance"), "try again in a few minutes")
            }
            Denial::Head { bytes_max } => (
                format!("service {service} takes no headers of more than {bytes_max} bytes"),
                "send fewer or shorter ones, cookies above all, or raise `head_max` of its route",
            ),
            Denial::Banned { .. } => (
                format!("this address was answered too often with a refusal by service {service}"),
                "wait as long as `retry-after` says, in seconds; `bramble gateway bans lift ADDRESS` ends it",
            ),
            Denial::Unasked => (
                format!("the service that decides about requests to {service} gives no answer"),
                "try again in a moment; see the service that `forward_auth` of its route names",
            ),
        }
    }
}

/// In whole seconds, for `retry-after`.
fn whole_s(ns: u64) -> u64 {
    ns.div_ceil(1_000_000_000).max(1)
}
