//! What a member has written of itself: whose log it is, and how far its state goes. Read before it takes part.

use crate::group::OpenError;
use crate::lane::Lane;
use crate::log_store::{NOTE_VERSION, Note};
use crate::machine_store::{MARK_VERSION, Mark};
use crate::options::Options;
use storage::log::Batch;

/// What its log says of it.
pub(crate) fn read_note(options: &Options, bytes: &[u8]) -> Result<Note, OpenError> {
    let directory = || options.directory.clone();
    if bytes.is_empty() {
        return Ok(Note { version: NOTE_VERSION, node: options.node, ..Note::default() });
    }
    let note = serde_json::from_slice::<Note>(bytes)
        .map_err(|error| OpenError::Notes { directory: directory(), what: error.to_string() })?;
    if note.version != NOTE_VERSION {
        let what = format!("they have version {}, this program knows {NOTE_VERSION}", note.version);
        return Err(OpenError::Notes { directory: directory(), what });
    }
    if note.node != options.node {
        return Err(OpenError::OtherMember { directory: directory(), found: note.node, node: options.node });
    }
    Ok(note)
}

/// How far its state is.
pub(crate) fn read_mark(options: &Options, saved: Option<Vec<u8>>) -> Result<Mark, OpenError> {
    let Some(saved) = saved else {
        return Ok(Mark { version: MARK_VERSION, ..Mark::default() });
    };
    let broken = |what: String| OpenError::Notes { directory: options.directory.clone(), what };
    let mark = serde_json::from_slice::<Mark>(&saved).map_err(|error| broken(error.to_string()))?;
    if mark.version == MARK_VERSION {
        return Ok(mark);
    }
    Err(broken(format!("the state's mark has version {}, this program knows {MARK_VERSION}", mark.version)))
}

/// Writes whose log this is into a new one.
pub(crate) async fn claim(lane: &Lane, note: Note) -> Result<Note, OpenError> {
    if note.vote.is_none() && note.purged.is_none() {
        let bytes = serde_json::to_vec(&note).expect("numbers are always writable as json");
        lane.written(Batch { note: Some(bytes), ..Batch::default() }).await?;
    }
    Ok(note)
}
