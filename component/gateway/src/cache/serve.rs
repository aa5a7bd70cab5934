//! The walk of one request through the cache.

use super::answer::{Answer, Stored};
use super::body::KeptBody;
use super::fill::{Fill, Head};
use super::flight::{Lead, Phase, Seat, landed};
use super::inquiry::{Found, Inquiry, Role, variant_key};
use super::meters::Outcome;
use super::purge::labels;
use crate::answer::Refusal;
use crate::body::{AnswerBody, Ending};
use crate::exchange::{Answered, Errand, run_in_time};
use crate::header::to_client;
use crate::link::Link;
use crate::pulse::Pulse;
use crate::seen::{Record, Steps};
use crate::session::Session;
use crate::upstream::Lease;
use balancer::Outcome as Went;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use httpcache::{
    Arrival, Forwarded, Part, Reuse, Trouble, Validators, Variance, cache_status, invalidates, is_for_all,
    is_not_modified, may_serve_stale, part, renew, reuse, same_origin, storable, stored_headers, variance,
};
use stash::Lasting;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a request waits for what another asked for, before it asks itself.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a request that waited looks again: each time, another answer came in between.
const LOOKS_MAX: usize = 3;
/// What is fresh for less is not worth writing to disk.
const LASTING_MS_MIN: u64 = 60_000;
/// It was for caches, and this is the last.
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// A client that wants nothing but what is kept gets this otherwise (RFC 9111, section 5.2.1.7).
const NOT_KEPT: &str = "nothing is kept for this\n";

/// Answers a request of a route with a cache. May be dropped: what others wait for goes on.
pub(crate) async fn serve(
    session: &Session,
    errand: &mut Errand,
    steps: &mut Steps,
    mut inquiry: Inquiry,
) -> Result<Answered, Refusal> {
    // Nobody gets what is kept without having proven who they are.
    errand.attend(session).await?;
    if errand.pass.as_ref().is_some_and(|pass| pass.tells_client()) {
        // The service may answer accordingly: to the cache it is as good as a password.
        inquiry.headers.insert(header::AUTHORIZATION, HeaderValue::from_static("known"));
    }
    let inquiry = Arc::new(inquiry);
    match (inquiry.role, errand.deadline) {
        (Role::Look, None) => look(session, errand, steps, &inquiry).await,
        (Role::Look, Some(deadline)) => {
            let service = inquiry.service.clone();
            let looking = tokio::time::timeout_at(deadline.into(), look(session, errand, steps, &inquiry)).await;
            looking.unwrap_or(Err(Refusal::Deadline { service }))
        }
        (Role::Change, _) => change(session, errand, steps, &inquiry).await,
        (Role::Pass, _) => pass_by(session, errand, steps, &inquiry, Forwarded::Bypass).await,
    }
}

/// From what is kept, from what another asked for, or from the service.
async fn look(
    session: &Session,
    errand: &mut Errand,
    steps: &mut Steps,
    inquiry: &Arc<Inquiry>,
) -> Result<Answered, Refusal> {
    let began_ms = world::clock::unix_ms();
    let said = inquiry.said();
    let mut waited = false;
    for _ in 0..LOOKS_MAX {
        let found = inquiry.find().await;
        let now_ms = world::clock::unix_ms();
        let has_login = inquiry.headers.contains_key(header::AUTHORIZATION);
        if has_login && found.answer.as_ref().is_some_and(|answer| !is_for_all(&answer.headers)) {
            // The service may have something else for this client, and has not said that it has not.
            return pass_by(session, errand, steps, inquiry, Forwarded::Bypass).await;
        }
        if let Some(answer) = &found.answer {
            // What came while this request waited was made after it was sent.
            let answers = waited && answer.terms.received_ms >= began_ms;
            match reuse(&answer.terms, said.as_ref(), now_ms) {
                Reuse::Fresh if waited => return Ok(give(inquiry, answer, Outcome::Collapsed)),
                Reuse::Fresh => return Ok(give(inquiry, answer, Outcome::Hit)),
                Reuse::Stale => {
                    refresh(session, errand, inquiry, &found);
                    return Ok(give(inquiry, answer, Outcome::Stale));
                }
                Reuse::Validate if answers => return Ok(give(inquiry, answer, Outcome::Collapsed)),
                Reuse::Validate => {}
            }
        }
        if said.as_ref().is_some_and(|said| said.only_if_cached) {
            return Ok(nothing_kept(inquiry));
        }
        if inquiry.method != Method::GET || (inquiry.headers.contains_key(header::RANGE) && found.answer.is_none()) {
            return pass_by(session, errand, steps, inquiry, Forwarded::Bypass).await;
        }
        let alone = said.as_ref().is_some_and(|said| said.no_store) || inquiry.cache.passing.passes(&found.key, now_ms);
        let seat = if alone { Seat::None } else { inquiry.cache.flights.board(&found.key) };
        let mut phase = match seat {
            Seat::First(lead) => {
                return Ask { inquiry, found, lead: Some(lead), quiet: false }.send(session, errand, steps).await;
            }
            Seat::None => return Ask { inquiry, found, lead: None, quiet: false }.send(session, errand, steps).await,
            Seat::Next(phase) => phase,
        };
        match tokio::time::timeout(WAIT_MAX, landed(&mut phase)).await {
            Ok(Some(Phase::Coming(fill))) if inquiry.selection(&fill.head.names) == fill.head.selection => {
                return Ok(follow(inquiry, &fill));
            }
            Ok(Some(Phase::Stale(answer))) if inquiry.selection(&answer.names) == answer.selection => {
                return Ok(give(inquiry, &answer, Outcome::Stale));
            }
            Ok(Some(Phase::Kept) | None) => waited = true,
            Ok(Some(Phase::Asked | Phase::Alone | Phase::Coming(_) | Phase::Stale(_))) | Err(_) => break,
        }
    }
    let found = inquiry.find().await;
    Ask { inquiry, found, lead: None, quiet: false }.send(session, errand, steps).await
}

/// Passes on what may change something, and forgets what that makes wrong.
async fn change(
    session: &Session,
    errand: &mut Errand,
    steps: &mut Steps,
    inquiry: &Arc<Inquiry>,
) -> Result<Answered, Refusal> {
    let mut answered = pass_by(session, errand, steps, inquiry, Forwarded::Method).await?;
    if let Answered::Message(response, ..) = &mut answered
        && invalidates(&inquiry.method, response.status())
    {
        let Inquiry { authority, scheme, target, .. } = &**inquiry;
        let named = [header::LOCATION, header::CONTENT_LOCATION].map(|name| response.headers().get(name).cloned());
        let named = named.iter().flatten().filter_map(|value| same_origin(value, scheme, authority, target));
        let mut targets: Vec<String> = named.map(|target| inquiry.rule.plain(&target).into_owned()).collect();
        targets.push(target.clone());
        for target in targets {
            let key = inquiry.key(&target);
            // What is asked for now may be from before.
            if inquiry.cache.stash.may_have(&key) || inquiry.cache.flights.is_under_way(&key) {
                inquiry.cache.forget(authority, &target).await;
            }
        }
    }
    Ok(answered)
}

async fn pass_by(
    session: &Session,
    errand: &mut Errand,
    steps: &mut Steps,
    inquiry: &Inquiry,
    why: Forwarded,
) -> Result<Answered, Refusal> {
    inquiry.rule.meters.count(Outcome::Bypass);
    let mut answered = run_in_time(session, errand, steps).await?;
    if let Answered::Message(response, ..) = &mut answered {
        let said = cache_status(Some(why), None, None, false, false, "");
        response.headers_mut().append(CACHE_STATUS, said);
    }
    Ok(answered)
}

/// Asks for an answer anew that was just given once more. One does, however many are given it.
fn refresh(session: &Session, errand: &Errand, inquiry: &Arc<Inquiry>, found: &Found) {
    let cache = &inquiry.cache;
    let Ok(permit) = Arc::clone(&cache.refreshes).try_acquire_owned() else { return };
    let Seat::First(lead) = cache.flights.board(&found.key) else { return };
    let (session, mut errand, inquiry, found) = (session.apart(), errand.anew(), Arc::clone(inquiry), found.clone());
    let deadline = session.ground.limits.answer_deadline;
    // A HEAD or a part asks for what it is of.
    errand.head.method = Method::GET;
    let work = async move {
        let ask = Ask { inquiry: &inquiry, found, lead: Some(lead), quiet: true };
        // A failure has been counted and told by whoever saw it; what is kept stays as it is.
        let mut steps = Steps::default();
        drop(tokio::time::timeout(deadline, ask.send(&session, &mut errand, &mut steps)).await);
        drop(permit);
    };
    // It ends with the answer, or at its deadline.
    world::task::spawn("cache refresh", work).detach();
}

/// One request for the service, and what is known before.
struct Ask<'v> {
    inquiry: &'v Arc<Inquiry>,
    found: Found,
    /// Others wait for it.
    lead: Option<Lead>,
    /// No client waits for it.
    quiet: bool,
}

impl Ask<'_> {
    async fn send(mut self, session: &Session, errand: &mut Errand, steps: &mut Steps) -> Result<Answered, Refusal> {
        let validators = self.found.answer.as_ref().map(|answer| Validators::of(&answer.headers)).unwrap_or_default();
        validators.ask(&mut errand.head.headers);
        errand.head.headers.remove(header::RANGE);
        let (sequence, asked_ms) = (self.inquiry.cache.stash.sequence(), world::clock::unix_ms());
        match run_in_time(session, errand, steps).await {
            Ok(Answered::Message(response, lease, link)) => {
                let came = Came { sequence, asked_ms, received_ms: world::clock::unix_ms() };
                self.arrived(session, &came, response, lease, link).await
            }
            Ok(other) => Ok(other),
            Err(refusal) => {
                let stale = self.found.answer.take().filter(|answer| {
                    is_disconnected(&refusal)
                        && may_serve_stale(&answer.terms, Trouble::Disconnected, world::clock::unix_ms())
                });
                let Some(answer) = stale else {
                    // Nobody waits to find out the same one after the other.
                    if let Some(lead) = self.lead {
                        lead.land(Phase::Alone);
                    }
                    return Err(refusal);
                };
                Ok(self.instead(&answer))
            }
        }
    }

    async fn arrived(
        mut self,
        session: &Session,
        came: &Came,
        response: Response<()>,
        lease: Lease,
        link: Link,
    ) -> Result<Answered, Refusal> {
        let status = response.status();
        if let Some(answer) = self.found.answer.take() {
            if status == StatusCode::NOT_MODIFIED {
                drop(through(session, lease, link, status));
                return Ok(self.renewed(came, &answer, response.headers()));
            }
            if is_failing(status) && may_serve_stale(&answer.terms, Trouble::Failing, came.received_ms) {
                lease.end(Went::ServerError);
                return Ok(self.instead(&answer));
            }
            self.found.answer = Some(answer);
        }
        match self.judge(came, &response, link.size_hint().exact()) {
            Ok((fill, key)) => Ok(self.keep(session, came, (fill, key), response, lease, link)),
            Err(why) => Ok(self.let_go(why, response, lease, link).await),
        }
    }

    /// A 304: what is kept is still so.
    fn renewed(self, came: &Came, answer: &Arc<Answer>, said: &HeaderMap) -> Answered {
        let inquiry = self.inquiry;
        let mut headers = answer.headers.clone();
        renew(&mut headers, &stored_headers(said, came.received_ms));
        let mut judged = headers.clone();
        if let Some(age) = said.get(header::AGE) {
            judged.insert(header::AGE, age.clone());
        }
        let terms = storable(&inquiry.rule.policy, &came.arrival(inquiry, answer.status, &judged));
        let renewed = Arc::new(Answer {
            status: answer.status,
            headers: owned(&headers),
            body: answer.body.clone(),
            terms: terms.unwrap_or(answer.terms),
            names: answer.names.clone(),
            selection: answer.selection.clone(),
            address: answer.address.clone(),
            service: answer.service.clone(),
            hits: Arc::clone(&answer.hits),
        });
        if terms.is_ok() {
            put(inquiry, &self.found.key, &renewed, came.sequence);
        }
        if let Some(lead) = self.lead {
            lead.land(if terms.is_ok() { Phase::Kept } else { Phase::Alone });
        }
        let outcome = if self.quiet { None } else { Some(Outcome::Revalidated) };
        give_as(inquiry, &renewed, outcome)
    }

    /// What is kept, because the service cannot answer.
    fn instead(self, answer: &Arc<Answer>) -> Answered {
        if let Some(lead) = self.lead {
            lead.land(Phase::Stale(Arc::clone(answer)));
        }
        give_as(self.inquiry, answer, (!self.quiet).then_some(Outcome::Stale))
    }

    /// Whether the answer is for keeping: a place for its body and the key under which it is to lie, or why not.
    fn judge(
        &self,
        came: &Came,
        response: &Response<()>,
        length: Option<u64>,
    ) -> Result<(Arc<Fill>, String), &'static str> {
        let inquiry = self.inquiry;
        if inquiry.said().is_some_and(|said| said.no_store) {
            return Err("request-no-store");
        }
        let status = response.status();
        let arrival = came.arrival(inquiry, status, response.headers());
        let terms = storable(&inquiry.rule.policy, &arrival).map_err(httpcache::Refused::word)?;
        let Variance::Names(names) = variance(response.headers(), &inquiry.rule.vary) else { return Err("vary") };
        let selection = inquiry.selection(&names);
        let primary = inquiry.key(&inquiry.target);
        let key = if names.is_empty() { primary } else { variant_key(&primary, &selection) };
        let headers = stored_headers(response.headers(), came.received_ms);
        let head = Head { status, headers, terms, names, selection };
        let fill = Fill::new(head, length, inquiry.rule.answer_bytes_max, &inquiry.cache.budget);
        fill.map(|fill| (fill, key)).ok_or("too-large")
    }

    /// The answer is not kept: it goes to the client that asked, and nobody waits for it.
    async fn let_go(self, why: &'static str, mut response: Response<()>, lease: Lease, link: Link) -> Answered {
        let Ask { inquiry, found, lead, quiet } = self;
        if !inquiry.headers.contains_key(header::AUTHORIZATION) {
            inquiry.cache.passing.note(&found.key, world::clock::unix_ms());
        }
        if let Some(lead) = lead {
            lead.land(Phase::Alone);
        }
        if found.answer.is_some() && !is_failing(response.status()) {
            // Something newer is there, which cannot be kept: what is kept is wrong.
            inquiry.cache.forget(&inquiry.authority, &inquiry.target).await;
        }
        if !quiet {
            inquiry.rule.meters.count(Outcome::Uncacheable);
        }
        let forwarded = Some(forwarded(&found));
        let status = response.status();
        let said = cache_status(forwarded, Some(status.as_u16()), None, false, false, why);
        response.headers_mut().append(CACHE_STATUS, said);
        // Its condition was taken from the request, so that the answer could be kept.
        if is_not_modified(&inquiry.headers, status, response.headers(), world::clock::unix_ms()) {
            let headers = std::mem::take(response.headers_mut());
            lease.end(Went::ClientGone);
            return Answered::Kept(not_modified(headers));
        }
        Answered::Message(response, lease, link)
    }

    /// The answer is kept as it comes.
    fn keep(
        self,
        session: &Session,
        came: &Came,
        (fill, key): (Arc<Fill>, String),
        response: Response<()>,
        lease: Lease,
        link: Link,
    ) -> Answered {
        let Ask { inquiry, found, lead, quiet } = self;
        let (head, ()) = response.into_parts();
        let reader = fill.reader(true);
        inquiry.cache.passing.forget(&found.key);
        if let Some(lead) = lead.as_ref().filter(|_| fill.length.is_some()) {
            lead.tell(Phase::Coming(Arc::clone(&fill)));
        }
        let body = through(session, lease, link, head.status);
        let (inquiry_kept, fill_kept, sequence) = (Arc::clone(inquiry), Arc::clone(&fill), came.sequence);
        let keep = move |body: Bytes| keep_whole(&inquiry_kept, &fill_kept, key, body, sequence);
        let patience = session.ground.limits.stall_deadline;
        // It ends with the body, whoever reads along.
        world::task::spawn("cache fill", Arc::clone(&fill).run(body, lead, patience, keep)).detach();
        if !quiet {
            inquiry.rule.meters.count(Outcome::Miss);
        }
        let mut headers = head.headers;
        to_client(&mut headers);
        headers.remove(SURROGATE_CONTROL);
        let ttl_ms = fill.head.terms.ttl_ms(came.received_ms);
        let fwd_status = Some(head.status.as_u16());
        let said = cache_status(Some(forwarded(&found)), fwd_status, Some(ttl_ms), true, false, "");
        headers.append(CACHE_STATUS, said);
        if is_not_modified(&inquiry.headers, head.status, &headers, came.received_ms) {
            return Answered::Kept(not_modified(headers));
        }
        let mut response = Response::new(KeptBody::Coming(reader));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers;
        Answered::Kept(response)
    }
}

/// When an answer was asked for and came.
struct Came {
    sequence: u64,
    asked_ms: u64,
    received_ms: u64,
}

impl Came {
    fn arrival<'a>(&self, inquiry: &'a Inquiry, status: StatusCode, headers: &'a HeaderMap) -> Arrival<'a> {
        let Came { asked_ms, received_ms, .. } = *self;
        Arrival { request: &inquiry.headers, status, headers, asked_ms, received_ms }
    }
}

/// The body of an answer, with what is settled when it is through; no client is behind it.
fn through(session: &Session, lease: Lease, link: Link, status: StatusCode) -> AnswerBody {
    let record = Record::uncounted(&lease.upstream.meters);
    let pulse = Arc::new(Pulse::new());
    tracing::trace!(client = %session.client, status = status.as_u16(), "an answer for the cache");
    AnswerBody::from_instance(Ending::new(lease, link, status.as_u16(), record, pulse))
}

fn keep_whole(inquiry: &Inquiry, fill: &Fill, key: String, body: Bytes, sequence: u64) {
    let Head { status, headers, terms, names, selection } = &fill.head;
    let answer = Arc::new(Answer {
        status: *status,
        headers: owned(headers),
        body,
        terms: *terms,
        names: names.clone(),
        selection: selection.clone(),
        address: inquiry.address(),
        service: inquiry.service.clone(),
        hits: Arc::default(),
    });
    if !names.is_empty() {
        let sheet = Stored::Sheet(Arc::new(names.clone()));
        let of_address = labels(&inquiry.service, &inquiry.authority, &inquiry.target, &HeaderMap::new());
        let of_address: Vec<&str> = of_address.iter().map(String::as_str).collect();
        inquiry.cache.stash.put(inquiry.key(&inquiry.target), sheet, sequence, &of_address, lasting(terms.fresh_ms));
    }
    put(inquiry, &key, &answer, sequence);
}

fn put(inquiry: &Inquiry, key: &str, answer: &Arc<Answer>, sequence: u64) {
    let labels = labels(&inquiry.service, &inquiry.authority, &inquiry.target, &answer.headers);
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let stored = Stored::Answer(Arc::clone(answer));
    if inquiry.cache.stash.put(key.to_owned(), stored, sequence, &labels, lasting(answer.terms.fresh_ms)) {
        inquiry.cache.catalogue.note(key, answer, || inquiry.trace(&answer.headers));
    }
}

/// The same in memory of its own: what was read from a connection holds all that was read with it.
fn owned(headers: &HeaderMap) -> HeaderMap {
    let pairs = headers.iter().map(|(name, value)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static(""));
        (name.clone(), value)
    });
    let mut owned = HeaderMap::with_capacity(headers.len());
    for (name, value) in pairs {
        owned.append(name, value);
    }
    owned
}

fn lasting(fresh_ms: u64) -> Lasting {
    if fresh_ms < LASTING_MS_MIN { Lasting::Memory } else { Lasting::Disk }
}

/// An answer that is kept, to the client.
fn give(inquiry: &Inquiry, answer: &Arc<Answer>, outcome: Outcome) -> Answered {
    give_as(inquiry, answer, Some(outcome))
}

fn give_as(inquiry: &Inquiry, answer: &Arc<Answer>, outcome: Option<Outcome>) -> Answered {
    let now_ms = world::clock::unix_ms();
    let mut headers = answer.headers.clone();
    headers.insert(header::AGE, HeaderValue::from(answer.terms.age_ms(now_ms) / 1_000));
    let ttl_ms = Some(answer.terms.ttl_ms(now_ms));
    let said = match outcome {
        Some(Outcome::Revalidated) => cache_status(Some(Forwarded::Stale), Some(304), ttl_ms, true, false, ""),
        Some(Outcome::Collapsed) => cache_status(Some(Forwarded::Miss), None, ttl_ms, false, true, ""),
        Some(Outcome::Stale) => cache_status(None, None, ttl_ms, false, false, "stale"),
        Some(_) | None => cache_status(None, None, ttl_ms, false, false, ""),
    };
    headers.append(CACHE_STATUS, said);
    if let Some(outcome) = outcome {
        answer.hits.fetch_add(1, Ordering::Relaxed);
        inquiry.rule.meters.count(outcome);
    }
    if is_not_modified(&inquiry.headers, answer.status, &answer.headers, answer.terms.received_ms) {
        return Answered::Kept(not_modified(headers));
    }
    let length = u64::try_from(answer.body.len()).unwrap_or(u64::MAX);
    let (status, body) = match part(&inquiry.method, &inquiry.headers, answer.status, &answer.headers, length) {
        Part::Whole => (answer.status, answer.body.clone()),
        Part::Bytes(range) => {
            let said = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(said).unwrap_or(HeaderValue::from_static("")));
            let at = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX);
            (StatusCode::PARTIAL_CONTENT, answer.body.slice(at(range.start)..at(range.end)))
        }
        Part::Nothing => {
            let said = format!("bytes */{length}");
            headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(said).unwrap_or(HeaderValue::from_static("")));
            (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new())
        }
    };
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let body = if inquiry.method == Method::HEAD { Bytes::new() } else { body };
    inquiry.rule.meters.served(body.len());
    let mut response = Response::new(KeptBody::Whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Answered::Kept(response)
}

/// An answer that another asked for, as it comes.
fn follow(inquiry: &Inquiry, fill: &Arc<Fill>) -> Answered {
    let Head { status, headers, terms, .. } = &fill.head;
    let now_ms = world::clock::unix_ms();
    let mut headers = headers.clone();
    headers.insert(header::AGE, HeaderValue::from(terms.age_ms(now_ms) / 1_000));
    let ttl_ms = Some(terms.ttl_ms(now_ms));
    headers.append(CACHE_STATUS, cache_status(Some(Forwarded::Miss), None, ttl_ms, false, true, ""));
    inquiry.rule.meters.count(Outcome::Collapsed);
    if is_not_modified(&inquiry.headers, *status, &headers, terms.received_ms) {
        return Answered::Kept(not_modified(headers));
    }
    let mut response = Response::new(KeptBody::Coming(fill.reader(false)));
    *response.status_mut() = *status;
    *response.headers_mut() = headers;
    Answered::Kept(response)
}

fn not_modified(mut headers: HeaderMap) -> Response<KeptBody> {
    for name in [header::CONTENT_LENGTH, header::CONTENT_RANGE, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let mut response = Response::new(KeptBody::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = headers;
    response
}

fn nothing_kept(inquiry: &Inquiry) -> Answered {
    inquiry.rule.meters.count(Outcome::Bypass);
    let mut response = Response::new(KeptBody::Whole(Bytes::from_static(NOT_KEPT.as_bytes())));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Answered::Kept(response)
}

fn forwarded(found: &Found) -> Forwarded {
    match (&found.answer, found.varies) {
        (Some(_), _) => Forwarded::Stale,
        (None, true) => Forwarded::VaryMiss,
        (None, false) => Forwarded::Miss,
    }
}

fn is_failing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The service was not there, broke off or said nothing.
fn is_disconnected(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::NoEndpoint { .. }
        | Refusal::Unreachable { .. }
        | Refusal::Broken { .. }
        | Refusal::Late { .. }
        | Refusal::Crowded { .. }
        | Refusal::Shed { .. } => true,
        Refusal::Malformed(_)
        | Refusal::TooLong
        | Refusal::Busy
        | Refusal::NoRoute { .. }
        | Refusal::Deadline { .. }
        | Refusal::Unasked { .. }
        | Refusal::Connect
        | Refusal::Slow
        | Refusal::Ruled(_) => false,
    }
}
