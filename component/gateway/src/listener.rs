//! Listening sockets, and what is served at each.
//!
//! Owns the sockets and the tasks that accept. A listener's target may change under it; its connections keep
//! what they began with, and new requests see the new target. Does not know how anything is served.

use crate::handshake::{self, Shaken};
use crate::http1::SharedWire;
use crate::metrics::{ConnectionMeters, ServiceMeters};
use crate::named::Named;
use crate::peek;
use crate::policy::Policy;
use crate::proxied::{self, Header};
use crate::published::{self, Arrival};
use crate::pulse::{ClientStream, Pulse, Transport};
use crate::route::Router;
use crate::rule::Addresses;
use crate::session::{self, Session};
use crate::settings::UdpDialer;
use crate::swap::Swap;
use crate::table::Speaks;
use crate::tls::Tls;
use crate::udp;
use crate::upstream::{Ground, Upstream};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use wire::spec::ProxyProtocol;
use world::task::Task;

/// Connections the kernel keeps until they are accepted: a burst of a thousand clients.
const BACKLOG: u32 = 1_024;
/// Out of descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first port that needs no capability, unless the machine says otherwise.
const UNPRIVILEGED_PORT_MIN: u16 = 1_024;

/// How far the end of a listener has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Another gateway accepts at the same socket. Who has connected here is still answered once, and told that it was
    /// the last time: a client that had its request on the way would see it fail otherwise.
    Leave,
    /// Requests under way are finished, then connections close. Tunnels go on.
    Drain,
    /// Requests have had their time. Tunnels go on.
    Tunnels,
    /// Everything ends now.
    Cut,
}

impl Phase {
    /// Whether somebody who has connected but said nothing yet may still do so.
    pub(crate) fn may_begin(self) -> bool {
        matches!(self, Phase::Open | Phase::Leave)
    }
}

/// What a listener serves.
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    /// For requests that reach no service.
    pub(crate) meters: Arc<ServiceMeters>,
    pub(crate) policy: Policy,
}

pub(crate) enum TargetKind {
    Routed(Arc<Router<Arc<Upstream>>>),
    Service { upstream: Arc<Upstream>, speaks: Speaks, proxy_protocol: Option<ProxyProtocol> },
}

/// What every accepting task is given.
pub(crate) struct Floor {
    pub(crate) ground: Arc<Ground>,
    pub(crate) meters: Arc<ConnectionMeters>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) tls: Tls,
    pub(crate) named: Arc<Swap<Named>>,
    /// Who may say for whom they speak.
    pub(crate) trusted: Option<Arc<Addresses>>,
}

/// A listening socket being served.
pub(crate) struct Listening {
    pub(crate) got: SocketAddr,
    pub(crate) target: Arc<Swap<Target>>,
    pub(crate) phase: watch::Sender<Phase>,
    /// The socket once more, for whoever keeps it while this process is replaced.
    pub(crate) kept: OwnedFd,
    accepting: Task,
}

impl Listening {
    /// Starts to accept at `socket`.
    pub(crate) fn start(socket: TcpListener, target: Target, floor: Arc<Floor>, secure: bool) -> io::Result<Listening> {
        let got = socket.local_addr()?;
        let kept = socket.as_fd().try_clone_to_owned()?;
        let target = Arc::new(Swap::new(target));
        let (phase, watched) = watch::channel(Phase::Open);
        let accepting = while_open(watched.clone(), accept(socket, Arc::clone(&target), floor, secure, watched));
        let accepting = world::task::spawn("gateway listener", accepting);
        Ok(Listening { got, target, phase, kept, accepting })
    }

    /// Starts to serve UDP at `socket`.
    pub(crate) fn start_udp(
        socket: UdpSocket,
        target: Target,
        floor: &Floor,
        dialer: Arc<dyn UdpDialer>,
    ) -> io::Result<Listening> {
        let got = socket.local_addr()?;
        let kept = socket.as_fd().try_clone_to_owned()?;
        let target = Arc::new(Swap::new(target));
        let (phase, watched) = watch::channel(Phase::Open);
        let ground = Arc::clone(&floor.ground);
        let serving = udp::serve(socket, Arc::clone(&target), ground, dialer, watched);
        let accepting = world::task::spawn("gateway udp port", serving);
        Ok(Listening { got, target, phase, kept, accepting })
    }

    /// Stops accepting while another gateway goes on at the same socket. The task ends by itself.
    pub(crate) fn leave(self) -> (watch::Sender<Phase>, Task) {
        self.phase.send_replace(Phase::Leave);
        (self.phase, self.accepting)
    }

    /// Stops accepting. The sender tells the connections that remain how to end, and that they have; the task
    /// ends as soon as the socket is closed.
    pub(crate) fn retire(self) -> (watch::Sender<Phase>, Task) {
        self.phase.send_replace(Phase::Drain);
        (self.phase, self.accepting)
    }
}

/// Does `work`, which has no end of its own, until the listener is to end.
async fn while_open(mut phase: watch::Receiver<Phase>, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        () = work => {}
    }
}

async fn accept(
    socket: TcpListener,
    target: Arc<Swap<Target>>,
    floor: Arc<Floor>,
    secure: bool,
    phase: watch::Receiver<Phase>,
) {
    loop {
        let Ok(place) = Arc::clone(&floor.room).acquire_owned().await else { return };
        let (stream, client) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let start = arrive(stream, client, Arc::clone(&target), &floor, secure, phase.clone());
        // It ends with its client, with its instance, or when `phase` says so.
        world::task::spawn("gateway client connection", async move {
            match start {
                Start::Http(session, wire, phase) => session::serve(session, wire, phase).await,
                Start::Other(arrival, floor) => Box::pin(serve(*arrival, floor)).await,
            }
            drop(place);
        })
        .detach();
    }
}

/// How a connection begins. Most are silent most of the time, so what is held of one is small: what only some need is
/// made for those.
enum Start {
    Http(Arc<Session>, SharedWire, watch::Receiver<Phase>),
    Other(Box<Arrival>, Arc<Floor>),
}

fn arrive(
    stream: TcpStream,
    client: SocketAddr,
    target: Arc<Swap<Target>>,
    floor: &Arc<Floor>,
    secure: bool,
    phase: watch::Receiver<Phase>,
) -> Start {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%client, %error, "cannot switch off Nagle's algorithm");
    }
    let trusted = floor.trusted.clone().filter(|trusted| trusted.admit(client.ip()));
    let pulse = Arc::new(Pulse::new());
    let stream = ClientStream::new(Transport::Plain(stream), Arc::clone(&pulse), Arc::clone(&floor.meters));
    let ground = Arc::clone(&floor.ground);
    let (http_2, caller, passage) = (false, None, None);
    let mut arrival =
        Arrival { ground, target, stream, pulse, client, phase, secure, http_2, trusted, caller, passage };
    if arrival.secure || arrival.trusted.is_some() || arrival.published().is_some() {
        return Start::Other(Box::new(arrival), Arc::clone(floor));
    }
    let (session, wire, phase) = arrival.into_http();
    Start::Http(session, wire, phase)
}

async fn serve(arrival: Arrival, floor: Arc<Floor>) {
    let Some(mut arrival) = Box::pin(open(arrival, &floor)).await else { return };
    match arrival.published() {
        Some(port) => published::serve(arrival, port).await,
        None if arrival.http_2 => arrival.serve_http_2().await,
        None => {
            let (session, wire, phase) = arrival.into_http();
            session::serve(session, wire, phase).await;
        }
    }
}

/// What comes before the first byte that is meant for us: a balancer's word, and TLS. `None` when that came to nothing.
async fn open(mut arrival: Arrival, floor: &Floor) -> Option<Arrival> {
    let client = arrival.client;
    let mut stream = arrival.stream.into_plain()?;
    if arrival.trusted.is_some() {
        let spoken = tokio::time::timeout(floor.ground.limits.head_deadline, behind(&mut stream)).await;
        match spoken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(named) => arrival.client = named.unwrap_or(client),
            Err(error) => {
                tracing::debug!(%client, %error, "a balancer in front of us said nothing that could be read");
                return None;
            }
        }
    }
    let transport = if arrival.secure {
        let shared = matches!(arrival.target.get().kind, TargetKind::Routed(_));
        match handshake::shake(stream, arrival.client, floor, shared).await? {
            Shaken::Passage(stream, passage) => {
                arrival.passage = Some(Box::new(passage));
                Transport::Plain(stream)
            }
            Shaken::Ours { stream, http_2, caller } => {
                (arrival.http_2, arrival.caller) = (http_2, caller);
                stream
            }
        }
    } else {
        Transport::Plain(stream)
    };
    arrival.stream = ClientStream::new(transport, Arc::clone(&arrival.pulse), Arc::clone(&floor.meters));
    Some(arrival)
}

/// Whom a balancer speaks for, if it says so by the PROXY protocol. What follows is left to be read.
async fn behind(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = vec![0; proxied::HEADER_BYTES_MAX];
    let mut known = 0;
    loop {
        known = peek::more(stream, known, &mut seen).await?;
        match proxied::read(seen.get(..known).unwrap_or_default()) {
            Header::Read { bytes, client } => {
                stream.read_exact(seen.get_mut(..bytes).unwrap_or_default()).await?;
                return Ok(client);
            }
            Header::Absent => return Ok(None),
            Header::Bad(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            Header::Unsure => {}
        }
    }
}

/// Listens at `address`.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted gateway must not wait for the last connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Receives datagrams at `address`.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Takes over a UDP socket.
pub(crate) fn inherit_udp(socket: OwnedFd) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Takes over a socket that listens already.
pub(crate) fn inherit(socket: OwnedFd) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Why an address cannot be served, and what to do about it.
pub(crate) fn explain(address: SocketAddr, error: &io::Error) -> String {
    let hint = if error.kind() == io::ErrorKind::PermissionDenied && address.port() < UNPRIVILEGED_PORT_MIN {
        "; ports below 1024 need CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep on the binary) or \
         sysctl net.ipv4.ip_unprivileged_port_start=80"
    } else if error.kind() == io::ErrorKind::AddrInUse {
        "; another program listens there: stop it or publish another port"
    } else if error.kind() == io::ErrorKind::AddrNotAvailable {
        "; this machine has no such address"
    } else {
        ""
    };
    format!("cannot listen at {address}: {error}{hint}")
}
