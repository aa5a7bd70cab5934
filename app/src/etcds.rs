//! Clients of etcd, served from the state of record where `--etcd` says so.

use crate::boot::BootError;
use crate::handover::sockets;
use control::Space;
use meter::Meter;
use replication::Group;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use wire::spec::Protocol;

/// Where they come in. In an upgrade it is handed on: whoever comes meanwhile waits.
pub struct Door {
    address: SocketAddr,
    socket: std::net::TcpListener,
}

impl Door {
    /// The one at `address` that the process before this one had, which is taken out of what was `inherited`, or a new one.
    pub async fn open(
        address: Option<SocketAddr>,
        inherited: &mut Vec<gateway::Socket>,
    ) -> Result<Option<Door>, BootError> {
        let Some(address) = address else { return Ok(None) };
        let is_it = |socket: &gateway::Socket| socket.address == address && socket.protocol == Protocol::Tcp;
        let socket = match inherited.iter().position(is_it) {
            Some(at) => inherited.swap_remove(at).socket.into(),
            None => {
                let bound = sockets::bound(|| TcpListener::bind(address)).await;
                bound.and_then(TcpListener::into_std).map_err(|source| BootError::Etcd { address, source })?
            }
        };
        Ok(Some(Door { address, socket }))
    }

    /// What the next process gets; without it that one binds its own.
    pub fn handed_on(&self) -> Option<gateway::Socket> {
        let socket = self.socket.try_clone();
        let socket =
            socket.inspect_err(|error| tracing::warn!(%error, "the socket of etcd's clients stays here")).ok()?;
        Some(gateway::Socket { address: self.address, protocol: Protocol::Tcp, socket: socket.into() })
    }

    /// Serves whoever comes in from now on.
    pub fn serve(&self, space: &Space, group: &Group, meter: &Meter) -> Result<etcd::Server, BootError> {
        let address = self.address;
        let listener = self.socket.try_clone().and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        let listener = listener.map_err(|source| BootError::Etcd { address, source })?;
        tracing::info!(%address, "clients of etcd are served");
        if !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "whoever reaches this address may change what clients of etcd keep: there is no password"
            );
        }
        Ok(etcd::Server::start(listener, space.clone(), Box::new(Member(group.clone())), meter))
    }
}

/// This member, as clients of etcd see it.
struct Member(Group);

impl etcd::Stands for Member {
    fn term(&self) -> u64 {
        self.0.term()
    }

    fn standing(&self) -> etcd::Standing {
        let overview = self.0.overview();
        etcd::Standing {
            member: overview.node,
            leader: overview.leader.unwrap_or(0),
            term: overview.term,
            last_index: overview.last_index.unwrap_or(0),
            applied_index: overview.applied_index.unwrap_or(0),
            voters: overview.voters.into_iter().collect(),
            learners: overview.learners.into_iter().collect(),
        }
    }
}
