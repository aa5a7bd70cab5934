//! The shim's loop: output into the log, requests of agents, the end of the box.

use super::log::Stream;
use super::{Shim, usage};
use crate::channel;
use crate::clock;
use crate::names;
use crate::protocol::{ExitRecord, Order, Outcome, Report, ShimAnswer, ShimRequest};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};
use rustix::process::{Signal, WaitOptions, pidfd_send_signal, waitpid};
use rustix::time::Timespec;
use std::os::fd::{AsFd, OwnedFd};

/// Agents connected at the same time: one, its watch, and those of an agent that just died.
const CONNECTIONS_MAX: usize = 32;
/// Listening sockets kept for an agent: as many ports as one service may sensibly publish, and the shared ones.
const HELD_MAX: usize = 64;
/// A pipe holds 64 KiB: one read empties it.
const READ_BYTES: usize = 64 << 10;

/// How often a box's memory is added up where no control group bounds it: what it overshoots is what it can take in
/// that time; adding up takes a few microseconds a process.
const MEMORY_PERIOD: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

struct Connection {
    socket: OwnedFd,
    /// Waits for the end of the box.
    watches: bool,
}

/// Serves until the box has ended; returns the shim's exit code.
pub(super) fn run(mut shim: Shim) -> i32 {
    let mut connections: Vec<Connection> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut outcome = None;
    let mut init_open = true;
    let mut ended_by_time = false;
    loop {
        let idle = PollFlags::empty();
        let output = |fd: &Option<OwnedFd>| if fd.is_some() { PollFlags::IN } else { idle };
        let mut fds = vec![
            PollFd::new(&shim.begun.pidfd, PollFlags::IN),
            PollFd::new(&shim.listener, PollFlags::IN),
            PollFd::new(
                if init_open { &shim.init } else { &shim.listener },
                if init_open { PollFlags::IN } else { idle },
            ),
            PollFd::new(shim.stdout.as_ref().unwrap_or(&shim.listener), output(&shim.stdout)),
            PollFd::new(shim.stderr.as_ref().unwrap_or(&shim.listener), output(&shim.stderr)),
            PollFd::from_borrowed_fd(shim.deadline.alarm(), if ended_by_time { idle } else { PollFlags::IN }),
        ];
        fds.extend(connections.iter().map(|connection| PollFd::new(&connection.socket, PollFlags::IN)));
        match poll(&mut fds, shim.watches_memory().then_some(&MEMORY_PERIOD)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        shim.watch_memory();
        if !ended_by_time && shim.deadline.is_over() {
            ended_by_time = true;
            // Dead already when it fails.
            let _ = pidfd_send_signal(&shim.begun.pidfd, Signal::KILL);
        }
        if ready[3] {
            shim.read(Stream::Stdout, &mut buffer);
        }
        if ready[4] {
            shim.read(Stream::Stderr, &mut buffer);
        }
        if ready[2] {
            match channel::receive::<Report>(&shim.init) {
                Ok(Some((Report::Ended(ended), _))) => outcome = Some(ended),
                Ok(Some((
                    Report::Built { .. }
                    | Report::Started { .. }
                    | Report::Launched
                    | Report::Collected(_)
                    | Report::Failed(_),
                    _,
                ))) => {}
                Ok(None) | Err(_) => init_open = false,
            }
        }
        for (index, _) in ready[6..].iter().enumerate().rev().filter(|(_, ready)| **ready) {
            if !shim.serve(&mut connections[index]) {
                connections.swap_remove(index);
            }
        }
        if ready[1]
            && let Ok(socket) = accept_with(&shim.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            if connections.len() >= CONNECTIONS_MAX {
                connections.remove(0);
            }
            connections.push(Connection { socket, watches: false });
        }
        if ready[0] {
            return shim.finish(outcome, &mut buffer, &connections);
        }
    }
}

impl Shim {
    fn watches_memory(&self) -> bool {
        self.memory_limit_bytes.is_some() && !self.begun.cgroup.bounds_memory()
    }

    /// Kills the box when it holds more than it may.
    fn watch_memory(&mut self) {
        if !self.watches_memory() || self.over_memory || clock::monotonic_ms() < self.look_ms {
            return;
        }
        self.look_ms = clock::monotonic_ms() + u64::try_from(MEMORY_PERIOD.tv_nsec / 1_000_000).unwrap_or(0);
        let init = self.begun.init.as_raw_nonzero().get().unsigned_abs();
        if self.memory_limit_bytes.is_some_and(|limit| usage::holds_more_than(init, limit)) {
            self.over_memory = true;
            // Dead already when it fails.
            let _ = pidfd_send_signal(&self.begun.pidfd, Signal::KILL);
        }
    }

    /// One read into the log.
    fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> bool {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(open) = pipe else { return false };
        match rustix::io::read(open, &mut *buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => {
                self.log.take(stream, &buffer[..count]);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => *pipe = None,
        }
        false
    }

    /// One request; false when the connection is done with.
    fn serve(&mut self, connection: &mut Connection) -> bool {
        let Ok(Some((request, fds))) = channel::receive::<ShimRequest>(&connection.socket) else { return false };
        let pid = self.begun.init.as_raw_nonzero().get().unsigned_abs();
        let done = |result: Result<(), Errno>| match result {
            Ok(()) => ShimAnswer::Done,
            Err(errno) => ShimAnswer::Failed { errno: errno.raw_os_error() },
        };
        let answer = match request {
            ShimRequest::Hello => ShimAnswer::Hello { pid, network: self.network.clone() },
            ShimRequest::Channel => return self.pass_channel(connection),
            ShimRequest::Signal(number) => done(
                channel::send(&self.init, &Order::Signal(number), &[])
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            ),
            ShimRequest::Kill => done(pidfd_send_signal(&self.begun.pidfd, Signal::KILL)),
            ShimRequest::Prolong { boot_ms } => done(self.deadline.prolong(boot_ms)),
            ShimRequest::Usage => ShimAnswer::Usage(usage::usage(pid, &self.begun.cgroup)),
            ShimRequest::Listening => ShimAnswer::Listening(usage::listening(pid, self.network.catch_all_port)),
            ShimRequest::Hold { names } => {
                self.held = names.into_iter().zip(fds).take(HELD_MAX).collect();
                ShimAnswer::Done
            }
            ShimRequest::Held => {
                let names = self.held.iter().map(|(name, _)| name.clone()).collect();
                let fds: Vec<_> = self.held.iter().map(|(_, fd)| fd.as_fd()).collect();
                return channel::send(&connection.socket, &ShimAnswer::Held { names }, &fds).is_ok();
            }
            ShimRequest::Watch => {
                connection.watches = true;
                return true;
            }
        };
        channel::send(&connection.socket, &answer, &[]).is_ok()
    }

    fn pass_channel(&self, connection: &Connection) -> bool {
        let Ok((theirs, inits)) = channel::pair() else { return false };
        channel::send(&self.init, &Order::Serve, &[inits.as_fd()]).is_ok()
            && channel::send(&connection.socket, &ShimAnswer::Channel, &[theirs.as_fd()]).is_ok()
    }

    /// The box is dead: empties the pipes, writes down how it ended, tells who waits.
    fn finish(mut self, outcome: Option<Outcome>, buffer: &mut [u8], connections: &[Connection]) -> i32 {
        self.deadline.lift();
        // Reaps it; its state is known from its report.
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.begun.init), WaitOptions::empty()));
        let outcome = outcome.or_else(|| self.last_report());
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.read(stream, buffer) {}
        }
        self.log.finish();
        let record = self.exit_record(outcome);
        self.begun.cgroup.remove();
        let written = self.folder.write_exit(&record);
        // Whoever is told below may remove the folder, which is refused while somebody listens in it.
        let _ = shutdown(&self.listener, Shutdown::Both);
        for connection in connections.iter().filter(|connection| connection.watches) {
            // Whoever left is told by the record.
            let _ = channel::send(&connection.socket, &ShimAnswer::Exited(record.clone()), &[]);
        }
        i32::from(written.is_err())
    }

    /// A report that arrived together with the end.
    fn last_report(&self) -> Option<Outcome> {
        rustix::io::ioctl_fionbio(&self.init, true).ok()?;
        while let Ok(Some((report, _))) = channel::receive::<Report>(&self.init) {
            match report {
                Report::Ended(outcome) => return Some(outcome),
                Report::Built { .. }
                | Report::Started { .. }
                | Report::Launched
                | Report::Collected(_)
                | Report::Failed(_) => {}
            }
        }
        None
    }

    fn exit_record(&mut self, outcome: Option<Outcome>) -> ExitRecord {
        const KILL: i32 = 9;
        // Without a report init itself was killed: by us, or by the kernel for memory.
        let (code, signal) = outcome.map_or((None, Some(KILL)), |outcome| (outcome.code, outcome.signal));
        let oom = self.over_memory || (signal == Some(KILL) && self.begun.cgroup.out_of_memory());
        // A program that ended just then did so by itself.
        let overdue = !oom && signal == Some(KILL) && self.deadline.is_over();
        let reason = match (oom, code, signal) {
            _ if overdue => "killed: its time was over and nobody had prolonged it".to_owned(),
            (true, _, _) => match self.memory_limit_bytes {
                Some(limit) => format!("killed: over its {} memory limit", size(limit)),
                None => "killed: the machine was out of memory".to_owned(),
            },
            (false, Some(code), _) => format!("exited with {code}"),
            (false, None, Some(signal)) => format!("killed by {}", names::signal(signal)),
            (false, None, None) => "ended".to_owned(),
        };
        ExitRecord { code, signal, oom, reason, at_ms: clock::unix_ms(), overdue }
    }
}

/// `64 MiB`; bytes when it is no round number.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes} bytes"), |(name, unit)| format!("{} {name}", bytes / unit))
}
