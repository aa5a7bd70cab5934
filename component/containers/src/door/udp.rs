//! UDP out of a container: a socket inside the box per declared UDP port of each service it may reach, and a flow
//! per client behind it.
//!
//! Datagrams cannot be redirected and still tell where they wanted to go, so only declared ports are served.

use super::Opening;
use super::route::{share_network, spec};
use control::view::Snapshot;
use sandbox::SocketKind;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use wire::spec::Protocol;
use world::task::Task;

/// Clients of one port at a time; the next ones are dropped, as a full socket buffer would.
const FLOWS_MAX: usize = 1024;
/// A flow without an answer for this long is over (RFC 4787 asks for two minutes at least).
const FLOW_IDLE: Duration = Duration::from_secs(120);
/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A service's UDP port as this container reaches it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    stack: String,
    service: String,
    address: Ipv4Addr,
    port: u16,
}

/// Keeps one listening task per reachable port, as the view says.
pub(super) async fn serve(opening: Arc<Opening>) {
    let mut view = opening.shared.view.clone();
    let mut open: BTreeMap<Target, Task> = BTreeMap::new();
    loop {
        let wanted = targets(&view.borrow_and_update().clone(), &opening);
        open.retain(|target, _| wanted.contains(target));
        for target in wanted {
            open.entry(target).or_insert_with_key(|target| {
                world::task::spawn("door-udp-port", listen(Arc::clone(&opening), target.clone()))
            });
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

fn targets(snapshot: &Snapshot, opening: &Opening) -> BTreeSet<Target> {
    let own = spec(snapshot, &opening.instance);
    let mut targets = BTreeSet::new();
    for (stack, service, other) in snapshot.services() {
        if !share_network(own, other) || (stack == opening.instance.stack && service == opening.instance.service) {
            continue;
        }
        let Some(address) = snapshot.addresses.get(&(stack.to_owned(), service.to_owned())) else { continue };
        let Ok(address) = address.ip.parse() else { continue };
        let published = other.ports.iter().filter(|port| port.protocol == Protocol::Udp).map(|port| port.target);
        let exposed = other.expose.iter().filter(|port| port.protocol == Protocol::Udp).map(|port| port.port);
        for port in published.chain(exposed) {
            targets.insert(Target { stack: stack.to_owned(), service: service.to_owned(), address, port });
        }
    }
    targets
}

async fn listen(opening: Arc<Opening>, target: Target) {
    let address = SocketAddr::from((target.address, target.port));
    let socket = match opening.shim.listen(address, SocketKind::Udp4).await.and_then(own) {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            // The program inside may use the port itself: then it is its own.
            tracing::debug!(instance = opening.instance.id, %address, %error, "no socket for a udp service");
            return;
        }
    };
    let mut flows: BTreeMap<SocketAddr, (Arc<UdpSocket>, Task)> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        flows.retain(|_, (_, back)| !back.is_finished());
        if !flows.contains_key(&client) {
            if flows.len() >= FLOWS_MAX {
                continue;
            }
            let Some(there) = connect(&opening, &target).await else { continue };
            let there = Arc::new(there);
            let back = world::task::spawn("door-udp-flow", answer(Arc::clone(&there), Arc::clone(&socket), client));
            flows.insert(client, (there, back));
        }
        if let Some((there, _)) = flows.get(&client) {
            let _ = there.send(&buffer[..length]).await;
        }
    }
}

/// A socket inside an instance of the service, connected to its port.
async fn connect(opening: &Opening, target: &Target) -> Option<UdpSocket> {
    let snapshot = opening.shared.view.borrow().clone();
    let ready: Vec<_> = snapshot
        .instances_of(&target.stack, &target.service)
        .filter(|instance| snapshot.statuses.get(&instance.id).is_some_and(|status| status.ready))
        .collect();
    let count = u64::try_from(ready.len()).ok().filter(|count| *count > 0)?;
    let chosen = usize::try_from(world::random::number() % count).ok()?;
    let shim = opening.shared.shim(&ready[chosen].id)?;
    let socket = own(shim.socket(SocketKind::Udp4).await.ok()?).ok()?;
    socket.connect(SocketAddr::from(([127, 0, 0, 1], target.port))).await.ok()?;
    Some(socket)
}

fn own(socket: OwnedFd) -> std::io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Sends answers back until none has come for a while.
async fn answer(there: Arc<UdpSocket>, here: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok(Ok(length)) = tokio::time::timeout(FLOW_IDLE, there.recv(&mut buffer)).await {
        if here.send_to(&buffer[..length], client).await.is_err() {
            return;
        }
    }
}
