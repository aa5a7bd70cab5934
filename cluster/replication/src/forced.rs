//! Taking the lead by force: a member whose group has lost its majority for good goes on alone, and a group that has lost
//! all of its members begins anew from a state that was kept.
//!
//! Owns how that is written, and how members tell afterwards whether they are of the same time. The rest of the group
//! is none of its business.

use crate::entry;
use crate::group::OpenError;
use crate::lane::Lane;
use crate::log_store::{NOTE_VERSION, Note};
use crate::machine_store::{MARK_VERSION, Mark};
use crate::options::Options;
use crate::types::{Entry, LogId, StoredMembership, Vote};
use openraft::{CommittedLeaderId, EntryPayload, Membership};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use storage::log::{Batch, Log, LogError, Reader};
use storage::replicated::{Machine, MachineError};

/// The upper bits of a term say of which time it is: each lead that was taken by force begins another. Elections never
/// reach them (one a second does after a hundred years), so whoever was left behind by force and goes on electing is told
/// from whoever is merely ahead.
const SHIFT: u32 = 32;
/// The last time there is; a term with it is not of ours.
const TIMES_MAX: u64 = u32::MAX as u64 - 1;
/// 1 January 2026, from which restored groups count.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// Why a group could not begin from a state that was kept.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("open the log")]
    Log(#[from] LogError),
    #[error("{directory} holds the log of a group already")]
    Occupied { directory: PathBuf },
    #[error("write the state")]
    State(#[from] MachineError),
    #[error("term {term} is none that a group can go on from")]
    Term { term: u64 },
}

/// Of which time a term is.
pub(crate) fn times(term: u64) -> u64 {
    term >> SHIFT
}

/// The time of a group that is restored, from a state in which `term` was the latest. Nobody knows how often the lead was
/// taken by force after the state was kept: seconds on the clock are more than that ever is, and differ between two groups
/// that are restored from the same state. A clock that is behind costs no more than that.
fn time_of_restored(term: u64, now_ms: u64) -> Option<u64> {
    let next = (times(term) + 1).max(now_ms.saturating_sub(EPOCH_MS) / 1_000);
    (next <= TIMES_MAX).then_some(next)
}

/// Writes the only member of a group that begins with `snapshot`, for [`crate::Group::open`] to open. `term` is the latest
/// of the group the state comes from: members of it that come back find out that they are superseded. Blocks.
///
/// # Errors
/// [`RestoreError`]; what was written by then is of no use.
pub fn restore(
    options: Options,
    machine: &Arc<dyn Machine>,
    snapshot: &[u8],
    term: u64,
    now_ms: u64,
) -> Result<(), RestoreError> {
    let Options { disk, directory, node, log, .. } = options;
    let time = time_of_restored(term, now_ms).ok_or(RestoreError::Term { term })?;
    let (mut log, _) = Log::open(disk, &directory, log)?;
    let reader = log.reader();
    if reader.next() > 1 || !reader.note().is_empty() {
        return Err(RestoreError::Occupied { directory });
    }
    let term = time << SHIFT;
    // An entry that nobody can ask for any more: whoever joins is sent the state.
    let first = LogId::new(CommittedLeaderId::new(term, node), 0);
    let alone = Membership::new(vec![BTreeSet::from([node])], None);
    let membership = StoredMembership::new(Some(first), alone);
    let mark = Mark { version: MARK_VERSION, applied: Some(first), membership };
    machine.restore(&mark.encode(), snapshot)?;
    let note = Note { version: NOTE_VERSION, node, vote: Some(Vote::new(term, node)), purged: Some(first) };
    let note = serde_json::to_vec(&note).expect("numbers are always writable as json");
    log.write(&Batch { note: Some(note), purge_to: Some(first.index + 1), ..Batch::default() })?;
    Ok(())
}

/// Writes at the log's end that this member votes alone, with a vote that no other has.
pub(crate) async fn take_lead(
    lane: &Lane,
    reader: &Reader,
    note: Note,
    applied: Option<LogId>,
) -> Result<Note, OpenError> {
    let unreadable = |what: &str| OpenError::Raft(format!("take the lead by force: {what}"));
    let next = reader.next();
    let last = if next > reader.first() {
        let bytes = reader.read(next - 1).map_err(|error| unreadable(&error.to_string()))?;
        Some(entry::decode(&bytes).ok_or_else(|| unreadable("the last entry is of no known format"))?.log_id)
    } else {
        note.purged.max(applied)
    };
    let last =
        last.ok_or_else(|| unreadable("this member has nothing to go on with: it never had the group's state"))?;
    let voted = note.vote.map_or(0, |vote| vote.leader_id().term);
    let time = times(voted.max(last.leader_id.term)) + 1;
    if time > TIMES_MAX {
        return Err(unreadable("its term is none that a group can go on from"));
    }
    let term = time << SHIFT;
    let log_id = LogId::new(CommittedLeaderId::new(term, note.node), last.index + 1);
    let alone = Membership::new(vec![BTreeSet::from([note.node])], None);
    let note = Note { vote: Some(Vote::new(term, note.node)), ..note };
    let batch = Batch {
        note: Some(serde_json::to_vec(&note).expect("numbers are always writable as json")),
        entries: vec![entry::encode(&Entry { log_id, payload: EntryPayload::Membership(alone) })],
        ..Batch::default()
    };
    lane.written(batch).await?;
    tracing::warn!(
        term,
        index = log_id.index,
        "this member votes alone from now on: it was told to take the lead by force"
    );
    Ok(note)
}
