//! The kernel calls that no safe wrapper offers: processes born with namespaces, mount attributes, exec, signals.
//!
//! Owns all `unsafe` of the crate. Each function is safe to call when its own doc says from where.
#![expect(unsafe_code, reason = "the one place for system calls that rustix leaves out")]

mod mount;
mod process;
mod standing;
mod timer;
mod title;
mod watch;

pub(crate) use mount::{MountChange, mount_setattr};
pub(crate) use process::{
    Dead, Strings, Used, borrow_to_child, close_on_exec_from, drain_signals, exec, fork, fork_into, install_filter,
    keep_only, kill_everybody, landlock_abi, processor_time_nanoseconds, reset_broken_pipe, reset_signals,
    signal_fd_of_children, step_back, take_any_end, unblock_signals, unshare,
};
pub(crate) use standing::{Standing, standing};
pub(crate) use timer::SelfKill;
pub(crate) use title::set_title;
pub use watch::watch;
