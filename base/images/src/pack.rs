//! Images made of files of this machine: packed as a root file system, then taken like any other.
//!
//! Who owns a file here, when it was made and which bits beside "executable" it has is nobody's business in a box: those are
//! left behind.

use crate::Image;
use crate::error::{ImportError, PullError};
use crate::import::Workspace;
use crate::reference::Reference;
use crate::store::{Store, blocking};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// When all of it was made. Not 1970: some programs take a file without a time for one that is not there.
const MADE_UNIX_S: u64 = 1_000_000_000;

/// What is to be at a path of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    Folder {
        mode: u32,
    },
    /// With where it leads.
    Link(PathBuf),
    /// A copy of a file of this machine.
    Copy {
        from: PathBuf,
        executable: bool,
    },
    Text(&'static str),
}

impl Store {
    /// Makes an image of files of this machine, by their paths in the image.
    pub async fn import_files(
        &self,
        entries: BTreeMap<PathBuf, Packed>,
        name: &Reference,
    ) -> Result<Image, ImportError> {
        let stored = |source| {
            let path = PathBuf::from(&name.repository);
            ImportError::Store { source: PullError::disk(&path, source), path }
        };
        let workspace = Workspace(self.inner.layers.workspace().map_err(stored)?);
        let archive = workspace.0.join("root.tar");
        let to = archive.clone();
        let packed = blocking(move || Ok(pack(&entries, &to))).await.map_err(stored)?;
        packed?;
        let image = self.import_tarball(&archive, name).await;
        // Removing blocks.
        let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        image
    }
}

fn pack(entries: &BTreeMap<PathBuf, Packed>, to: &Path) -> Result<(), ImportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Read { path, source }
    };
    let file = File::create(to).map_err(failed(to))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    archive.follow_symlinks(false);
    for (path, entry) in entries {
        let from = match entry {
            Packed::Copy { from, .. } => from,
            Packed::Folder { .. } | Packed::Link(_) | Packed::Text(_) => path,
        };
        add(&mut archive, path.strip_prefix("/").unwrap_or(path), entry).map_err(failed(from))?;
    }
    let file = archive.into_inner().map_err(failed(to))?;
    file.into_inner().map(drop).map_err(|error| failed(to)(error.into_error()))
}

fn add(archive: &mut tar::Builder<impl Write>, name: &Path, entry: &Packed) -> io::Result<()> {
    match entry {
        Packed::Folder { mode } => {
            archive.append_data(&mut header(tar::EntryType::Directory, *mode, 0), name, io::empty())
        }
        Packed::Link(target) => archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), name, target),
        Packed::Copy { from, executable } => {
            let mut file = File::open(from)?;
            // One that grows meanwhile is copied as long as it was.
            let size = file.metadata()?.len();
            let mut header = header(tar::EntryType::Regular, if *executable { 0o755 } else { 0o644 }, size);
            archive.append_data(&mut header, name, (&mut file).take(size))
        }
        Packed::Text(text) => {
            let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes())
        }
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MADE_UNIX_S);
    header
}
