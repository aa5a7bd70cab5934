//! Why a box could not be built or a program not started, as it travels between our processes.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// The request itself makes no sense.
    Invalid,
    RunFolder,
    Namespaces,
    Ids,
    Cgroup,
    Root,
    Mount,
    File,
    Sysctl,
    Network,
    Confine,
    User,
    WorkingFolder,
    Program,
    /// One of our own processes ended before it answered.
    Died,
}

/// A step that failed, on which object, with the kernel's answer (0: none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) object: String,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn new(step: Step, object: impl Into<String>, errno: Errno) -> Failure {
        Failure { step, object: object.into(), errno: errno.raw_os_error() }
    }

    pub(crate) fn plain(step: Step, object: impl Into<String>) -> Failure {
        Failure { step, object: object.into(), errno: 0 }
    }

    pub(crate) fn io(step: Step, object: impl Into<String>, error: &io::Error) -> Failure {
        Failure { step, object: object.into(), errno: error.raw_os_error().unwrap_or(0) }
    }
}

/// Names the step and the object where a system call is made.
pub(crate) trait During<T> {
    fn during(self, step: Step, object: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, Errno> {
    fn during(self, step: Step, object: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(step, object(), errno))
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: Step, object: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::io(step, object(), &error))
    }
}
