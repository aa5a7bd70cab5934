//! What was compiled, kept for the next run of the same code.
//!
//! A folder for each, named after everything that its content follows from. It is whole or not there: made under another
//! name and renamed. Read by descriptor and never run by anybody outside a box.

use sandbox::{Collected, Placed};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

/// All of it together; what was used longest ago goes first.
const KEPT_BYTES_MAX: u64 = 1 << 30;
const KEPT_MAX: usize = 2_000;
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
    /// Files with where they go.
    pub(super) placed: Vec<Placed>,
    pub(super) contents: Vec<OwnedFd>,
    /// Warnings.
    pub(super) said: Vec<u8>,
}

/// What was compiled, to be placed below `folder`.
pub(super) fn find(kept: &Path, name: &str, folder: &str) -> Option<Found> {
    let at = kept.join(name);
    let index: Vec<Kept> = serde_json::from_slice(&fs::read(at.join(INDEX)).ok()?).ok()?;
    let mut placed = Vec::new();
    let mut contents = Vec::new();
    for (number, file) in index.into_iter().enumerate() {
        contents.push(OwnedFd::from(File::open(at.join(number.to_string())).ok()?));
        placed.push(Placed { target: format!("{folder}/{}", file.name), mode: file.mode });
    }
    // So that what is used stays. If it cannot be noted, it goes a little early.
    let _ = File::open(at.join(INDEX)).and_then(|index| index.set_modified(now()));
    let said = fs::read(at.join(SAID)).ok()?;
    Some(Found { placed, contents, said })
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
    for (number, (file, content)) in files.iter().enumerate() {
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
