//! Until when a box may live unless it is prolonged: kept by the shim alone, whatever becomes of whoever prolongs it.
//!
//! By the clock since boot: a machine that slept has spent its time. The shim kills the box and writes down why; where it
//! cannot, stopped or starved, the kernel kills it a little later, and the box with it.

use crate::clock;
use crate::sys;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the shim has to do it in order: it needs a millisecond of processor time, on a machine that may be busy.
const KERNEL_AFTER_MS: u64 = 400;

pub(super) struct Deadline {
    ends_boot_ms: Option<u64>,
    /// Readable when it is over.
    alarm: OwnedFd,
    kernel: sys::SelfKill,
    over: bool,
}

impl Deadline {
    pub(super) fn new(ends_boot_ms: Option<u64>) -> io::Result<Deadline> {
        let alarm = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let mut deadline = Deadline { ends_boot_ms: None, alarm, kernel: sys::SelfKill::new()?, over: false };
        if let Some(boot_ms) = ends_boot_ms {
            deadline.set(boot_ms)?;
        }
        Ok(deadline)
    }

    /// To be polled: a wait by another clock would not count what the machine sleeps.
    pub(super) fn alarm(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }

    /// Never takes back what was given. Refused once it is over.
    pub(super) fn prolong(&mut self, boot_ms: Option<u64>) -> Result<(), Errno> {
        if self.is_over() {
            return Err(Errno::TIMEDOUT);
        }
        let Some(boot_ms) = boot_ms else {
            self.ends_boot_ms = None;
            self.wake_at(0)?;
            return self.kernel.at(0);
        };
        if self.ends_boot_ms.is_some_and(|ends| boot_ms <= ends) {
            return Ok(());
        }
        self.set(boot_ms)
    }

    /// For good, once it was.
    pub(super) fn is_over(&mut self) -> bool {
        self.over |= self.ends_boot_ms.is_some_and(|ends| clock::boot_ms() >= ends);
        self.over
    }

    /// The box is gone: the shim may take its time.
    pub(super) fn lift(&self) {
        // It can only fail for a timer that is none.
        let _ = self.kernel.at(0);
    }

    fn set(&mut self, boot_ms: u64) -> Result<(), Errno> {
        // The kernel's first: a box that has an end for the shim only would outlive a stopped one.
        self.kernel.at(boot_ms.saturating_add(KERNEL_AFTER_MS).max(1))?;
        self.wake_at(boot_ms.max(1))?;
        self.ends_boot_ms = Some(boot_ms);
        Ok(())
    }

    /// 0 is never.
    fn wake_at(&self, boot_ms: u64) -> Result<(), Errno> {
        let at = Itimerspec { it_interval: Timespec::default(), it_value: timespec(boot_ms) };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::ABSTIME, &at).map(drop)
    }
}

fn timespec(ms: u64) -> Timespec {
    let (seconds, millis) = (ms / 1_000, ms % 1_000);
    Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis * 1_000_000).unwrap_or(0),
    }
}
