//! One client connection that speaks HTTP/1.1, from its first byte to its last.
//!
//! Owns the connection's deadlines and its end. Everything a client connection causes runs inside its task:
//! requests, answers and, after an upgrade, the tunnel; when it ends, all of that ends. Does not know how a
//! request is answered: `exchange` does.

use crate::caller::Caller;
use crate::crowd::Load;
use crate::header::ClientName;
use crate::http1::{Broken, Foreword, SharedWire};
use crate::listener::{Phase, Target};
use crate::offer::Offer;
use crate::published::Arrival;
use crate::pulse::{ClientStream, Pulse};
use crate::rule::Addresses;
use crate::streams;
use crate::swap::Swap;
use crate::talk::{self, After, Talk};
use crate::tunnel;
use crate::upstream::{Ground, Lease};
use balancer::Outcome;
use bytes::Bytes;
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;
use wire::api::TlsSeen;
use world::random::Dice;

/// Requests that belong together follow each other faster: a connection without one for so long is at rest.
const REST_AFTER: Duration = Duration::from_millis(100);
/// Between two looks whether one that is used all the time still is.
const REST_LOOK: Duration = Duration::from_secs(1);

/// What the requests of one client connection share.
pub(crate) struct Session {
    pub(crate) ground: Arc<Ground>,
    pub(crate) target: Arc<Swap<Target>>,
    pub(crate) pulse: Arc<Pulse>,
    phase: watch::Receiver<Phase>,
    pub(crate) client: SocketAddr,
    pub(crate) name: Arc<ClientName>,
    /// Set when the other end may say for whom it speaks: who else may.
    pub(crate) trusted: Option<Arc<Addresses>>,
    /// Set when it was asked for its certificate.
    pub(crate) caller: Option<Arc<Caller>>,
    /// What the client has under way on all its connections.
    pub(crate) load: Option<Arc<Load>>,
    pub(crate) tls: Option<Arc<TlsSeen>>,
    /// What answers say of another way to the same port.
    pub(crate) offer: Option<Arc<Offer>>,
    /// A connection made before it was known that the client speaks HTTP: the first request's.
    pub(crate) first: Mutex<Option<Box<(Lease, TcpStream)>>>,
    /// Where answers before the answer go. Streams have none: hyper does not send any.
    foreword: OnceLock<Foreword>,
    switch: Mutex<Option<Box<Switch>>>,
    dice: Dice,
}

/// Both ends of a connection that leaves HTTP.
pub(crate) struct Switch {
    pub(crate) client: ClientEnd,
    pub(crate) instance: TcpStream,
    /// What the instance sent after its 101 already.
    pub(crate) early: Bytes,
    pub(crate) lease: Lease,
}

/// Where the client's end of such a connection is.
pub(crate) enum ClientEnd {
    /// It is the connection itself.
    Wire,
    Stream(OnUpgrade),
}

impl Session {
    pub(crate) fn new(
        ground: Arc<Ground>,
        target: Arc<Swap<Target>>,
        pulse: Arc<Pulse>,
        phase: watch::Receiver<Phase>,
        client: SocketAddr,
        secure: bool,
        first: Option<(Lease, TcpStream)>,
    ) -> Session {
        let dice = ground.dice.others();
        Session {
            ground,
            target,
            pulse,
            phase,
            client,
            name: Arc::new(ClientName::new(client.ip(), secure)),
            trusted: None,
            caller: None,
            load: None,
            tls: None,
            offer: None,
            first: Mutex::new(first.map(Box::new)),
            foreword: OnceLock::new(),
            switch: Mutex::new(None),
            dice,
        }
    }

    /// For one of the connection's streams.
    pub(crate) fn stream(&self, pulse: Arc<Pulse>) -> Session {
        Session {
            ground: Arc::clone(&self.ground),
            target: Arc::clone(&self.target),
            pulse,
            phase: self.phase.clone(),
            client: self.client,
            name: Arc::clone(&self.name),
            trusted: self.trusted.clone(),
            caller: self.caller.clone(),
            load: self.load.clone(),
            tls: self.tls.clone(),
            offer: None,
            first: Mutex::new(self.lock_first().take()),
            foreword: OnceLock::new(),
            switch: Mutex::new(None),
            dice: self.dice.others(),
        }
    }

    /// Whether the listener is going: no other request is wanted over this connection.
    pub(crate) fn is_ending(&self) -> bool {
        self.phase() != Phase::Open
    }

    /// What becomes of the listener, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Tells the client of another way to the same port, if there is one; not where it was asked for its certificate, which
    /// it would not be there.
    pub(crate) fn offer_other_way(&self, headers: &mut HeaderMap) {
        if let Some(offer) = self.offer.as_ref().filter(|_| self.caller.is_none()) {
            offer.tell(headers);
        }
    }

    /// For what goes on when the client has left.
    pub(crate) fn apart(&self) -> Session {
        Session {
            ground: Arc::clone(&self.ground),
            target: Arc::clone(&self.target),
            pulse: Arc::new(Pulse::new()),
            phase: self.phase.clone(),
            client: self.client,
            name: Arc::clone(&self.name),
            caller: self.caller.clone(),
            trusted: None,
            load: None,
            tls: None,
            offer: None,
            first: Mutex::new(None),
            foreword: OnceLock::new(),
            switch: Mutex::new(None),
            dice: self.dice.others(),
        }
    }

    /// What remains while nobody says anything. `None` when somebody else still holds the connection.
    fn rest(&self, wire: SharedWire) -> Option<Box<Arrival>> {
        Some(Box::new(Arrival {
            ground: Arc::clone(&self.ground),
            target: Arc::clone(&self.target),
            stream: wire.into_stream()?,
            pulse: Arc::clone(&self.pulse),
            client: self.client,
            load: self.load.clone(),
            phase: self.phase.clone(),
            secure: self.name.is_secure(),
            offer: self.offer.clone(),
            http_2: false,
            trusted: self.trusted.clone(),
            caller: self.caller.clone(),
            passage: None,
        }))
    }

    /// Begins to speak HTTP/1 with the client.
    pub(crate) fn speak_http_1(&self, stream: ClientStream) -> SharedWire {
        let wire = SharedWire::new(stream, Arc::clone(&self.pulse));
        drop(self.foreword.set(wire.foreword()));
        wire
    }

    pub(crate) fn foreword(&self) -> Option<&Foreword> {
        self.foreword.get()
    }

    /// Takes the connection made ahead, if there is one.
    pub(crate) fn take_first(&self) -> Option<(Lease, TcpStream)> {
        self.lock_first().take().map(|first| *first)
    }

    fn lock_first(&self) -> MutexGuard<'_, Option<Box<(Lease, TcpStream)>>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves both ends of an upgraded connection to be joined when HTTP is through.
    pub(crate) fn set_switch(&self, switch: Switch) {
        *self.switch.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(switch));
    }

    pub(crate) fn take_switch(&self) -> Option<Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner).take().map(|switch| *switch)
    }

    /// Random bits for ids.
    pub(crate) fn roll(&self) -> [u64; 3] {
        [(); 3].map(|()| self.dice.roll())
    }
}

/// Serves the connection to its end, or until nobody has said anything for a moment: then what is worth keeping is given
/// back. When its listener's phase says drain, what is under way is finished; when it says cut, nothing is.
pub(crate) async fn serve(session: Arc<Session>, wire: SharedWire) -> Option<Box<Arrival>> {
    let mut phase = session.watch();
    let limits = &session.ground.limits;
    let mut alarm = pin!(tokio::time::sleep(limits.head_deadline.min(REST_AFTER)));
    let (mut talk, mut first) = (None, true);
    loop {
        let after = tokio::select! {
            biased;
            after = poll_fn(|cx| poll_talk(cx, &session, &wire, &mut talk, &mut first)) => after,
            () = alarm.as_mut() => match session.pulse.next_check(limits) {
                Some(_) if talk.is_none() && session.pulse.is_resting(REST_AFTER) && wire.is_at_rest() => {
                    return session.rest(wire);
                }
                Some(pause) => {
                    let pause = if session.pulse.is_idle() { pause.min(REST_LOOK) } else { pause };
                    alarm.as_mut().reset(tokio::time::Instant::now() + pause);
                    continue;
                }
                None => {
                    tracing::debug!(client = %session.client, "client connection closed at a deadline");
                    return None;
                }
            },
            changed = poll_fn(|_| poll_phase(&mut phase)) => match (changed.is_ok(), session.phase()) {
                // The answer under way says that it is the last.
                (true, Phase::Drain) if !session.pulse.is_idle() => continue,
                (true, Phase::Open | Phase::Leave) => continue,
                (true, Phase::Drain | Phase::Tunnels | Phase::Cut) | (false, _) => return None,
            },
        };
        match after {
            After::Next => {}
            After::Close => {
                Box::pin(talk::close(&wire)).await;
                return None;
            }
            After::Gone => return None,
            After::Switch => {
                Box::pin(join(session.take_switch()?, wire, session.watch())).await;
                return None;
            }
            After::Preface => {
                if Box::pin(is_http_2(&session, &wire)).await {
                    let stream = wire.into_stream()?;
                    Box::pin(streams::serve(session, stream)).await;
                    return None;
                }
            }
        }
    }
}

/// Whether the phase has changed. It does not wake the task: whoever changes it nudges all connections.
fn poll_phase(phase: &mut watch::Receiver<Phase>) -> Poll<Result<(), RecvError>> {
    match phase.has_changed() {
        Ok(false) => Poll::Pending,
        changed => {
            phase.mark_unchanged();
            Poll::Ready(changed.map(drop))
        }
    }
}

/// Goes on with the request under way, or waits for the next.
fn poll_talk(
    cx: &mut Context<'_>,
    session: &Arc<Session>,
    wire: &SharedWire,
    under_way: &mut Option<Talk>,
    first: &mut bool,
) -> Poll<After> {
    loop {
        if let Some(talk) = under_way {
            let after = ready!(Pin::new(talk).poll(cx));
            *under_way = None;
            if after != After::Next {
                return Poll::Ready(after);
            }
        }
        if *first {
            let mut wire = wire.lock();
            let spoken = ready!(wire.poll_first(cx));
            *first = false;
            if !spoken {
                return Poll::Ready(After::Gone);
            }
            // What begins so is no request of HTTP/1.
            if wire.may_be_http_2() {
                return Poll::Ready(After::Preface);
            }
        }
        let received = ready!(wire.poll_request(cx, session.ground.limits.head_bytes_max));
        if matches!(received, Err(Broken::Gone)) {
            return Poll::Ready(After::Gone);
        }
        *under_way = Some(talk::begin(Arc::clone(session), wire.clone(), received));
    }
}

/// Whether the client begins with the preface of HTTP/2, as one does that knows beforehand.
async fn is_http_2(session: &Session, wire: &SharedWire) -> bool {
    let begun = poll_fn(|cx| wire.lock().poll_http_2(cx));
    tokio::time::timeout(session.ground.limits.head_deadline, begun).await.unwrap_or(false)
}

/// Carries bytes between the two ends of an upgraded connection.
async fn join(switch: Switch, wire: SharedWire, mut phase: watch::Receiver<Phase>) {
    let Switch { instance, early, lease, .. } = switch;
    let Some(stream) = wire.into_stream() else { return };
    lease.upstream.meters.tunnel();
    tunnel::watch_peer(&stream);
    tunnel::watch_peer(&instance);
    tokio::select! {
        ended = tunnel::run(stream, instance, early) => drop(ended),
        _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
    }
    lease.end(Outcome::ClientGone);
}

/// Carries bytes between a stream of HTTP/2 and an instance.
pub(crate) async fn join_stream(switch: Switch, mut phase: watch::Receiver<Phase>) {
    let Switch { client: ClientEnd::Stream(client), instance, early, lease } = switch else { return };
    let Ok(upgraded) = client.await else { return };
    lease.upstream.meters.tunnel();
    tunnel::watch_peer(&instance);
    tokio::select! {
        ended = tunnel::run(TokioIo::new(upgraded), instance, early) => drop(ended),
        _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
    }
    lease.end(Outcome::ClientGone);
}
