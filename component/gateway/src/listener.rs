//! Listening sockets, and what is served at each.
//!
//! Owns the sockets and the tasks that accept. A listener's target may change under it; its connections keep
//! what they began with, and new requests see the new target. Does not know how anything is served.

use crate::aside::Asides;
use crate::attend::{self, Places, Start};
use crate::crowd::Seat;
#[cfg(feature = "http3")]
use crate::http3;
use crate::metrics::{ConnectionMeters, ServiceMeters};
use crate::named::Named;
use crate::offer::Offer;
use crate::policy::Policy;
use crate::published::Arrival;
use crate::pulse::{ClientStream, Pulse, Transport};
use crate::route::Router;
use crate::rule::Addresses;
use crate::seen::RouteSeen;
use crate::settings::UdpDialer;
use crate::swap::Swap;
use crate::table::Speaks;
use crate::threads::Threads;
use crate::tls::Tls;
use crate::udp;
use crate::upstream::{Ground, Upstream};
use rustix::net::sockopt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wire::spec::ProxyProtocol;
use world::task::Task;

/// Connections the kernel keeps until they are accepted: as many as it keeps for anybody (`net.core.somaxconn`, 4,096 unless
/// it was set). Of a burst beyond it, everybody waits for what is sent again after a fifth of a second, or after one.
const BACKLOG: u32 = 65_535;
/// Out of descriptors or memory: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accepted one after the other before others of the thread have their turn: a flood of newcomers would keep those that are
/// there waiting for milliseconds. With fewer the flood fills the kernel's queue, and who is turned away there waits for a second.
const ACCEPTED_AT_ONCE: usize = 64;
/// While every place is taken, whether one has become useless is looked at this often.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
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
    Routed(Arc<Router<Aim>>),
    Service { upstream: Arc<Upstream>, speaks: Speaks, proxy_protocol: Option<ProxyProtocol> },
}

/// Where a route leads.
#[derive(Clone)]
pub(crate) struct Aim {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) asides: Asides,
    pub(crate) seen: Arc<RouteSeen>,
}

/// What every accepting task is given.
pub(crate) struct Floor {
    pub(crate) ground: Arc<Ground>,
    pub(crate) meters: Arc<ConnectionMeters>,
    pub(crate) room: Arc<Semaphore>,
    /// How many it has in all.
    pub(crate) places: usize,
    pub(crate) tls: Tls,
    pub(crate) named: Arc<Swap<Named>>,
    /// Who may say for whom they speak.
    pub(crate) trusted: Option<Arc<Addresses>>,
    pub(crate) threads: Threads,
}

/// A listening socket being served.
pub(crate) struct Listening {
    pub(crate) got: SocketAddr,
    pub(crate) target: Arc<Swap<Target>>,
    phase: watch::Sender<Phase>,
    clients: watch::Sender<Phase>,
    /// What clients that come now go by.
    current: Arc<Swap<watch::Receiver<Phase>>>,
    /// The socket once more, for whoever keeps it while this process is replaced.
    pub(crate) kept: OwnedFd,
    accepting: Task,
}

impl Listening {
    /// Starts to accept at `socket`.
    pub(crate) fn start(
        socket: std::net::TcpListener,
        target: Target,
        floor: Arc<Floor>,
        secure: bool,
    ) -> io::Result<Listening> {
        let got = socket.local_addr()?;
        let kept = socket.as_fd().try_clone_to_owned()?;
        write_at_once(&socket)?;
        let target = Arc::new(Swap::new(target));
        let (phase, watched) = watch::channel(Phase::Open);
        let (clients, current) = watch::channel(Phase::Open);
        let current = Arc::new(Swap::new(current));
        let offer = secure.then(Arc::<Offer>::default);
        #[cfg(feature = "http3")]
        if let (Some(offer), TargetKind::Routed(_)) = (&offer, &target.get().kind) {
            let (target, floor, offer) = (Arc::clone(&target), Arc::clone(&floor), Arc::clone(offer));
            let port = http3::Port { address: got, target, floor, offer, phase: watched.clone() };
            // It ends when `phase` says so, with the last of its connections.
            world::task::spawn("gateway http/3 port", http3::serve(port)).detach();
        }
        let thread = Arc::clone(floor.threads.least_busy());
        let socket = {
            let _there = thread.enter();
            TcpListener::from_std(socket)?
        };
        let door = Door {
            socket,
            thread: thread.number(),
            target: Arc::clone(&target),
            floor,
            offer,
            current: Arc::clone(&current),
        };
        let accepting = thread.spawn("gateway listener", while_open(watched, door.accept()));
        Ok(Listening { got, target, phase, clients, current, kept, accepting })
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
        let (clients, current) = watch::channel(Phase::Open);
        let current = Arc::new(Swap::new(current));
        Ok(Listening { got, target, phase, clients, current, kept, accepting })
    }

    /// Stops accepting while another gateway goes on at the same socket. The task ends by itself.
    pub(crate) fn leave(self) -> ([watch::Sender<Phase>; 2], Task) {
        self.end(Phase::Leave)
    }

    /// Stops accepting. The senders tell the connections that remain how to end, and that they have; the task
    /// ends as soon as the socket is closed.
    pub(crate) fn retire(self) -> ([watch::Sender<Phase>; 2], Task) {
        self.end(Phase::Drain)
    }

    fn end(self, phase: Phase) -> ([watch::Sender<Phase>; 2], Task) {
        self.phase.send_replace(phase);
        self.clients.send_replace(phase);
        ([self.phase, self.clients], self.accepting)
    }

    /// Goes on accepting, and says how those end that are connected by now.
    pub(crate) fn renew(&mut self) -> watch::Sender<Phase> {
        let (clients, current) = watch::channel(Phase::Open);
        self.current.set(current);
        std::mem::replace(&mut self.clients, clients)
    }
}

/// Does `work`, which has no end of its own, until the listener is to end.
async fn while_open(mut phase: watch::Receiver<Phase>, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        () = work => {}
    }
}

/// Where clients come in, and what all of them are given.
struct Door {
    socket: TcpListener,
    thread: usize,
    target: Arc<Swap<Target>>,
    floor: Arc<Floor>,
    offer: Option<Arc<Offer>>,
    current: Arc<Swap<watch::Receiver<Phase>>>,
}

impl Door {
    async fn accept(self) {
        let floor = &self.floor;
        let mut accepted: usize = 0;
        loop {
            if accepted % ACCEPTED_AT_ONCE == ACCEPTED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            accepted = accepted.wrapping_add(1);
            let (stream, client) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            // Others would wait behind one that has much already, and comes again as soon as it is sent away.
            if floor.room.available_permits() == 0 && floor.is_greedy(client.ip()) {
                floor.meters.crowded.inc();
                continue;
            }
            let Some(place) = room(floor).await else { return };
            if let Err(error) = self.begin(stream, client, place) {
                tracing::debug!(%client, %error, "a connection could not be begun with");
            }
        }
    }

    /// Has one of the threads serve a client.
    fn begin(&self, stream: TcpStream, client: SocketAddr, place: OwnedSemaphorePermit) -> io::Result<()> {
        let thread = self.floor.threads.least_busy();
        let _there = thread.enter();
        let stream = match thread.number() == self.thread {
            true => stream,
            false => TcpStream::from_std(stream.into_std()?)?,
        };
        if let Some((start, seat)) = self.arrive(stream, client) {
            attend::begin(start, Places { seat, _place: place, _share: thread.share() });
        }
        Ok(())
    }

    fn arrive(&self, stream: TcpStream, client: SocketAddr) -> Option<(Start, Seat)> {
        let Door { floor, .. } = self;
        let trusted = floor.trusted.clone().filter(|trusted| trusted.admit(client.ip()));
        // A balancer is not counted as one client; those it names are.
        let seat = floor.seat(trusted.is_none().then(|| client.ip()))?;
        let pulse = Arc::new(Pulse::new());
        let mut arrival = Arrival {
            ground: Arc::clone(&floor.ground),
            target: Arc::clone(&self.target),
            stream: ClientStream::new(Transport::Plain(stream), Arc::clone(&pulse), &floor.meters),
            pulse,
            client,
            load: seat.load(),
            phase: self.current.get().as_ref().clone(),
            secure: self.offer.is_some(),
            offer: self.offer.clone(),
            http_2: false,
            trusted,
            caller: None,
            passage: None,
        };
        if arrival.secure || arrival.trusted.is_some() || arrival.published().is_some() {
            return Some((Start::Other(Box::new(arrival), Arc::clone(floor)), seat));
        }
        let (session, wire) = arrival.into_http();
        Some((Start::Http(session, wire), seat))
    }
}

/// A place for one more connection. While there is none, those that nobody would miss are closed. `None` at the end.
pub(crate) async fn room(floor: &Floor) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(place) = Arc::clone(&floor.room).try_acquire_owned() {
            return Some(place);
        }
        floor.meters.shed.add(floor.ground.crowd.make_room());
        match tokio::time::timeout(ROOM_PAUSE, Arc::clone(&floor.room).acquire_owned()).await {
            Ok(place) => return place.ok(),
            Err(_) => continue,
        }
    }
}

impl Floor {
    /// Whether a client has its part of a full house already. A balancer has the parts of many.
    pub(crate) fn is_greedy(&self, client: IpAddr) -> bool {
        let trusted = self.trusted.as_ref().is_some_and(|trusted| trusted.admit(client));
        !trusted && self.ground.crowd.has_its_part(client, self.places)
    }

    /// A client's place for one more connection. `None` when it has as many as it may.
    pub(crate) fn seat(&self, client: Option<IpAddr>) -> Option<Seat> {
        let seat = self.ground.crowd.enter(client, self.ground.limits.connections_per_client_max);
        if seat.is_none() {
            self.meters.crowded.inc();
        }
        seat
    }
}

/// Listens at `address`.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted gateway must not wait for the last connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Has what is accepted at `socket` write without waiting for more (no algorithm of Nagle's): Linux gives that on, which
/// spares each connection a system call.
fn write_at_once(socket: &std::net::TcpListener) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(socket, true)?)
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
pub(crate) fn inherit(socket: OwnedFd) -> io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_writes_at_once() {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        write_at_once(&socket).expect("an option of TCP");
        let socket = TcpListener::from_std(socket).expect("a socket");
        let client = TcpStream::connect(socket.local_addr().expect("it is bound"));
        let (client, accepted) = tokio::join!(client, socket.accept());
        client.expect("it listens");
        assert!(accepted.expect("a client").0.nodelay().expect("an option of TCP"));
    }
}
