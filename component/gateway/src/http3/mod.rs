//! HTTP/3 at the port of a TLS listener.
//!
//! Owns the UDP socket and who gets in: clients that show their address where many are on their way in, within the same
//! places as those of TCP. Never holds up a listener: where the socket cannot be had, clients come by TCP. Does not know
//! what a request is.

mod connection;
mod frames;
mod inflow;
mod request;
mod transport;

use crate::crowd::Seat;
use crate::listener::{self, Floor, Phase, Target};
use crate::metrics::Handshake;
use crate::named::Named;
use crate::offer::Offer;
use crate::pulse::{Open, Pulse};
use crate::session::Session;
use crate::swap::Swap;
pub(crate) use inflow::Inflow;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, EndpointConfig, IdleTimeout, Incoming, TokioRuntime, TransportConfig, VarInt};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::error::Error;
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use transport::number;
use wire::api::TlsSeen;

/// Requests at once on one connection, as over HTTP/2.
const STREAMS_MAX: u32 = 128;
/// Streams of one connection that carried no request, before it is closed: as many as HTTP/2 may reset.
const STREAMS_BAD_MAX: usize = 32;
/// Streams in one direction at once: three are the protocol's.
const CONTROLS_MAX: u32 = 8;
/// What a client may send of one body, and of all, before it is asked for: as over HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// What is kept of a connection's answers until the client has them: as much as may be on its way to it.
const SEND_WINDOW_BYTES: u64 = 2 << 20;
/// A silent client is asked whether it is there, more often than home routers forget who it was (30 s and longer), and is
/// given up when it has not answered for this long.
const PING_EVERY: Duration = Duration::from_secs(20);
const SILENCE_MAX_MS: u32 = 50_000;
/// Handshakes under way at once: a tenth of a second of one core. Beyond, datagrams are dropped, and clients send again.
const HANDSHAKES_MAX: usize = 256;
/// From so many on, clients have to show that they are where they say (RFC 9000, section 8.1.2): costs them a round trip,
/// and keeps addresses that are not theirs from taking places.
const HANDSHAKES_BELIEVED: usize = 64;
/// What is kept of clients that have not been looked at yet.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: u64 = 16 << 10;
const WAITING_BYTES_TOTAL_MAX: u64 = 1 << 20;
/// The gateway before this one may still have the socket.
const BIND_PAUSE: Duration = Duration::from_secs(1);
/// How long browsers remember that they may come this way: an hour, as gateways that are new to it say.
const OFFER_S: u32 = 3_600;
/// At the end, clients are told so for this long.
const CLOSE_MOMENT: Duration = Duration::from_millis(100);

/// One port that is served.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    pub(crate) target: Arc<Swap<Target>>,
    pub(crate) floor: Arc<Floor>,
    pub(crate) offer: Arc<Offer>,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// A client on its way in, with what it holds.
struct Entry {
    incoming: Incoming,
    client: SocketAddr,
    seat: Seat,
    _handshake: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// Serves a port until its listener ends, and its connections have.
pub(crate) async fn serve(port: Port) {
    let mut phase = port.phase.clone();
    let endpoint = tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
        socket = bind(port.address) => match open(socket, &port.floor) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                return tracing::warn!(address = %port.address, error, "cannot serve HTTP/3");
            }
        },
    };
    port.offer.open(port.address.port(), OFFER_S);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        () = async {
            while let Some(incoming) = endpoint.accept().await {
                receive(&port, incoming, &handshakes).await;
            }
        } => {}
    }
    endpoint.set_server_config(None);
    let cut = async { drop(phase.wait_for(|phase| *phase == Phase::Cut).await) };
    tokio::select! {
        () = endpoint.wait_idle() => return,
        () = cut => {}
    }
    endpoint.close(number(h3::error::Code::H3_NO_ERROR.value()), b"");
    // Who does not hear it finds out by silence.
    drop(tokio::time::timeout(CLOSE_MOMENT, endpoint.wait_idle()).await);
}

/// Waits for the socket: the listener goes on without.
async fn bind(address: SocketAddr) -> UdpSocket {
    let mut is_told = false;
    loop {
        match UdpSocket::bind(address) {
            Ok(socket) => return socket,
            Err(error) if !is_told => {
                is_told = true;
                tracing::info!(%address, %error, "cannot serve HTTP/3 yet: the UDP port cannot be had");
            }
            Err(_) => {}
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

fn open(socket: UdpSocket, floor: &Floor) -> Result<quinn::Endpoint, String> {
    let server = config(floor).map_err(|error| error.to_string())?;
    let runtime = Arc::new(TokioRuntime);
    quinn::Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime).map_err(|error| error.to_string())
}

fn config(floor: &Floor) -> Result<quinn::ServerConfig, Box<dyn Error>> {
    let names = Names { shown: floor.tls.certificates(), named: Arc::clone(&floor.named) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    tls.alpn_protocols = vec![b"h3".to_vec()];
    // Resumed sessions save no round trip without early data, which others could send once more; and quinn does not say
    // which they are.
    tls.send_tls13_tickets = 0;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(CONTROLS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(PING_EVERY))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(SILENCE_MAX_MS))));
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    server
        .transport_config(Arc::new(transport))
        // Lists of addresses and rates go by the one a client began with.
        .migration(false)
        .max_incoming(WAITING_MAX)
        .incoming_buffer_size(WAITING_BYTES_MAX)
        .incoming_buffer_size_total(WAITING_BYTES_TOTAL_MAX);
    Ok(server)
}

/// The certificates of TCP; but hosts whose clients are asked for theirs, and those that are not opened here, are reached
/// by TCP alone: what is to be agreed cannot be chosen by name here.
struct Names {
    shown: Arc<dyn ResolvesServerCert>,
    named: Arc<Swap<Named>>,
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (named, host) = (self.named.get(), hello.server_name());
        let elsewhere = host.is_some_and(|host| named.passage(host).is_some()) || named.door(host).is_some();
        if elsewhere { None } else { self.shown.resolve(hello) }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(out)
    }
}

/// Lets a client in, or not.
async fn receive(port: &Port, incoming: Incoming, handshakes: &Arc<Semaphore>) {
    let (client, floor) = (incoming.remote_address(), &port.floor);
    let Ok(handshake) = Arc::clone(handshakes).try_acquire_owned() else { return incoming.ignore() };
    let under_way = HANDSHAKES_MAX - handshakes.available_permits();
    if under_way > HANDSHAKES_BELIEVED && !incoming.remote_address_validated() {
        // It has shown its address unless it may be asked to.
        return incoming.retry().unwrap_or_else(|error| error.into_incoming().ignore());
    }
    if floor.room.available_permits() == 0 && floor.is_greedy(client.ip()) {
        floor.meters.crowded.inc();
        return incoming.refuse();
    }
    let Some(place) = listener::room(floor).await else { return incoming.ignore() };
    let is_trusted = floor.trusted.as_ref().is_some_and(|trusted| trusted.admit(client.ip()));
    // A balancer is not counted as one client; those it names are.
    let Some(seat) = floor.seat((!is_trusted).then(|| client.ip())) else { return incoming.refuse() };
    let entry = Entry { incoming, client, seat, _handshake: handshake, _place: place };
    let (target, floor, phase) = (Arc::clone(&port.target), Arc::clone(floor), port.phase.clone());
    // It ends with its client, to make room for others, or when `phase` says so.
    world::task::spawn("gateway client connection", enter(entry, target, floor, phase)).detach();
}

async fn enter(entry: Entry, target: Arc<Swap<Target>>, floor: Arc<Floor>, phase: watch::Receiver<Phase>) {
    let Entry { incoming, client, mut seat, _handshake: handshake, _place } = entry;
    let _open = Open::count(&floor.meters);
    let shaking = async { incoming.accept()?.await };
    let quic = match tokio::time::timeout(floor.ground.limits.head_deadline, shaking).await {
        Ok(Ok(quic)) => quic,
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "a QUIC handshake failed");
            return floor.meters.handshake(Handshake::Failed);
        }
        Err(_) => return floor.meters.handshake(Handshake::Failed),
    };
    drop(handshake);
    floor.meters.handshake(Handshake::Full);
    let pulse = Arc::new(Pulse::new());
    let ground = Arc::clone(&floor.ground);
    let mut session = Session::new(ground, target, Arc::clone(&pulse), phase.clone(), client, true, None);
    session.trusted = floor.trusted.clone().filter(|trusted| trusted.admit(client.ip()));
    session.load = seat.load();
    session.tls = Some(Arc::new(TlsSeen { version: "1.3".to_owned(), resumed: false }));
    let shed = seat.watch(&pulse);
    tokio::select! {
        biased;
        () = connection::serve(Arc::new(session), quic.clone(), phase) => {}
        () = shed => tracing::debug!(%client, "client connection closed to make room for others"),
    }
    note_bytes(&quic, &floor);
}

/// What went both ways is known to quinn alone, and told at the end.
fn note_bytes(quic: &Connection, floor: &Floor) {
    let seen = quic.stats();
    floor.meters.bytes_in.add(seen.udp_rx.bytes);
    floor.meters.bytes_out.add(seen.udp_tx.bytes);
}
