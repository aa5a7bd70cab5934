//! A running node gives its place to another process, of a newer binary or the same: `bramble upgrade`, or SIGUSR2.
//!
//! The two processes and what they say to each other, in order:
//! 1. The old one starts the new one with a channel as its standard input, and goes on as ever. The new one reads its
//!    configuration, starts its spawner and its runtime, and says that it is *prepared*.
//! 2. The old one ends its API, planner and agent and closes the state of record; only its gateway goes on, with the
//!    table it has. It hands over its lock, its listening sockets and which instances were ready: *take*.
//! 3. The new one opens the state, finds the boxes, waits until what was ready is ready, and says that it has *opened*.
//! 4. *Go*: it says that it is *serving*, and only then accepts at the same sockets: whoever it had accepted before would
//!    be lost if it ended without that word. The old one stops accepting when it hears it. What is under way there is
//!    finished there: it is told who the instances are meanwhile, and asked before one is stopped.
//!
//! Promises that up to the last word the old one can take everything back: if the new one ends, fails or is late, it is
//! killed, and the old one opens the state again and goes on. Should the old one die after *take*, the new one goes on.

pub mod asking;
mod leaving;
pub mod sockets;
mod taking;

pub use leaving::{Gifts, Next, Refused, Staying, Terms};
pub use taking::{Given, Inherited, Opening, Previous, TakeError};

use gateway::Endpoint;
use sandbox::Channel;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use wire::spec::Protocol;

/// The code of an upgrade that came to nothing.
pub const FAILED: &str = "B0001";
/// Of this conversation. A binary that speaks another one is refused before anything has been closed.
const SPOKEN: u32 = 1;
/// Sockets in one message; the rest follow in further ones.
const SOCKETS_MAX: usize = 200;
const _: () = assert!(SOCKETS_MAX <= Channel::FDS_MAX, "they fit into a message");

/// From the old process to the new one.
#[derive(Debug, Serialize, Deserialize)]
enum ToNext {
    /// With the gateway's sockets, in this order.
    Sockets {
        names: Vec<(Protocol, SocketAddr)>,
    },
    /// With the lock of the data folder, the API's socket, the one at which upgrades are asked for, and the channels to
    /// processes that took their leave before.
    Take {
        ready: Vec<String>,
    },
    Go,
    /// An answer to [`ToPrevious::Leaves`].
    Drained {
        instance: String,
    },
}

/// From the new process to the old one.
#[derive(Debug, Serialize, Deserialize)]
enum ToPrevious {
    Prepared {
        version: String,
        spoken: u32,
    },
    /// It cannot take over; it ends.
    Failed {
        reason: String,
    },
    Opened,
    Serving,
    /// Which endpoints services have: instance, and whether it gets nothing new.
    Endpoints {
        services: BTreeMap<String, Vec<(String, bool)>>,
    },
    /// An instance is to be stopped once nothing is under way at it.
    Leaves {
        instance: String,
    },
    /// Too many finish what they had, and this one has been at it for longest.
    End,
}

/// Endpoints by service, as the gateway knows them.
pub type Services = BTreeMap<String, Vec<Endpoint>>;

fn written(services: &Services) -> BTreeMap<String, Vec<(String, bool)>> {
    let pairs = |endpoints: &Vec<Endpoint>| endpoints.iter().map(|one| (one.instance.clone(), one.draining)).collect();
    services.iter().map(|(service, endpoints)| (service.clone(), pairs(endpoints))).collect()
}

fn read(services: BTreeMap<String, Vec<(String, bool)>>) -> Services {
    // Where they run decides who is asked first, and this process finishes what it has.
    let endpoint = |(instance, draining)| Endpoint { instance, draining, ..Endpoint::default() };
    let read = services.into_iter().map(|(service, pairs)| (service, pairs.into_iter().map(endpoint).collect()));
    read.collect()
}

async fn send_sockets(channel: &Channel, sockets: &[gateway::Socket]) -> std::io::Result<()> {
    for some in sockets.chunks(SOCKETS_MAX) {
        let names = some.iter().map(|one| (one.protocol, one.address)).collect();
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(|one| one.socket.as_fd()).collect();
        channel.send(&ToNext::Sockets { names }, &fds).await?;
    }
    Ok(())
}
