//! Process 1 of a box: builds the inside, starts the program, reaps, and serves the door. Forwards nothing.
//!
//! Promises: it ends when its owner does, and the kernel ends everything in the box with it. Holds no capability
//! beyond what it needs to start programs, and cannot be looked into from the box (`PR_SET_DUMPABLE`).

mod again;
mod door;
mod execution;
mod files;
mod launch;
mod pump;
mod serve;
mod shortage;
mod streams;
mod watch;

use crate::build::network::{self, DoorSockets};
use crate::build::sources::{self, Sources};
use crate::build::{Go, Net, confine, root};
use crate::channel;
use crate::failure::{During, Failure, Step};
use crate::protocol::Report;
use crate::spec::{BoxSpec, Ids, User};
use crate::sys;
use again::Again;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{Gid, Uid};
use shortage::Shortage;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What init is born with: copies of its parent's.
pub(crate) struct Setup<'a> {
    pub(crate) spec: &'a BoxSpec,
    /// The user of the box that init is.
    pub(crate) user: &'a User,
    /// Closed or answered with [`Go`] by the parent.
    pub(crate) go: BorrowedFd<'a>,
    pub(crate) owner: BorrowedFd<'a>,
    pub(crate) network: Net,
}

/// The whole life of process 1; returns its exit code.
pub(crate) fn run(setup: &Setup<'_>) -> i32 {
    const CODE_ON_FAILURE: i32 = 1;
    let Ok([owner, go]) = sys::keep_only([setup.owner, setup.go]) else { return CODE_ON_FAILURE };
    sys::set_title(&format!("bramble-init {}", setup.spec.name));
    if setup.spec.idle {
        // Inherited by all programs too. Refused, they run all the same, and less politely.
        let _ = sys::step_back();
    }
    // Inherited by all programs. Process 1 itself is ended by no signal from inside, whatever its actions.
    sys::reset_broken_pipe();
    // The session of everything that has no terminal. Leading one already would be no failure.
    let _ = rustix::process::setsid();
    let children = match sys::signal_fd_of_children() {
        Ok(children) => children,
        Err(_) => return CODE_ON_FAILURE,
    };
    match build(setup, go) {
        Ok(built) => {
            let report = Report::Built { network: built.sockets.report.clone() };
            if channel::send(&owner, &report, &[]).is_err() {
                return CODE_ON_FAILURE;
            }
            serve::run(setup.spec, owner, &children, built)
        }
        Err(failure) => {
            // Nobody to tell: the owner is gone, and so will be this.
            let _ = channel::send(&owner, &Report::Failed(failure), &[]);
            CODE_ON_FAILURE
        }
    }
}

/// What building leaves to serve with.
struct Built {
    sockets: DoorSockets,
    memory_events: Option<OwnedFd>,
    /// For each program, where no control group bounds the box's processes. The kernel counts per user namespace.
    processes_max: Option<u64>,
    shortage: Option<Shortage>,
    again: Option<Again>,
}

fn build(setup: &Setup<'_>, go: OwnedFd) -> Result<Built, Failure> {
    let spec = setup.spec;
    let parent = || "the process outside".to_owned();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during(Step::Namespaces, parent)?;
    let (go, mut fds) = channel::receive::<Go>(go.as_fd())
        .during(Step::Namespaces, parent)?
        .ok_or_else(|| Failure::plain(Step::Died, parent()))?;
    let shortage = Shortage::new(spec.trust);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .during(Step::Confine, || "dumpable".to_owned())?;
    // Again, now that it is in its control group: inside, that one is the root. Without, paths show more than needed.
    let _ = sys::unshare(libc::CLONE_NEWCGROUP);
    let memory_events = if go.memory_events { fds.pop() } else { None };
    let sources = if go.translated {
        Sources::from_fds(spec, fds).ok_or_else(|| Failure::plain(Step::Mount, "sources from outside"))?
    } else {
        sources::open(spec, None)?
    };
    become_user(spec, setup.user)?;
    confine::sysctls(spec)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    root::enter(spec, sources)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::system::sethostname(spec.hostname.as_bytes())
        .during(Step::Namespaces, || format!("hostname {}", spec.hostname))?;
    let sockets = match setup.network {
        Net::Own => network::set_up(spec.network)?,
        Net::Given => DoorSockets::default(),
    };
    confine::confine(spec)?;
    let processes_max = spec.limits.pids.filter(|_pids| go.processes_unbounded);
    Ok(Built { sockets, memory_events, processes_max, shortage, again: Again::new(spec) })
}

/// Changes from the parent's user to the one mapped inside. Capabilities stay: they are of the user namespace.
fn become_user(spec: &BoxSpec, user: &User) -> Result<(), Failure> {
    let change = || -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        match spec.ids {
            Ids::Range { .. } => rustix::thread::set_thread_groups(&[])?,
            // Written without privilege a group map forbids it.
            Ids::Single => match rustix::thread::set_thread_groups(&[]) {
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(errno) => return Err(errno),
            },
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        // Both reset by the change of user.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
    };
    change().during(Step::User, || format!("user {}:{} of the box", user.uid, user.gid))
}
