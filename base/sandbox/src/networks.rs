//! Network namespaces for strangers' boxes, one box after the other. Making one and taking it down costs the kernel more than all
//! the rest of a small box.
//!
//! Promises that no two boxes are ever in one at the same time, and that what a box finds is as if nobody had been there:
//! everything in it died with its last box, and one in which a connection lingers is given up. A box owns nothing of it: whoever
//! is root inside cannot change its addresses or settings.

use crate::build::network;
use crate::sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{WaitOptions, getegid, geteuid, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, OwnedFd};

/// Kept for later: as many boxes as one worker has at most in a lesson. Each takes some 200 KB of the kernel.
const FREE_MAX: usize = 32;
const HERE: &str = "/proc/self/ns/net";

pub(crate) struct Networks {
    home: OwnedFd,
    free: Vec<OwnedFd>,
}

impl Networks {
    /// `None` where this process may not make any that outlive a box: each box has to make its own.
    pub(crate) fn open() -> Option<Networks> {
        // Tried by a child first: whoever becomes somebody else halfway could do nothing any more.
        let tried = sys::fork(|| i32::from(Networks::begin().is_err())).ok()?;
        let (_, status) = rustix::io::retry_on_intr(|| waitpid(Some(tried), WaitOptions::empty())).ok()??;
        if status.exit_status() != Some(0) {
            return None;
        }
        Networks::begin().ok()
    }

    fn begin() -> Result<Networks, Errno> {
        if !geteuid().is_root() {
            become_own_master()?;
            // Where it comes from belongs to somebody else: there is no way back there.
            sys::unshare(libc::CLONE_NEWNET)?;
        }
        let mut networks = Networks { home: here()?, free: Vec::new() };
        let first = networks.enter()?;
        networks.leave()?;
        networks.give_back(first);
        Ok(networks)
    }

    /// Moves this process to one that nobody is in; its children are born there.
    pub(crate) fn enter(&mut self) -> Result<OwnedFd, Errno> {
        if let Some(network) = self.free.pop() {
            go(&network)?;
            return Ok(network);
        }
        sys::unshare(libc::CLONE_NEWNET)?;
        network::loopback()?;
        here()
    }

    /// Moves this process back to where it came from.
    pub(crate) fn leave(&self) -> Result<(), Errno> {
        go(&self.home)
    }

    /// Its box is dead. It is for the next one if nothing is left of the last.
    pub(crate) fn give_back(&mut self, network: OwnedFd) {
        if self.free.len() < FREE_MAX && go(&network).is_ok() {
            let is_clean = Counters::open().is_ok_and(|counters| counters.are_quiet());
            if self.leave().is_ok() && is_clean {
                self.free.push(network);
            }
        }
    }
}

fn go(network: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
}

fn here() -> Result<OwnedFd, Errno> {
    rustix::fs::open(HERE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Root of a user namespace of its own, in which it is who it was.
fn become_own_master() -> Result<(), Errno> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER)?;
    let write = |file: &str, content: String| {
        let fd = rustix::fs::open(format!("/proc/self/{file}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(fd, content.as_bytes()).map(drop)
    };
    // The kernel's condition for a group map written without privilege.
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

/// What tells of all that programs can have of one network.
pub(crate) struct Counters {
    /// Of the internet's families, those too whose connections only linger.
    counted: Vec<OwnedFd>,
    /// Tables: of local sockets, those too that nobody has and the kernel has not found yet, and of flow labels, which last
    /// for minutes.
    listed: Vec<OwnedFd>,
}

impl Counters {
    /// Of the network this process is in now, wherever it goes then.
    pub(crate) fn open() -> Result<Counters, Errno> {
        let open = |name: &str| {
            rustix::fs::open(format!("/proc/self/net/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        let of_six = |name: &str| match open(name) {
            // A machine without IPv6.
            Err(Errno::NOENT) => Ok(None),
            opened => opened.map(Some),
        };
        let (counted, listed) = (of_six("sockstat6")?, of_six("ip6_flowlabel")?);
        Ok(Counters {
            counted: [open("sockstat")?].into_iter().chain(counted).collect(),
            listed: [open("unix")?].into_iter().chain(listed).collect(),
        })
    }

    /// Whether there is nothing. What cannot be read is not quiet.
    pub(crate) fn are_quiet(&self) -> bool {
        let has = |file: &OwnedFd, is_quiet: fn(&str) -> bool| {
            // A few short lines, where it is.
            let mut text = [0; 1024];
            let length = rustix::io::pread(file, &mut text, 0).unwrap_or(0);
            str::from_utf8(&text[..length]).is_ok_and(|text| !text.is_empty() && is_quiet(text))
        };
        // The first line says what the others would be.
        self.listed.iter().all(|listed| has(listed, |text| text.lines().count() == 1))
            && self.counted.iter().all(|counted| has(counted, is_quiet))
    }
}

/// Of all that is counted there, these are this network's own; memory and orphans are the machine's.
fn is_quiet(counted: &str) -> bool {
    counted.lines().all(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        words.windows(2).all(|pair| match pair {
            ["inuse" | "tw", count] => *count == "0",
            _other => true,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lingers_is_seen() {
        let quiet = "sockets: used 0\nTCP: inuse 0 orphan 7 tw 0 alloc 9 mem 1\nUDP: inuse 0 mem 3\nRAW: inuse 0\n";
        assert!(is_quiet(quiet));
        assert!(!is_quiet(&quiet.replace("tw 0", "tw 1")));
        assert!(!is_quiet(&quiet.replace("UDP: inuse 0", "UDP: inuse 2")));
        assert!(is_quiet("TCP6: inuse 0\nUDP6: inuse 0\n"));
    }
}
