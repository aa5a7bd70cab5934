//! When checkpoints are taken, and how much of the log is kept after them.

use crate::log_store::LogStore;
use crate::machine_store::MachineStore;
use crate::types::Raft;

/// Has a checkpoint taken whenever one is due. Ends with its owner; cancelled anywhere, a checkpoint is whole or not
/// there.
pub(crate) async fn take(raft: Raft, store: MachineStore) {
    let due = store.due();
    loop {
        due.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Lets go of what the log holds beyond `kept_bytes`, as far as a checkpoint has it. Ends with its owner.
pub(crate) async fn purge(raft: Raft, store: MachineStore, logs: LogStore, kept_bytes: u64) {
    let (saved, _) = store.saved();
    let mut metrics = raft.metrics();
    loop {
        saved.notified().await;
        let (_, checkpoint) = store.saved();
        // openraft purges nothing that is in no checkpoint it knows of. An error says that the group is gone.
        if metrics.wait_for(|metrics| metrics.snapshot >= checkpoint).await.is_err() {
            return;
        }
        if let Some(last) = logs.last_before(kept_bytes)
            && raft.trigger().purge_log(last).await.is_err()
        {
            return;
        }
    }
}
