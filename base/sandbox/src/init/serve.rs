//! The loop of process 1: orders of the owner, ends of children, requests at the door.

use super::execution::Execution;
use super::streams::Streams;
use super::{door, launch};
use crate::build::network::DoorSockets;
use crate::channel;
use crate::clock;
use crate::failure::{Failure, Step};
use crate::protocol::{DoorAnswer, DoorRequest, Order, Outcome, Report, RunLimits, Verdict};
use crate::spec::{BoxSpec, Command};
use crate::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use std::os::fd::{AsFd, OwnedFd};

/// Askers at the door at the same time: the agent's few connections, and those of an agent that just died.
const CHANNELS_MAX: usize = 32;
/// Programs run beside the box's own at the same time: health checks and a person or two.
const EXECUTIONS_MAX: usize = 16;

struct Init<'a> {
    spec: &'a BoxSpec,
    owner: OwnedFd,
    sockets: DoorSockets,
    channels: Vec<OwnedFd>,
    executions: Vec<Execution>,
    program: Option<Program>,
}

/// The program the box is for.
struct Program {
    pid: Pid,
    wall_deadline_ms: u64,
    verdict: Verdict,
}

/// What is readable after a wait.
struct Ready {
    owner: bool,
    children: bool,
    channels: Vec<bool>,
    outputs: Vec<bool>,
}

/// Serves until the program ends or the owner is gone; returns process 1's exit code.
pub(super) fn run(spec: &BoxSpec, owner: OwnedFd, children: &OwnedFd, sockets: DoorSockets) -> i32 {
    let mut init = Init { spec, owner, sockets, channels: Vec::new(), executions: Vec::new(), program: None };
    loop {
        let ready = match init.wait(children) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return 1,
        };
        init.check_deadlines();
        init.serve_executions(&ready.outputs);
        if ready.children {
            sys::drain_signals(children);
            if let Some(code) = init.reap() {
                return code;
            }
        }
        // Later places first, so that removing one leaves the others where they were.
        for (index, _) in ready.channels.iter().enumerate().rev().filter(|(_, ready)| **ready) {
            init.serve_channel(index);
        }
        if ready.owner && !init.serve_owner() {
            return 0;
        }
    }
}

impl Init<'_> {
    fn wait(&self, children: &OwnedFd) -> rustix::io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.owner, PollFlags::IN), PollFd::new(children, PollFlags::IN)];
        fds.extend(self.channels.iter().map(|channel| PollFd::new(channel, PollFlags::IN)));
        // A closed output would be ready for ever; the owner's channel stands in, asked for nothing.
        fds.extend(self.executions.iter().map(|execution| match execution.output() {
            Some(output) => PollFd::from_borrowed_fd(output, PollFlags::IN),
            None => PollFd::from_borrowed_fd(children.as_fd(), PollFlags::empty()),
        }));
        let deadline = self.executions.iter().map(|execution| execution.deadline_ms);
        let deadline = deadline.chain(self.program.as_ref().map(|program| program.wall_deadline_ms)).min();
        let timeout = deadline.filter(|deadline| *deadline != u64::MAX).map(clock::until);
        poll(&mut fds, timeout.as_ref())?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (channels, outputs) = ready[2..].split_at(self.channels.len());
        Ok(Ready { owner: ready[0], children: ready[1], channels: channels.to_vec(), outputs: outputs.to_vec() })
    }

    fn check_deadlines(&mut self) {
        if let Some(program) = &mut self.program
            && clock::monotonic_ms() >= program.wall_deadline_ms
        {
            program.wall_deadline_ms = u64::MAX;
            program.verdict = Verdict::Wall;
            // Dead already when it fails.
            let _ = rustix::process::kill_process(program.pid, Signal::KILL);
        }
        self.executions.iter_mut().for_each(Execution::check_deadline);
    }

    fn serve_executions(&mut self, ready: &[bool]) {
        for (execution, ready) in self.executions.iter_mut().zip(ready) {
            if *ready {
                execution.read();
            }
        }
    }

    /// Takes the ends of children. `Some` when the program was among them.
    fn reap(&mut self) -> Option<i32> {
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Err(rustix::io::Errno::INTR) => continue,
                Ok(None) | Err(_) => return None,
            };
            if let Some(program) = self.program.take_if(|program| program.pid == pid) {
                let outcome = outcome(&program, status);
                // If the owner is gone there is nobody to tell.
                let _ = channel::send(&self.owner, &Report::Ended(outcome), &[]);
                return Some(0);
            }
            if let Some(index) = self.executions.iter().position(|execution| execution.pid() == pid) {
                let channel = self.executions.swap_remove(index).finish(status);
                self.channels.push(channel);
            }
        }
    }

    /// One order; false when the owner is gone.
    fn serve_owner(&mut self) -> bool {
        let Ok(Some((order, fds))) = channel::receive::<Order>(&self.owner) else { return false };
        match order {
            Order::Launch { command, limits } => {
                let sent = match self.launch(&command, &limits, fds) {
                    Ok(outside) => {
                        let outside: Vec<_> = outside.iter().map(AsFd::as_fd).collect();
                        channel::send(&self.owner, &Report::Launched, &outside)
                    }
                    Err(failure) => channel::send(&self.owner, &Report::Failed(failure), &[]),
                };
                sent.is_ok()
            }
            Order::Serve => {
                if self.channels.len() + self.executions.len() >= CHANNELS_MAX && !self.channels.is_empty() {
                    // The longest unused asker is most likely one that died.
                    self.channels.remove(0);
                }
                self.channels.extend(fds);
                true
            }
            Order::Signal(number) => {
                if let (Some(program), Some(signal)) = (&self.program, Signal::from_named_raw(number)) {
                    // A program that just ended is reported anyway.
                    let _ = rustix::process::kill_process(program.pid, signal);
                }
                true
            }
        }
    }

    /// Returns the outer ends of the streams it made.
    fn launch(&mut self, command: &Command, limits: &RunLimits, fds: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, Failure> {
        if self.program.is_some() {
            return Err(Failure::plain(Step::Invalid, "a second program for one box"));
        }
        let streams = if fds.is_empty() { Streams::make(command)? } else { Streams::given(fds)? };
        let pid = launch::launch(self.spec, command, streams.inside())?;
        let wall = limits.wall_ms.map_or(u64::MAX, |wall| clock::monotonic_ms().saturating_add(wall));
        self.program = Some(Program { pid, wall_deadline_ms: wall, verdict: Verdict::Exited });
        Ok(streams.outside)
    }

    fn serve_channel(&mut self, index: usize) {
        let Ok(Some((request, _))) = channel::receive::<DoorRequest>(&self.channels[index]) else {
            self.channels.remove(index);
            return;
        };
        let channel = self.channels[index].as_fd();
        let sent = match request {
            DoorRequest::Socket { kind } => answer_one(channel, door::socket(kind)),
            DoorRequest::Listen { address, kind } => answer_one(channel, door::listener(address, kind)),
            DoorRequest::CatchAll => {
                let catch_all: Vec<_> = self.sockets.catch_all.iter().map(AsFd::as_fd).collect();
                door::answer(channel, Ok(&catch_all))
            }
            DoorRequest::Dns => door::answer(channel, Ok(&door::dns(&self.sockets))),
            DoorRequest::Exec { command, timeout_ms } => {
                self.execute(index, &command, timeout_ms);
                return;
            }
        };
        if sent.is_err() {
            self.channels.remove(index);
        }
    }

    fn execute(&mut self, index: usize, command: &Command, timeout_ms: u64) {
        let channel = self.channels.remove(index);
        let started = if self.executions.len() < EXECUTIONS_MAX {
            Execution::start(self.spec, command, timeout_ms, channel)
        } else {
            Err((
                Failure::plain(Step::Invalid, format!("more than {EXECUTIONS_MAX} programs beside the box's own")),
                channel,
            ))
        };
        match started {
            Ok(execution) => self.executions.push(execution),
            Err((failure, channel)) => {
                if channel::send(&channel, &DoorAnswer::NotExecuted(failure), &[]).is_ok() {
                    self.channels.push(channel);
                }
            }
        }
    }
}

fn answer_one(channel: std::os::fd::BorrowedFd<'_>, made: Result<OwnedFd, rustix::io::Errno>) -> std::io::Result<()> {
    match made {
        Ok(socket) => door::answer(channel, Ok(&[socket.as_fd()])),
        Err(errno) => door::answer(channel, Err(errno)),
    }
}

fn outcome(program: &Program, status: WaitStatus) -> Outcome {
    let used = sys::used_by_children();
    let signal = status.terminating_signal();
    let verdict = match (program.verdict, signal) {
        (Verdict::Exited, Some(_)) => Verdict::Signalled,
        (verdict, _) => verdict,
    };
    Outcome { verdict, code: status.exit_status(), signal, cpu_usec: used.cpu_usec, memory_peak_bytes: used.peak_bytes }
}
