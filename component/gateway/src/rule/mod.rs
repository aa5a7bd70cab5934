//! What a route does with a request besides passing it on.
//!
//! Owns the rules of one route, made ready: who is let through, what is changed on the way there and back. They decide
//! from the head of a request, the client's address and the time; only comparing a password takes longer, and is done
//! apart. A route without rules has none of this, and costs one look. Does not know connections or instances.

mod address;
mod body;
mod certificate;
mod condition;
mod cors;
mod denial;
mod header;
mod login;
mod password;
mod path;
mod rate;
mod redirect;

use crate::caller::Caller;
use crate::header::X_FORWARDED_CLIENT_CERT;
use crate::metrics::ServiceMeters;
use crate::table::Route;
pub(crate) use address::Addresses;
pub(crate) use body::Bounded;
use bytes::Bytes;
use certificate::Certificate;
pub(crate) use condition::Conditions;
use cors::Cors;
use denial::Denial;
pub(crate) use denial::Reason;
use header::Changes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, header as name};
use login::{Claim, Logins, Proof, Standing};
pub(crate) use path::{origin_form, plain};
use rate::Rate;
use redirect::Redirect;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    fn new(wanted: &wire::spec::Rules, service: &str, meters: &Arc<ServiceMeters>) -> Rules {
        let added = wanted.add_prefix.clone().map(path::Change::Add);
        Rules {
            service: service.to_owned(),
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
        }
    }

    /// Lets a request through, or says what is answered instead.
    pub(crate) fn admit(self: &Arc<Self>, visit: &Visit<'_>) -> Result<Pass, Box<Ruling>> {
        let headers = &visit.head.headers;
        let since = visit.now.saturating_duration_since(self.since);
        let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let origin = self.cors.as_ref().and_then(|_| headers.get(name::ORIGIN).cloned());
        let (secure, cut) = (visit.secure, AtomicBool::new(false));
        let mut pass = Pass { rules: Arc::clone(self), origin, secure, certificate: None, claim: None, now_ns, cut };
        if self.addresses.as_ref().is_some_and(|addresses| !addresses.admit(visit.client)) {
            return Err(pass.deny(&Denial::Address));
        }
        let target = visit.head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
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
            rate.admit(visit.client, headers, now_ns).map_err(|wait_ns| pass.deny(&Denial::Rate { wait_ns }))?;
        }
        if let Some(logins) = &self.logins {
            match logins.judge(headers, now_ns) {
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
        self.to_client(response.headers_mut());
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
        let rules = Arc::new(Rules::new(wanted, &route.service, meters));
        known.insert(route.clone(), Arc::clone(&rules));
        Some(rules)
    }

    /// Forgets the rules that no table uses any more.
    pub(crate) fn sweep(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, rules| Arc::strong_count(rules) > 1);
    }
}
