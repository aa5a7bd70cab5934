//! What gets mounted from outside, opened before anything moves: detached copies of trees, so that no path is
//! followed once a program could have changed it.

use crate::channel::FDS_MAX;
use crate::failure::{During, Failure, Step};
use crate::spec::{BoxSpec, MountSource, Root};
use crate::sys::{MountChange, mount_setattr};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Detached trees, in the order of the spec.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Nothing for the host's root; one tree for a folder; for an overlay the folder that holds `upper` and `work`,
    /// then the lower layers, top first.
    pub(crate) root: Vec<OwnedFd>,
    /// One per bind mount.
    pub(crate) binds: Vec<OwnedFd>,
}

impl Sources {
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.root.iter().chain(&self.binds).map(AsFd::as_fd).collect()
    }

    /// The reverse of [`Sources::fds`], on the other side of a channel.
    pub(crate) fn from_fds(spec: &BoxSpec, mut fds: Vec<OwnedFd>) -> Option<Sources> {
        let (roots, binds) = counts(spec);
        if fds.len() != roots + binds {
            return None;
        }
        let binds = fds.split_off(roots);
        Some(Sources { root: fds, binds })
    }
}

/// Whether a box has any.
pub(crate) fn any(spec: &BoxSpec) -> bool {
    counts(spec) != (0, 0)
}

fn counts(spec: &BoxSpec) -> (usize, usize) {
    let roots = match &spec.root {
        Root::Host => 0,
        Root::Dir(_) => 1,
        Root::Overlay { lowers, .. } => 1 + lowers.len(),
    };
    let binds = spec.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Bind(_))).count();
    (roots, binds)
}

/// Opens all sources; with `ids_of`, files that belong to users 0 and up outside belong to the box's users 0 and up.
pub(crate) fn open(spec: &BoxSpec, ids_of: Option<BorrowedFd<'_>>) -> Result<Sources, Failure> {
    let (roots, binds) = counts(spec);
    if roots + binds > FDS_MAX {
        return Err(Failure::plain(Step::Invalid, format!("{roots} layers and {binds} mounts, {FDS_MAX} at most")));
    }
    let mut sources = Sources::default();
    match &spec.root {
        Root::Host => {}
        Root::Dir(path) => sources.root.push(tree(path, Step::Root, ids_of)?),
        Root::Overlay { lowers, upper, work } => {
            sources.root.push(tree(&shared_parent(upper, work), Step::Root, ids_of)?);
            for lower in lowers {
                sources.root.push(tree(lower, Step::Root, ids_of)?);
            }
        }
    }
    for mount in &spec.mounts {
        match &mount.source {
            MountSource::Bind(path) => {
                let bind = tree(path, Step::Mount, ids_of)?;
                let change = MountChange { recursive: true, read_only: mount.read_only, ..MountChange::default() };
                mount_setattr(&bind, change).during(Step::Mount, || path.display().to_string())?;
                sources.binds.push(bind);
            }
            MountSource::Tmpfs { .. } => {}
        }
    }
    Ok(sources)
}

/// The deepest folder that holds both: overlayfs wants `upper` and `work` on one mount.
pub(crate) fn shared_parent(upper: &Path, work: &Path) -> PathBuf {
    upper.components().zip(work.components()).take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
}

fn tree(path: &Path, step: Step, ids_of: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let copy = || -> Result<OwnedFd, Errno> {
        let tree = open_tree(CWD, path, flags)?;
        mount_setattr(&tree, MountChange { recursive: true, private: true, no_dev: true, ..MountChange::default() })?;
        Ok(tree)
    };
    let plain = copy().during(step, || path.display().to_string())?;
    let Some(userns) = ids_of else { return Ok(plain) };
    let translate = MountChange { recursive: true, ids_of: Some(userns), ..MountChange::default() };
    match mount_setattr(&plain, translate) {
        Ok(()) => Ok(plain),
        // A file system (or one mounted below) that cannot translate owners: its files belong to nobody in the box,
        // which still reads what everybody may read.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(plain),
        Err(errno) => Err(Failure::new(step, format!("{} (translating its owners)", path.display()), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::shared_parent;
    use std::path::Path;

    #[test]
    fn upper_and_work_share_their_deepest_folder() {
        let check = |upper: &str, work: &str, parent: &str| {
            assert_eq!(shared_parent(Path::new(upper), Path::new(work)), Path::new(parent));
        };
        check("/a/b/upper", "/a/b/work", "/a/b");
        check("/a/b", "/a/b/work", "/a/b");
        check("/x/upper", "/y/work", "/");
    }
}
