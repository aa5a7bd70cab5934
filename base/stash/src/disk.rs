//! The folder on disk: whether what lies there is ours, of this format and of this size.

use std::io;
use std::path::{Path, PathBuf};

/// Of values, of blocks, and of the list of what was forgotten; all together have one number.
const FORMAT: u32 = 1;
const MARK: &str = "stash";
const DATA: &str = "data";
const FORGOTTEN: &str = "forgotten";

/// A folder that is ready to be used.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) data: PathBuf,
    pub(crate) forgotten: PathBuf,
}

impl Folder {
    /// Makes the folder ready; whatever else lies in it is dropped.
    pub(crate) fn open(path: &Path, size_bytes: usize) -> io::Result<Folder> {
        std::fs::create_dir_all(path)?;
        let mark = path.join(MARK);
        let wanted = format!("format {FORMAT}\nsize {size_bytes}\n");
        let known = std::fs::read(&mark).unwrap_or_default();
        if known != wanted.as_bytes() {
            empty(path)?;
            std::fs::create_dir_all(path.join(DATA))?;
            // Last: a folder that was emptied halfway has no mark.
            std::fs::write(&mark, wanted)?;
        }
        Ok(Folder { data: path.join(DATA), forgotten: path.join(FORGOTTEN) })
    }
}

/// Drops everything in the folder, the mark first: what is left when that fails is not taken for ours.
pub(crate) fn empty(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the files in a folder take on the disk, holes left out.
pub(crate) fn used_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512);
    sizes.sum()
}
