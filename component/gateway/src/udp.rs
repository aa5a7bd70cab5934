//! Published UDP ports.
//!
//! Owns the flows: one per client address, each with a socket of its own to an instance, ended by silence. What
//! does not fit a bound is dropped, as UDP allows. A flow whose instance drains moves to another one, because
//! nothing tells when a flow without an end is over.

use crate::listener::{Phase, Target, TargetKind};
use crate::metrics::Failure;
use crate::search::Search;
use crate::settings::UdpDialer;
use crate::swap::Swap;
use crate::upstream::{Ground, Lease, Upstream};
use balancer::Outcome;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use world::task::Task;

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Datagrams of one client that wait while its instance is being found.
const QUEUE_MAX: usize = 64;
/// How long an instance that drains may still answer what it was asked.
const LINGER: Duration = Duration::from_secs(1);
/// The kernel has no memory, or reports that an earlier answer was refused: trying again at once may spin.
const RECEIVE_PAUSE: Duration = Duration::from_millis(10);

struct Flow {
    queue: mpsc::Sender<Bytes>,
    task: Task,
}

/// What all flows of one port share.
struct Port {
    socket: UdpSocket,
    target: Arc<Swap<Target>>,
    ground: Arc<Ground>,
    dialer: Arc<dyn UdpDialer>,
}

impl Port {
    fn dropped(&self) {
        match &self.target.get().kind {
            TargetKind::Service { upstream, .. } => upstream.meters.datagram_dropped(),
            TargetKind::Routed(_) => {}
        }
    }
}

/// Serves a published UDP port until `phase` says that it is to end. When another gateway goes on at the same socket,
/// what was asked here is still answered from here.
pub(crate) async fn serve(
    socket: UdpSocket,
    target: Arc<Swap<Target>>,
    ground: Arc<Ground>,
    dialer: Arc<dyn UdpDialer>,
    mut phase: watch::Receiver<Phase>,
) {
    let port = Arc::new(Port { socket, target, ground, dialer });
    let flows_max = port.ground.limits.flows_max;
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            received = port.socket.recv_from(&mut buffer) => received,
            ended = ending(&mut phase) => {
                if ended == Phase::Leave {
                    tokio::time::sleep(LINGER).await;
                }
                return;
            }
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive from a UDP port");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if flows.get(&client).is_none_or(|flow| flow.task.is_finished()) {
            if flows.len() >= flows_max {
                flows.retain(|_, flow| !flow.task.is_finished());
            }
            if flows.len() >= flows_max {
                port.dropped();
                continue;
            }
            let (queue, datagrams) = mpsc::channel(QUEUE_MAX);
            let task = world::task::spawn("gateway udp flow", carry(Arc::clone(&port), client, datagrams));
            flows.insert(client, Flow { queue, task });
        }
        // Full, or ended just now: lost, as datagrams may be.
        if flows.get(&client).is_some_and(|flow| flow.queue.try_send(datagram).is_err()) {
            port.dropped();
        }
    }
}

async fn ending(phase: &mut watch::Receiver<Phase>) -> Phase {
    // Whoever could say is gone.
    phase.wait_for(|phase| *phase != Phase::Open).await.map_or(Phase::Cut, |phase| *phase)
}

/// Carries one client's datagrams until it is silent for too long. Owner: the port's table of flows.
async fn carry(port: Arc<Port>, client: SocketAddr, mut datagrams: mpsc::Receiver<Bytes>) {
    let idle = port.ground.limits.flow_idle_deadline;
    // Without an instance in between: a client that says nothing needs none.
    while let Ok(Some(first)) = tokio::time::timeout(idle, datagrams.recv()).await {
        let target = port.target.get();
        let TargetKind::Service { upstream, .. } = &target.kind else { return };
        let Some((lease, instance)) = connect(&port, upstream, client).await else { return };
        if instance.send(&first).await.is_err() {
            upstream.meters.failure(Failure::Broken);
        }
        upstream.meters.tunnel();
        let moves = exchange(&port, upstream, &lease, &instance, client, &mut datagrams).await;
        lease.end(Outcome::ClientGone);
        if !moves {
            return;
        }
    }
}

/// A socket to an instance, tried within the time a client is held.
async fn connect(port: &Port, upstream: &Arc<Upstream>, client: SocketAddr) -> Option<(Lease, UdpSocket)> {
    let mut search = Search::new(Arc::clone(upstream), world::clock::monotonic());
    loop {
        let lease = search.lease().await.ok()?;
        let dialing = port.dialer.dial(&lease.id, upstream.port, client);
        match tokio::time::timeout(port.ground.limits.connect_deadline, dialing).await {
            Ok(Ok(socket)) => {
                lease.works();
                return Some((lease, socket));
            }
            Ok(Err(error)) => {
                lease.note_unreachable(&error);
                search.rule_out(lease, Outcome::ConnectFailed);
            }
            Err(_) => search.rule_out(lease, Outcome::ConnectFailed),
        }
    }
}

/// Passes datagrams both ways. True when the flow is to go on with another instance.
async fn exchange(
    port: &Port,
    upstream: &Upstream,
    lease: &Lease,
    instance: &UdpSocket,
    client: SocketAddr,
    datagrams: &mut mpsc::Receiver<Bytes>,
) -> bool {
    let idle = port.ground.limits.flow_idle_deadline;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    let mut silence = std::pin::pin!(tokio::time::sleep(idle));
    let mut leaving = false;
    loop {
        let changed = upstream.changed();
        if !leaving && !upstream.takes_picks(&lease.id) {
            leaving = true;
            silence.as_mut().reset(tokio::time::Instant::now() + LINGER);
        }
        tokio::select! {
            received = instance.recv(&mut answer) => match received {
                Ok(length) => {
                    drop(port.socket.send_to(answer.get(..length).unwrap_or_default(), client).await);
                }
                // Nobody listens at the instance's port: another may do better.
                Err(_) => {
                    upstream.meters.failure(Failure::Broken);
                    return true;
                }
            },
            // What comes while leaving waits for the next instance.
            datagram = datagrams.recv(), if !leaving => match datagram {
                Some(datagram) => drop(instance.send(&datagram).await),
                None => return false,
            },
            () = changed => continue,
            () = silence.as_mut() => return leaving,
        }
        if !leaving {
            silence.as_mut().reset(tokio::time::Instant::now() + idle);
        }
    }
}
