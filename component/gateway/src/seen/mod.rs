//! What is known of one request, from its head to the end of its answer, and who is told.
//!
//! Owns the record of a request under way: marks in passing, a few words each, that become series, an exemplar and a
//! line of the access log when it is over, however it ends. What the line needs is shared with the request, not copied,
//! and made into text only for the requests that are told of, elsewhere. Decides nothing about the request.

mod account;
mod counted;
mod scribe;

use crate::answer::Code;
use crate::crowd;
use crate::link::Link;
use crate::metrics::ServiceMeters;
use crate::session::Session;
use crate::trace::Identity;
use crate::upstream::{Ground, Lease, Upstream};
pub(crate) use counted::{InstanceSeen, RouteSeen, RoutesSeen};
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
pub use scribe::AccessSink;
pub(crate) use scribe::Scribe;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::api::{End, TlsSeen};

/// What is kept of the tries that failed: after so many they say the same.
const RETRIES_MAX: usize = 8;

/// A request under way, in a box: it goes from hand to hand. Dropped, it is counted and told of.
pub(crate) struct Record {
    pub(crate) meters: Arc<ServiceMeters>,
    /// 0 until there is an answer.
    pub(crate) status: u16,
    pub(crate) started: Instant,
    pub(crate) steps: Steps,
    /// Its place among those of its client.
    pub(crate) place: Option<crowd::Part>,
    /// A client asked.
    counts: bool,
    method: Method,
    route: Option<Arc<RouteSeen>>,
    /// Of the gateway's own answer.
    code: &'static str,
    /// When the head of the answer was there.
    answered: Option<Instant>,
    bytes_out: u64,
    end: End,
    /// `None` where nobody is to be told.
    story: Option<Story>,
}

/// The way to the instance that answered, or did not.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) instance: Option<Arc<InstanceSeen>>,
    pub(crate) sends: u32,
    hedged: bool,
    reused: bool,
    found: Option<Instant>,
    connected: Option<Instant>,
    retries: Vec<(Arc<str>, Trouble)>,
}

/// Why an instance was given up for another, or asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Connect,
    Broken,
    /// The connection had been closed while it was unused.
    Closed,
}

/// What the request said, shared with it.
struct Story {
    ground: Arc<Ground>,
    client: IpAddr,
    tls: Option<Arc<TlsSeen>>,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    upstream: Option<Arc<Upstream>>,
    identity: Identity,
    bytes_in: Option<Arc<AtomicU64>>,
}

/// A request that is over and to be told of.
struct Account {
    record: Told,
    story: Story,
    why: wire::api::Why,
}

/// What of a record goes into an account.
struct Told {
    ended_unix_ms: u64,
    started: Instant,
    ended: Instant,
    method: Method,
    status: u16,
    code: &'static str,
    answered: Option<Instant>,
    bytes_out: u64,
    end: End,
    route: Option<Arc<RouteSeen>>,
    steps: Steps,
}

impl Record {
    /// The head of `request` is complete.
    pub(crate) fn begin<B>(
        session: &Session,
        meters: &Arc<ServiceMeters>,
        request: &Request<B>,
        started: Instant,
    ) -> Box<Record> {
        let mut record = Record::untold(meters, request.method(), started);
        record.story = session.ground.scribe.is_on().then(|| Story {
            ground: Arc::clone(&session.ground),
            client: session.name.ip(),
            tls: session.tls.clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: request.headers().get(HOST).cloned(),
            upstream: None,
            identity: Identity::default(),
            bytes_in: None,
        });
        record
    }

    /// A request of the gateway's own, which is counted only.
    pub(crate) fn untold(meters: &Arc<ServiceMeters>, method: &Method, started: Instant) -> Box<Record> {
        Box::new(Record {
            meters: Arc::clone(meters),
            status: 0,
            started,
            steps: Steps::default(),
            place: None,
            counts: true,
            method: method.clone(),
            route: None,
            code: "",
            answered: None,
            bytes_out: 0,
            end: End::Complete,
            story: None,
        })
    }

    /// What the cache asks for, which no client waits for.
    pub(crate) fn uncounted(meters: &Arc<ServiceMeters>) -> Box<Record> {
        let mut record = Record::untold(meters, &Method::GET, world::clock::monotonic());
        record.counts = false;
        record
    }

    /// It is known which service it is for. `client` is who asks, whoever speaks for them.
    pub(crate) fn routed(&mut self, upstream: &Arc<Upstream>, route: Option<&Arc<RouteSeen>>, client: IpAddr) {
        self.meters = Arc::clone(&upstream.meters);
        self.route = route.cloned();
        if route.and_then(|route| route.log) == Some(wire::spec::AccessLog::Off) {
            self.story = None;
        }
        if let Some(story) = &mut self.story {
            story.upstream = Some(Arc::clone(upstream));
            story.client = client;
        }
    }

    /// Whether one that says nothing of itself is to be told of, decided by an even `random` number. Where nothing is
    /// told of here, those further on may tell what they like.
    pub(crate) fn is_sampled(&self, random: u64) -> bool {
        self.story.as_ref().is_none_or(|story| story.ground.scribe.samples(self.log(), random))
    }

    /// Whether one that asks to be told of may be.
    pub(crate) fn may_ask(&self) -> bool {
        self.story.as_ref().is_some_and(|story| story.ground.scribe.may_ask())
    }

    /// It has its place in a trace.
    pub(crate) fn identified(&mut self, identity: Identity) {
        if let Some(story) = &mut self.story {
            story.identity = identity;
        }
    }

    /// It has a body: where its bytes are to be counted.
    pub(crate) fn uploads(&mut self) -> Option<Arc<AtomicU64>> {
        self.story.as_mut().map(|story| Arc::clone(story.bytes_in.get_or_insert_default()))
    }

    /// The gateway answers itself.
    pub(crate) fn refused<B>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        self.code = response.extensions().get::<Code>().map_or("", |code| code.0);
    }

    /// The head of an instance's answer is there.
    pub(crate) fn answered(&mut self, status: u16, now: Instant) {
        self.status = status;
        self.answered = Some(now);
    }

    /// Some of the answer's body went to the client.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_out += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// The client left in the middle of the answer.
    pub(crate) fn left(&mut self) {
        self.end = End::Left;
    }

    /// The instance broke off in the middle of its answer.
    pub(crate) fn cut(&mut self) {
        self.end = End::Cut;
    }

    fn log(&self) -> Option<wire::spec::AccessLog> {
        self.route.as_ref().and_then(|route| route.log)
    }

    /// Until the head of the answer, or until it was over without one.
    fn waited(&self, ended: Instant) -> Duration {
        self.answered.unwrap_or(ended).saturating_duration_since(self.started)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        let ended = world::clock::monotonic();
        let took = ended.saturating_duration_since(self.started);
        if self.status == 0 {
            self.end = End::Left;
        }
        // As it is counted: nobody was there to take the answer.
        let counted = if self.end == End::Left { 0 } else { self.status };
        self.meters.request(&self.method, counted, took);
        if let Some(route) = &self.route {
            route.meters.request(counted, took);
        }
        if let Some(instance) = &self.steps.instance {
            instance.meters.request(counted, took);
        }
        let Some(story) = &self.story else { return };
        let why = story.ground.scribe.why(self.log(), self, &story.identity, ended);
        let Some((why, story)) = why.zip(self.story.take()) else { return };
        if let Some(trace) = story.identity.trace() {
            self.meters.exemplify(took, trace);
            self.route.iter().for_each(|route| route.meters.exemplify(took, trace));
            self.steps.instance.iter().for_each(|instance| instance.meters.exemplify(took, trace));
        }
        let told = Told {
            ended_unix_ms: world::clock::unix_ms(),
            started: self.started,
            ended,
            method: self.method.clone(),
            status: self.status,
            code: self.code,
            answered: self.answered,
            bytes_out: self.bytes_out,
            end: self.end,
            route: self.route.take(),
            steps: std::mem::take(&mut self.steps),
        };
        let ground = Arc::clone(&story.ground);
        ground.scribe.tell(Account { record: told, story, why });
    }
}

impl Steps {
    /// There is a connection to an instance.
    pub(crate) fn connected(&mut self, lease: &Lease, link: &Link) {
        self.instance.clone_from(&lease.seen);
        self.reused = link.reused;
        self.found = Some(lease.begun);
        self.connected = Some(if link.reused { lease.begun } else { world::clock::monotonic() });
        self.sends += 1;
    }

    /// It was sent to a second instance as well.
    pub(crate) fn hedged(&mut self) {
        self.hedged = true;
        self.sends += 1;
    }

    /// The second answered first.
    pub(crate) fn won(&mut self, lease: &Lease, link: &Link) {
        self.instance.clone_from(&lease.seen);
        self.reused = link.reused;
    }

    /// An instance failed it.
    pub(crate) fn failed(&mut self, instance: &Arc<str>, trouble: Trouble) {
        if self.retries.len() < RETRIES_MAX {
            self.retries.push((Arc::clone(instance), trouble));
        }
    }
}

impl Story {
    fn bytes_in(&self) -> u64 {
        self.bytes_in.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }
}

impl Trouble {
    fn word(self) -> &'static str {
        match self {
            Trouble::Connect => "connect",
            Trouble::Broken => "broken",
            Trouble::Closed => "closed",
        }
    }
}
