//! Taking the lead by force: a member whose group has lost its majority for good goes on alone.
//!
//! Owns how that is written, and how members tell afterwards whether they are of the same time. The rest of the group
//! is none of its business.

use crate::entry;
use crate::group::OpenError;
use crate::lane::Lane;
use crate::log_store::Note;
use crate::types::{Entry, LogId, Vote};
use openraft::{CommittedLeaderId, EntryPayload, Membership};
use std::collections::BTreeSet;
use storage::log::{Batch, Reader};

/// The upper bits of a term count how often the lead was taken by force. Elections never reach them, so whoever was left
/// behind by force and goes on electing is told from whoever is merely ahead.
const SHIFT: u32 = 40;

/// How often the lead had been taken by force by this term.
pub(crate) fn times(term: u64) -> u64 {
    term >> SHIFT
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
    let term = (times(voted.max(last.leader_id.term)) + 1) << SHIFT;
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
