//! The types openraft is instantiated with, under short names. Plain data.

use crate::runtime::Runtime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Commands that were waiting together: one log entry, one sync.
///
/// Why not one entry per command: openraft 0.9 waits for each entry's sync before it takes the next, so grouping has
/// to happen before it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commands(pub(crate) Arc<Vec<Vec<u8>>>, #[serde(skip)] pub(crate) Logged);

/// Whether commands have been in this member's log. If they have, another member may have them too, and whoever leads later may
/// have them happen though this log has lost them to another leader's entries meanwhile. Not part of what they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logged(Arc<AtomicBool>);

impl Logged {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl PartialEq for Logged {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Logged {}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}

/// The machine's replies, one per command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replies(pub(crate) Vec<Vec<u8>>);

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replies", self.0.len())
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Commands,
        R = Replies,
        NodeId = u64,
        // Where a member is found is the network's knowledge: identity is a key, never an address.
        Node = openraft::EmptyNode,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIoError = openraft::StorageIOError<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, openraft::EmptyNode>;
pub(crate) type Metrics = openraft::RaftMetrics<u64, openraft::EmptyNode>;
pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type RaftError<E = openraft::error::Infallible> = openraft::error::RaftError<u64, E>;
