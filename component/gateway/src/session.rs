//! One client connection that speaks HTTP/1.1, from its first byte to its last.
//!
//! Owns the connection's deadlines and its end. Everything a client connection causes runs inside its task:
//! requests, answers and, after an upgrade, the tunnel; when it ends, all of that ends. Does not know how a
//! request is answered: `exchange` does.

use crate::body::AnswerBody;
use crate::exchange;
use crate::header::ClientName;
use crate::http1::{Broken, Framed, LineError, Manner, Received, SharedWire, Wire};
use crate::link::ClientBody;
use crate::listener::{Phase, Target};
use crate::pulse::Pulse;
use crate::rule::Addresses;
use crate::streams;
use crate::swap::Swap;
use crate::tunnel;
use crate::upstream::{Ground, Lease};
use balancer::Outcome;
use bytes::Bytes;
use http::header::TRAILER;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// After so long without a request, what requests need is given back.
const SILENCE: Duration = Duration::from_secs(1);
/// A client that is still sending when it is refused is read from for so long, so that it can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;

/// What the requests of one client connection share.
pub(crate) struct Session {
    pub(crate) ground: Arc<Ground>,
    pub(crate) target: Arc<Swap<Target>>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) client: SocketAddr,
    pub(crate) name: Arc<ClientName>,
    /// Set when the other end may say for whom it speaks: who else may.
    pub(crate) trusted: Option<Arc<Addresses>>,
    /// A connection made before it was known that the client speaks HTTP: the first request's.
    pub(crate) first: Mutex<Option<(Lease, TcpStream)>>,
    switch: Mutex<Option<Switch>>,
    dice: AtomicU64,
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
        client: SocketAddr,
        secure: bool,
        first: Option<(Lease, TcpStream)>,
    ) -> Session {
        Session {
            ground,
            target,
            pulse,
            client,
            name: Arc::new(ClientName::new(client.ip(), secure)),
            trusted: None,
            first: Mutex::new(first),
            switch: Mutex::new(None),
            dice: AtomicU64::new(world::random::number()),
        }
    }

    /// For one of the connection's streams.
    pub(crate) fn stream(&self, pulse: Arc<Pulse>) -> Session {
        let [seed, ..] = self.roll();
        Session {
            ground: Arc::clone(&self.ground),
            target: Arc::clone(&self.target),
            pulse,
            client: self.client,
            name: Arc::clone(&self.name),
            trusted: self.trusted.clone(),
            first: Mutex::new(self.take_first()),
            switch: Mutex::new(None),
            dice: AtomicU64::new(seed),
        }
    }

    /// Takes the connection made ahead, if there is one.
    pub(crate) fn take_first(&self) -> Option<(Lease, TcpStream)> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves both ends of an upgraded connection to be joined when HTTP is through.
    pub(crate) fn set_switch(&self, switch: Switch) {
        *self.switch.lock().unwrap_or_else(PoisonError::into_inner) = Some(switch);
    }

    pub(crate) fn take_switch(&self) -> Option<Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Random bits for ids: a generator (splitmix64) seeded by the kernel for each connection.
    pub(crate) fn roll(&self) -> [u64; 3] {
        [(); 3].map(|()| {
            let mut mixed = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }
}

/// Serves the connection to its end. When `phase` says drain, what is under way is finished; when it says cut,
/// nothing is.
pub(crate) async fn serve(session: Arc<Session>, wire: SharedWire, mut phase: watch::Receiver<Phase>) {
    let mut first = true;
    while spoken(&session, &wire, &mut phase).await {
        // What begins so is no request of HTTP/1.
        if std::mem::take(&mut first) && wire.lock().may_be_http_2() && Box::pin(is_http_2(&session, &wire)).await {
            let Some(stream) = wire.into_stream() else { return };
            return Box::pin(streams::serve(session, stream, phase)).await;
        }
        // What a request needs is made when one comes: most connections of most servers are silent.
        match Box::pin(busy(&session, &wire, &mut phase)).await {
            After::Silence => {}
            After::Switch(switch) => return Box::pin(join(switch, wire, phase)).await,
            After::Nothing => return,
        }
    }
}

/// How a run of requests ended.
enum After {
    /// No other came for a while.
    Silence,
    /// The last one leaves HTTP.
    Switch(Switch),
    Nothing,
}

/// Waits for the client to say something, with as little as can be. `false` when it does not.
async fn spoken(session: &Session, wire: &SharedWire, phase: &mut watch::Receiver<Phase>) -> bool {
    let silence = async {
        while let Some(pause) = session.pulse.next_check(&session.ground.limits) {
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        biased;
        spoken = poll_fn(|cx| wire.lock().poll_first(cx)) => spoken,
        () = silence => {
            tracing::debug!(client = %session.client, "client connection closed at a deadline");
            false
        }
        // Nothing is under way that could be drained.
        _ = phase.wait_for(|phase| *phase != Phase::Open) => false,
    }
}

/// Whether the client begins with the preface of HTTP/2, as one does that knows beforehand.
async fn is_http_2(session: &Session, wire: &SharedWire) -> bool {
    let begun = poll_fn(|cx| wire.lock().poll_http_2(cx));
    tokio::time::timeout(session.ground.limits.head_deadline, begun).await.unwrap_or(false)
}

/// Serves requests for as long as they come.
async fn busy(session: &Arc<Session>, wire: &SharedWire, phase: &mut watch::Receiver<Phase>) -> After {
    let limits = &session.ground.limits;
    let ending = phase.clone();
    let mut talk = pin!(talk(session, wire, &ending));
    let mut alarm = pin!(tokio::time::sleep(SILENCE.min(limits.head_deadline)));
    loop {
        tokio::select! {
            biased;
            () = talk.as_mut() => return session.take_switch().map_or(After::Nothing, After::Switch),
            () = alarm.as_mut() => {
                if session.pulse.is_idle() && wire.lock().park() {
                    return After::Silence;
                }
                match session.pulse.next_check(limits) {
                    Some(pause) => alarm.as_mut().reset(tokio::time::Instant::now() + pause),
                    None => {
                        tracing::debug!(client = %session.client, "client connection closed at a deadline");
                        return After::Nothing;
                    }
                }
            }
            changed = phase.changed() => match (changed.is_ok(), *phase.borrow()) {
                (true, Phase::Open) => {}
                // The answer under way says that it is the last.
                (true, Phase::Drain) if session.pulse.is_idle() => return After::Nothing,
                (true, Phase::Drain) => {}
                (true, Phase::Cut) | (false, _) => return After::Nothing,
            },
        }
    }
}

/// One request after the other.
async fn talk(session: &Arc<Session>, wire: &SharedWire, phase: &watch::Receiver<Phase>) {
    let head_bytes_max = session.ground.limits.head_bytes_max;
    loop {
        let received = match poll_fn(|cx| wire.poll_request(cx, head_bytes_max)).await {
            Ok(received) => received,
            Err(Broken::Gone) => return,
            Err(Broken::Bad(bad)) => {
                drop(tell(wire, exchange::refuse(session, bad), Manner::default(), phase).await);
                return close(wire).await;
            }
        };
        let Received { parts, body, manner } = received;
        let request = Request::from_parts(parts, ClientBody::Upload(body));
        let response = {
            let mut answering = pin!(exchange::answer(session, request, None));
            poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                // Dropped, it ends what it began.
                Poll::Pending => wire.lock().poll_gone(cx).map(|()| None),
            })
            .await
        };
        let Some(response) = response else { return };
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match tell(wire, response, manner, phase).await {
            Ok(_) if switches => return,
            Ok(true) => {}
            Ok(false) => return close(wire).await,
            Err(error) => {
                tracing::debug!(client = %session.client, %error, "client connection ended");
                return;
            }
        }
    }
}

/// Why an answer could not be told to its end.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Client(#[from] std::io::Error),
    #[error(transparent)]
    Instance(#[from] LineError),
    #[error("the client has left")]
    Gone,
}

/// Writes an answer as it comes. Says whether the connection may go on.
async fn tell(
    wire: &SharedWire,
    mut response: Response<AnswerBody>,
    manner: Manner,
    phase: &watch::Receiver<Phase>,
) -> Result<bool, Untold> {
    let last = *phase.borrow() != Phase::Open;
    let announced = response.headers().contains_key(TRAILER);
    let exact = response.body().size_hint().exact();
    let (framed, goes_on) = wire.lock().put_head(&mut response, exact, manner, last);
    let mut telling = Telling { body: response.into_body(), framed, announced, ended: false };
    poll_fn(|cx| telling.poll(cx, wire)).await?;
    drop(telling);
    Ok(goes_on && poll_fn(|cx| Poll::Ready(wire.lock().is_through(cx))).await)
}

/// An answer on its way to the client.
struct Telling {
    body: AnswerBody,
    framed: Framed,
    /// The head says that there will be trailers.
    announced: bool,
    ended: bool,
}

impl Telling {
    fn poll(&mut self, cx: &mut Context<'_>, wire: &SharedWire) -> Poll<Result<(), Untold>> {
        loop {
            let mut waits = false;
            if !self.ended && wire.lock().has_room() {
                match Pin::new(&mut self.body).poll_frame(cx)? {
                    Poll::Ready(Some(frame)) => self.put(frame, &mut wire.lock()),
                    Poll::Ready(None) => {
                        self.ended = true;
                        wire.lock().put_end(self.framed);
                    }
                    Poll::Pending => waits = true,
                }
            }
            let mut wire = wire.lock();
            ready!(wire.poll_write(cx))?;
            if waits {
                return wire.poll_gone(cx).map(|()| Err(Untold::Gone));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn put(&mut self, frame: Frame<Bytes>, wire: &mut Wire) {
        match frame.into_data() {
            Ok(data) => {
                wire.put_data(data, self.framed);
                if self.body.is_end_stream() {
                    self.ended = true;
                    wire.put_end(self.framed);
                    // Others may have the connection while the client takes its time.
                    self.body.complete();
                }
            }
            Err(frame) => {
                self.ended = true;
                let trailers = frame.into_trailers().ok().filter(|_| self.announced && self.framed == Framed::Chunks);
                match trailers {
                    Some(trailers) => wire.put_trailers(&trailers),
                    None => wire.put_end(self.framed),
                }
            }
        }
    }
}

/// Closes the connection so that the client can read what it was told.
async fn close(wire: &SharedWire) {
    if wire.lock().closes_cleanly() {
        return;
    }
    let closing = async {
        if poll_fn(|cx| wire.lock().poll_close(cx)).await.is_ok() {
            let mut left = LINGER_BYTES_MAX;
            poll_fn(|cx| wire.lock().poll_linger(cx, &mut left)).await;
        }
    };
    // Longer than a client needs that means well.
    drop(tokio::time::timeout(LINGER, closing).await);
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
