//! TCP out of a container: accept what was redirected, ask where it wanted to go, connect, copy.

use super::Opening;
use super::route::{Route, route};
use crate::boxes::Boxes;
use crate::dial::InstanceDialer;
use crate::shared::Shared;
use balancer::{Endpoint, Outcome};
use control::view::Snapshot;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use wire::resource::Wanted;
use world::net::{self, Dialer};
use world::tunnel::{LAST_WORDS_DEADLINE, Moved};

/// Connections out of one instance at a time: as many as a program may have files open by default, many times over.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection waits for an instance of the service it wants: a restart or a slow start of a database is
/// a pause, not an error.
const READY_WAIT: Duration = Duration::from_secs(10);
/// How long a connection attempt out of the cluster may take.
const OUTSIDE_CONNECT: Duration = Duration::from_secs(10);
/// Attempts at different instances of a service.
const ATTEMPTS_MAX: usize = 3;

pub(super) async fn serve(opening: Arc<Opening>, listener: OwnedFd) {
    let listener = std::net::TcpListener::from(listener);
    let listener = match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(instance = opening.instance.id, %error, "cannot take over the door's listener");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let opening = Arc::clone(&opening);
                // Ends when either side closes; the box's end closes its side.
                world::task::spawn("door-connection", async move {
                    connection(opening, stream).await;
                    drop(permit);
                })
                .detach();
            }
            Err(error) => {
                tracing::debug!(instance = opening.instance.id, %error, "accept at the door");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(opening: Arc<Opening>, inside: TcpStream) {
    let Ok(to) = rustix::net::sockopt::ip_original_dst(&inside) else { return };
    let snapshot = opening.shared.view.borrow().clone();
    let name = opening.name_of(*to.ip());
    match route(&snapshot, &opening.instance, to, name.as_deref()) {
        Route::Service { stack, service } => to_service(opening, inside, &stack, &service, to.port()).await,
        Route::Outside => match outside(to).await {
            Ok(stream) => {
                // It may outlive the agent.
                drop((opening, snapshot));
                copy(inside, stream).await;
            }
            Err(error) => {
                tracing::debug!(instance = opening.instance.id, %to, %error, "egress failed");
                net::reset_when_dropped(&inside);
            }
        },
        Route::Refused(reason) => {
            opening.refused(&format!("connection to {to}"), &reason);
            net::reset_when_dropped(&inside);
        }
    }
}

async fn outside(to: SocketAddrV4) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(OUTSIDE_CONNECT, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn to_service(opening: Arc<Opening>, inside: TcpStream, stack: &str, service: &str, port: u16) {
    let _ = inside.set_nodelay(true);
    let client = inside.peer_addr().ok();
    match dial(&opening.shared, stack, service, port, client).await {
        Ok((instance, stream)) => {
            let boxes = Arc::clone(&opening.shared.boxes);
            // It may outlive the agent.
            drop(opening);
            copy(inside, stream).await;
            finished(&boxes, stack, service, &instance, Outcome::ClientGone);
        }
        Err(error) => {
            let shared = &opening.shared;
            let target = format!("{stack}/{service}");
            let labels = [("service", target.as_str())];
            shared.meter.counter("bramble_door_failures_total", "Connections to a service that failed.", &labels).inc();
            tracing::debug!(instance = opening.instance.id, target, port, %error, "service not reached");
            net::reset_when_dropped(&inside);
        }
    }
}

/// Connects to the least loaded instance; waits a while for one to be ready.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    stack: &str,
    service: &str,
    port: u16,
    client: Option<SocketAddr>,
) -> std::io::Result<(String, TcpStream)> {
    let dialer = InstanceDialer { boxes: Arc::clone(&shared.boxes) };
    let mut failed = Vec::new();
    let mut last = std::io::Error::new(std::io::ErrorKind::NotConnected, "no instance is ready");
    // The client's address inside its own box means nothing in the other one unless it is a loopback address.
    let client = client.filter(|client| client.ip().is_loopback());
    for _ in 0..ATTEMPTS_MAX {
        let Some(instance) = pick(shared, stack, service, &failed).await else { break };
        match dialer.dial(&instance, port, client).await {
            Ok(stream) => {
                works(&shared.boxes, stack, service, &instance);
                return Ok((instance, stream));
            }
            Err(error) => {
                finished(&shared.boxes, stack, service, &instance, Outcome::ConnectFailed);
                failed.push(Arc::from(instance));
                last = error;
            }
        }
    }
    Err(last)
}

async fn pick(shared: &Shared, stack: &str, service: &str, failed: &[Arc<str>]) -> Option<String> {
    let mut view = shared.view.clone();
    let deadline = world::clock::monotonic() + READY_WAIT;
    loop {
        let snapshot = view.borrow_and_update().clone();
        {
            let mut pools = shared.boxes.pools();
            let pool = pools.entry(format!("{stack}/{service}")).or_default();
            let now_ms = world::clock::unix_ms();
            pool.update(now_ms, endpoints(&snapshot, stack, service));
            if let Ok(picked) = pool.pick_except(now_ms, world::random::number(), failed) {
                return Some(picked.to_string());
            }
        }
        // Having failed at every instance there is, waiting for another one helps only if none was there.
        if !failed.is_empty() {
            return None;
        }
        let left = deadline.saturating_duration_since(world::clock::monotonic());
        if !tokio::time::timeout(left, view.changed()).await.is_ok_and(|changed| changed.is_ok()) {
            return None;
        }
    }
}

fn endpoints(snapshot: &Snapshot, stack: &str, service: &str) -> Vec<Endpoint> {
    snapshot
        .instances_of(stack, service)
        .filter(|instance| snapshot.statuses.get(&instance.id).is_some_and(|status| status.ready))
        .map(|instance| Endpoint {
            id: instance.id.clone(),
            weight: 1,
            draining: instance.wanted == Wanted::Stopped,
            zone: None,
        })
        .collect()
}

/// Says that an instance takes connections: how one ends will say nothing about it.
fn works(boxes: &Boxes, stack: &str, service: &str, instance: &str) {
    if let Some(pool) = boxes.pools().get_mut(&format!("{stack}/{service}")) {
        pool.answered(instance, world::clock::unix_ms());
    }
}

fn finished(boxes: &Boxes, stack: &str, service: &str, instance: &str, outcome: Outcome) {
    if let Some(pool) = boxes.pools().get_mut(&format!("{stack}/{service}")) {
        pool.done(instance, world::clock::unix_ms(), outcome);
    }
}

/// A broken connection is the two programs' business: both see it break.
async fn copy(mut inside: TcpStream, mut other: TcpStream) {
    if world::tunnel::run(&mut inside, &mut other, [], Moved::default()).await.is_err() {
        tokio::join!(net::reset(inside, LAST_WORDS_DEADLINE), net::reset(other, LAST_WORDS_DEADLINE));
    }
}
