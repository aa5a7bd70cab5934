//! A timer of the kernel that kills this process.

use super::mount::last_errno;
use rustix::io::Errno;
use std::mem::zeroed;
use std::ptr;

/// SIGKILL at a time of the clock since boot, also to a process that is stopped.
pub(crate) struct SelfKill {
    timer: libc::timer_t,
}

impl SelfKill {
    pub(crate) fn new() -> Result<SelfKill, Errno> {
        // SAFETY: all of it is numbers and pointers nobody follows, for which zero is a value.
        let mut event: libc::sigevent = unsafe { zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both outlive the call, and the kernel keeps neither.
        match unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, &raw mut timer) } {
            0 => Ok(SelfKill { timer }),
            _ => Err(last_errno()),
        }
    }

    /// Instead of what was set before; 0 is never.
    pub(crate) fn at(&self, boot_ms: u64) -> Result<(), Errno> {
        // SAFETY: zero is a time.
        let mut at: libc::itimerspec = unsafe { zeroed() };
        at.it_value.tv_sec = libc::time_t::try_from(boot_ms / 1_000).unwrap_or(libc::time_t::MAX);
        at.it_value.tv_nsec = libc::c_long::try_from(boot_ms % 1_000 * 1_000_000).unwrap_or(0);
        // SAFETY: the timer is this process's own, made in `new` and deleted by nobody before `drop`.
        match unsafe { libc::timer_settime(self.timer, libc::TIMER_ABSTIME, &raw const at, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }
}

impl Drop for SelfKill {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and not used after this.
        unsafe { libc::timer_delete(self.timer) };
    }
}
