//! One client connection that speaks HTTP/1.1, from its first byte to its last.
//!
//! Owns the connection's deadlines and its end. Everything a client connection causes runs inside its task:
//! requests, answers and, after an upgrade, the tunnel; when it ends, all of that ends. Does not know how a
//! request is answered: `exchange` does.

use crate::exchange;
use crate::header::ClientName;
use crate::link::BUFFER_BYTES_MAX;
use crate::listener::{Phase, Target};
use crate::pulse::{ClientStream, Pulse};
use crate::rule::Addresses;
use crate::swap::Swap;
use crate::tunnel;
use crate::upstream::{Ground, Lease};
use balancer::Outcome;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::watch;

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
    pub(crate) client: OnUpgrade,
    pub(crate) instance: TcpStream,
    /// What the instance sent after its 101 already.
    pub(crate) early: Bytes,
    pub(crate) lease: Lease,
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
pub(crate) async fn serve(session: Session, stream: ClientStream, mut phase: watch::Receiver<Phase>) {
    let session = Arc::new(session);
    let limits = session.ground.limits.clone();
    let service = service_fn(|request| {
        let session = Arc::clone(&session);
        async move { Ok::<_, Infallible>(exchange::answer(session, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX).max_header_size(limits.head_bytes_max);
    // hyper's own timer makes and drops one per request; the pulse costs none.
    builder.header_read_timeout(None);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut alarm = pin!(tokio::time::sleep(limits.head_deadline));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(client = %session.client, %error, "client connection ended");
                }
                break;
            }
            () = alarm.as_mut() => match session.pulse.next_check(&limits) {
                Some(pause) => alarm.as_mut().reset(tokio::time::Instant::now() + pause),
                None => {
                    tracing::debug!(client = %session.client, "client connection closed at a deadline");
                    return;
                }
            },
            changed = phase.changed() => match (changed.is_ok(), *phase.borrow()) {
                (true, Phase::Open) => {}
                (true, Phase::Drain) => connection.as_mut().graceful_shutdown(),
                (true, Phase::Cut) | (false, _) => return,
            },
        }
    }
    if let Some(switch) = session.take_switch() {
        join(switch, phase).await;
    }
}

/// Carries bytes between the two ends of an upgraded connection.
async fn join(switch: Switch, mut phase: watch::Receiver<Phase>) {
    let Switch { client, instance, early, lease } = switch;
    let Ok(upgraded) = client.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<ClientStream>>() else { return };
    let mut stream = parts.io.into_inner();
    stream.unread(parts.read_buf);
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
    let Switch { client, instance, early, lease } = switch;
    let Ok(upgraded) = client.await else { return };
    lease.upstream.meters.tunnel();
    tunnel::watch_peer(&instance);
    tokio::select! {
        ended = tunnel::run(TokioIo::new(upgraded), instance, early) => drop(ended),
        _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
    }
    lease.end(Outcome::ClientGone);
}
