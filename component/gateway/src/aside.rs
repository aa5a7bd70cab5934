//! Requests of the gateway's own beside those of clients: asking a service for leave, and copies for another.
//!
//! Owns the carrying of both, over the same balancer and connections as everything else. Promises that a copy neither
//! delays nor fails the request it is of, and that both are bounded in number, size and time. What is said in them, and
//! what an answer means, is the rules'.

use crate::answer::Refusal;
use crate::asking::RequestBody;
use crate::body::{AnswerBody, Ending};
use crate::header;
use crate::http1::{AnswerHead, LineError};
use crate::link::Link;
use crate::metrics::Copying;
use crate::pulse::Pulse;
use crate::rule::Pass;
use crate::search::Search;
use crate::seen::Record;
use crate::table::Endpoint;
use crate::upstream::{Lease, Upstream};
use balancer::Outcome;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Response, Version};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use wire::spec::{Aside, Mirror};
use world::net::{Dialer, Dialing};

/// Tries of one question: as those of clients.
const SENDS_MAX: u32 = 3;
/// As much of an answer to a question is given to the client: a page to log in, not a download.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Copies under way at once, over all routes; with the bound of their bodies, 16 MB.
static COPIES: Semaphore = Semaphore::const_new(64);
/// A request with a longer body is not copied, unless its route says so.
const COPY_BYTES_MAX: u64 = 64 << 10;
/// Nobody waits for a copy; this long it may hold its place.
const COPY_DEADLINE: Duration = Duration::from_secs(30);
/// Of ten thousand.
const WHOLE_SHARE: u64 = 10_000;

/// The other services that requests of a route concern.
#[derive(Clone, Default)]
pub(crate) struct Asides {
    leave: Option<Arc<Upstream>>,
    mirror: Option<Arc<Upstream>>,
}

impl Asides {
    /// `upstream` finds the one for a service and port.
    pub(crate) fn new(rules: Option<&wire::spec::Rules>, mut upstream: impl FnMut(&Aside) -> Arc<Upstream>) -> Asides {
        let leave = rules.and_then(|rules| rules.forward_auth.as_ref()).map(|auth| upstream(&auth.to));
        let mirror = rules.and_then(|rules| rules.mirror.as_ref()).map(|mirror| upstream(&mirror.to));
        Asides { leave, mirror }
    }

    /// Asks for leave and makes the copy, as the rules of the route say. `dice` decides whether there is one.
    pub(crate) async fn attend(
        &self,
        pass: &Pass,
        head: &mut Parts,
        body: &mut RequestBody,
        dice: u64,
    ) -> Result<(), Refusal> {
        if let Some(upstream) = &self.leave
            && let Some((question, patience)) = pass.question(head)
        {
            let answer = match tokio::time::timeout(patience, ask(upstream, &question)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => {
                    tracing::debug!(service = upstream.service, %why, "the service asked for leave gave no answer");
                    return Err(Refusal::Ruled(pass.unanswered()));
                }
                Err(_) => return Err(Refusal::Ruled(pass.unanswered())),
            };
            pass.answered(answer, &mut head.headers).map_err(Refusal::Ruled)?;
        }
        if let (Some(upstream), Some(mirror)) = (&self.mirror, &pass.rules.mirror) {
            copy(upstream, mirror, head, body, dice);
        }
        Ok(())
    }
}

/// Sends a question and reads the whole answer. May be dropped.
async fn ask(upstream: &Arc<Upstream>, question: &Parts) -> Result<Response<Bytes>, Refusal> {
    let started = world::clock::monotonic();
    let mut search = Search::new(Arc::clone(upstream), started);
    let late = || Refusal::Late { service: upstream.service.clone() };
    let mut tries = 0;
    let answer = loop {
        tries += 1;
        match send(&mut search, question, &mut RequestBody::Empty, started).await? {
            Some(answer) => break answer,
            None if tries < SENDS_MAX && upstream.may_retry() => upstream.meters.retry(),
            None => return Err(late()),
        }
    };
    let (mut head, mut body) = answer.into_parts();
    header::to_client(&mut head.headers);
    head.headers.remove(CONTENT_LENGTH);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| late())?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(late());
        }
        bytes.extend_from_slice(data);
    }
    Ok(Response::from_parts(head, bytes.freeze()))
}

/// One try. `None` when the connection broke.
async fn send(
    search: &mut Search,
    head: &Parts,
    body: &mut RequestBody,
    started: Instant,
) -> Result<Option<Response<AnswerBody>>, Refusal> {
    loop {
        let (lease, mut link) = connect(search).await?;
        match link.send(head, body, None).await {
            Ok(AnswerHead { status, headers }) => {
                let record = Record::untold(&lease.upstream.meters, &head.method, started);
                let ending = Ending::new(lease, link, status.as_u16(), record, Arc::new(Pulse::new()));
                let mut answer = Response::new(AnswerBody::from_instance(ending));
                *answer.status_mut() = status;
                *answer.headers_mut() = headers;
                return Ok(Some(answer));
            }
            // It had been closed while it was unused: nobody's fault, and each such connection is gone for good.
            Err(LineError::Unsent) => lease.end(Outcome::ClientGone),
            Err(_) if link.reused => {
                lease.end(Outcome::ClientGone);
                return Ok(None);
            }
            Err(_) => {
                search.rule_out(lease, Outcome::ServerError);
                return Ok(None);
            }
        }
    }
}

/// A connection, used before or new. Waits, as long as a request does, while there is none.
async fn connect(search: &mut Search) -> Result<(Lease, Link), Refusal> {
    loop {
        let lease = search.lease().await?;
        if let Some(link) = lease.take_idle(true) {
            return Ok((lease, link));
        }
        if let Some((lease, stream)) = search.dial(lease, None).await {
            return Ok((lease, Link::new(stream)));
        }
    }
}

/// Has a copy of the request sent when its body is through, if it is one that is to be copied.
fn copy(upstream: &Arc<Upstream>, mirror: &Mirror, head: &Parts, body: &mut RequestBody, dice: u64) {
    if dice % WHOLE_SHARE >= u64::from(mirror.share) || head.version != Version::HTTP_11 {
        return;
    }
    let Ok(place) = COPIES.try_acquire() else {
        upstream.meters.mirrored(Copying::Skipped);
        return;
    };
    let mut head = head.clone();
    let upstream = Arc::clone(upstream);
    let send = move |whole: Option<Bytes>| {
        let Some(whole) = whole else {
            upstream.meters.mirrored(Copying::Skipped);
            return;
        };
        // It has its length now, however it came.
        head.headers.remove(CONTENT_LENGTH);
        let mut body = if whole.is_empty() { RequestBody::Empty } else { RequestBody::Whole(whole) };
        // It ends by itself or at its deadline, whatever becomes of the request.
        let task = async move {
            let started = world::clock::monotonic();
            let mut search = Search::new(Arc::clone(&upstream), started);
            let sent = tokio::time::timeout(COPY_DEADLINE, async {
                let Ok(Some(answer)) = send(&mut search, &head, &mut body, started).await else { return false };
                let mut body = answer.into_body();
                let mut left = ANSWER_BYTES_MAX;
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(length) else { break };
                    left = rest;
                }
                body.forgo();
                true
            });
            let answered = sent.await.unwrap_or(false);
            upstream.meters.mirrored(if answered { Copying::Answered } else { Copying::Failed });
            drop(place);
        };
        world::task::spawn("gateway copy", task).detach();
    };
    match body {
        RequestBody::Empty => send(Some(Bytes::new())),
        RequestBody::Whole(bytes) => send(Some(bytes.clone())),
        RequestBody::Stream(body) => {
            let bytes_max = mirror.body_bytes_max.unwrap_or(COPY_BYTES_MAX);
            body.body_mut().copy_to(usize::try_from(bytes_max).unwrap_or(usize::MAX), Box::new(send));
        }
    }
}

/// Reaches what is no instance: a host outside, by its name or address.
pub(crate) struct Outside;

impl Dialer for Outside {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, _client: Option<SocketAddr>) -> Dialing<'a> {
        let host = instance.trim_start_matches('[').trim_end_matches(']');
        Box::pin(TcpStream::connect((host, port)))
    }
}

/// The one endpoint of a host outside.
pub(crate) fn endpoint(host: &str) -> Endpoint {
    Endpoint { instance: host.to_owned(), ..Endpoint::default() }
}
