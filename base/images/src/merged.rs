//! Reads files and folders of an image as its box would see them: through all layers, with whiteouts, opaque folders and
//! symbolic links, without mounting anything.
//!
//! Promises that links are resolved by us inside the image and never by the kernel, so that none leads to the host.

use crate::tree;
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The kernel's own bound.
const LINKS_MAX: usize = 40;
const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";

/// A folder of the image: the same folder in each layer that has it, uppermost first.
pub(crate) type Folder = Vec<OwnedFd>;

/// What a folder has under a name.
pub(crate) enum Step {
    /// Nothing, or something that is neither file, folder nor link.
    Absent,
    Into(Folder),
    Link(Vec<u8>),
    File(File),
}

/// Opens a regular file for reading; `layers` are bottom first.
pub(crate) fn open<P: AsRef<Path>>(layers: &[P], path: &[u8]) -> io::Result<Option<File>> {
    Ok(match walk(layers, path)? {
        Step::File(file) => Some(file),
        Step::Absent | Step::Into(_) | Step::Link(_) => None,
    })
}

/// Opens a folder in all layers that have it; `layers` are bottom first.
pub(crate) fn open_folder<P: AsRef<Path>>(layers: &[P], path: &[u8]) -> io::Result<Option<Folder>> {
    Ok(match walk(layers, path)? {
        Step::Into(folder) => Some(folder),
        Step::Absent | Step::File(_) | Step::Link(_) => None,
    })
}

/// What is at the end of a path. Never a link.
fn walk<P: AsRef<Path>>(layers: &[P], path: &[u8]) -> io::Result<Step> {
    let root: io::Result<Folder> = layers.iter().rev().map(|layer| tree::open_root(layer.as_ref())).collect();
    let mut way: Vec<Folder> = vec![root?];
    let mut left: VecDeque<Vec<u8>> = names(path).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == b".." {
            // Above the root is the root.
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let here = way.last().expect("the root is never left");
        match step(here, &name)? {
            Step::Absent => return Ok(Step::Absent),
            Step::Into(folder) => way.push(folder),
            Step::File(file) if left.is_empty() => return Ok(Step::File(file)),
            Step::File(_) => return Ok(Step::Absent),
            Step::Link(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Ok(Step::Absent);
                }
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                left = names(&target).chain(left).collect();
            }
        }
    }
    Ok(Step::Into(way.pop().expect("the root is never left")))
}

/// Names in a folder, of any layer; some of them may stand for nothing.
pub(crate) fn listing(here: &Folder) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut names = BTreeSet::new();
    for layer in here {
        for entry in rustix::fs::Dir::read_from(layer)? {
            names.insert(entry?.file_name().to_bytes().to_vec());
        }
    }
    names.retain(|name| name != b"." && name != b"..");
    Ok(names)
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

/// One name further, layer by layer from the top until one hides those below.
pub(crate) fn step(here: &Folder, name: &[u8]) -> io::Result<Step> {
    let mut found = Folder::new();
    for folder in here {
        let Some(stat) = tree::look(folder, name)? else { continue };
        match tree::kind(&stat) {
            FileType::Directory => {
                let opened = tree::open_folder(folder, name)?;
                let opaque = is_opaque(&opened);
                found.push(opened);
                if opaque {
                    break;
                }
            }
            FileType::Symlink if found.is_empty() => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                return Ok(Step::Link(target.into_bytes()));
            }
            FileType::RegularFile if found.is_empty() => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return Ok(Step::File(File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?)));
            }
            // A whiteout, or something else that hides what is below it.
            FileType::Symlink
            | FileType::RegularFile
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => break,
        }
    }
    Ok(if found.is_empty() { Step::Absent } else { Step::Into(found) })
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0; 8];
    rustix::fs::fgetxattr(folder, OPAQUE_ATTRIBUTE, &mut value[..]).is_ok_and(|length| &value[..length] == b"y")
}
