//! A state from a backup, before it is anybody's: what is no longer true can still be changed.

use super::{BackupError, Contents, Opened, Piece};
use crate::command::{Command, Reply};
use crate::keyspace::LIMITS;
use crate::saved::Delta;
use crate::state::State;
use crate::{Listing, SpaceError, Txn};
use std::io::Read;

/// Revisions that are left out after those of a backup. The cluster it is of went on after it: whoever saw revisions of
/// that time is not to take others for them, and is told to list again. At a thousand changes a second this is more than a
/// week; etcd advises as many (`etcdutl snapshot restore --bump-revision`).
pub const REVISIONS_LEFT_OUT: u64 = 1_000_000_000;
/// Beyond it revisions are no longer exact where others read them as JSON numbers.
const REVISION_MAX: u64 = 1 << 53;

/// The state that a whole backup holds.
#[derive(Debug)]
pub struct Restored {
    state: State,
    contents: Contents,
}

impl Restored {
    /// Reads a backup to its end.
    ///
    /// # Errors
    /// [`BackupError`] unless it is whole.
    pub fn read(input: impl Read) -> Result<Restored, BackupError> {
        let mut opened = Opened::open(input)?;
        let mut contents = Contents { head: opened.head.clone(), ..Contents::default() };
        let (mut entries, mut leases) = (Vec::new(), Vec::new());
        while let Some(piece) = opened.next()? {
            contents.count(&piece);
            match piece {
                Piece::Entries(more) => entries.extend(more),
                Piece::Leases(more) => leases.extend(more),
            }
        }
        contents.size_bytes = opened.at;
        let revision = opened.head.revision.checked_add(REVISIONS_LEFT_OUT).filter(|revision| *revision < REVISION_MAX);
        let revision = revision.ok_or_else(|| opened.damaged(0, "its revision is none"))?;
        // Nothing before is history: a watch from any earlier revision ends with `Compacted`.
        let state = State::assembled(LIMITS, (revision, revision), entries, [], leases);
        Ok(Restored { state, contents })
    }

    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The keys under `prefix`.
    pub fn list(&self, prefix: &str) -> Listing {
        self.state.list(prefix)
    }

    /// Changes the state as a transaction of a space would.
    ///
    /// # Errors
    /// [`SpaceError`] when a space would not take it either.
    pub fn commit(&mut self, txn: Txn) -> Result<(), SpaceError> {
        txn.check()?;
        match self.state.apply(Command::from(txn)) {
            Reply::Committed(_) => Ok(()),
            Reply::Refused(refusal) => Err(crate::space::refused(refusal)),
            Reply::Leased { .. } => Err(SpaceError::Protocol("a lease's reply to a transaction")),
        }
    }

    /// As [`storage::replicated::Machine::restore`] of a [`crate::Keyspace`] takes it.
    pub fn snapshot(&self) -> Vec<u8> {
        Delta::snapshot(&self.state)
    }
}
