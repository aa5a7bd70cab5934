//! Clients of etcd, served from the state of record where `--etcd` says so.

use crate::boot::BootError;
use crate::handover::sockets;
use control::Space;
use meter::Meter;
use replication::Group;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Serves them from now on, if they are to be.
pub async fn begin(
    address: Option<SocketAddr>,
    space: &Space,
    group: &Group,
    meter: &Meter,
) -> Result<Option<etcd::Server>, BootError> {
    let Some(address) = address else { return Ok(None) };
    let bound = sockets::bound(|| TcpListener::bind(address)).await;
    let listener = bound.map_err(|source| BootError::Etcd { address, source })?;
    tracing::info!(%address, "clients of etcd are served");
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this address may change what clients of etcd keep: there is no password");
    }
    Ok(Some(etcd::Server::start(listener, space.clone(), Box::new(Member(group.clone())), meter)))
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
