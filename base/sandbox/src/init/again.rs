//! A box once more: whether another program finds it as if none had been there.
//!
//! Promises: what a program of strangers can leave in its box when it and all it started are dead is taken away, and the
//! box is given up where that cannot be said for sure. What it can leave is little, since it mounts nothing, names nothing
//! (`calls.rs`) and owns nothing: files in the few places it may write to, sockets that linger, and what it changed about
//! process 1, which is of the same user. docs/decisions/boxes-again.md goes through all of it.

use crate::networks::Counters;
use crate::spec::{BoxSpec, MountSource, Network, Root, Trust};
use crate::sys::{self, Standing};
use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, Stat, ioctl_getflags};
use rustix::io::Errno;
use rustix::path::Arg;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the kernel counts to a box for good is little each time, and not nothing.
const USES_MAX: u32 = 200;
/// Names taken away at most: more are gone sooner with the whole box.
const NAMES_MAX: u32 = 64;
/// Of files that are taken away, for the same reason.
const BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: u32 = 8;

pub(super) struct Again {
    rooms: Vec<Room>,
    sockets: Counters,
    standing: Standing,
    uses: u32,
}

/// A place that programs may write to.
struct Room {
    folder: OwnedFd,
    mode: u32,
    owner: (u32, u32),
    /// What the machine marks all files with.
    marks: Vec<u8>,
    /// As `chattr` sets them; not every kernel has them for memory.
    flags: Option<IFlags>,
}

/// What may still be taken away.
struct Left {
    names: u32,
    bytes: u64,
}

impl Again {
    /// Of a box in which no program ran yet. `None` for one that cannot be used again: what is written there stays.
    pub(super) fn new(spec: &BoxSpec) -> Option<Again> {
        let scratch: &[&str] = match spec.root {
            Root::Host => &["/dev/shm", "/tmp", "/run"],
            Root::Dir(_) if spec.read_only => &["/dev/shm"],
            Root::Dir(_) | Root::Overlay { .. } => return None,
        };
        let fits = spec.trust == Trust::Untrusted && spec.network == Network::Isolated;
        let writable = || spec.mounts.iter().filter(|mount| !mount.read_only);
        let in_memory = writable().all(|mount| matches!(mount.source, MountSource::Tmpfs { .. }));
        if !fits || !in_memory || !spec.files.is_empty() {
            return None;
        }
        let places = writable().filter_map(|mount| mount.target.to_str()).chain(scratch.iter().copied());
        let rooms = places.map(Room::new).collect::<Result<_, _>>().ok()?;
        Some(Again { rooms, sockets: Counters::open().ok()?, standing: sys::standing().ok()?, uses: 0 })
    }

    /// When all processes but this one are dead: whether the box is as new.
    pub(super) fn make(&mut self) -> bool {
        self.uses += 1;
        let mut left = Left { names: NAMES_MAX, bytes: BYTES_MAX };
        self.uses < USES_MAX
            && self.sockets.are_quiet()
            && sys::standing().is_ok_and(|now| now == self.standing)
            && self.rooms.iter().all(|room| room.clear(&mut left).is_ok_and(|()| room.is_as_new()))
    }
}

impl Room {
    fn new(place: &str) -> Result<Room, Errno> {
        let folder = open(CWD, place)?;
        let stat = rustix::fs::fstat(&folder)?;
        let (marks, flags) = (marks(&folder)?, ioctl_getflags(&folder).ok());
        Ok(Room { mode: stat.st_mode, owner: (stat.st_uid, stat.st_gid), folder, marks, flags })
    }

    fn clear(&self, left: &mut Left) -> Result<(), Errno> {
        // Until nothing is found: a folder that changes while it is read may not tell all at once. Names are counted down.
        while clear(&self.folder, left, DEPTH_MAX)? {}
        Ok(())
    }

    /// Whether the folder is what it was. That it is empty was seen by whoever emptied it.
    fn is_as_new(&self) -> bool {
        let same = |stat: &Stat| stat.st_mode == self.mode && (stat.st_uid, stat.st_gid) == self.owner;
        rustix::fs::fstat(&self.folder).is_ok_and(|stat| same(&stat))
            && marks(&self.folder).is_ok_and(|marks| marks == self.marks)
            && ioctl_getflags(&self.folder).ok() == self.flags
    }
}

/// The names of what a file is marked with. More than there is room for is an error.
fn marks(folder: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut names = vec![0; 256];
    match rustix::fs::flistxattr(folder, names.as_mut_slice()) {
        Ok(length) => names.truncate(length),
        Err(Errno::OPNOTSUPP) => names.clear(),
        Err(errno) => return Err(errno),
    }
    Ok(names)
}

fn open(at: BorrowedFd<'_>, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Takes away what is found in a folder; false when there was nothing.
fn clear(folder: &OwnedFd, left: &mut Left, depth: u32) -> Result<bool, Errno> {
    let mut found = false;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        found = true;
        left.names = left.names.checked_sub(1).ok_or(Errno::OVERFLOW)?;
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = open(folder.as_fd(), name)?;
            clear(&below, left, depth.checked_sub(1).ok_or(Errno::OVERFLOW)?)?;
            AtFlags::REMOVEDIR
        } else {
            let bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
            left.bytes = left.bytes.checked_sub(bytes).ok_or(Errno::OVERFLOW)?;
            AtFlags::empty()
        };
        rustix::fs::unlinkat(folder.as_fd(), name, flags)?;
    }
    Ok(found)
}
