//! Who goes first when memory runs out: strangers' programs, then services, then our own processes. Process 1 above
//! all is not to be picked, since how the box ended would be lost with it.

use crate::spec::Trust;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;

pub(super) struct Shortage {
    /// Our own `oom_score_adj`, opened while this process may still open it.
    file: OwnedFd,
    own: Vec<u8>,
    programs: &'static [u8],
}

impl Shortage {
    /// `None` where the machine has no such thing: its own order holds.
    pub(super) fn new(trust: Trust) -> Option<Shortage> {
        let file = rustix::fs::open("/proc/self/oom_score_adj", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // A number of at most five characters.
        let mut own = vec![0; 16];
        let length = rustix::io::read(&file, &mut own).ok()?;
        own.truncate(length);
        let programs: &[u8] = match trust {
            Trust::Host | Trust::Service => b"100",
            Trust::Untrusted => b"700",
        };
        Some(Shortage { file, own, programs })
    }

    /// Starts a program that goes before this process: it is born with the adjustment, which then is taken back. Both
    /// are an order of preference, not a promise, so a refusal changes nothing else.
    pub(super) fn start<T>(&self, start: impl FnOnce() -> T) -> T {
        let _ = rustix::io::write(&self.file, self.programs);
        let started = start();
        let _ = rustix::io::write(&self.file, &self.own);
        started
    }
}
