//! What was compiled, kept for the next run of the same code.
//!
//! A folder for each, named after everything that its content follows from. It is whole or not there: made under another
//! name and renamed. Read by descriptor and never run by anybody outside a box.

use super::given::Files;
use sandbox::{Collected, Placed};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// All of it together; what was used longest ago goes first.
const KEPT_BYTES_MAX: u64 = 1 << 30;
const KEPT_MAX: usize = 2_000;
/// Known without a look at the disk, each a few hundred bytes unless its compiler said much.
const KNOWN_MAX: usize = 200;
const NOTE_EVERY: Duration = Duration::from_secs(60);
const INDEX: &str = "index.json";
/// What the compiler said.
const SAID: &str = "said";

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    mode: u32,
}

/// What is kept of one compilation.
pub(super) struct Found {
    pub(super) files: Files,
    /// Warnings.
    pub(super) said: Vec<u8>,
}

/// What was compiled, with what this process knows of it without a look at the disk.
#[derive(Default)]
pub(super) struct Compiled {
    known: Mutex<HashMap<PathBuf, Arc<Known>>>,
}

struct Known {
    files: Vec<Kept>,
    said: Vec<u8>,
    /// When it was last noted on the disk that it is used.
    noted: Instant,
}

impl Compiled {
    /// What was compiled, to be placed below `folder`.
    pub(super) fn find(&self, kept: &Path, name: &str, folder: &str) -> Option<Found> {
        let at = kept.join(name);
        let known = self.look_up(&at)?;
        let mut files = Files::default();
        for (number, file) in known.files.iter().enumerate() {
            let Ok(content) = File::open(at.join(number.to_string())) else {
                // Another worker has made room, or died while it did: what is left of it is of no use.
                self.known().remove(&at);
                let _ = fs::remove_dir_all(&at);
                return None;
            };
            files.contents.push(OwnedFd::from(content));
            files.placed.push(Placed { target: format!("{folder}/{}", file.name), mode: file.mode, text: None });
        }
        Some(Found { files, said: known.said.clone() })
    }

    fn look_up(&self, at: &Path) -> Option<Arc<Known>> {
        let noted = world::clock::monotonic();
        let known = self.known().get(at).map(Arc::clone);
        if let Some(known) = known.filter(|known| noted.saturating_duration_since(known.noted) < NOTE_EVERY) {
            return Some(known);
        }
        let files = serde_json::from_slice(&fs::read(at.join(INDEX)).ok()?).ok()?;
        // So that what is used stays. If it cannot be noted, it goes a little early.
        let _ = File::open(at.join(INDEX)).and_then(|index| index.set_modified(now()));
        let found = Arc::new(Known { files, said: fs::read(at.join(SAID)).ok()?, noted });
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(at.to_owned(), Arc::clone(&found));
        Some(found)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps files. Whoever keeps the same meanwhile has kept the same.
pub(super) fn keep(kept: &Path, name: &str, files: &[(Collected, OwnedFd)], said: &[u8]) -> io::Result<()> {
    let making = kept.join(format!(".{}", world::random::word(16)));
    fs::create_dir_all(&making)?;
    let made = make(&making, files, said).and_then(|()| match fs::rename(&making, kept.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    });
    if making.exists() {
        fs::remove_dir_all(&making)?;
    }
    made?;
    forget_oldest(kept)
}

fn make(at: &Path, files: &[(Collected, OwnedFd)], said: &[u8]) -> io::Result<()> {
    let mut index = Vec::new();
    // Whoever makes the same has it in the same order: others may know the one and read the other.
    let mut files: Vec<_> = files.iter().collect();
    files.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    for (number, (file, content)) in files.into_iter().enumerate() {
        let mut from = File::from(content.try_clone()?);
        io::copy(&mut from, &mut File::create(at.join(number.to_string()))?)?;
        index.push(Kept { name: file.name.clone(), mode: file.mode });
    }
    fs::write(at.join(SAID), said)?;
    fs::write(at.join(INDEX), serde_json::to_vec(&index)?)
}

fn forget_oldest(kept: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(kept)? {
        let folder = entry?.path();
        let (mut bytes, mut used) = (0, SystemTime::UNIX_EPOCH);
        let Ok(files) = fs::read_dir(&folder) else { continue };
        for file in files.flatten() {
            let Ok(metadata) = file.metadata() else { continue };
            bytes += metadata.len();
            used = used.max(metadata.modified().unwrap_or(used));
        }
        all.push((used, folder, bytes));
    }
    all.sort();
    let (mut count, mut bytes) = (all.len(), all.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
    for (_, folder, of_it) in all {
        if count <= KEPT_MAX && bytes <= KEPT_BYTES_MAX {
            break;
        }
        // Another worker may be at it too.
        let _ = fs::remove_dir_all(&folder);
        (count, bytes) = (count - 1, bytes - of_it);
    }
    Ok(())
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(world::clock::unix_ms())
}
