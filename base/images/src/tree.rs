//! A folder tree reached only through folder descriptors: no name is ever followed through a symbolic link, so that
//! nothing planted in the tree leads out of it.
//!
//! Promises that every path is checked by [`components`] first. Knows neither tar nor layers.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The kernel's bound for one name.
const NAME_BYTES_MAX: usize = 255;
/// The kernel's bound for a path.
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// Removing a tree holds one descriptor per level, and a process has at least 1,024 of them.
const DEPTH_MAX: usize = 256;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Why a path cannot be used inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("it leads out of its folder")]
    Outside,
    #[error("it is longer or deeper than paths may be")]
    TooLong,
    #[error("it holds a zero byte")]
    Nul,
}

/// Splits a path into names below the tree's root; the root itself is the empty list. A leading `/` is the root.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, PathError> {
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(PathError::Outside),
            name if name.len() > NAME_BYTES_MAX => return Err(PathError::TooLong),
            name => names.push(name),
        }
    }
    if names.len() > DEPTH_MAX { Err(PathError::TooLong) } else { Ok(names) }
}

/// Opens a folder of ours by path; the last name must not be a link.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, FOLDER, Mode::empty())?)
}

/// Opens a folder directly below `parent`.
pub(crate) fn open_folder(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, FOLDER, Mode::empty())?)
}

/// What is there under this name, without following it.
pub(crate) fn look(parent: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlayfs' mark that a name of the layers below is gone: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes whatever is there under this name; nothing there is fine.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = match open_folder(parent, name) {
        // Layers hold folders that their owner may not enter.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_folder(parent, name)?
        }
        other => other?,
    };
    empty(&folder)?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Removes everything in a folder.
fn empty(folder: &OwnedFd) -> io::Result<()> {
    // Without write permission the first removal fails as a whole, so it is given up front.
    rustix::fs::fchmod(folder, Mode::RWXU)?;
    // Names first: removing while reading may skip entries on some file systems.
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.iter().try_for_each(|name| remove(folder.as_fd(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_lead_out() {
        let check = |path: &str, expected: Result<Vec<&str>, PathError>| {
            let expected = expected.map(|names| names.into_iter().map(str::as_bytes).collect());
            assert_eq!(components(path.as_bytes()), expected, "{path:?}");
        };
        check("./a//b/", Ok(vec!["a", "b"]));
        check("/etc/passwd", Ok(vec!["etc", "passwd"]));
        check("./", Ok(vec![]));
        check("a/../b", Err(PathError::Outside));
        check("..", Err(PathError::Outside));
        check("a\0b", Err(PathError::Nul));
        check(&"a/".repeat(257), Err(PathError::TooLong));
        check(&"a".repeat(256), Err(PathError::TooLong));
    }

    #[test]
    fn a_tree_nobody_may_enter_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("gone/locked");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "x").unwrap();
        let folder = open_root(root.path()).unwrap();
        rustix::fs::chmodat(&folder, "gone", Mode::empty(), AtFlags::empty()).unwrap();
        remove(folder.as_fd(), b"gone").unwrap();
        assert!(!root.path().join("gone").exists());
    }
}
