//! Files into a box before its program runs, and out of it when nothing of it runs any more: both from inside, so that
//! no path a program could have planted is ever followed by a process outside.

use crate::build::root;
use crate::channel::FDS_MAX;
use crate::failure::{During, Failure, Step};
use crate::protocol::{Collect, Collected, Placed};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Folders in folders that are looked into: what people make by hand, and no more.
const DEPTH_MAX: u32 = 16;
/// Names looked at per file that is wanted, so that a folder full of pipes ends.
const NAMES_PER_FILE: u32 = 8;
/// In one message, with room for a descriptor of the message's own.
const BATCH: usize = FDS_MAX - 1;

/// Copies what was given to where the program expects it.
pub(super) fn place(placed: &[Placed], contents: Vec<OwnedFd>) -> Result<(), Failure> {
    let mut contents = contents.into_iter();
    for file in placed {
        let at = || file.target.clone();
        let target = Path::new(&file.target);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Failure::plain(Step::Invalid, at()));
        };
        let folder = root::folder_inside(parent).during(Step::File, at)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(file.mode & 0o777));
        let mut written = File::from(made.during(Step::File, at)?);
        let copied = match &file.text {
            Some(text) => written.write_all(text.as_bytes()),
            None => match contents.next() {
                Some(content) => std::io::copy(&mut File::from(content), &mut written).map(drop),
                None => Err(std::io::ErrorKind::InvalidData.into()),
            },
        };
        copied.map_err(|error| Failure::io(Step::File, at(), &error))?;
    }
    Ok(())
}

/// Tells of plain files in the folder, until there are as many as wanted. What cannot be read is left out: the program
/// made it so.
pub(super) fn collect(wanted: &Collect, mut tell: impl FnMut(Vec<Collected>, Vec<OwnedFd>) -> bool) {
    let mut found = Found {
        files: Vec::new(),
        fds: Vec::new(),
        names_left: wanted.files_max.saturating_mul(NAMES_PER_FILE),
        files_left: wanted.files_max,
        bytes_left: wanted.bytes_max,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::openat2(CWD, wanted.folder.as_str(), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    else {
        return;
    };
    found.walk(&folder, "", 0, &mut tell);
    found.tell(&mut tell);
}

struct Found {
    files: Vec<Collected>,
    fds: Vec<OwnedFd>,
    names_left: u32,
    files_left: u32,
    bytes_left: u64,
}

impl Found {
    /// False when nobody listens any more.
    fn tell(&mut self, tell: &mut impl FnMut(Vec<Collected>, Vec<OwnedFd>) -> bool) -> bool {
        self.files.is_empty() || tell(std::mem::take(&mut self.files), std::mem::take(&mut self.fds))
    }

    fn walk(
        &mut self,
        folder: &OwnedFd,
        below: &str,
        depth: u32,
        tell: &mut impl FnMut(Vec<Collected>, Vec<OwnedFd>) -> bool,
    ) -> bool {
        let Ok(entries) = Dir::read_from(folder) else { return true };
        for entry in entries.flatten() {
            // A name that is no text has no name outside.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            self.names_left = self.names_left.saturating_sub(1);
            if self.names_left == 0 || self.files_left == 0 {
                return false;
            }
            let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let goes_on = match open(folder, name) {
                Ok((FileType::Directory, fd, _)) if depth < DEPTH_MAX => self.walk(&fd, &path, depth + 1, tell),
                Ok((FileType::RegularFile, fd, stat)) => self.add(path, fd, &stat, tell),
                Ok(_) | Err(_) => true,
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn add(
        &mut self,
        name: String,
        fd: OwnedFd,
        stat: &rustix::fs::Stat,
        tell: &mut impl FnMut(Vec<Collected>, Vec<OwnedFd>) -> bool,
    ) -> bool {
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size_bytes > self.bytes_left {
            return true;
        }
        self.bytes_left -= size_bytes;
        self.files_left -= 1;
        self.files.push(Collected { name, mode: stat.st_mode & 0o777, size_bytes });
        self.fds.push(fd);
        self.fds.len() < BATCH || self.tell(tell)
    }
}

/// Opens what is a file or a folder, and nothing by a link. Never waits: a pipe nobody writes to is opened, and left out.
fn open(folder: &OwnedFd, name: &str) -> Result<(FileType, OwnedFd, rustix::fs::Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let fd = rustix::fs::openat2(folder.as_fd(), name, flags, Mode::empty(), resolve)?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((FileType::from_raw_mode(stat.st_mode), fd, stat))
}
