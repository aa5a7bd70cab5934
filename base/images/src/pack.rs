//! Images made of files of this machine, or of all that another image shows: packed as a root file system, then taken like
//! any other.
//!
//! Who owns a file here, when it was made and which bits beside "executable" it has is nobody's business in a box: those are
//! left behind.

use crate::Image;
use crate::error::{ImportError, PullError};
use crate::import::Workspace;
use crate::merged::{self, Folder, Step};
use crate::reference::Reference;
use crate::store::{Store, blocking};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
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

/// Each level holds a descriptor per layer, and a process has at least 1,024 of them.
const DEPTH_MAX: usize = 64;

impl Store {
    /// Makes an image of files of this machine, by their paths in the image.
    pub async fn import_files(
        &self,
        entries: BTreeMap<PathBuf, Packed>,
        name: &Reference,
    ) -> Result<Image, ImportError> {
        self.import_packed(name, move |to| pack(&[], entries, u64::MAX, to)).await
    }

    /// Makes an image of one layer that has all a box of `from` would see, with `added` in the place of what is there. Files
    /// that this user may not read stay behind.
    pub async fn import_merged(
        &self,
        from: &Image,
        added: BTreeMap<PathBuf, Packed>,
        bytes_max: u64,
        name: &Reference,
    ) -> Result<Image, ImportError> {
        let layers = from.layers.clone();
        self.import_packed(name, move |to| {
            pack(&layers, added, bytes_max, to)?;
            // Pruned meanwhile, files were missing: layers are renamed before anything in them is removed.
            match layers.iter().find(|layer| !layer.exists()) {
                Some(layer) => Err(ImportError::Read { path: layer.clone(), source: io::ErrorKind::NotFound.into() }),
                None => Ok(()),
            }
        })
        .await
    }

    async fn import_packed(
        &self,
        name: &Reference,
        pack: impl FnOnce(&Path) -> Result<(), ImportError> + Send + 'static,
    ) -> Result<Image, ImportError> {
        let stored = |source| {
            let path = PathBuf::from(&name.repository);
            ImportError::Store { source: PullError::disk(&path, source), path }
        };
        let workspace = Workspace(self.inner.layers.workspace().map_err(stored)?);
        let archive = workspace.0.join("root.tar");
        let to = archive.clone();
        let packed = blocking(move || Ok(pack(&to))).await.map_err(stored)?;
        packed?;
        let image = self.import_tarball(&archive, name).await;
        // Removing blocks.
        let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        image
    }
}

/// All that the layers show and what is added to it; without layers that alone.
fn pack(layers: &[PathBuf], added: BTreeMap<PathBuf, Packed>, bytes_max: u64, to: &Path) -> Result<(), ImportError> {
    let file = File::create(to).map_err(failed(to))?;
    let mut merging = Merging { archive: tar::Builder::new(BufWriter::new(file)), added, left_bytes: bytes_max };
    merging.archive.follow_symlinks(false);
    if let Some(root) = merged::open_folder(layers, b"/").map_err(failed(to))? {
        merging.folder(&root, Path::new("/"), 0)?;
    }
    let Merging { mut archive, added, .. } = merging;
    for (path, entry) in &added {
        let from = match entry {
            Packed::Copy { from, .. } => from,
            Packed::Folder { .. } | Packed::Link(_) | Packed::Text(_) => path,
        };
        add(&mut archive, path.strip_prefix("/").unwrap_or(path), entry).map_err(failed(from))?;
    }
    let file = archive.into_inner().map_err(failed(to))?;
    file.into_inner().map(drop).map_err(|error| failed(to)(error.into_error()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Read { path, source }
}

/// All that an image shows, on its way into an archive.
struct Merging<W: Write> {
    archive: tar::Builder<W>,
    /// What has not come to its place yet.
    added: BTreeMap<PathBuf, Packed>,
    /// A file with several names counts once for each.
    left_bytes: u64,
}

impl<W: Write> Merging<W> {
    fn folder(&mut self, here: &Folder, at: &Path, depth: usize) -> Result<(), ImportError> {
        if depth > DEPTH_MAX {
            return Err(failed(at)(rustix::io::Errno::NAMETOOLONG.into()));
        }
        for name in merged::listing(here).map_err(failed(at))? {
            let path = at.join(OsStr::from_bytes(&name));
            let inside = path.strip_prefix("/").unwrap_or(&path);
            let found = match merged::step(here, &name) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                found => found.map_err(failed(&path))?,
            };
            match (self.added.remove(&path), found) {
                (Some(folder @ Packed::Folder { .. }), Step::Into(below)) => {
                    add(&mut self.archive, inside, &folder).map_err(failed(&path))?;
                    self.folder(&below, &path, depth + 1)?;
                }
                (Some(instead), _there) => add(&mut self.archive, inside, &instead).map_err(failed(&path))?,
                (None, Step::Into(below)) => {
                    let folder = Packed::Folder { mode: 0o755 };
                    add(&mut self.archive, inside, &folder).map_err(failed(&path))?;
                    self.folder(&below, &path, depth + 1)?;
                }
                (None, Step::Link(target)) => {
                    let link = Packed::Link(PathBuf::from(OsString::from_vec(target)));
                    add(&mut self.archive, inside, &link).map_err(failed(&path))?;
                }
                (None, Step::File(file)) => {
                    let metadata = file.metadata().map_err(failed(&path))?;
                    let executable = metadata.permissions().mode() & 0o111 != 0;
                    let left = self.left_bytes.checked_sub(metadata.len());
                    self.left_bytes = left.ok_or_else(|| failed(&path)(io::ErrorKind::FileTooLarge.into()))?;
                    add_file(&mut self.archive, inside, file, executable).map_err(failed(&path))?;
                }
                (None, Step::Absent) => {}
            }
        }
        Ok(())
    }
}

fn add(archive: &mut tar::Builder<impl Write>, name: &Path, entry: &Packed) -> io::Result<()> {
    match entry {
        Packed::Folder { mode } => {
            archive.append_data(&mut header(tar::EntryType::Directory, *mode, 0), name, io::empty())
        }
        Packed::Link(target) => archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), name, target),
        Packed::Copy { from, executable } => add_file(archive, name, File::open(from)?, *executable),
        Packed::Text(text) => {
            let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes())
        }
    }
}

fn add_file(archive: &mut tar::Builder<impl Write>, name: &Path, mut file: File, executable: bool) -> io::Result<()> {
    // One that grows meanwhile is copied as long as it was.
    let size = file.metadata()?.len();
    let mut header = header(tar::EntryType::Regular, if executable { 0o755 } else { 0o644 }, size);
    archive.append_data(&mut header, name, (&mut file).take(size))
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
