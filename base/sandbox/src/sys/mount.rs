//! `mount_setattr(2)`.

use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What to change about a mount.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountChange<'fd> {
    pub(crate) recursive: bool,
    pub(crate) read_only: bool,
    pub(crate) no_suid: bool,
    pub(crate) no_dev: bool,
    pub(crate) no_exec: bool,
    pub(crate) private: bool,
    /// Translate owners as this user namespace does.
    pub(crate) ids_of: Option<BorrowedFd<'fd>>,
}

/// Changes the mount (or the detached tree) `mount` refers to.
pub(crate) fn mount_setattr(mount: impl AsFd, change: MountChange<'_>) -> Result<(), Errno> {
    let mut set = 0;
    for (wanted, bit) in [
        (change.read_only, libc::MOUNT_ATTR_RDONLY),
        (change.no_suid, libc::MOUNT_ATTR_NOSUID),
        (change.no_dev, libc::MOUNT_ATTR_NODEV),
        (change.no_exec, libc::MOUNT_ATTR_NOEXEC),
        (change.ids_of.is_some(), libc::MOUNT_ATTR_IDMAP),
    ] {
        if wanted {
            set |= bit;
        }
    }
    let userns =
        change.ids_of.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative"));
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: if change.private { libc::MS_PRIVATE } else { 0 },
        userns_fd: userns,
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and `attributes` lives through the call with its size given; the kernel
    // writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
