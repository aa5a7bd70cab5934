//! Telling the node that this worker lives, from a thread of its own: a communicator or runner that hangs is told of, too.

use super::Shared;
use crate::link;
use crate::order::Beat;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(500);
/// A node that is replaced or comes back needs seconds; one that does not for this long is gone.
const ALONE_MAX_MS: u64 = 20_000;
/// The node has one; a second is another process of it.
const CONNECTIONS_MAX: usize = 8;

/// Starts it; returns where the node's connections go.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<SyncSender<UnixStream>> {
    let (given, connections) = sync_channel(CONNECTIONS_MAX);
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || beat(&shared, &connections))?;
    Ok(given)
}

fn beat(shared: &Shared, connections: &Receiver<UnixStream>) {
    let mut node: Option<UnixStream> = None;
    loop {
        match connections.recv_timeout(EVERY) {
            // The newest counts: it is another process of the node.
            Ok(connection) => node = connection.set_write_timeout(Some(EVERY)).is_ok().then_some(connection),
            Err(RecvTimeoutError::Timeout) => {}
            // The communicator is gone, and with it this process.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(connection) = &mut node {
            let told = link::word(&look(shared)).and_then(|frame| connection.write_all(&frame));
            match told {
                Ok(()) => shared.node_seen_ms.store(world::clock::boot_ms(), Ordering::Relaxed),
                Err(_gone) => node = None,
            }
        }
        let alone_ms = world::clock::boot_ms().saturating_sub(shared.node_seen_ms.load(Ordering::Relaxed));
        let done = shared.retires.load(Ordering::Relaxed) && shared.running() == 0 && shared.records.is_empty();
        if alone_ms > ALONE_MAX_MS || done {
            // The spawner and every box end with it.
            std::process::exit(0);
        }
    }
}

fn look(shared: &Shared) -> Beat {
    Beat {
        number: shared.number,
        pid: std::process::id(),
        version: shared.version.clone(),
        runs: u32::try_from(shared.running()).unwrap_or(u32::MAX),
        carried: shared.carried.load(Ordering::Relaxed),
        ran: shared.ran.load(Ordering::Relaxed),
        retires: shared.retires.load(Ordering::Relaxed),
        boxes: *shared.boxes(),
    }
}
