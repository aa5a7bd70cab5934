//! One request and its answer.
//!
//! Owns the walk route → rules → policy → balancer → connection, and what happens when a step fails: another endpoint
//! is tried, the same request is sent again where that is harmless, or it waits for an endpoint to appear.
//! Promises at most [`SENDS_MAX`] sends, and more than one only of requests that may be repeated.

use crate::affinity::Wish;
use crate::answer::{Refusal, echo};
use crate::aside::Asides;
use crate::asked::Asked;
use crate::asking::{ClientBody, RequestBody, Streamed};
use crate::body::{AnswerBody, Ending};
use crate::cache::{self, Inquiry, KeptBody};
use crate::connecting::Connecting;
use crate::deadline;
use crate::header::{self, ClientName};
use crate::hedge;
use crate::http1::{self, AnswerHead, Bad, LineError};
use crate::link::Link;
use crate::listener::{Aim, Target, TargetKind};
use crate::metrics::Failure;
use crate::reshape::dress;
use crate::route::Head;
use crate::rule::{self, Bounded, Pass, Reason, Ruling, Visit, origin_form};
use crate::search::Search;
use crate::seen::{Record, RouteSeen, Steps, Trouble};
use crate::session::{ClientEnd, Session, Switch};
use crate::trace::Identity;
use crate::upstream::{Lease, Upstream};
use balancer::Outcome;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Extensions, HeaderMap, Request, Response, StatusCode, Version};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use tracing::{Instrument, Span};
use wire::spec::PriorityClass;

/// Google's rule for a single request ("Handling Overload"): after three the service is down, not unlucky.
const SENDS_MAX: u32 = 3;

/// A request on its way, with what is needed to send it again.
pub(crate) struct Errand {
    upstream: Arc<Upstream>,
    pub(crate) head: Parts,
    body: RequestBody,
    /// May be sent twice: idempotent and without a body.
    repeatable: bool,
    /// It needs what only HTTP/2 has.
    many: bool,
    /// The client's end, and the protocol it wants instead of HTTP.
    upgrade: Option<(ClientEnd, HeaderValue)>,
    /// By the rules of its route, if that has any.
    pub(crate) pass: Option<Arc<Pass>>,
    /// What the cache is to know of it, if the route has one.
    cached: Option<Box<Inquiry>>,
    asides: Asides,
    route: Option<Arc<RouteSeen>>,
    wish: Wish,
    started: Instant,
    /// When the client stops waiting, if it says so.
    pub(crate) deadline: Option<Instant>,
}

impl Errand {
    /// Has it proven who asks, and others asked for leave: before anything else is done about it, and once.
    pub(crate) async fn attend(&mut self, session: &Session) -> Result<(), Refusal> {
        // What only some need would make all requests larger.
        if self.pass.is_some() { Box::pin(self.attend_by_rules(session)).await } else { Ok(()) }
    }

    async fn attend_by_rules(&mut self, session: &Session) -> Result<(), Refusal> {
        let Some(pass) = &self.pass else { return Ok(()) };
        pass.prove().await.map_err(Refusal::Ruled)?;
        let asides = std::mem::take(&mut self.asides);
        asides.attend(pass, &mut self.head, &mut self.body, session.roll()[0]).await
    }

    /// The same once more, which may be asked for twice, for nobody who waits.
    pub(crate) fn anew(&self) -> Errand {
        Errand {
            upstream: Arc::clone(&self.upstream),
            head: self.head.clone(),
            body: RequestBody::Empty,
            repeatable: true,
            many: false,
            upgrade: None,
            pass: self.pass.clone(),
            cached: None,
            asides: Asides::default(),
            route: self.route.clone(),
            wish: Wish::LeastLoad,
            started: world::clock::monotonic(),
            deadline: None,
        }
    }
}

impl Errand {
    /// An answer as the route's rules want it.
    fn dressed(&self, response: Response<AnswerBody>) -> Response<AnswerBody> {
        match &self.pass {
            Some(pass) => dress(pass, response),
            None => response,
        }
    }

    /// Has the client remember the instance that answered, where the route says so.
    fn remember(&self, lease: &Lease, session: &Session, headers: &mut HeaderMap) {
        let affinity = self.route.as_ref().and_then(|route| route.affinity.as_ref());
        if let (Some(affinity), Some(seen)) = (affinity, &lease.seen) {
            affinity.remember(&self.wish, &seen.mark, session.name.is_secure(), headers);
        }
    }
}

/// A request that was let in.
pub(crate) struct Admitted {
    errand: Errand,
    record: Box<Record>,
}

/// What an instance answered.
pub(crate) enum Answered {
    Message(Response<()>, Lease, Link),
    /// By the cache.
    Kept(Response<KeptBody>),
    /// The connection leaves HTTP; its ends are with the session.
    Switched(Response<AnswerBody>),
}

/// Lets `request` in, or answers it at once. `stream` is the client's end if that is a stream, for the case that it
/// leaves HTTP.
#[expect(clippy::result_large_err, reason = "an answer is no error, and as likely as not as large")]
pub(crate) fn begin(
    session: &Arc<Session>,
    request: Request<ClientBody>,
    stream: Option<OnUpgrade>,
) -> Result<Admitted, Response<AnswerBody>> {
    let started = world::clock::monotonic();
    session.pulse.request_begins(!request.body().is_end_stream());
    let target = session.target.get();
    let mut record = Record::begin(session, &target.meters, &request, started);
    record.place = session.load.as_ref().and_then(|load| load.begin(session.ground.limits.requests_per_client_max));
    let admitted = match &record.place {
        None if session.load.is_some() => Err(Refusal::Busy),
        Some(_) | None => admit(session, &target, request, stream, &mut record),
    };
    match admitted {
        Ok(errand) => Ok(Admitted { errand, record }),
        Err(refusal) => Err(refused(session, refusal, None, record)),
    }
}

impl Admitted {
    /// Has it answered. May be dropped, when the client has left: everything it began ends with it.
    pub(crate) async fn run(&mut self, session: &Arc<Session>) -> Result<Answered, Refusal> {
        let Admitted { errand, record } = self;
        let span = span(session, errand);
        match errand.cached.take() {
            None => run_in_time(session, errand, &mut record.steps).instrument(span).await,
            // Apart: what most requests do not need would make all of them larger.
            Some(inquiry) => {
                Box::pin(cache::serve(session, errand, &mut record.steps, *inquiry)).instrument(span).await
            }
        }
    }

    /// What the client is told.
    pub(crate) fn finish(self, session: &Session, answered: Result<Answered, Refusal>) -> Response<AnswerBody> {
        let Admitted { errand, mut record } = self;
        match answered {
            Ok(Answered::Message(mut response, lease, link)) => {
                header::to_client(response.headers_mut());
                errand.remember(&lease, session, response.headers_mut());
                let status = response.status().as_u16();
                let ending = Ending::new(lease, link, status, record, Arc::clone(&session.pulse));
                errand.dressed(response.map(|()| AnswerBody::from_instance(ending)))
            }
            Ok(Answered::Kept(response)) => {
                record.answered(response.status().as_u16(), world::clock::monotonic());
                errand.dressed(response.map(|body| AnswerBody::from_cache(body, record, Arc::clone(&session.pulse))))
            }
            Ok(Answered::Switched(response)) => {
                record.status = response.status().as_u16();
                response
            }
            Err(refusal) => {
                let in_grpc = refusal.in_grpc().filter(|_| errand.many);
                let response = refused(session, refusal, errand.pass.as_deref(), record);
                in_grpc.map_or(response, |response| response.map(AnswerBody::own))
            }
        }
    }
}

fn refused(session: &Session, refusal: Refusal, pass: Option<&Pass>, mut record: Box<Record>) -> Response<AnswerBody> {
    session.pulse.request_ends();
    let mut response = refusal.response();
    record.refused(&response);
    match (&refusal, pass) {
        (Refusal::Ruled(ruling), _) => record.meters = Arc::clone(&ruling.meters),
        (_, Some(pass)) => pass.dress(&mut response),
        (_, None) => {}
    }
    response.map(AnswerBody::own)
}

/// Answers what could not be read as a request.
pub(crate) fn refuse(session: &Session, bad: Bad) -> Response<AnswerBody> {
    let refusal = match bad {
        Bad::Malformed(why) => Refusal::Malformed(why),
        Bad::TooLong => Refusal::TooLong,
    };
    session.target.get().meters.unreadable(refusal.status().as_u16());
    refusal.response().map(AnswerBody::own)
}

/// What is logged while a request is under way belongs to its trace.
fn span(session: &Session, errand: &Errand) -> Span {
    let (head, service) = (&errand.head, errand.upstream.service.as_str());
    tracing::debug_span!(
        "request",
        trace = header::traceparent(&head.headers),
        client = %session.client,
        method = %head.method,
        path = head.uri.path(),
        service,
    )
}

/// Route and policy: from a request as received to one for a service.
fn admit(
    session: &Session,
    target: &Target,
    mut request: Request<ClientBody>,
    stream: Option<OnUpgrade>,
    record: &mut Record,
) -> Result<Errand, Refusal> {
    let started = record.started;
    let in_stream = header::opens_websocket(&request);
    if in_stream {
        header::to_websocket_handshake(&mut request, session.roll());
    }
    let asked = Asked::read(request.method(), request.uri(), request.version(), request.headers())?;
    let wanted =
        in_stream.then(|| HeaderValue::from_static("websocket")).or_else(|| header::upgrade(request.headers()));
    let upgrade = wanted.filter(|_| request.body().is_end_stream());
    let upgrade = upgrade.map(|protocol| (stream.map_or(ClientEnd::Wire, ClientEnd::Stream), protocol));
    let (mut head, body) = request.into_parts();
    let path = rule::plain(head.uri.path());
    let named = session.trusted.as_ref().and_then(|trusted| session.name.of_another(&head.headers, trusted));
    let client = named.as_ref().unwrap_or(&session.name);
    let body_bytes_min = body.size_hint().lower();
    let came = Came { client, asked: &asked, head: &head, path: &path, body_bytes_min, started };
    let Way { upstream, route, prefix, pass, asides } = way(session, target, &came, record)?;
    let class = route.map_or(PriorityClass::Normal, |route| route.class);
    target.policy.admit(upstream, class, || session.roll()[0])?;
    let wish = route.and_then(|route| route.affinity.as_ref()).map(|one| one.wish(&head.headers, client.ip()));
    let cached = pass.as_ref().and_then(|pass| pass.rules.cache.as_ref()).zip(session.ground.cache.get());
    let cached = cached.map(|(rule, cache)| {
        let is_plain = body.is_end_stream() && upgrade.is_none() && !header::is_grpc(&head.headers);
        Box::new(Inquiry::new(cache, rule, (&asked, &head), client, upstream, is_plain))
    });
    if head.uri.authority().is_some() {
        head.headers.insert(HOST, asked.host.clone());
    }
    // Nobody else needs the path once more.
    let plain = prefix.map(|_| path.into_owned()).unwrap_or_default();
    head.uri = origin_form(head.uri, &plain, prefix, pass.as_ref().and_then(|pass| pass.rules.path.as_ref()));
    head.version = Version::HTTP_11;
    record.identified(identify(session, &mut head.headers, client, &asked.host, prefix, record));
    if let Some(pass) = &pass {
        pass.to_instance(&mut head.headers);
    }
    let many = header::is_grpc(&head.headers);
    if many {
        header::to_http_2(&mut head);
    }
    if let Some((_, protocol)) = &upgrade {
        header::set_upgrade(&mut head.headers, protocol.clone());
    }
    let body = to_instance(session, body, pass.as_ref(), record, many);
    let repeatable = head.method.is_idempotent() && matches!(body, RequestBody::Empty);
    head.extensions = Extensions::new();
    let deadline = deadline::asked(&head.headers).map(|asked| started + asked);
    Ok(Errand {
        upstream: Arc::clone(upstream),
        head,
        body,
        repeatable,
        many,
        upgrade,
        pass,
        asides,
        cached,
        route: route.cloned(),
        wish: wish.unwrap_or(Wish::LeastLoad),
        started,
        deadline,
    })
}

/// Makes the headers those of an instance, and gives the request its place in a trace.
fn identify(
    session: &Session,
    headers: &mut HeaderMap,
    client: &ClientName,
    host: &HeaderValue,
    prefix: Option<&str>,
    record: &Record,
) -> Identity {
    let decide = |random: Option<u64>| random.map_or_else(|| record.may_ask(), |random| record.is_sampled(random));
    header::to_instance(headers, client, host, prefix, || session.roll(), decide)
}

/// The body on its way to an instance.
fn to_instance(
    session: &Session,
    body: ClientBody,
    pass: Option<&Arc<Pass>>,
    record: &mut Record,
    many: bool,
) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::Empty;
    }
    let body = Bounded::new(body, pass.cloned(), record.uploads());
    // A stream of messages has pauses of any length, and its service may answer at its end alone.
    RequestBody::Stream(Box::new(Streamed::new(body, Arc::clone(&session.pulse), !many)))
}

/// A request as it came.
struct Came<'r> {
    client: &'r ClientName,
    asked: &'r Asked,
    head: &'r Parts,
    /// As routes compare it.
    path: &'r str,
    body_bytes_min: u64,
    started: Instant,
}

/// Where a request goes, without which part of its path, and by which rules.
struct Way<'t> {
    upstream: &'t Arc<Upstream>,
    route: Option<&'t Arc<RouteSeen>>,
    prefix: Option<&'t str>,
    pass: Option<Arc<Pass>>,
    asides: Asides,
}

fn way<'t>(session: &Session, target: &'t Target, came: &Came<'_>, record: &mut Record) -> Result<Way<'t>, Refusal> {
    let router = match &target.kind {
        TargetKind::Service { upstream, .. } => {
            record.routed(upstream, None, came.client.ip());
            return Ok(Way { upstream, route: None, prefix: None, pass: None, asides: Asides::default() });
        }
        TargetKind::Routed(router) => router,
    };
    let (head, host) = (came.head, came.asked.name());
    let secure = came.client.is_secure();
    // Whether a balancer in front of us ended TLS is nothing to an authority, which asks without.
    if let Some(response) = session.ground.proofs.answer(&head.method, came.path, session.name.is_secure()) {
        return Err(Refusal::Ruled(Box::new(Ruling { response, meters: Arc::clone(&target.meters) })));
    }
    let seen = Head { host: &host, path: came.path, method: &head.method, headers: &head.headers, secure };
    let Some(arm) = router.find(seen, || session.roll()[0]) else {
        let host_known = router.knows_host(&host);
        return Err(Refusal::NoRoute { host: echo(&host), path: echo(head.uri.path()), host_known });
    };
    let Aim { upstream, asides, seen } = &arm.target;
    record.routed(upstream, Some(seen), came.client.ip());
    let pass = arm.rules.as_ref().map(|rules| {
        rules.admit(&Visit {
            client: came.client.ip(),
            caller: session.caller.as_deref(),
            secure,
            host: &host,
            head,
            body_bytes_min: came.body_bytes_min,
            now: came.started,
        })
    });
    let pass = pass.transpose().map_err(Refusal::Ruled)?.map(Arc::new);
    Ok(Way { upstream, route: Some(seen), prefix: arm.stripped(), pass, asides: asides.clone() })
}

/// [`run`], no longer than the client waits.
pub(crate) async fn run_in_time(
    session: &Session,
    errand: &mut Errand,
    steps: &mut Steps,
) -> Result<Answered, Refusal> {
    let deadline = errand.deadline;
    let Some(deadline) = deadline else { return run(session, errand, steps).await };
    let upstream = Arc::clone(&errand.upstream);
    // Apart: what most requests do not need would make all of them larger.
    let mut running = Box::pin(run(session, errand, steps));
    match tokio::time::timeout_at(deadline.into(), running.as_mut()).await {
        Ok(answered) => answered,
        Err(_) => {
            // Dropped, it has given back what it had: the instance sees its client leave.
            upstream.meters.failure(Failure::Late);
            Err(Refusal::Deadline { service: upstream.service.clone() })
        }
    }
}

/// Balancer and connection: sends the request until there is an answer or no more to try.
async fn run(session: &Session, errand: &mut Errand, steps: &mut Steps) -> Result<Answered, Refusal> {
    errand.attend(session).await?;
    let Errand { upstream, head, body, upgrade, pass, route, wish, .. } = errand;
    let (repeatable, many, started, deadline) = (errand.repeatable, errand.many, errand.started, errand.deadline);
    let upstream: &Arc<Upstream> = upstream;
    let patience = pass.as_ref().and_then(|pass| pass.rules.answer_deadline);
    // Whoever is asked for leave takes a time of which no endpoint is guilty.
    let begun = if pass.is_some() { world::clock::monotonic() } else { started };
    let search = Search::new(Arc::clone(upstream), started).wishing(wish.clone(), begun);
    let hedging = route.as_ref().and_then(|route| route.hedging.as_ref()).filter(|_| repeatable && upgrade.is_none());
    if matches!(body, RequestBody::Stream(_)) {
        // What only some need would make all requests larger.
        let enough = Box::pin(body.enough(session.load.as_ref(), &upstream.meters)).await;
        enough.map_err(|_| body_broke(pass.as_deref()))?;
    }
    let mut connecting = Connecting { search, steps, fresh: false, repeatable, many };
    let mut sends = 0;
    loop {
        let (lease, mut link) = connecting.connect(session, upstream).await?;
        connecting.steps.connected(&lease, &link);
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(world::clock::monotonic());
            deadline::pass_on(&mut head.headers, left);
        }
        let (lease, link, sent) = match hedging {
            Some(hedging) => {
                Box::pin(hedge::race(session, &mut connecting, (lease, link), head, patience, hedging)).await
            }
            None => {
                let sent = send(session, &mut link, head, body, patience).await;
                (lease, link, sent)
            }
        };
        let error = match sent {
            Some(Ok(answer)) => {
                http1::recycle(std::mem::take(&mut head.headers));
                return accept(session, answer, lease, link, upgrade.take());
            }
            Some(Err(LineError::Unsent)) => {
                // The other end had closed the connection while it was unused: nobody's fault.
                connecting.failed(lease, &link, Trouble::Closed);
                continue;
            }
            Some(Err(error)) => error,
            None => {
                upstream.meters.failure(Failure::Late);
                if patience.is_some() {
                    upstream.meters.refused(Reason::Late);
                }
                lease.end(Outcome::ServerError);
                return Err(Refusal::Late { service: upstream.service.clone() });
            }
        };
        sends += 1;
        if matches!(error, LineError::Body(_)) || pass.as_ref().is_some_and(|pass| pass.is_cut()) {
            return Err(body_broke(pass.as_deref()));
        }
        upstream.meters.failure(Failure::Broken);
        connecting.failed(lease, &link, Trouble::Broken);
        if !(repeatable && sends < SENDS_MAX && upstream.may_retry()) {
            return Err(broken(upstream, error));
        }
        upstream.meters.retry();
    }
}

/// The client's body is longer than it may be, or has broken off: no instance is to blame.
fn body_broke(pass: Option<&Pass>) -> Refusal {
    match pass.filter(|pass| pass.is_cut()) {
        Some(pass) => Refusal::Ruled(pass.too_long()),
        None => Refusal::Malformed("the body ended early"),
    }
}

fn broken(upstream: &Upstream, source: LineError) -> Refusal {
    if upstream.meters.may_warn(upstream.ground.now_ms()) {
        tracing::warn!(service = upstream.service, port = upstream.port, error = %source, "an instance broke off");
    }
    Refusal::Broken { service: upstream.service.clone(), source }
}

/// Sends a request; the answer may take its time from the end of the request's body on: `patience`, if the route has
/// one, or else the gateway's. `None` when it took longer: the session, which looks at its clock once in a while, polls
/// this again when that has come out.
pub(crate) async fn send(
    session: &Session,
    link: &mut Link,
    head: &Parts,
    body: &mut RequestBody,
    patience: Option<Duration>,
) -> Option<Result<AnswerHead, LineError>> {
    session.pulse.asks();
    let mut sending = pin!(link.send(head, body, session.foreword()));
    let mut alarm: Option<Pin<Box<Sleep>>> = None;
    let sent = std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
        Poll::Ready(sent) => Poll::Ready(Some(sent)),
        Poll::Pending if session.pulse.is_late() => Poll::Ready(None),
        Poll::Pending => match patience.filter(|_| !session.pulse.is_uploading()) {
            Some(patience) => {
                let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                alarm.as_mut().poll(cx).map(|()| None)
            }
            None => Poll::Pending,
        },
    })
    .await;
    session.pulse.asks_no_more();
    sent
}

/// Takes an instance's answer, and the connection with it if that is what was asked and agreed.
fn accept(
    session: &Session,
    answer: AnswerHead,
    lease: Lease,
    link: Link,
    upgrade: Option<(ClientEnd, HeaderValue)>,
) -> Result<Answered, Refusal> {
    let AnswerHead { status, mut headers } = answer;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        return Ok(Answered::Message(response, lease, link));
    }
    let service = lease.upstream.service.clone();
    let taken = upgrade.and_then(|(client, asked)| Some((client, asked, link.into_stream()?)));
    let Some((client, asked, (instance, early))) = taken else {
        lease.end(Outcome::ServerError);
        return Err(Refusal::Unasked { service });
    };
    let protocol = headers.get(http::header::UPGRADE).cloned().unwrap_or(asked);
    header::to_client(&mut headers);
    header::set_upgrade(&mut headers, protocol);
    lease.works();
    session.set_switch(Switch { client, instance, early, lease });
    Ok(Answered::Switched(switching(headers)))
}

fn switching(headers: HeaderMap) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::own(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}
