//! The way of control's messages to other members.
//!
//! Owns which member has which number. On a machine that is on its own it leads nowhere; when the machine becomes one of
//! several it begins to lead somewhere, and whoever holds it need not know.

use replication::{Network, SendError};
use rpc::{Peers, Terms};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storage::replicated::Waiting;
use wire::identity::NodeId;
use wire::resource::Member;

/// The method behind it.
pub const MESSAGE: &str = "control/message";
/// Longer than a disk that hiccups, shorter than whoever waits for an answer is patient.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Line(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    peers: Option<Peers>,
    members: BTreeMap<u64, NodeId>,
}

impl Line {
    pub fn lead(&self, peers: Option<Peers>) {
        self.ends().peers = peers;
    }

    pub fn know<'a>(&self, members: impl IntoIterator<Item = &'a Member>) {
        self.ends().members = members.into_iter().map(|member| (member.number, member.node)).collect();
    }

    fn way(&self, to: u64) -> Option<(Peers, NodeId)> {
        let ends = self.ends();
        Some((ends.peers.clone()?, *ends.members.get(&to)?))
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for Line {
    fn send(&self, to: u64, message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>> {
        Box::pin(async move {
            let Some((peers, node)) = self.way(to) else { return Err(SendError::Unreachable { member: to }) };
            match peers.call(node, MESSAGE, message, Terms::within(ANSWERED_WITHIN)).await {
                Ok(answer) => Ok(answer.bytes.to_vec()),
                Err(error) if error.may_have_arrived() => Err(SendError::Unanswered { member: to }),
                Err(_) => Err(SendError::Unreachable { member: to }),
            }
        })
    }
}
