//! Copies a folder out of an image: what a new volume at that place starts with, as under Docker.
//!
//! Promises that the copy is what a box would see there, with owners and modes as they are on disk. Leaves out devices,
//! sockets and pipes. Knows no volume.

use crate::Image;
use crate::merged::{self, Folder, Step};
use crate::tree;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Each level holds a descriptor per layer, and a process has at least 1,024 of them.
const DEPTH_MAX: usize = 64;

impl Image {
    /// Makes the folder `to` a copy of the image's folder at `path`. False when the image has none; then nothing is made.
    pub fn copy_folder(&self, path: &str, to: &Path) -> io::Result<bool> {
        let Some(from) = merged::open_folder(&self.layers, path.as_bytes())? else { return Ok(false) };
        rustix::fs::mkdirat(CWD, to, Mode::RWXU)?;
        let made = tree::open_root(to)?;
        fill(&from, &made, 0)?;
        Ok(true)
    }
}

/// Copies what is in `from`, then the folder's own owner and mode, which may forbid further writing.
fn fill(from: &Folder, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    for name in merged::listing(from)? {
        match merged::step(from, &name)? {
            Step::Absent => {}
            Step::Into(folder) => {
                rustix::fs::mkdirat(to, name.as_slice(), Mode::RWXU)?;
                fill(&folder, &tree::open_folder(to, &name)?, depth + 1)?;
            }
            Step::File(file) => copy(file, to, &name)?,
            Step::Link(target) => {
                rustix::fs::symlinkat(target.as_slice(), to, name.as_slice())?;
                if let Some(stat) = top(from, &name)? {
                    own_link(to, &name, &stat)?;
                }
            }
        }
    }
    match from.first() {
        Some(top) => take_after(to.as_fd(), &rustix::fs::fstat(top)?),
        None => Ok(()),
    }
}

fn copy(mut from: File, to: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut made = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut made)?;
    take_after(made.as_fd(), &rustix::fs::fstat(&from)?)
}

/// What the uppermost layer that has the name says of it.
fn top(here: &Folder, name: &[u8]) -> io::Result<Option<Stat>> {
    for layer in here {
        if let Some(stat) = tree::look(layer, name)? {
            return Ok(Some(stat));
        }
    }
    Ok(None)
}

/// Owner first: a change of it clears set-user-id bits.
fn take_after(made: BorrowedFd<'_>, like: &Stat) -> io::Result<()> {
    let now = rustix::fs::fstat(made)?;
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid) {
        rustix::fs::fchown(made, Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)))?;
    }
    Ok(rustix::fs::fchmod(made, Mode::from_raw_mode(like.st_mode & 0o7777))?)
}

fn own_link(parent: &OwnedFd, name: &[u8], like: &Stat) -> io::Result<()> {
    let Some(now) = tree::look(parent, name)? else { return Ok(()) };
    if (now.st_uid, now.st_gid) == (like.st_uid, like.st_gid) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    Ok(rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use crate::{Image, ImageConfig};
    use rustix::fs::{CWD, FileType, Mode};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_folder_is_copied_as_a_box_would_see_it() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::create_dir_all(path("low/srv/deep")).unwrap();
        fs::write(path("low/srv/both"), "low").unwrap();
        fs::write(path("low/srv/gone"), "low").unwrap();
        fs::write(path("low/srv/deep/only"), "low").unwrap();
        fs::create_dir_all(path("high/srv")).unwrap();
        fs::write(path("high/srv/both"), "high").unwrap();
        fs::set_permissions(path("high/srv/both"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(path("high/srv"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/etc/shadow", path("high/srv/link")).unwrap();
        symlink("srv", path("high/www")).unwrap();
        rustix::fs::mknodat(CWD, path("high/srv/gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let image = Image {
            digest: String::new(),
            reference: String::new(),
            layers: vec![path("low"), path("high")],
            config: ImageConfig::default(),
            size_bytes: 0,
        };

        assert!(image.copy_folder("/www/", &path("made")).unwrap());
        assert_eq!(fs::read_to_string(path("made/both")).unwrap(), "high");
        assert_eq!(fs::read_to_string(path("made/deep/only")).unwrap(), "low");
        assert_eq!(fs::read_link(path("made/link")).unwrap().to_str(), Some("/etc/shadow"));
        assert!(!path("made/gone").exists());
        assert_eq!(fs::metadata(path("made/both")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(path("made")).unwrap().mode() & 0o7777, 0o750);
        for absent in ["/nothing", "/srv/both", "/srv/gone", "/srv/link", "/etc/../srv/deep/only/x"] {
            assert!(!image.copy_folder(absent, &path("none")).unwrap(), "{absent}");
            assert!(!path("none").exists());
        }
    }
}
