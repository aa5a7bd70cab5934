//! The first thing said on each connection: which versions, and what time it is.
//!
//! Owns that exchange. A client that has its answer knows that the server takes its certificate: with TLS 1.3 the
//! handshake alone does not tell.

use crate::failure::{Code, Failure};
use crate::head::{Greeting, Versions, write_end};
use crate::outflow::Outflow;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};

/// No method has this name: those begin with a letter or digit, by custom.
pub(crate) const PATH: &str = "/-/greeting";

pub(crate) fn ours(versions: Versions) -> Greeting {
    Greeting { versions, now_ms: world::clock::unix_ms() }
}

pub(crate) fn request(versions: Versions) -> Request<Outflow> {
    let mut request = Request::new(Outflow::Whole(Bytes::new()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("http://peer/-/greeting");
    ours(versions).write(request.headers_mut());
    request
}

/// The server's answer to the greeting of a client, and whether they understand each other.
pub(crate) fn answer(headers: &HeaderMap, versions: Versions) -> (Response<Outflow>, bool) {
    let mut response = Response::new(Outflow::Whole(Bytes::new()));
    ours(versions).write(response.headers_mut());
    let failure = Greeting::read(headers).map_or_else(
        || Some(Failure::new(Code::InvalidArgument, "the greeting cannot be read")),
        |theirs| estranged(versions, theirs.versions),
    );
    write_end(response.headers_mut(), failure.as_ref().map_or(Ok(()), Err));
    (response, failure.is_none())
}

/// What is wrong when two have no version in common.
pub(crate) fn estranged(ours: Versions, theirs: Versions) -> Option<Failure> {
    if ours.shared(theirs).is_some() {
        return None;
    }
    let age = if theirs.min > ours.max { "a later" } else { "an earlier" };
    let message = format!("this peer speaks {age} version ({theirs}) than this program knows ({ours})");
    Some(Failure::new(Code::FailedPrecondition, message).with_hint("upgrade the older of the two machines"))
}
