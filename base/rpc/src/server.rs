//! The server: takes connections from a listener, finds out who they are, and serves their calls.
//!
//! Owns each connection from its first byte to its last, and its bounds. Promises that a machine that was revoked is cut
//! off where it stands, and that whoever says nothing in time is sent away. Knows no method.

use crate::answer::{Desk, Visit, answer};
use crate::handler::{Caller, Handler};
use crate::identity::{ALPN, Clock, Credentials, Identity, TLS_VERSIONS};
use crate::line::{Ending, Line};
use crate::meters::{Meters, Side};
use crate::mishap::Mishap;
use crate::outflow::{Outflow, Placed};
use crate::passport::{Callers, Passport};
use crate::revoked::Revoked;
use crate::seats::{Seat, Seats, Who};
use crate::settings::{
    CONNECTION_WINDOW_BYTES, HEAD_BYTES_MAX, Patience, RESETS_MAX, SEND_BUFFER_BYTES, STRANGER_STREAMS_MAX,
    STRANGER_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_MAX,
};
use crate::streams::{Tasks, Underway};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use meter::{Held, Meter};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::identity::NodeId;
use world::task::Task;

/// When the process has no descriptors left, asking again at once only takes a core as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Who is turned away gets this long to read why, and to stop talking: a socket closed on unread bytes takes its last
/// words along.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of those whom nobody listens to any more, this much is still taken.
const LAST_BYTES_MAX: u64 = 64 << 10;

/// A server that runs. Dropped, it cuts its connections off; [`Server::stop`] lets them finish.
#[derive(Debug)]
pub struct Server {
    phase: watch::Sender<Phase>,
    accepting: Task<()>,
    address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is under way may end.
    Drain,
}

/// What all connections share.
struct Hall {
    desk: Arc<Desk>,
    identity: Identity,
    revoked: Revoked,
    seats: Seats,
    tls: Mutex<Option<(Arc<Credentials>, Arc<ServerConfig>)>>,
    phase: watch::Receiver<Phase>,
}

impl Server {
    /// Serves `handler`'s methods to whoever comes to `listener`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(
        listener: TcpListener,
        identity: Identity,
        revoked: Revoked,
        handler: Arc<dyn Handler>,
        patience: Patience,
        meter: &Meter,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let (sender, phase) = watch::channel(Phase::Open);
        let desk = Arc::new(Desk::new(handler, Meters::new(meter, Side::Server), patience));
        let hall = Hall { desk, identity, revoked, seats: Seats::default(), tls: Mutex::default(), phase };
        let accepting = world::task::spawn("rpc server", accept(listener, Arc::new(hall)));
        Ok(Server { phase: sender, accepting, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and calls, and gives those under way until `deadline` to end. Returns whether all did.
    /// Dropped while it waits, it cuts them off.
    pub async fn stop(self, deadline: Duration) -> bool {
        let Server { phase, accepting, .. } = self;
        accepting.cancel().await;
        phase.send_replace(Phase::Drain);
        // Each connection holds a receiver until it ends.
        tokio::time::timeout(deadline, phase.closed()).await.is_ok()
    }
}

async fn accept(listener: TcpListener, hall: Arc<Hall>) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of a peer could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = hall.seats.take(Who::Unknown(address.ip())) else {
            hall.fail(address, Mishap::Crowded);
            continue;
        };
        let phase = hall.phase.clone();
        // It ends with its peer, at one of its deadlines, or when the server is dropped.
        world::task::spawn("rpc connection", connection(Arc::clone(&hall), stream, address, seat, phase)).detach();
    }
}

async fn connection(
    hall: Arc<Hall>,
    stream: TcpStream,
    address: SocketAddr,
    seat: Seat,
    mut phase: watch::Receiver<Phase>,
) {
    let shaking = tokio::time::timeout(hall.desk.patience.handshake, hall.shake(stream, address));
    let shaken = tokio::select! {
        shaken = shaking => shaken.unwrap_or(Err(Mishap::Slow)),
        _ = phase.changed() => return,
    };
    let (stream, passport) = match shaken {
        Ok(shaken) => shaken,
        Err(mishap) => return hall.fail(address, mishap),
    };
    let (who, caller) = match passport {
        Some(Passport { cluster, node }) => (Who::Node(node), Caller::Node { node, cluster, address }),
        None => (Who::Stranger, Caller::Stranger { address }),
    };
    let Some(_place) = hall.seats.take(who) else { return hall.fail(address, Mishap::Crowded) };
    drop(seat);
    let _counted = Held::new(&hall.desk.meters.connections);
    let node = caller.node();
    let visit = Arc::new(Visit { desk: Arc::clone(&hall.desk), caller, has_greeted: AtomicBool::new(false) });
    let life = hall.desk.patience.stranger;
    let serving = serve(&hall, visit, stream, phase);
    match node {
        Some(node) => {
            tokio::select! {
                () = serving => {}
                () = until_revoked(&hall.revoked, node) => hall.fail(address, Mishap::Revoked),
            }
        }
        None => {
            if tokio::time::timeout(life, serving).await.is_err() {
                hall.fail(address, Mishap::Slow);
            }
        }
    }
}

impl Hall {
    async fn shake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Option<Passport>), Mishap> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "small messages of a peer may be late");
        }
        let config = self.config().map_err(|error| {
            tracing::error!(%error, "this machine's credentials cannot be used");
            Mishap::Other
        })?;
        let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
        let stream = match accepting.await {
            Ok(stream) => stream,
            Err((error, mut stream)) => {
                let mishap = Mishap::of_io(&error);
                tracing::debug!(%address, %error, "a peer was turned away");
                last_words(&mut stream).await;
                return Err(mishap);
            }
        };
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(ALPN) {
            return Err(Mishap::Version);
        }
        let own = session.peer_certificates().and_then(|chain| chain.first());
        let passport = own.map(Passport::read).transpose().map_err(|objection| Mishap::of_objection(&objection))?;
        Ok((stream, passport))
    }

    /// Made anew when this machine's certificate is renewed.
    fn config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let current = self.identity.current();
        let mut kept = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((credentials, config)) = kept.as_ref()
            && Arc::ptr_eq(credentials, &current)
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(&current, self.revoked.clone())?);
        *kept = Some((current, Arc::clone(&config)));
        Ok(config)
    }

    fn fail(&self, address: SocketAddr, mishap: Mishap) {
        tracing::debug!(%address, reason = mishap.as_str(), "a peer's connection came to nothing");
        self.desk.meters.fail(mishap);
    }
}

fn config(credentials: &Credentials, revoked: Revoked) -> Result<ServerConfig, rustls::Error> {
    let callers = Arc::new(Callers::new(credentials, revoked)?);
    let mut config = ServerConfig::builder_with_details(Arc::clone(&credentials.provider), Arc::new(Clock))
        .with_protocol_versions(TLS_VERSIONS)?
        .with_client_cert_verifier(callers)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(&credentials.own))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A session taken up again would bring back a certificate that nobody looks at any more. Connections last.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Lets the alert be read that says why.
async fn last_words(stream: &mut TcpStream) {
    let words = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LAST_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // Whoever does not read them has left already.
    drop(tokio::time::timeout(LAST_WORDS, words).await);
}

async fn until_revoked(revoked: &Revoked, node: NodeId) {
    let mut watch = revoked.watch();
    // The set lives as long as the server: it is asked through this reference.
    drop(watch.wait_for(|nodes| nodes.contains(&node)).await);
}

async fn serve(hall: &Hall, visit: Arc<Visit>, stream: TlsStream<TcpStream>, mut phase: watch::Receiver<Phase>) {
    let patience = hall.desk.patience;
    let underway = Arc::new(Underway::new());
    let line = Line::new(stream, Arc::new(Ending::default()), hall.desk.meters.traffic.clone());
    let is_stranger = visit.caller.node().is_none();
    let address = visit.caller.address();
    let counted = Arc::clone(&underway);
    let service = service_fn(move |request: Request<Incoming>| {
        let (visit, place) = (Arc::clone(&visit), counted.begin());
        async move {
            let response: Response<Outflow> = answer(visit, request).await;
            Ok::<_, Infallible>(response.map(|body| Placed::new(body, place)))
        }
    });
    let mut connection = pin!(builder(is_stranger, &patience).serve_connection(TokioIo::new(line), service));
    let mut alarm = pin!(tokio::time::sleep(patience.idle));
    let mut is_leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%address, %error, "a peer's connection ended");
                }
                return;
            }
            () = alarm.as_mut() => match underway.idle_left(patience.idle) {
                Some(left) => alarm.as_mut().reset(tokio::time::Instant::now() + left),
                // It has been told already, and stays.
                None if is_leaving => return,
                None => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                    alarm.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS);
                }
            },
            changed = phase.changed() => match changed.is_ok() && *phase.borrow() == Phase::Drain {
                true => connection.as_mut().graceful_shutdown(),
                false => return,
            },
        }
    }
}

fn builder(is_stranger: bool, patience: &Patience) -> http2::Builder<Tasks> {
    let (streams, window, all) = if is_stranger {
        (STRANGER_STREAMS_MAX, STRANGER_WINDOW_BYTES, STRANGER_WINDOW_BYTES)
    } else {
        (STREAMS_MAX, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)
    };
    let mut builder = http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(streams)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(window)
        .initial_connection_window_size(all)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(patience.ping_every)
        .keep_alive_timeout(patience.pong_within);
    builder
}
