//! The way to other members: one trait, and what openraft needs around it.
//!
//! A transport carries bytes to a member and its answer back; what is in them is this crate's. [`Nowhere`] is the
//! transport of a machine on its own; [`crate::switchboard`] connects members within one process.

use crate::log_store::LogStore;
use crate::message::{Message, read_answer};
use crate::types::{RaftError, Types};
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use storage::replicated::Waiting;

/// Carries messages between members.
pub trait Network: Send + Sync + 'static {
    /// Hands `message` to member `to`'s [`crate::Group::handle`] and returns its answer. Has a deadline of its own;
    /// may be dropped while it waits.
    fn send(&self, to: u64, message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>>;
}

/// Why there is no answer from a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The message did not arrive.
    #[error("member {member} cannot be reached")]
    Unreachable { member: u64 },
    /// It may have arrived.
    #[error("member {member} did not answer")]
    Unanswered { member: u64 },
}

/// A network without members.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Network for Nowhere {
    fn send(&self, to: u64, _message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>> {
        Box::pin(async move { Err(SendError::Unreachable { member: to }) })
    }
}

#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) logs: LogStore,
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &openraft::EmptyNode) -> Peer {
        Peer { network: Arc::clone(&self.network), logs: self.logs.clone(), target }
    }
}

pub(crate) struct Peer {
    network: Arc<dyn Network>,
    logs: LogStore,
    target: u64,
}

type RpcError<E> = RPCError<u64, openraft::EmptyNode, E>;

#[derive(Debug, thiserror::Error)]
#[error("member {0} answered with something else")]
struct Nonsense(u64);

impl Peer {
    async fn call<T, E>(&self, message: Message, option: &RPCOption) -> Result<T, RpcError<RaftError<E>>>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let sent = tokio::time::timeout(option.hard_ttl(), self.network.send(self.target, message.encode())).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            // Unreachable makes openraft pause before it tries again; a lost answer does not.
            Ok(Err(error @ SendError::Unreachable { .. })) => {
                return Err(RPCError::Unreachable(Unreachable::new(&error)));
            }
            Ok(Err(error @ SendError::Unanswered { .. })) => return Err(RPCError::Network(NetworkError::new(&error))),
            Err(elapsed) => return Err(RPCError::Network(NetworkError::new(&elapsed))),
        };
        match read_answer::<Result<T, RaftError<E>>>(&answer) {
            Some((Ok(answer), _)) => Ok(answer),
            Some((Err(error), _)) => Err(RPCError::RemoteError(RemoteError::new(self.target, error))),
            None => Err(RPCError::Network(NetworkError::new(&Nonsense(self.target)))),
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError<RaftError>> {
        // That something is committed is said once it is on this disk too. Entries do not wait for that: what is said with them is
        // said again when there are none.
        if request.entries.is_empty() {
            let written = tokio::time::timeout(option.hard_ttl(), self.logs.written_to(request.leader_commit)).await;
            written
                .map_err(|elapsed| RPCError::Network(NetworkError::new(&elapsed)))?
                .map_err(|broken| RPCError::Network(NetworkError::new(&broken)))?;
        } else {
            request.leader_commit = request.leader_commit.min(self.logs.written());
        }
        self.call(Message::Append(request), &option).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<RaftError<InstallSnapshotError>>> {
        self.call(Message::Snapshot(request), &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError<RaftError>> {
        self.call(Message::Vote(request), &option).await
    }
}
