//! The inside half of the root file system: fresh mounts, the new root, and everything below it.
//!
//! Promises: nothing of the machine stays reachable but what the spec names; targets are resolved inside the new
//! root, so a link in an image leads nowhere outside it; `/proc`, `/sys` and `/dev` are never links.

use crate::build::sources::{Sources, shared_parent};
use crate::failure::{During, Failure, Step};
use crate::spec::{BoxSpec, File, MountSource, Root, Trust};
use crate::sys::{MountChange, mount_setattr};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, open_tree, unmount,
};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where the new root is put together: a folder every Linux has, in a mount namespace nobody else sees.
const STAGE: &str = "/tmp";
/// Folders of the machine that a box on the host's root does not get: the kernel's, and those with the sockets and
/// leftovers of others.
const HOST_FOLDERS_LEFT_OUT: [&str; 7] = ["proc", "sys", "dev", "run", "tmp", "lost+found", "boot"];
/// What strangers' code gets of the host's root.
const HOST_FOLDERS_FOR_STRANGERS: [&str; 9] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Room for the devices' names and links, not for data.
const DEV_SIZE_BYTES: u64 = 64 << 10;
/// `/tmp` and `/run` of a box on the host's root, which has no writable place otherwise.
const SCRATCH_SIZE_BYTES: u64 = 64 << 20;
/// Inodes of a tmpfs by its size. An empty file costs about a kilobyte of kernel memory that the size does not count,
/// and landlock walks the whole way up for each folder in a folder.
const TMPFS_BYTES_PER_INODE: u64 = 4096;
const TMPFS_INODES_MIN: u64 = 1024;
/// Links to what is missing, followed one after the other. An image has one at a time.
const LINKS_MAX: u32 = 8;
const FOLDER: Mode = Mode::from_raw_mode(0o755);

/// Fresh file systems, made while the machine's own are still visible: the kernel allows a new proc only beside a
/// complete one.
struct Fresh {
    proc: OwnedFd,
    sys: Option<OwnedFd>,
    /// The box's own control group, where runtimes read their memory limit. A kernel without version 2 has none.
    cgroup: Option<OwnedFd>,
    dev: OwnedFd,
    devices: Vec<OwnedFd>,
    pts: OwnedFd,
    shm: OwnedFd,
}

/// Builds and enters the root file system.
pub(crate) fn enter(spec: &BoxSpec, sources: Sources) -> Result<(), Failure> {
    private_everything()?;
    let fresh = fresh(spec)?;
    let host = match spec.root {
        Root::Host => host_folders(spec.trust)?,
        Root::Dir(_) | Root::Overlay { .. } => Vec::new(),
    };
    stage(spec, sources.root)?;
    change_root()?;
    attach_host(&host)?;
    attach_fresh(fresh)?;
    attach_mounts(spec, sources.binds)?;
    attach_files(&spec.files)?;
    if spec.trust == Trust::Untrusted {
        // Devices and terminals can be used all the same, and nothing can be left there.
        make_read_only("/dev")?;
        make_read_only("/dev/pts")?;
    }
    if spec.read_only || matches!(spec.root, Root::Host) {
        make_read_only("/")?;
    }
    Ok(())
}

/// One mount, and none of those below it.
fn make_read_only(place: &str) -> Result<(), Failure> {
    let mount = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    mount
        .and_then(|mount| mount_setattr(mount, MountChange { read_only: true, ..MountChange::default() }))
        .during(Step::Root, || format!("making {place} read-only"))
}

/// Nothing mounted here shows outside or the other way round; `pivot_root` insists on it, too.
fn private_everything() -> Result<(), Failure> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.and_then(|root| mount_setattr(root, MountChange { recursive: true, private: true, ..MountChange::default() }))
        .during(Step::Root, || "making mounts private".to_owned())
}

fn fresh(spec: &BoxSpec) -> Result<Fresh, Failure> {
    let strict = spec.trust == Trust::Untrusted;
    let quiet =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc_options: &[(&str, &str)] = if strict { &[("subset", "pid")] } else { &[] };
    let mut devices = Vec::new();
    for name in DEVICES {
        let path = format!("/dev/{name}");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        devices.push(open_tree(CWD, &path, flags).during(Step::Mount, || path)?);
    }
    let pts: &[(&str, &str)] = &[("mode", "620"), ("ptmxmode", "666")];
    let read_only = quiet | MountAttrFlags::MOUNT_ATTR_RDONLY;
    Ok(Fresh {
        // A session's niceness could be left there.
        proc: file_system("proc", proc_options, if strict { read_only } else { quiet })?,
        sys: if strict { None } else { Some(file_system("sysfs", &[], read_only)?) },
        cgroup: if strict { None } else { file_system("cgroup2", &[], read_only).ok() },
        dev: tmpfs(DEV_SIZE_BYTES, "755", MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?,
        devices,
        pts: file_system("devpts", pts, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)?,
        shm: tmpfs(spec.shm_size_bytes, "1777", quiet)?,
    })
}

fn tmpfs(size_bytes: u64, mode: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    // To the kernel, zero is no bound.
    let size_bytes = size_bytes.max(TMPFS_BYTES_PER_INODE);
    let inodes = (size_bytes / TMPFS_BYTES_PER_INODE).max(TMPFS_INODES_MIN).to_string();
    let size = size_bytes.to_string();
    file_system("tmpfs", &[("size", &size), ("nr_inodes", &inodes), ("mode", mode)], attributes)
}

fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let make = || -> Result<OwnedFd, Errno> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().during(Step::Mount, || format!("a new {kind}"))
}

/// A top-level entry of the machine's root.
enum HostEntry {
    Tree(OsName, OwnedFd),
    Link(OsName, CString),
}
type OsName = std::ffi::OsString;

fn host_folders(trust: Trust) -> Result<Vec<HostEntry>, Failure> {
    let names: Vec<OsName> = match trust {
        Trust::Untrusted => HOST_FOLDERS_FOR_STRANGERS.iter().map(OsName::from).collect(),
        Trust::Host | Trust::Service => std::fs::read_dir("/")
            .during(Step::Root, || "/".to_owned())?
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| !HOST_FOLDERS_LEFT_OUT.iter().any(|left_out| name == *left_out))
            .collect(),
    };
    names.into_iter().filter_map(|name| host_entry(name).transpose()).collect()
}

/// `None` for what is neither a folder nor a link, and for what is not there.
fn host_entry(name: OsName) -> Result<Option<HostEntry>, Failure> {
    let path = Path::new("/").join(&name);
    let what = || path.display().to_string();
    let kind = match rustix::fs::lstat(&path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Failure::new(Step::Root, what(), errno)),
    };
    if kind == FileType::Symlink {
        let target = rustix::fs::readlink(&path, Vec::new()).during(Step::Root, what)?;
        Ok(Some(HostEntry::Link(name, target)))
    } else if kind == FileType::Directory {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, &path, flags).during(Step::Root, what)?;
        let change =
            MountChange { recursive: true, read_only: true, no_dev: true, private: true, ..MountChange::default() };
        mount_setattr(&tree, change).during(Step::Root, what)?;
        Ok(Some(HostEntry::Tree(name, tree)))
    } else {
        Ok(None)
    }
}

/// Puts the root at [`STAGE`] and makes it the working folder.
fn stage(spec: &BoxSpec, sources: Vec<OwnedFd>) -> Result<(), Failure> {
    let attach = |mount: &OwnedFd, what: &str| {
        move_mount(mount, "", CWD, STAGE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .and_then(|()| rustix::process::chdir(STAGE))
            .during(Step::Root, || what.to_owned())
    };
    match &spec.root {
        Root::Host => attach(&tmpfs(SCRATCH_SIZE_BYTES, "755", MountAttrFlags::empty())?, "a new root"),
        Root::Dir(path) => match sources.first() {
            Some(tree) => attach(tree, &path.display().to_string()),
            None => Err(Failure::plain(Step::Root, path.display().to_string())),
        },
        Root::Overlay { lowers, upper, work } => {
            attach(&tmpfs(DEV_SIZE_BYTES, "700", MountAttrFlags::empty())?, "a place for layers")?;
            overlay(lowers, upper, work, &sources)
        }
    }
}

/// Layers get short names on the stage, so that a hundred of them fit the kernel's one page of options, and so that
/// owners may be translated per layer: `d` holds upper and work, numbers are the lower layers, `r` becomes the root.
fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path, sources: &[OwnedFd]) -> Result<(), Failure> {
    let shared = shared_parent(upper, work);
    let mut names = vec!["d".to_owned()];
    names.extend((0..lowers.len()).map(|number| number.to_string()));
    let layers = std::iter::once(shared.as_path()).chain(lowers.iter().map(PathBuf::as_path));
    for ((name, source), layer) in names.iter().zip(sources).zip(layers) {
        rustix::fs::mkdir(name.as_str(), FOLDER)
            .and_then(|()| move_mount(source, "", CWD, name.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
            .during(Step::Root, || layer.display().to_string())?;
    }
    let below = |path: &Path| -> Result<String, Failure> {
        let below = path.strip_prefix(&shared).unwrap_or(Path::new(""));
        let text = below.to_str().filter(|text| !text.contains([',', ':', '\\']));
        text.map(|text| format!("d/{text}"))
            .ok_or_else(|| Failure::plain(Step::Invalid, format!("the folder {} for an overlay", path.display())))
    };
    let options =
        format!("lowerdir={},upperdir={},workdir={},userxattr", names[1..].join(":"), below(upper)?, below(work)?);
    let options = CString::new(options).map_err(|_nul| Failure::plain(Step::Invalid, upper.display().to_string()))?;
    rustix::fs::mkdir("r", FOLDER)
        .and_then(|()| mount("overlay", "r", "overlay", MountFlags::NODEV, options.as_c_str()))
        .and_then(|()| rustix::process::chdir("r"))
        .during(Step::Root, || format!("overlay of {} layers under {}", lowers.len(), upper.display()))
}

/// Makes the working folder the root and lets go of the old one.
fn change_root() -> Result<(), Failure> {
    let change = || -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::open("/", flags, Mode::empty())?;
        let new = rustix::fs::open(".", flags, Mode::empty())?;
        rustix::process::pivot_root(".", ".")?;
        rustix::process::fchdir(old)?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::fchdir(new)?;
        rustix::process::chdir("/")
    };
    change().during(Step::Root, || "changing to the new root".to_owned())
}

fn attach_host(entries: &[HostEntry]) -> Result<(), Failure> {
    for entry in entries {
        match entry {
            HostEntry::Link(name, target) => {
                let name = Path::new(name);
                rustix::fs::symlink(target, name).during(Step::Root, || name.display().to_string())?;
            }
            HostEntry::Tree(name, tree) => {
                let name = Path::new(name);
                rustix::fs::mkdir(name, FOLDER)
                    .and_then(|()| move_mount(tree, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
                    .during(Step::Root, || name.display().to_string())?;
            }
        }
    }
    if entries.is_empty() {
        return Ok(());
    }
    for (name, mode) in [("/tmp", "1777"), ("/run", "755")] {
        let scratch =
            tmpfs(SCRATCH_SIZE_BYTES, mode, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
        attach_at_own_folder(&scratch, name)?;
    }
    Ok(())
}

/// Attaches at a top-level folder that is ours: a link in its place is an image's attempt to lead us astray.
fn attach_at_own_folder(source: &OwnedFd, name: &str) -> Result<(), Failure> {
    let attach = || -> Result<(), Errno> {
        match rustix::fs::mkdir(name, FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::open(name, flags, Mode::empty())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(source, "", target, "", flags)
    };
    attach().during(Step::Mount, || name.to_owned())
}

fn attach_fresh(fresh: Fresh) -> Result<(), Failure> {
    attach_at_own_folder(&fresh.proc, "/proc")?;
    if let Some(sys) = &fresh.sys {
        attach_at_own_folder(sys, "/sys")?;
    }
    if let Some(cgroup) = &fresh.cgroup {
        // A kernel may have the file system and no place for it in its sysfs.
        let _ = attach_at_own_folder(cgroup, "/sys/fs/cgroup");
    }
    attach_at_own_folder(&fresh.dev, "/dev")?;
    for (name, device) in DEVICES.iter().zip(&fresh.devices) {
        let attach = || -> Result<(), Errno> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(&fresh.dev, *name, flags, Mode::from_raw_mode(0o644))?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(device, "", target, "", flags)
        };
        attach().during(Step::Mount, || format!("/dev/{name}"))?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, &fresh.dev, name).during(Step::Mount, || format!("/dev/{name}"))?;
    }
    attach_at_own_folder(&fresh.pts, "/dev/pts")?;
    attach_at_own_folder(&fresh.shm, "/dev/shm")
}

/// Mounts in the order of their depth, so that one inside another is not hidden by it.
fn attach_mounts(spec: &BoxSpec, binds: Vec<OwnedFd>) -> Result<(), Failure> {
    let mut binds = binds.into_iter();
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for wanted in &spec.mounts {
        let (source, folder) = match &wanted.source {
            MountSource::Bind(_) => {
                let tree =
                    binds.next().ok_or_else(|| Failure::plain(Step::Mount, wanted.target.display().to_string()))?;
                let stat = rustix::fs::fstat(&tree).during(Step::Mount, || wanted.target.display().to_string())?;
                (tree, FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            }
            MountSource::Tmpfs { size_bytes } => {
                let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, wanted.read_only);
                (tmpfs(*size_bytes, "1777", attributes)?, true)
            }
        };
        mounts.push((wanted.target.components().count(), &wanted.target, source, folder));
    }
    mounts.sort_by_key(|(depth, ..)| *depth);
    for (_, target, source, folder) in mounts {
        attach(&source, target, folder)?;
    }
    Ok(())
}

fn attach(source: &OwnedFd, target: &Path, folder: bool) -> Result<(), Failure> {
    let attach = || -> Result<(), Errno> {
        let target = make_target(target, folder, LINKS_MAX)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(source, "", target, "", flags)
    };
    attach().during(Step::Mount, || target.display().to_string())
}

/// A folder of the box, made when missing.
pub(crate) fn folder_inside(path: &Path) -> Result<OwnedFd, Errno> {
    make_target(path, true, LINKS_MAX)
}

/// Opens a path without what is there being able to lead outside the root.
fn open_inside(target: &Path) -> Result<OwnedFd, Errno> {
    // The kernel answers AGAIN when anything on the machine was renamed or mounted while it followed a `..`.
    const ATTEMPTS: u32 = 1000;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _attempt in 0..ATTEMPTS {
        match rustix::fs::openat2(CWD, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened_or_refused => return opened_or_refused,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens `target`, making what is missing. Links of the image are followed inside the root; the magic ones of a proc
/// are not.
fn make_target(target: &Path, folder: bool, links: u32) -> Result<OwnedFd, Errno> {
    match open_inside(target) {
        Err(Errno::NOENT) => {}
        found_or_refused => return found_or_refused,
    }
    let parent_path = target.parent().ok_or(Errno::INVAL)?;
    let name = target.file_name().ok_or(Errno::INVAL)?;
    let parent = make_target(parent_path, true, links)?;
    if let Ok(link) = rustix::fs::readlinkat(&parent, name, Vec::new()) {
        // A link to what is not there yet, as /etc/resolv.conf often is.
        let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
        let link = PathBuf::from(OsName::from_vec(link.into_bytes()));
        return make_target(&parent_path.join(link), folder, links);
    }
    if folder {
        rustix::fs::mkdirat(&parent, name, FOLDER)?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    }
    open_inside(target)
}

/// Files live on one small tmpfs that is shown only while they are laid over the root one by one.
fn attach_files(files: &[File]) -> Result<(), Failure> {
    if files.is_empty() {
        return Ok(());
    }
    let size = files.iter().map(|file| file.content.len() as u64 + (8 << 10)).sum();
    let place = tmpfs(size, "755", MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    // Over /dev/shm, since there is always one and nothing can use it yet.
    let shown = "/dev/shm";
    attach_at_own_folder(&place, shown)?;
    let result = files.iter().enumerate().try_for_each(|(number, file)| attach_file(&place, shown, number, file));
    unmount(shown, UnmountFlags::DETACH).during(Step::File, || shown.to_owned())?;
    result
}

fn attach_file(place: &OwnedFd, shown: &str, number: usize, file: &File) -> Result<(), Failure> {
    let write = || -> std::io::Result<OwnedFd> {
        let name = number.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place, name.as_str(), flags, Mode::from_raw_mode(0o600))?;
        let mut written = std::fs::File::from(fd);
        std::io::Write::write_all(&mut written, &file.content)?;
        rustix::fs::chownat(
            place,
            name.as_str(),
            Some(Uid::from_raw(file.uid)),
            Some(Gid::from_raw(file.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        // An owner that no id of the box is: the file stays its root's.
        .or_else(|errno| if errno == Errno::INVAL { Ok(()) } else { Err(errno) })?;
        rustix::fs::fchmod(&written, Mode::from_raw_mode(file.mode & 0o7777))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(CWD, format!("{shown}/{number}"), flags)?)
    };
    let source = write().during(Step::File, || file.target.display().to_string())?;
    attach(&source, &file.target, false)
}
