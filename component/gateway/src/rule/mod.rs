//! What a route does with a request besides passing it on.
//!
//! Owns the rules of one route, made ready: who is let through, what is changed on the way there and back. They decide
//! from the head of a request, the client's address and the time; only comparing a password takes longer, and is done
//! apart, as is asking another service, which `aside` does. A route without rules has none of this, and costs one look. Does not know connections or instances.

mod address;
mod ban;
mod body;
mod certificate;
mod compress;
mod condition;
mod cors;
mod denial;
mod header;
mod leave;
mod login;
mod pages;
mod password;
mod path;
mod rate;
mod redirect;

use crate::cache;
use crate::caller::Caller;
use crate::header::X_FORWARDED_CLIENT_CERT;
use crate::metrics::ServiceMeters;
use crate::table::Route;
pub(crate) use address::Addresses;
use ban::Bans;
pub(crate) use ban::client_of;
pub(crate) use body::Bounded;
use bytes::Bytes;
use certificate::Certificate;
pub(crate) use compress::describe;
use compress::{Compress, Wish};
pub(crate) use condition::Conditions;
use cors::Cors;
use denial::Denial;
pub(crate) use denial::Reason;
use header::Changes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header as name};
use leave::Leave;
use login::{Claim, Logins, Proof, Standing};
use pages::Pages;
pub(crate) use path::{origin_form, plain};
use rate::Rate;
use redirect::Redirect;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wire::spec::{Coding, Mirror};

/// The rules of one route, with what they remember.
pub(crate) struct Rules {
    service: String,
    meters: Arc<ServiceMeters>,
    /// What times are counted from.
    since: Instant,
    addresses: Option<Addresses>,
    redirect: Option<Redirect>,
    certificate: Option<Certificate>,
    hsts: Option<HeaderValue>,
    cors: Option<Cors>,
    maintenance: Option<String>,
    rate: Option<Rate>,
    logins: Option<Logins>,
    pub(crate) body_bytes_max: Option<u64>,
    pub(crate) answer_deadline: Option<Duration>,
    pub(crate) path: Option<path::Change>,
    request: Changes,
    response: Changes,
    compress: Option<Compress>,
    leave: Option<Leave>,
    pages: Option<Pages>,
    pub(crate) mirror: Option<Mirror>,
    head_bytes_max: Option<u64>,
    bans: Option<Bans>,
    pub(crate) cache: Option<Arc<cache::Rule>>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("service", &self.service).finish_non_exhaustive()
    }
}

/// A request as the rules look at it.
pub(crate) struct Visit<'r> {
    pub(crate) client: IpAddr,
    pub(crate) caller: Option<&'r Caller>,
    /// It came with TLS.
    pub(crate) secure: bool,
    /// Without the port.
    pub(crate) host: &'r str,
    pub(crate) head: &'r Parts,
    /// How long its body is at least.
    pub(crate) body_bytes_min: u64,
    pub(crate) now: Instant,
}

/// A request that was let through, and what is still to be done about it.
pub(crate) struct Pass {
    pub(crate) rules: Arc<Rules>,
    origin: Option<HeaderValue>,
    /// It came with TLS.
    secure: bool,
    /// What the instance is told of the client's certificate.
    certificate: Option<HeaderValue>,
    claim: Option<Claim>,
    now_ns: u64,
    client: IpAddr,
    wish: Option<Wish>,
    /// The target as the client wrote it, where somebody is to be told.
    asked: Option<HeaderValue>,
    /// Its body became longer than it may be.
    cut: AtomicBool,
}

/// An answer of the gateway's own, on behalf of a service.
pub(crate) struct Ruling {
    pub(crate) response: Response<Bytes>,
    pub(crate) meters: Arc<ServiceMeters>,
}

impl std::fmt::Debug for Ruling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.response.fmt(f)
    }
}

impl Rules {
    fn new(route: &Route, wanted: &wire::spec::Rules, meters: &Arc<ServiceMeters>) -> Rules {
        let service = &route.service;
        let added = wanted.add_prefix.clone().map(path::Change::Add);
        Rules {
            service: service.clone(),
            meters: Arc::clone(meters),
            since: world::clock::monotonic(),
            addresses: Addresses::new(&wanted.allow, &wanted.deny),
            redirect: wanted.redirect.as_ref().map(Redirect::new),
            certificate: wanted.client_certificates.as_ref().map(Certificate::new),
            hsts: wanted.hsts.as_ref().and_then(secure_only),
            cors: wanted.cors.as_ref().map(Cors::new),
            maintenance: wanted.maintenance.clone(),
            rate: wanted.rate_limit.as_ref().map(Rate::new),
            logins: wanted.basic_auth.as_ref().map(Logins::new),
            body_bytes_max: wanted.body_bytes_max,
            answer_deadline: wanted.answer_deadline_ms.map(Duration::from_millis),
            path: wanted.replace_path.clone().map(path::Change::Replace).or(added),
            request: Changes::new(&wanted.request_headers),
            response: Changes::new(&wanted.response_headers),
            compress: wanted.compress.as_ref().map(Compress::new),
            leave: wanted.forward_auth.as_ref().map(Leave::new),
            pages: Pages::new(&wanted.error_pages),
            mirror: wanted.mirror.clone(),
            head_bytes_max: wanted.head_bytes_max,
            bans: wanted.ban.as_ref().map(Bans::new),
            cache: cache::Rule::new(route, wanted, meters.meter()).map(Arc::new),
        }
    }

    /// Lets a request through, or says what is answered instead.
    pub(crate) fn admit(self: &Arc<Self>, visit: &Visit<'_>) -> Result<Pass, Box<Ruling>> {
        let headers = &visit.head.headers;
        let mut pass = self.pass(visit);
        let target = visit.head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if let Some(left_ns) = self.bans.as_ref().and_then(|bans| bans.left_ns(visit.client, pass.now_ns)) {
            return Err(pass.deny(&Denial::Banned { left_ns }));
        }
        if self.addresses.as_ref().is_some_and(|addresses| !addresses.admit(visit.client)) {
            return Err(pass.deny(&Denial::Address));
        }
        if let Some(bytes_max) = self.head_bytes_max.filter(|bytes_max| bytes_of(headers) > *bytes_max) {
            return Err(pass.deny(&Denial::Head { bytes_max }));
        }
        let redirect = self.redirect.as_ref();
        if let Some(response) = redirect.and_then(|redirect| redirect.answer(visit.host, target, visit.secure)) {
            return Err(pass.ruling(response));
        }
        if let Some(wanted) = &self.certificate {
            pass.certificate = wanted.judge(visit.caller).map_err(|denial| pass.deny(&denial))?;
        }
        if let Some(cors) = &self.cors
            && cors::preflight(&visit.head.method, headers).is_some()
        {
            return Err(Box::new(Ruling {
                response: cors.answer(pass.origin.as_ref()),
                meters: Arc::clone(&self.meters),
            }));
        }
        if let Some(text) = &self.maintenance {
            return Err(pass.deny(&Denial::Maintenance { text: text.clone() }));
        }
        if let Some(rate) = &self.rate {
            let admitted = rate.admit(visit.client, headers, pass.now_ns);
            admitted.map_err(|wait_ns| pass.deny(&Denial::Rate { wait_ns }))?;
        }
        if let Some(logins) = &self.logins {
            match logins.judge(headers, pass.now_ns) {
                Standing::Proven => {}
                Standing::Unproven(claim) => pass.claim = Some(claim),
                Standing::Missing => return Err(pass.deny_login(logins)),
            }
        }
        match self.body_bytes_max.filter(|bytes_max| visit.body_bytes_min > *bytes_max) {
            Some(bytes_max) => Err(pass.deny(&Denial::Size { bytes_max })),
            None => Ok(pass),
        }
    }

    /// For a request that nothing has been said about yet.
    fn pass(self: &Arc<Self>, visit: &Visit<'_>) -> Pass {
        let (method, headers) = (&visit.head.method, &visit.head.headers);
        let target = || visit.head.uri.path_and_query().and_then(|target| target.as_str().parse().ok());
        Pass {
            rules: Arc::clone(self),
            origin: self.cors.as_ref().and_then(|_| headers.get(name::ORIGIN).cloned()),
            secure: visit.secure,
            certificate: None,
            claim: None,
            now_ns: self.since_ns(visit.now),
            client: visit.client,
            wish: self.compress.as_ref().map(|compress| compress.wish(method, headers)),
            asked: self.leave.as_ref().and_then(|_| target()),
            cut: AtomicBool::new(false),
        }
    }

    fn since_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// As RFC 9113 counts them, but for its overhead: names, values, and the four bytes between and after them.
fn bytes_of(headers: &HeaderMap) -> u64 {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Pass {
    /// Proves the name and password, where that is still to be done. Waits for the hash.
    pub(crate) async fn prove(&self) -> Result<(), Box<Ruling>> {
        let (Some(logins), Some(claim)) = (&self.rules.logins, &self.claim) else { return Ok(()) };
        match logins.prove(claim, self.now_ns).await {
            Proof::Right => Ok(()),
            Proof::Wrong => Err(self.deny_login(logins)),
            Proof::Busy => Err(self.deny(&Denial::Rate { wait_ns: 0 })),
        }
    }

    /// Changes the headers that the instance gets.
    pub(crate) fn to_instance(&self, headers: &mut HeaderMap) {
        if self.rules.logins.as_ref().is_some_and(|logins| logins.hide) {
            headers.remove(name::AUTHORIZATION);
        }
        if let Some(certificate) = &self.certificate {
            headers.insert(X_FORWARDED_CLIENT_CERT, certificate.clone());
        }
        self.rules.request.apply(headers);
    }

    /// What another service is to be asked about a request with these headers, and how long that may take.
    pub(crate) fn question(&self, head: &Parts) -> Option<(Parts, Duration)> {
        let leave = self.rules.leave.as_ref()?;
        let asked = self.asked.clone().unwrap_or(HeaderValue::from_static("/"));
        Some((leave.question(&head.headers, &head.method, &asked), leave.deadline))
    }

    /// Takes in what that service answered: leave, with what the route's service is told, or what the client is
    /// answered.
    pub(crate) fn answered(&self, answer: Response<Bytes>, request: &mut HeaderMap) -> Result<(), Box<Ruling>> {
        if answer.status().is_success() {
            self.rules.leave.iter().for_each(|leave| leave.copy(answer.headers(), request));
            return Ok(());
        }
        self.rules.meters.refused(Reason::Leave);
        Err(self.ruling(answer))
    }

    /// That service gave no answer.
    pub(crate) fn unanswered(&self) -> Box<Ruling> {
        self.deny(&Denial::Unasked)
    }

    /// Takes in how the client is answered, for bans.
    pub(crate) fn note(&self, status: StatusCode) {
        let Some(bans) = &self.rules.bans else { return };
        let now_ns = self.rules.since_ns(world::clock::monotonic());
        if bans.note(self.client, status.as_u16(), now_ns) {
            self.rules.meters.banned();
            tracing::info!(client = %self.client, service = self.rules.service, "a client is banned for its answers");
        }
    }

    /// What the client gets instead of an answer of this status, if there is a page for it.
    pub(crate) fn page(&self, status: StatusCode, headers: &mut HeaderMap) -> Option<Bytes> {
        self.rules.pages.as_ref()?.replace(status, headers)
    }

    /// How an answer is to be coded; `bytes` is how long it is, where that is known.
    pub(crate) fn coding(&self, status: StatusCode, headers: &mut HeaderMap, bytes: Option<u64>) -> Option<Coding> {
        self.rules.compress.as_ref()?.choose(self.wish?, status, headers, bytes)
    }

    /// All that is done to an answer of the gateway's own.
    pub(crate) fn dress(&self, response: &mut Response<Bytes>) {
        let status = response.status();
        self.note(status);
        if let Some(page) = self.page(status, response.headers_mut()) {
            *response.body_mut() = page;
        }
        self.to_client(response.headers_mut());
    }

    /// The service is told who the client is.
    pub(crate) fn tells_client(&self) -> bool {
        self.certificate.is_some() || self.rules.leave.is_some()
    }

    /// Changes the headers that the client gets.
    pub(crate) fn to_client(&self, headers: &mut HeaderMap) {
        if let Some(hsts) = self.rules.hsts.as_ref().filter(|_| self.secure) {
            headers.entry(name::STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
        }
        if let Some(cors) = &self.rules.cors {
            cors.apply(self.origin.as_ref(), headers);
        }
        self.rules.response.apply(headers);
    }

    /// Whether the body became too long on the way.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// What is answered then.
    pub(crate) fn too_long(&self) -> Box<Ruling> {
        self.deny(&Denial::Size { bytes_max: self.rules.body_bytes_max.unwrap_or(u64::MAX) })
    }

    fn deny_login(&self, logins: &Logins) -> Box<Ruling> {
        self.deny(&Denial::Password { challenge: logins.challenge.clone() })
    }

    fn deny(&self, denial: &Denial) -> Box<Ruling> {
        self.rules.meters.refused(denial.reason());
        self.ruling(denial.response(&self.rules.service))
    }

    /// An answer of the gateway's own, with what pages of other origins need to read it.
    fn ruling(&self, mut response: Response<Bytes>) -> Box<Ruling> {
        self.dress(&mut response);
        Box::new(Ruling { response, meters: Arc::clone(&self.rules.meters) })
    }
}

/// What keeps browsers from coming without TLS again (RFC 6797).
fn secure_only(wanted: &wire::spec::Hsts) -> Option<HeaderValue> {
    let below = if wanted.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if wanted.preload { "; preload" } else { "" };
    HeaderValue::try_from(format!("max-age={}{below}{preload}", wanted.max_age_s)).ok()
}

/// The rules of all routes, kept from one table to the next: endpoints come and go all the time, and nobody's rate
/// starts anew with them.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<Route, Arc<Rules>>>);

impl Shelf {
    /// The rules of a route, if it has any. A route that changed begins anew.
    pub(crate) fn rules(&self, route: &Route, meters: &Arc<ServiceMeters>) -> Option<Arc<Rules>> {
        let wanted = route.rules.as_ref()?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = known.get(route) {
            return Some(Arc::clone(rules));
        }
        let rules = Arc::new(Rules::new(route, wanted, meters));
        known.insert(route.clone(), Arc::clone(&rules));
        Some(rules)
    }

    /// Everybody whom a route turns away: its service, the client, and for how long still.
    pub(crate) fn bans(&self) -> Vec<(String, IpAddr, Duration)> {
        let now = world::clock::monotonic();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_route = |rules: &Arc<Rules>| -> Vec<(String, IpAddr, Duration)> {
            let banned = rules.bans.as_ref().map(|bans| bans.list(rules.since_ns(now))).unwrap_or_default();
            let named = |(client, left_ns)| (rules.service.clone(), client, Duration::from_nanos(left_ns));
            banned.into_iter().map(named).collect()
        };
        known.values().flat_map(of_route).collect()
    }

    /// Lets a client in again everywhere. How many routes had turned it away.
    pub(crate) fn lift(&self, client: IpAddr) -> usize {
        let now = world::clock::monotonic();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lifted = known
            .values()
            .filter(|rules| rules.bans.as_ref().is_some_and(|bans| bans.lift(client, rules.since_ns(now))));
        lifted.count()
    }

    /// Forgets the rules that no table uses any more.
    pub(crate) fn sweep(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, rules| Arc::strong_count(rules) > 1);
    }
}
