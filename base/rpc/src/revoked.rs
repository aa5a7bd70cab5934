//! Which machines are members no more. Live: whoever holds a connection of theirs is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use wire::identity::NodeId;

/// Clones are the same set.
#[derive(Debug, Clone)]
pub struct Revoked(Arc<watch::Sender<Arc<BTreeSet<NodeId>>>>);

impl Revoked {
    pub fn new() -> Revoked {
        Revoked(Arc::new(watch::Sender::new(Arc::default())))
    }

    /// These are, and no others, from now on: their connections are cut, and they get no new ones.
    pub fn set(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        self.0.send_if_modified(|current| {
            let changed = **current != nodes;
            if changed {
                *current = Arc::new(nodes);
            }
            changed
        });
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.0.borrow().contains(&node)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<BTreeSet<NodeId>>> {
        self.0.subscribe()
    }
}

impl Default for Revoked {
    fn default() -> Revoked {
        Revoked::new()
    }
}
