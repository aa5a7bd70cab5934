//! One request as the gateway saw it: a line of the access log, and a span of a trace.

use serde::{Deserialize, Serialize};

/// A line of `GET /v1/gateway/requests`, which answers lines of JSON. What there was none of is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestRecord {
    /// When its head was complete.
    pub time_ms: u64,
    /// As in `traceparent`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// The gateway's own part of the trace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub span: String,
    /// Of which it is a part.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// `x-request-id`, where it is not the trace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    pub client: String,
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// With the query, in which the values of what looks like a secret are stars.
    pub path: String,
    /// `HTTP/1.1`
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSeen>,
    /// 0 when the client left before there was one.
    pub status: u16,
    /// Of the gateway's own answer: `B0603`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// As `stack/service`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Host and path of the route.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Of the body that came and of the one that went.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// How often it was sent to an instance.
    pub sends: u32,
    /// What failed before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<Retry>,
    /// It was sent to a second instance because the first let it wait.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hedged: bool,
    /// The connection to the instance had been there already.
    pub reused: bool,
    /// The time it took, in parts; a part it did not come to is 0.
    pub split: Split,
    pub end: End,
    pub why: Why,
}

/// How the client's connection was protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSeen {
    /// `1.3`
    pub version: String,
    /// With a session of before, which spares a round trip.
    pub resumed: bool,
}

/// An instance that failed a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub instance: String,
    /// `connect`, `broken` or `closed`.
    pub why: String,
}

/// Where the time went, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Split {
    /// Until an instance was found, failed ones included.
    pub queue_us: u64,
    /// Until there was a connection to it.
    pub connect_us: u64,
    /// Until the head of its answer.
    pub answer_us: u64,
    /// Until the end of the answer's body.
    pub body_us: u64,
    /// All of it.
    pub total_us: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    #[default]
    Complete,
    /// The client left in the middle.
    Left,
    /// The instance broke off within its answer.
    Cut,
}

/// Why it is told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    #[default]
    All,
    Error,
    Slow,
    Sampled,
    /// Its `traceparent` said so.
    Asked,
}
