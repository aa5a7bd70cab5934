//! What the gateway itself answers when a request cannot be served.
//!
//! Owns the refusals with their codes. A refusal names the service and what to do, and no address or instance:
//! those are for the log.

use crate::http1::LineError;
use crate::rule::Ruling;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// A host or path in an answer is cut here.
const ECHO_CHARS_MAX: usize = 100;

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("the request's head is too long")]
    TooLong,
    #[error("no service answers {path} at host {host}")]
    NoRoute { host: String, path: String, host_known: bool },
    #[error("service {service} has no ready instance")]
    NoEndpoint { service: String },
    #[error("cannot connect to service {service}")]
    Unreachable {
        service: String,
        #[source]
        source: std::io::Error,
    },
    #[error("service {service} closed the connection without an answer")]
    Broken {
        service: String,
        #[source]
        source: LineError,
    },
    #[error("service {service} did not answer in time")]
    Late { service: String },
    #[error("service {service} did not answer within the time the request gives")]
    Deadline { service: String },
    #[error("service {service} switched protocols badly")]
    Unasked { service: String },
    #[error("the method CONNECT is not served here")]
    Connect,
    #[error("too many requests wait for service {service}")]
    Crowded { service: String },
    #[error("too many requests of this client are under way")]
    Busy,
    #[error("the body comes too slowly")]
    Slow,
    #[error("there is more to do than this machine can do, and service {service} comes later")]
    Shed { service: String },
    #[error("the rules of the route have answered")]
    Ruled(Box<Ruling>),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::NoRoute { .. } => StatusCode::NOT_FOUND,
            Refusal::NoEndpoint { .. } | Refusal::Crowded { .. } | Refusal::Shed { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::Unreachable { .. } | Refusal::Broken { .. } | Refusal::Unasked { .. } => StatusCode::BAD_GATEWAY,
            Refusal::Late { .. } | Refusal::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Busy => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Slow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Ruled(ruling) => ruling.response.status(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) | Refusal::TooLong => "B0601",
            Refusal::NoRoute { .. } => "B0602",
            Refusal::NoEndpoint { .. } => "B0603",
            Refusal::Unreachable { .. } => "B0604",
            Refusal::Broken { .. } | Refusal::Unasked { .. } => "B0605",
            Refusal::Late { .. } | Refusal::Deadline { .. } => "B0606",
            Refusal::Connect => "B0607",
            Refusal::Crowded { .. } => "B0608",
            Refusal::Busy => "B0629",
            Refusal::Slow => "B0610",
            Refusal::Shed { .. } => "B0609",
            // What was answered is no failure, or names its own.
            Refusal::Ruled(_) => "",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "send a request as RFC 9112 describes it",
            Refusal::TooLong => "send fewer or shorter headers: cookies, mostly",
            Refusal::NoRoute { host_known: true, .. } => {
                "the host has routes, but none for this path: see `bramble service show STACK/SERVICE`"
            }
            Refusal::NoRoute { host_known: false, .. } => {
                "give a service a route for this host in its stack file, or check the name in the address"
            }
            Refusal::NoEndpoint { .. } => "see `bramble service show STACK/SERVICE` for what its instances are doing",
            Refusal::Unreachable { .. } => {
                "check that the program listens at the port the stack file names, on all addresses"
            }
            Refusal::Broken { .. } => "see `bramble logs STACK/SERVICE`: it may have crashed or been killed",
            Refusal::Late { .. } => "see `bramble logs STACK/SERVICE`: it accepted the request and said nothing",
            Refusal::Deadline { .. } => "give it longer by `x-request-timeout` or `grpc-timeout`, or ask for less",
            Refusal::Unasked { .. } => {
                "the program answered 101 to a request that asked for no such thing, or broke off after it"
            }
            Refusal::Connect => "the gateway is no forward proxy",
            Refusal::Crowded { .. } => "try again in a moment",
            Refusal::Slow => "send it again over a better connection",
            Refusal::Busy => "wait for some of them to end, or ask over fewer connections",
            Refusal::Shed { .. } => "try again in a moment; `priority_class` of a route says what comes first",
            Refusal::Ruled(_) => "",
        }
    }

    /// Whether the client's connection is of no use afterwards: what follows may not be a request.
    fn closes(&self) -> bool {
        match self {
            Refusal::Malformed(_) | Refusal::TooLong | Refusal::Connect | Refusal::Slow => true,
            Refusal::NoRoute { .. }
            | Refusal::NoEndpoint { .. }
            | Refusal::Unreachable { .. }
            | Refusal::Broken { .. }
            | Refusal::Unasked { .. }
            | Refusal::Late { .. }
            | Refusal::Deadline { .. }
            | Refusal::Crowded { .. }
            | Refusal::Busy
            | Refusal::Shed { .. }
            | Refusal::Ruled(_) => false,
        }
    }

    /// The answer as it goes to the client.
    pub(crate) fn response(&self) -> Response<Bytes> {
        if let Refusal::Ruled(ruling) = self {
            return ruling.response.clone();
        }
        let mut response = told(self.status(), self.code(), &self.to_string(), self.hint());
        let headers = response.headers_mut();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Refusal {
    /// The same to a client of gRPC, which makes a status of its own of others' (504 would be "unavailable"): an answer
    /// of nothing but trailers, where there is a status that says exactly this.
    pub(crate) fn in_grpc(&self) -> Option<Response<Bytes>> {
        const DEADLINE_EXCEEDED: HeaderValue = HeaderValue::from_static("4");
        let Refusal::Deadline { .. } = self else { return None };
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", DEADLINE_EXCEEDED);
        headers.insert("grpc-message", HeaderValue::from_static("the deadline that the request named has passed"));
        Some(response)
    }
}

/// The code of a refusal, beside the answer that says it in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code(pub(crate) &'static str);

/// A refusal in words, for people and not to be kept.
pub(crate) fn told(status: StatusCode, code: &'static str, message: &str, hint: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{code}: {message}\n{hint}\n")));
    *response.status_mut() = status;
    response.extensions_mut().insert(Code(code));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a client sent, fit to be shown: visible ASCII and not too long.
pub(crate) fn echo(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(ECHO_CHARS_MAX).collect()
}
