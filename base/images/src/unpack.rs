//! Places a layer's entries in a folder, as overlayfs wants them to lie: whiteouts as character device 0:0, opaque
//! folders by the attribute `user.overlay.opaque` (the `userxattr` mount option, which works without root).
//!
//! A layer is hostile until proven otherwise. Promises that nothing outside the target folder is touched or linked,
//! that no device is made, that size and number are bounded, and that cancelling ends it within one entry.

use crate::Ownership;
use crate::compression::uncompressed;
use crate::digest::{Digest, Hasher};
use crate::owners::Owners;
use crate::tape::{Entry, Kind, Tape, TapeError};
use crate::tree::{self, PATH_BYTES_MAX, PathError};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// Other names with this prefix are what aufs kept for itself.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";
const CAPABILITY_ATTRIBUTE: &str = "security.capability";
/// A folder's rights become final at the end, so that entries can be put into it before; until then, these.
const FOLDER_MODE_UNPACKING: Mode = Mode::RWXU;
const FOLDER_MODE_DEFAULT: u32 = 0o755;
const COPY_BYTES: usize = 128 << 10;

/// How much one layer may unpack to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of the uncompressed archive, which is never less than its files.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Folders opened on the way to entries: two million entries, each at the end of its own deep path, would take hours.
    pub(crate) steps: u64,
    /// Of the folder names remembered until the end.
    pub(crate) folder_name_bytes: usize,
}

impl Limits {
    /// The largest public images unpack to 30 GiB and 400,000 files in all; folder names are held in memory.
    pub(crate) const STANDARD: Limits =
        Limits { bytes: 64 << 30, entries: 2_000_000, steps: 40_000_000, folder_name_bytes: 64 << 20 };
    /// Whatever the archive's size, so much is let through.
    const BYTES_ALWAYS: u64 = 1 << 30;
    /// Programs compress to a third, text to a tenth; only emptiness and bombs beyond this.
    const RATIO_MAX: u64 = 200;

    /// For an archive of this size as it is stored: a small one must not fill the disk.
    pub(crate) fn for_archive(bytes: u64) -> Limits {
        let by_ratio = Limits::BYTES_ALWAYS.saturating_add(bytes.saturating_mul(Limits::RATIO_MAX));
        Limits { bytes: by_ratio.min(Limits::STANDARD.bytes), ..Limits::STANDARD }
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("{path:?} is not acceptable: {why}")]
    Path { path: String, why: String },
    #[error("the archive is damaged: {why}")]
    Damaged { why: String },
    #[error("it unpacks to more than {bound}")]
    TooLarge { bound: String },
    #[error("cannot write {path:?}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the file system of the store keeps no user attributes")]
    NoAttributes,
    #[error("unpacking was cancelled")]
    Cancelled,
}

impl UnpackError {
    pub(crate) fn io(&self) -> Option<&io::Error> {
        match self {
            UnpackError::Write { source, .. } => Some(source),
            UnpackError::Path { .. }
            | UnpackError::Damaged { .. }
            | UnpackError::TooLarge { .. }
            | UnpackError::NoAttributes
            | UnpackError::Cancelled => None,
        }
    }

    /// Whether this machine is to blame, not the layer.
    pub(crate) fn is_disk(&self) -> bool {
        match self {
            UnpackError::Write { .. } | UnpackError::NoAttributes | UnpackError::Cancelled => true,
            UnpackError::Path { .. } | UnpackError::Damaged { .. } | UnpackError::TooLarge { .. } => false,
        }
    }

    pub(crate) fn hint(&self) -> &'static str {
        match self {
            UnpackError::Path { .. } => "the image tries to write outside its own files: do not trust it",
            UnpackError::Damaged { .. } => "push the image again, or tell its maker",
            UnpackError::TooLarge { .. } => "build a smaller image",
            UnpackError::Write { .. } => "check the disk and the store folder's permissions",
            UnpackError::NoAttributes => "put the store on ext4, xfs, btrfs, or tmpfs of Linux 6.6 or newer",
            UnpackError::Cancelled => "pull it again",
        }
    }
}

/// What came of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Sum of the files' sizes.
    pub(crate) size_bytes: u64,
    pub(crate) devices_skipped: u64,
    pub(crate) owners_clamped: u64,
    /// The layer hides everything below it. Overlayfs does not look for the mark on a layer's root, so whoever
    /// stacks the layers must.
    pub(crate) root_opaque: bool,
}

/// Unpacks `archive`, compressed or not, into the empty folder `target`.
pub(crate) fn unpack(
    archive: impl BufRead,
    target: &Path,
    ownership: Ownership,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<Unpacked, UnpackError> {
    let plain = uncompressed(archive).map_err(|error| UnpackError::Damaged { why: error.to_string() })?;
    let watched = Watched { inner: plain, hasher: Hasher::new(), bytes_left: limits.bytes, too_large: false };
    let mut tape = Tape::new(watched);
    let root = tree::open_root(target).map_err(|source| write_error(b".", source))?;
    let mut unpacking = Unpacking {
        root,
        parent: None,
        owners: Owners::new(ownership),
        folders: BTreeMap::new(),
        folder_name_bytes: 0,
        limits,
        buffer: vec![0; COPY_BYTES],
        cancelled,
        size_bytes: 0,
        devices_skipped: 0,
        steps: 0,
        root_opaque: false,
    };
    unpacking.folders.insert(Vec::new(), Folder::default());
    let placed = unpacking.place_all(&mut tape);
    // What the reader below the archive met says more than how the archive's framing suffered from it.
    if tape.inner().too_large {
        return Err(UnpackError::TooLarge { bound: format!("{} MiB", limits.bytes >> 20) });
    }
    placed?;
    unpacking.finish_folders()?;
    Ok(Unpacked {
        diff_id: tape.into_inner().hasher.finish(),
        size_bytes: unpacking.size_bytes,
        devices_skipped: unpacking.devices_skipped,
        owners_clamped: unpacking.owners.clamped,
        root_opaque: unpacking.root_opaque,
    })
}

/// Counts and hashes what is read.
struct Watched<R> {
    inner: R,
    hasher: Hasher,
    bytes_left: u64,
    too_large: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        if got as u64 > self.bytes_left {
            self.too_large = true;
            return Err(io::Error::other("the layer is larger than it may be"));
        }
        self.bytes_left -= got as u64;
        self.hasher.update(&out[..got]);
        Ok(got)
    }
}

/// What a folder becomes when everything is in place.
#[derive(Debug, Clone, Copy)]
struct Folder {
    mode: u32,
    owner: (u64, u64),
    mtime: Option<i64>,
}

impl Default for Folder {
    /// For folders that the archive does not mention.
    fn default() -> Folder {
        Folder { mode: FOLDER_MODE_DEFAULT, owner: (0, 0), mtime: None }
    }
}

struct Unpacking<'a> {
    root: OwnedFd,
    /// The folder of the last entry, by path: neighbours come together in archives.
    parent: Option<(Vec<u8>, OwnedFd)>,
    owners: Owners,
    folders: BTreeMap<Vec<u8>, Folder>,
    folder_name_bytes: usize,
    limits: &'a Limits,
    /// For copying; one for all files, of which there may be hundreds of thousands.
    buffer: Vec<u8>,
    cancelled: &'a AtomicBool,
    size_bytes: u64,
    devices_skipped: u64,
    /// Folders opened so far on the way to entries.
    steps: u64,
    root_opaque: bool,
}

impl Unpacking<'_> {
    fn place_all<R: Read>(&mut self, tape: &mut Tape<Watched<R>>) -> Result<(), UnpackError> {
        let mut entries = 0;
        while let Some(entry) = tape.next().map_err(tape_error)? {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(UnpackError::Cancelled);
            }
            entries += 1;
            if entries > self.limits.entries {
                return Err(UnpackError::TooLarge { bound: format!("{} files", self.limits.entries) });
            }
            if entry.size > tape.inner().bytes_left {
                return Err(UnpackError::TooLarge { bound: format!("{} MiB", self.limits.bytes >> 20) });
            }
            self.place(&entry, tape)?;
        }
        tape.finish().map_err(tape_error)
    }

    fn place(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        let names = tree::components(&entry.path).map_err(|error| path_error(&entry.path, error))?;
        let Some((name, parents)) = names.split_last() else {
            if entry.kind == Kind::Directory {
                let folder = self.folder_of(entry);
                self.remember(Vec::new(), folder)?;
            }
            return Ok(());
        };
        if names.iter().any(|name| name.starts_with(AUFS_PREFIX) && *name != OPAQUE_NAME) {
            return Ok(());
        }
        if parents.iter().any(|name| name.starts_with(WHITEOUT_PREFIX)) {
            return Err(refuse(&entry.path, "it lies below a whiteout"));
        }
        if *name == OPAQUE_NAME {
            self.root_opaque |= parents.is_empty();
            let parent = self.open_parents(parents, &entry.path)?;
            return set_opaque(&parent, &entry.path);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            return self.place_whiteout(parents, hidden, &entry.path);
        }
        if entry.kind == Kind::Device {
            self.devices_skipped += 1;
            return Ok(());
        }
        self.place_entry(entry, parents, name, content)
    }

    fn place_entry(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &[u8],
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let failed = |source: io::Error| write_error(&entry.path, source);
        let parent = self.open_parents(parents, &entry.path)?;
        let present = tree::look(&parent, name).map_err(failed)?;
        let had_whiteout = present.as_ref().is_some_and(tree::is_whiteout);
        let keep = entry.kind == Kind::Directory && present.as_ref().map(tree::kind) == Some(FileType::Directory);
        if entry.kind == Kind::HardLink && present.is_some() && self.is_same_name(entry, parents, name) {
            return Ok(());
        }
        if present.is_some() && !keep {
            self.parent = None;
            tree::remove(parent.as_fd(), name).map_err(failed)?;
        }
        match entry.kind {
            Kind::File => self.place_file(entry, &parent, name, content)?,
            Kind::Directory => {
                if !keep {
                    rustix::fs::mkdirat(&parent, name, FOLDER_MODE_UNPACKING).map_err(|error| failed(error.into()))?;
                }
                if had_whiteout {
                    let folder = tree::open_folder(&parent, name).map_err(failed)?;
                    set_opaque(&folder, &entry.path)?;
                }
                let folder = self.folder_of(entry);
                self.remember([parents, &[name]].concat().join(&b'/'), folder)?;
            }
            Kind::Symlink => self.place_symlink(entry, &parent, name)?,
            Kind::HardLink => self.place_hard_link(entry, &parent, name)?,
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(self.owners.mode(entry.mode));
                rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0).map_err(|error| failed(error.into()))?;
                // Again, past the umask.
                rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).map_err(|error| failed(error.into()))?;
                self.own_link(entry, &parent, name).map_err(failed)?;
            }
            Kind::Device => {}
        }
        Ok(())
    }

    fn place_file(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let failed = |source: io::Error| write_error(&entry.path, source);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = std::fs::File::from(file.map_err(|error| failed(error.into()))?);
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(UnpackError::Cancelled);
            }
            let got =
                content.read(&mut self.buffer).map_err(|error| UnpackError::Damaged { why: error.to_string() })?;
            if got == 0 {
                break;
            }
            file.write_all(&self.buffer[..got]).map_err(failed)?;
            self.size_bytes += got as u64;
        }
        // In this order: a change of owner clears set-user-id bits and capabilities.
        if let Some((uid, gid)) = self.owners.on_host(entry.uid, entry.gid) {
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| failed(error.into()))?;
        }
        let mode = Mode::from_raw_mode(self.owners.mode(entry.mode));
        rustix::fs::fchmod(&file, mode).map_err(|error| failed(error.into()))?;
        if let Some(value) = entry.capability.as_deref().and_then(|value| self.owners.capability(value)) {
            // Not every file system keeps them, and a box gains nothing by them: it may not gain privileges.
            let kept = rustix::fs::fsetxattr(&file, CAPABILITY_ATTRIBUTE, &value, XattrFlags::empty());
            tracing::trace!(?kept, "file capability");
        }
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(|error| failed(error.into()))
    }

    fn place_symlink(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), UnpackError> {
        // The target means something only inside the box, where the whole of it is the image's: any text will do.
        if entry.link.is_empty() || entry.link.len() >= PATH_BYTES_MAX || entry.link.contains(&0) {
            return Err(refuse(&entry.path, "its target is not a path"));
        }
        let failed = |source: io::Error| write_error(&entry.path, source);
        rustix::fs::symlinkat(&entry.link[..], parent, name).map_err(|error| failed(error.into()))?;
        self.own_link(entry, parent, name).map_err(failed)
    }

    fn place_hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), UnpackError> {
        let failed = |source: io::Error| write_error(&entry.path, source);
        let names = tree::components(&entry.link).map_err(|error| path_error(&entry.link, error))?;
        let Some((target, folders)) = names.split_last() else {
            return Err(refuse(&entry.path, "it links to the root folder"));
        };
        self.step(folders.len())?;
        let mut folder = self.root.try_clone().map_err(failed)?;
        for step in folders {
            folder = tree::open_folder(&folder, step)
                .map_err(|_| refuse(&entry.path, "it links to a file that is not in the layer"))?;
        }
        let linkable = |stat: &rustix::fs::Stat| match tree::kind(stat) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => true,
            FileType::Directory
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => false,
        };
        if !tree::look(&folder, target).map_err(failed)?.is_some_and(|stat| linkable(&stat)) {
            return Err(refuse(&entry.path, "it links to a file that is not in the layer"));
        }
        rustix::fs::linkat(&folder, *target, parent, name, AtFlags::empty()).map_err(|error| failed(error.into()))
    }

    /// A hard link to itself, which some builders write: removing the name first would lose the file.
    fn is_same_name(&self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> bool {
        tree::components(&entry.link).is_ok_and(|link| link.split_last() == Some((&name, parents)))
    }

    fn place_whiteout(&mut self, parents: &[&[u8]], hidden: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(path, "it is a whiteout of nothing"));
        }
        let failed = |source: io::Error| write_error(path, source);
        let parent = self.open_parents(parents, path)?;
        match tree::look(&parent, hidden).map_err(failed)? {
            // A whiteout hides what the layers below have, not what this layer has under the same name.
            Some(stat) if tree::kind(&stat) == FileType::Directory => {
                set_opaque(&tree::open_folder(&parent, hidden).map_err(failed)?, path)
            }
            Some(_) => Ok(()),
            None => {
                rustix::fs::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|error| failed(error.into()))?;
                match self.owners.on_host(0, 0) {
                    Some((uid, gid)) => {
                        rustix::fs::chownat(&parent, hidden, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                            .map_err(|error| failed(error.into()))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Opens the folder that holds an entry, making what is missing of the way.
    fn open_parents(&mut self, names: &[&[u8]], path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let failed = |source: io::Error| write_error(path, source);
        let joined = names.join(&b'/');
        self.step(names.len())?;
        if let Some((known, folder)) = &self.parent
            && *known == joined
        {
            return folder.try_clone().map_err(failed);
        }
        let mut folder = self.root.try_clone().map_err(failed)?;
        for (at, name) in names.iter().enumerate() {
            let present = tree::look(&folder, name).map_err(failed)?;
            let whiteout = present.as_ref().is_some_and(tree::is_whiteout);
            if whiteout {
                tree::remove(folder.as_fd(), name).map_err(failed)?;
            }
            if whiteout || present.is_none() {
                rustix::fs::mkdirat(&folder, *name, FOLDER_MODE_UNPACKING).map_err(|error| failed(error.into()))?;
                self.remember(names[..=at].join(&b'/'), Folder::default())?;
            } else if present.as_ref().map(tree::kind) != Some(FileType::Directory) {
                return Err(refuse(path, "it goes through something that is not a folder"));
            }
            folder = tree::open_folder(&folder, name).map_err(failed)?;
            if whiteout {
                set_opaque(&folder, path)?;
            }
        }
        self.parent = Some((joined, folder.try_clone().map_err(failed)?));
        Ok(folder)
    }

    fn step(&mut self, folders: usize) -> Result<(), UnpackError> {
        self.steps += folders as u64;
        if self.steps > self.limits.steps {
            return Err(UnpackError::TooLarge { bound: format!("{} steps through folders", self.limits.steps) });
        }
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>, folder: Folder) -> Result<(), UnpackError> {
        let length = path.len();
        if self.folders.insert(path, folder).is_none() {
            self.folder_name_bytes += length;
        }
        if self.folder_name_bytes > self.limits.folder_name_bytes {
            return Err(UnpackError::TooLarge { bound: format!("{} bytes of names", self.limits.folder_name_bytes) });
        }
        Ok(())
    }

    fn folder_of(&mut self, entry: &Entry) -> Folder {
        Folder { mode: entry.mode, owner: (entry.uid, entry.gid), mtime: Some(entry.mtime) }
    }

    /// Gives folders their owner, rights and times, the deepest first: the way to it must stay open.
    fn finish_folders(&mut self) -> Result<(), UnpackError> {
        let folders = std::mem::take(&mut self.folders);
        for (path, folder) in folders.iter().rev() {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(UnpackError::Cancelled);
            }
            let failed = |error: rustix::io::Errno| write_error(path, error.into());
            let Some(opened) = self.reopen(path).map_err(|source| write_error(path, source))? else { continue };
            if let Some((uid, gid)) = self.owners.on_host(folder.owner.0, folder.owner.1) {
                rustix::fs::fchown(&opened, Some(uid), Some(gid)).map_err(failed)?;
            }
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(self.owners.mode(folder.mode))).map_err(failed)?;
            if let Some(mtime) = folder.mtime {
                rustix::fs::futimens(&opened, &times(mtime)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// A folder made earlier, or `None` when a later entry has taken its place.
    fn reopen(&self, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let mut folder = self.root.try_clone()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match tree::look(&folder, name)? {
                Some(stat) if tree::kind(&stat) == FileType::Directory => folder = tree::open_folder(&folder, name)?,
                Some(_) | None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// For what has no descriptor of its own: links and pipes.
    fn own_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if let Some((uid, gid)) = self.owners.on_host(entry.uid, entry.gid) {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(rustix::fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn set_opaque(folder: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
    match rustix::fs::fsetxattr(folder, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => Err(UnpackError::NoAttributes),
        Err(error) => Err(write_error(path, error.into())),
    }
}

fn times(mtime: i64) -> Timestamps {
    let at = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

/// Paths come from outside: shortened and made printable.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned()
}

fn refuse(path: &[u8], why: &str) -> UnpackError {
    UnpackError::Path { path: shown(path), why: why.to_owned() }
}

fn path_error(path: &[u8], error: PathError) -> UnpackError {
    refuse(path, &error.to_string())
}

fn write_error(path: &[u8], source: io::Error) -> UnpackError {
    UnpackError::Write { path: shown(path), source }
}

fn tape_error(error: TapeError) -> UnpackError {
    match error {
        TapeError::Read(error) => UnpackError::Damaged { why: error.to_string() },
        TapeError::Damaged(why) => UnpackError::Damaged { why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{EntryType, Header};

    const SMALL: Limits = Limits { bytes: 1 << 20, entries: 50, steps: 200, folder_name_bytes: 2_000 };

    fn archive(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, path, link, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn unpacked(bytes: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
        let target = tempfile::tempdir().unwrap();
        unpack(bytes, target.path(), Ownership::Mine, limits, &AtomicBool::new(false))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn bombs_are_stopped_at_their_bound() {
        let check = |bytes: &[u8], expected: &str| {
            let error = unpacked(bytes, &SMALL).expect_err(expected);
            assert_eq!(error.to_string(), format!("it unpacks to more than {expected}"));
        };
        let file = |size: usize| archive(&[(EntryType::Regular, "zeros", "", &vec![0; size])]);
        check(&gzip(&file(8 << 20)), "1 MiB");
        check(&zstd(&file(8 << 20)), "1 MiB");
        // The bomb lies behind the end of the archive, where only the digest still reads.
        let mut behind = file(0);
        behind.resize(8 << 20, 0);
        check(&gzip(&behind), "1 MiB");
        check(&archive(&[(EntryType::Regular, "a", "", &b""[..])].repeat(51)), "50 files");
        let deep = "d/".repeat(40);
        let deep: Vec<String> = (0..20).map(|number| format!("{deep}{number}/f")).collect();
        let deep: Vec<_> = deep.iter().map(|path| (EntryType::Regular, path.as_str(), "", &b""[..])).collect();
        check(&archive(&deep), "200 steps through folders");
        let wide: Vec<String> = (0..40).map(|number| format!("{number}{}", "n".repeat(90))).collect();
        let wide: Vec<_> = wide.iter().map(|path| (EntryType::Directory, path.as_str(), "", &b""[..])).collect();
        check(&archive(&wide), "2000 bytes of names");
    }

    #[test]
    fn small_archives_have_small_bounds() {
        assert_eq!(Limits::for_archive(0).bytes, 1 << 30);
        assert_eq!(Limits::for_archive(100 << 20).bytes, (1 << 30) + ((200 * 100) << 20));
        assert_eq!(Limits::for_archive(u64::MAX).bytes, 64 << 30);
    }

    #[test]
    fn zstd_frames_follow_each_other_and_some_are_skipped() {
        let plain = archive(&[(EntryType::Regular, "a", "", b"content")]);
        let (start, end) = plain.split_at(700);
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let stream = [skipped.clone(), zstd(start), skipped.clone(), zstd(end), skipped].concat();
        let found = unpacked(&stream, &SMALL).unwrap();
        assert_eq!((found.diff_id, found.size_bytes), (Digest::of(&plain), 7));
        let mut cut = stream;
        cut.truncate(cut.len() - 1);
        assert!(matches!(unpacked(&cut, &SMALL), Err(UnpackError::Damaged { .. })));
    }

    #[test]
    fn cancelling_ends_it() {
        let target = tempfile::tempdir().unwrap();
        let bytes = archive(&[(EntryType::Regular, "a", "", b"content")]);
        let outcome = unpack(&bytes[..], target.path(), Ownership::Mine, &SMALL, &AtomicBool::new(true));
        assert!(matches!(outcome, Err(UnpackError::Cancelled)));
    }

    /// Every byte of an archive with every kind of entry, bent in several ways: an error or an image, never a panic,
    /// and never anything beside the target.
    #[test]
    fn damaged_archives_do_no_harm() {
        let good = archive(&[
            (EntryType::XHeader, "pax", "", b"30 mtime=1600000000.123456789\n"),
            (EntryType::Directory, "d/", "", b""),
            (EntryType::GNULongName, "././@LongLink", "", b"long/name\0"),
            (EntryType::Regular, "d/f", "", b"x"),
            (EntryType::Symlink, "s", "d/f", b""),
            (EntryType::Link, "l", "d/f", b""),
            (EntryType::Regular, "d/.wh.g", "", b""),
        ]);
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        // Names, sizes, types and link targets; the other fields are numbers that any value may have.
        let telling = |at: usize| matches!(at % 512, 0..16 | 124..136 | 156..170);
        for at in (0..good.len()).filter(|at| telling(*at)) {
            for value in [b'.', b'/', 0xff] {
                let mut bent = good.clone();
                bent[at] = value;
                let header = at / 512 * 512;
                let sum: u32 = bent[header..header + 148]
                    .iter()
                    .chain(&bent[header + 156..header + 512])
                    .map(|byte| u32::from(*byte))
                    .sum();
                let sum = format!("{:06o}\0 ", sum + 8 * u32::from(b' '));
                bent[header + 148..header + 156].copy_from_slice(sum.as_bytes());
                std::fs::create_dir(&target).unwrap();
                let _ = unpack(&bent[..], &target, Ownership::Mine, &SMALL, &AtomicBool::new(false));
                assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "byte {at} as {value}");
                crate::layer::remove(&target).unwrap();
            }
        }
    }
}
