//! The outside half: a process in new namespaces, its ids, its cgroup, its translated mounts.

use crate::build::sources::{self, Sources};
use crate::cgroup::Cgroup;
use crate::channel;
use crate::failure::{During, Failure, Step};
use crate::init::{self, Setup};
use crate::spec::{BoxSpec, Ids, SINGLE_OUTSIDE_AS_ROOT, Trust, User};
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A box whose init is building it.
pub(crate) struct Begun {
    pub(crate) init: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: Cgroup,
}

/// What control groups are for. Making them takes longer than the rest of a small box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accounts {
    /// Only where there are limits to hold.
    Limits,
    /// Also to know what the box uses.
    Usage,
}

/// Which network a box is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    /// One that is made with it.
    Own,
    /// The one its parent is in, which is ready.
    Given,
}

/// Parent to init: the outside half is done. With it come translated mounts, then the file that tells whether the
/// kernel killed for memory, as far as there are such.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Go {
    pub(crate) translated: bool,
    pub(crate) memory_events: bool,
    /// No control group bounds the number of processes: the limit of the user namespace has to.
    pub(crate) processes_unbounded: bool,
}

/// A mapping of one kind of id: inside, outside, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdMap {
    inside: u32,
    outside: u32,
    count: u32,
}

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Starts init in new namespaces and does what only the outside can. Init goes on by itself and reports to the other
/// end of `owner`.
pub(crate) fn begin(
    spec: &BoxSpec,
    user: &User,
    owner: OwnedFd,
    accounts: Accounts,
    network: Net,
) -> Result<Begun, Failure> {
    validate(spec)?;
    let cgroup = match accounts {
        Accounts::Limits if !spec.limits.any_for_a_box() => Cgroup::default(),
        Accounts::Limits | Accounts::Usage => Cgroup::create(&spec.name, &spec.limits, accounts)?,
    };
    let wanted = single_user(spec, user);
    let (init, pidfd, ours) = match fork_init(spec, &wanted, owner, network) {
        Ok(forked) => forked,
        Err(failure) => {
            cgroup.remove();
            return Err(failure);
        }
    };
    let begun = Begun { init, pidfd, cgroup };
    match finish(spec, &wanted, &begun, ours.as_fd()) {
        Ok(()) => Ok(begun),
        Err(failure) => {
            begun.abandon();
            Err(failure)
        }
    }
}

/// Init, a descriptor of it, and the channel it waits at for [`Go`].
fn fork_init(spec: &BoxSpec, user: &User, owner: OwnedFd, network: Net) -> Result<(Pid, OwnedFd, OwnedFd), Failure> {
    let (ours, theirs) = channel::pair().during(Step::Namespaces, || "channel".to_owned())?;
    let setup = Setup { spec, user, go: theirs.as_fd(), owner: owner.as_fd(), network };
    let namespaces = match network {
        Net::Own => NAMESPACES | libc::CLONE_NEWNET,
        Net::Given => NAMESPACES,
    };
    let (init, pidfd) = sys::fork_into(namespaces, || init::run(&setup))
        .during(Step::Namespaces, || "user, pid, mount, network, ipc, uts and cgroup namespaces".to_owned())?;
    Ok((init, pidfd, ours))
}

impl Begun {
    /// Kills the box, waits for it and removes what it had.
    pub(crate) fn abandon(self) {
        // Both fail only when it is dead and reaped already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.init), rustix::process::WaitOptions::empty())
        });
        self.cgroup.remove();
    }
}

fn finish(spec: &BoxSpec, wanted: &User, begun: &Begun, go: BorrowedFd<'_>) -> Result<(), Failure> {
    begun.cgroup.enter(begun.init)?;
    write_maps(spec, wanted, begun.init)?;
    let sources = if geteuid().is_root() && sources::any(spec) {
        let userns = rustix::fs::openat(
            CWD,
            format!("/proc/{}/ns/user", begun.init.as_raw_nonzero()),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .during(Step::Ids, || "user namespace of the box".to_owned())?;
        Some(sources::open(spec, Some(userns.as_fd()))?)
    } else {
        None
    };
    let memory_events = begun.cgroup.memory_events();
    let mut fds: Vec<BorrowedFd<'_>> = sources.as_ref().map(Sources::fds).unwrap_or_default();
    fds.extend(memory_events.iter().map(AsFd::as_fd));
    let message = Go {
        translated: sources.is_some(),
        memory_events: memory_events.is_some(),
        processes_unbounded: !begun.cgroup.bounds_processes(),
    };
    channel::send(go, &message, &fds).during(Step::Namespaces, || "init".to_owned())
}

/// The user the one mapped id is inside: what the command wants, so that its files are the agent's.
fn single_user(spec: &BoxSpec, user: &User) -> User {
    match spec.ids {
        Ids::Single => user.clone(),
        Ids::Range { .. } => User::default(),
    }
}

fn validate(spec: &BoxSpec) -> Result<(), Failure> {
    let invalid = |what: String| Err(Failure::plain(Step::Invalid, what));
    let name_fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if spec.name.is_empty() || spec.name.len() > 200 || !spec.name.bytes().all(name_fits) || spec.name.starts_with('.')
    {
        return invalid(format!("the box name `{}`", spec.name));
    }
    for target in spec.mounts.iter().map(|mount| &mount.target).chain(spec.files.iter().map(|file| &file.target)) {
        if !target.is_absolute() || target.components().any(|part| part == std::path::Component::ParentDir) {
            return invalid(format!("the mount target {}", target.display()));
        }
    }
    for name in &spec.cap_add {
        let known = name.eq_ignore_ascii_case("ALL") || crate::names::capability(name).is_some();
        if !known || spec.trust == Trust::Untrusted {
            return invalid(format!("the capability `{name}` for a box at this level of trust"));
        }
    }
    for (name, _) in &spec.sysctls {
        if !crate::build::confine::sysctl_is_namespaced(name) {
            return Err(Failure::new(Step::Sysctl, name, Errno::PERM));
        }
    }
    for (name, soft, hard) in &spec.limits.rlimits {
        if crate::names::resource(name).is_none() || soft > hard {
            return invalid(format!("the limit `{name}` of {soft} to {hard}"));
        }
    }
    Ok(())
}

fn write_maps(spec: &BoxSpec, wanted: &User, init: Pid) -> Result<(), Failure> {
    let root = geteuid().is_root();
    match spec.ids {
        Ids::Single => {
            let (uid, gid) = match root {
                true => (SINGLE_OUTSIDE_AS_ROOT, SINGLE_OUTSIDE_AS_ROOT),
                false => (geteuid().as_raw(), getegid().as_raw()),
            };
            if !root {
                // The kernel's condition for a group map written without privilege.
                write_proc(init, "setgroups", "deny")?;
            }
            write_proc(init, "uid_map", &IdMap { inside: wanted.uid, outside: uid, count: 1 }.line())?;
            write_proc(init, "gid_map", &IdMap { inside: wanted.gid, outside: gid, count: 1 }.line())
        }
        Ids::Range { outside_start, count } if root => {
            let map = IdMap { inside: 0, outside: outside_start, count }.line();
            write_proc(init, "uid_map", &map)?;
            write_proc(init, "gid_map", &map)
        }
        Ids::Range { outside_start, count } => {
            let others = IdMap { inside: 1, outside: outside_start, count: count.saturating_sub(1) };
            let own = |outside| IdMap { inside: 0, outside, count: 1 };
            run_mapper("newuidmap", init, [own(geteuid().as_raw()), others])?;
            run_mapper("newgidmap", init, [own(getegid().as_raw()), others])
        }
    }
}

impl IdMap {
    fn line(self) -> String {
        format!("{} {} {}", self.inside, self.outside, self.count)
    }
}

fn write_proc(init: Pid, file: &str, content: &str) -> Result<(), Failure> {
    let path = format!("/proc/{}/{file}", init.as_raw_nonzero());
    let fd = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    fd.and_then(|fd| rustix::io::write(fd, content.as_bytes()))
        .map(drop)
        .during(Step::Ids, || format!("{file} `{content}`"))
}

/// Ranges of ids that are not ours are handed out by the system's own set-uid helpers from /etc/subuid.
fn run_mapper(program: &str, init: Pid, maps: [IdMap; 2]) -> Result<(), Failure> {
    let maps = maps.map(IdMap::line).join(" ");
    let status = std::process::Command::new(program)
        .arg(init.as_raw_nonzero().to_string())
        .args(maps.split(' '))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .during(Step::Ids, || program.to_owned())?;
    if status.success() { Ok(()) } else { Err(Failure::new(Step::Ids, format!("{program} {maps}"), Errno::PERM)) }
}
