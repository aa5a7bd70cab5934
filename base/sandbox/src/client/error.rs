//! What can go wrong, for people: the message names the object, [`StartError::hint`] says what to do.

use crate::failure::{Failure, Step};
use rustix::io::Errno;
use std::io;
use thiserror::Error;

/// Why a box or its program did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the spawner cannot be asked")]
    Spawner {
        #[source]
        source: io::Error,
    },
    #[error("{what} ended before it answered")]
    Died { what: String },
    #[error("{what} makes no sense")]
    Invalid { what: String },
    #[error("the folder {folder} cannot be used")]
    Folder {
        folder: String,
        #[source]
        source: io::Error,
    },
    #[error("this machine does not allow {what}")]
    Namespaces {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("user ids cannot be mapped with {what}")]
    Ids {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the control group {group} cannot be set up")]
    Cgroup {
        group: String,
        #[source]
        source: io::Error,
    },
    #[error("the root file system cannot be set up at {what}")]
    Root {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{what} cannot be mounted")]
    Mount {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the file {file} cannot be placed")]
    File {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("the sysctl {name} cannot be set")]
    Sysctl {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the box's network cannot be set up at {what}")]
    Network {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the box cannot be confined with {what}")]
    Confine {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the box has no user {user}")]
    User {
        user: String,
        #[source]
        source: io::Error,
    },
    #[error("the working folder {folder} cannot be entered")]
    WorkingFolder {
        folder: String,
        #[source]
        source: io::Error,
    },
    #[error("no such program: {program}")]
    NoSuchProgram { program: String },
    #[error("{program} may not be run")]
    NotExecutable {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} cannot be run")]
    Program {
        program: String,
        #[source]
        source: io::Error,
    },
}

impl StartError {
    pub(super) fn from_failure(failure: Failure) -> StartError {
        let Failure { step, object, errno } = failure;
        let source = if errno == 0 { io::Error::other("no reason given") } else { io::Error::from_raw_os_error(errno) };
        match step {
            Step::Invalid => StartError::Invalid { what: object },
            Step::RunFolder => StartError::Folder { folder: object, source },
            Step::Namespaces => StartError::Namespaces { what: object, source },
            Step::Ids => StartError::Ids { what: object, source },
            Step::Cgroup => StartError::Cgroup { group: object, source },
            Step::Root => StartError::Root { what: object, source },
            Step::Mount => StartError::Mount { what: object, source },
            Step::File => StartError::File { file: object, source },
            Step::Sysctl => StartError::Sysctl { name: object, source },
            Step::Network => StartError::Network { what: object, source },
            Step::Confine => StartError::Confine { what: object, source },
            Step::User => StartError::User { user: object, source },
            Step::WorkingFolder => StartError::WorkingFolder { folder: object, source },
            Step::Program if errno == Errno::NOENT.raw_os_error() => StartError::NoSuchProgram { program: object },
            Step::Program if errno == Errno::ACCESS.raw_os_error() => {
                StartError::NotExecutable { program: object, source }
            }
            Step::Program => StartError::Program { program: object, source },
            Step::Died => StartError::Died { what: object },
        }
    }

    /// What to do about it; empty when there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            StartError::Namespaces { .. } => {
                "unprivileged user namespaces must be on: sysctl kernel.unprivileged_userns_clone=1, \
                 user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0"
            }
            StartError::Ids { .. } => {
                "install newuidmap (package uidmap) and give this user a range in /etc/subuid and /etc/subgid; on Ubuntu also \
                 sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            }
            StartError::NoSuchProgram { .. } => "check the command, and PATH inside the image",
            StartError::NotExecutable { .. } => "make the file executable for the box's user",
            StartError::Program { .. } => "check that the image is for this kind of processor",
            StartError::User { .. } => "choose a user within the box's range of ids",
            StartError::Mount { .. } => "check that the source exists and the target's folder can be written",
            StartError::Sysctl { .. } => {
                "only sysctls of the box's own namespaces can be set: net.*, kernel.msg*, kernel.sem, kernel.shm*"
            }
            StartError::Folder { .. } => "check the disk and who owns the data folder",
            StartError::Spawner { .. }
            | StartError::Died { .. }
            | StartError::Invalid { .. }
            | StartError::Cgroup { .. }
            | StartError::Root { .. }
            | StartError::File { .. }
            | StartError::Network { .. }
            | StartError::Confine { .. }
            | StartError::WorkingFolder { .. } => "",
        }
    }
}

/// Why the box of a folder cannot be talked to.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("the run folder {folder} cannot be read")]
    Folder {
        folder: String,
        #[source]
        source: io::Error,
    },
    #[error("the shim in {folder} does not answer")]
    Shim {
        folder: String,
        #[source]
        source: io::Error,
    },
}

/// Why a running box did not do what it was asked.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error("the box cannot be reached")]
    Gone {
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why a program was not run in a parked box.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("the parked box cannot be reached")]
    Gone {
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Start(#[from] StartError),
}
