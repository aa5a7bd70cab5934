//! Unpacked layers on disk, by the digest of their content, so that images which share a layer share its folder.
//!
//! A layer's folder holds `files` (what a box mounts) and `layer.json`. Promises that a folder under its final name
//! is complete and on disk. Knows neither registries nor images.

use crate::Ownership;
use crate::digest::Digest;
use crate::error::PullError;
use crate::tree;
use crate::unpack::{Limits, unpack};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const FILES: &str = "files";
const NOTE: &str = "layer.json";
const READ_BYTES: usize = 256 << 10;

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Of the format, see `store::FORMAT`.
    version: u32,
    /// The whole digest: the folder's name is only its start.
    diff_id: Digest,
    pub(crate) size_bytes: u64,
    devices_skipped: u64,
    owners_clamped: u64,
    /// It hides all layers below.
    #[serde(default)]
    pub(crate) root_opaque: bool,
}

const NOTE_VERSION: u32 = 1;

pub(crate) struct Layers {
    /// One per kind of ownership: the same layer belongs to other users there.
    folder: PathBuf,
    unpacking: PathBuf,
    trash: PathBuf,
    ownership: Ownership,
}

impl Layers {
    pub(crate) fn open(root: &Path, ownership: Ownership) -> io::Result<Layers> {
        let owners = match ownership {
            Ownership::Keep => "kept".to_owned(),
            Ownership::Shift { base, count } => format!("{base}-{count}"),
            Ownership::Mine => "mine".to_owned(),
        };
        let layers = Layers {
            folder: root.join("layers").join(owners),
            unpacking: root.join("unpacking"),
            trash: root.join("trash"),
            ownership,
        };
        fs::create_dir_all(&layers.folder)?;
        let mode = layers.folder_mode();
        for folder in [root, &root.join("layers"), &layers.folder] {
            fs::set_permissions(folder, Permissions::from_mode(mode))?;
        }
        for leftover in [&layers.unpacking, &layers.trash] {
            fs::create_dir_all(leftover)?;
            empty(leftover)?;
        }
        Ok(layers)
    }

    /// A box of another user id looks its layers up by path; where files may be set-user-id to users of the host,
    /// nobody but the store's owner gets in.
    fn folder_mode(&self) -> u32 {
        match self.ownership {
            Ownership::Shift { .. } => 0o711,
            Ownership::Keep | Ownership::Mine => 0o700,
        }
    }

    /// The folder a box mounts.
    pub(crate) fn files(&self, diff_id: &Digest) -> PathBuf {
        self.folder.join(diff_id.short()).join(FILES)
    }

    /// The layer's note, when the layer is here.
    pub(crate) fn find(&self, diff_id: &Digest) -> Option<Note> {
        let bytes = fs::read(self.folder.join(diff_id.short()).join(NOTE)).ok()?;
        let note: Note = serde_json::from_slice(&bytes).ok()?;
        (note.version == NOTE_VERSION && note.diff_id == *diff_id).then_some(note)
    }

    /// A new empty folder for half-done work; cleared away at the next open.
    pub(crate) fn workspace(&self) -> io::Result<PathBuf> {
        let folder = self.unpacking.join(world::random::word(16));
        fs::create_dir(&folder)?;
        // It becomes the layer's folder, which a box of another user id must get through, whatever the umask.
        fs::set_permissions(&folder, Permissions::from_mode(self.folder_mode()))?;
        Ok(folder)
    }

    /// Unpacks an archive (compressed or not) as the layer `diff_id`, checked against it. Blocks for long.
    pub(crate) fn add(&self, archive: &Path, diff_id: &Digest, cancelled: &AtomicBool) -> Result<Note, PullError> {
        if let Some(note) = self.find(diff_id) {
            return Ok(note);
        }
        let disk = |error| PullError::disk(&self.folder, error);
        let work = self.workspace().map_err(disk)?;
        let added = self.add_in(&work, archive, diff_id, cancelled);
        if work.exists()
            && let Err(error) = remove(&work)
        {
            tracing::warn!(folder = %work.display(), %error, "cannot remove a half-unpacked layer");
        }
        added
    }

    fn add_in(&self, work: &Path, archive: &Path, diff_id: &Digest, cancelled: &AtomicBool) -> Result<Note, PullError> {
        let disk = |error| PullError::disk(work, error);
        let files = work.join(FILES);
        fs::create_dir(&files).map_err(disk)?;
        let unreadable = |error| PullError::disk(archive, error);
        let archive = File::open(archive).map_err(unreadable)?;
        let limits = Limits::for_archive(archive.metadata().map_err(unreadable)?.len());
        let reader = BufReader::with_capacity(READ_BYTES, archive);
        let unpacked = unpack(reader, &files, self.ownership, &limits, cancelled)
            .map_err(|error| PullError::unpacking(diff_id.as_str(), work, error))?;
        if unpacked.diff_id != *diff_id {
            return Err(PullError::DigestMismatch {
                what: "a layer's content".to_owned(),
                expected: diff_id.to_string(),
                found: unpacked.diff_id.to_string(),
            });
        }
        let note = Note {
            version: NOTE_VERSION,
            diff_id: diff_id.clone(),
            size_bytes: unpacked.size_bytes,
            devices_skipped: unpacked.devices_skipped,
            owners_clamped: unpacked.owners_clamped,
            root_opaque: unpacked.root_opaque,
        };
        if note.devices_skipped > 0 || note.owners_clamped > 0 {
            tracing::info!(
                layer = %diff_id,
                devices_skipped = note.devices_skipped,
                owners_clamped = note.owners_clamped,
                "the layer is not unpacked to the letter",
            );
        }
        let bytes = serde_json::to_vec(&note).expect("a note is plain data");
        fs::write(work.join(NOTE), bytes).map_err(disk)?;
        self.publish(work, diff_id).map_err(disk)?;
        Ok(note)
    }

    /// Everything to disk, then the final name: a folder under it is complete, whatever happens in between.
    fn publish(&self, work: &Path, diff_id: &Digest) -> io::Result<()> {
        // One call for thousands of files, where fsync on each would take minutes on a slow card.
        rustix::fs::syncfs(File::open(work)?)?;
        let target = self.folder.join(diff_id.short());
        if target.exists() && self.find(diff_id).is_none() {
            // A damaged note: nothing can be said of the folder.
            self.discard(&target)?;
        }
        match fs::rename(work, &target) {
            Ok(()) => {}
            // Someone was faster with the same content; ours is removed with its workspace.
            Err(_) if self.find(diff_id).is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        File::open(&self.folder)?.sync_all()
    }

    /// The layers here that `keep` does not want, by the start of their digest.
    pub(crate) fn unwanted(&self, keep: impl Fn(&str) -> bool) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if keep(&name) {
                continue;
            }
            let note = fs::read(path.join(NOTE)).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
            found.push((path, note.map_or(0, |note| note.size_bytes)));
        }
        Ok(found)
    }

    /// Takes a folder out of use at once; [`Layers::empty_trash`] does the long work.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<()> {
        fs::rename(path, self.trash.join(world::random::word(16)))
    }

    pub(crate) fn empty_trash(&self) -> io::Result<()> {
        empty(&self.trash)
    }
}

/// Removes a folder with everything in it, also what its rights would not let its owner remove.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    tree::remove(tree::open_root(parent)?.as_fd(), name.as_bytes())
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        remove(&entry?.path())?;
    }
    Ok(())
}
