//! What gossip asks for: datagrams to be sent, and events to be acted upon.

use super::node::NodeId;
use std::net::SocketAddr;

/// Something to be done by whoever runs the gossip, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Seal and send, once; losing it does no harm.
    Send {
        to: SocketAddr,
        datagram: Vec<u8>,
    },
    Tell(Event),
}

/// What changed in what this machine has heard of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A machine not known before, or one that had left, is there.
    Came(NodeId),
    /// Its record says something else than before.
    Changed(NodeId),
    /// It is there with a new generation: what ran in its earlier life is gone. It may have been silent before.
    Restarted(NodeId),
    /// Nobody has heard of it for longer than usual: it is suspected to be down.
    Silent(NodeId),
    /// It is heard of again, in the same life: it was away, not down.
    Back(NodeId),
    /// It said good-bye.
    Left(NodeId),
    /// It has been silent, or had left, for so long that nothing is remembered of it any more.
    Forgotten(NodeId),
    /// Two machines use one key, as when a data folder was copied: who is meant by this id is open. Told again
    /// every minute while it lasts. The addresses are those that are known, of both.
    Twins { id: NodeId, addresses: Vec<SocketAddr> },
}
