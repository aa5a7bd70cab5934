//! The loop of process 1: orders of the owner, ends of children, requests at the door.

use super::again::Again;
use super::execution::Execution;
use super::pump::Pumps;
use super::shortage::Shortage;
use super::streams::Streams;
use super::{Built, door, files, launch, watch};
use crate::build::network::DoorSockets;
use crate::cgroup::killed_for_memory;
use crate::channel;
use crate::clock;
use crate::failure::{Failure, Step};
use crate::protocol::{Collect, DoorAnswer, DoorRequest, Order, Outcome, Report, RunLimits, Verdict};
use crate::spec::{BoxSpec, Command};
use crate::sys::{self, Dead, Used};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Askers at the door at the same time: the agent's few connections, and those of an agent that just died.
const CHANNELS_MAX: usize = 32;
/// Programs run beside the box's own at the same time: health checks and a person or two.
const EXECUTIONS_MAX: usize = 16;

struct Init<'a> {
    spec: &'a BoxSpec,
    processes_max: Option<u64>,
    shortage: Option<Shortage>,
    owner: OwnedFd,
    sockets: DoorSockets,
    memory_events: Option<OwnedFd>,
    channels: Vec<OwnedFd>,
    executions: Vec<Execution>,
    program: Option<Program>,
    /// Nobody else is left in the box since the last of them ended.
    alone: bool,
    /// What all that ended since the program began used.
    used: Used,
    pumps: Pumps,
    again: Option<Again>,
}

/// The program the box is for.
struct Program {
    pid: Pid,
    limits: RunLimits,
    collect: Option<Collect>,
    wall_deadline_ms: u64,
    /// When to look at what it uses.
    look_ms: u64,
    seen: watch::Seen,
    verdict: Verdict,
    /// Set once it is dead; its output may still be on its way.
    status: Option<ExitStatus>,
    /// Whether the box may be used again.
    again: bool,
}

/// What is readable after a wait.
struct Ready {
    owner: bool,
    children: bool,
    channels: Vec<bool>,
    outputs: Vec<bool>,
    pumps: Vec<bool>,
}

/// Serves until the program ends or the owner is gone; returns process 1's exit code.
pub(super) fn run(spec: &BoxSpec, owner: OwnedFd, children: &OwnedFd, built: Built) -> i32 {
    let mut init = Init {
        spec,
        processes_max: built.processes_max,
        shortage: built.shortage,
        owner,
        sockets: built.sockets,
        memory_events: built.memory_events,
        channels: Vec::new(),
        executions: Vec::new(),
        program: None,
        alone: false,
        used: Used::default(),
        pumps: Pumps::default(),
        again: built.again,
    };
    loop {
        let ready = match init.wait(children) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return 1,
        };
        init.check_deadlines();
        init.serve_executions(&ready.outputs);
        init.pumps.serve(&ready.pumps);
        if init.pumps.over {
            init.end_program(Verdict::Output);
        }
        if ready.children {
            sys::drain_signals(children);
            init.reap();
        }
        if init.finished() {
            return 0;
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
        // A closed output would be ready for ever; another descriptor stands in, asked for nothing.
        fds.extend(self.executions.iter().map(|execution| match execution.output() {
            Some(output) => PollFd::from_borrowed_fd(output, PollFlags::IN),
            None => PollFd::from_borrowed_fd(children.as_fd(), PollFlags::empty()),
        }));
        fds.extend(self.pumps.poll_fds());
        let deadline = self.executions.iter().map(|execution| execution.deadline_ms);
        let program = self.program.iter().flat_map(|program| [program.wall_deadline_ms, program.look_ms]);
        let timeout = deadline.chain(program).min().filter(|deadline| *deadline != u64::MAX).map(clock::until);
        poll(&mut fds, timeout.as_ref())?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (channels, rest) = ready[2..].split_at(self.channels.len());
        let (outputs, pumps) = rest.split_at(rest.len() - self.pumps.len());
        Ok(Ready {
            owner: ready[0],
            children: ready[1],
            channels: channels.to_vec(),
            outputs: outputs.to_vec(),
            pumps: pumps.to_vec(),
        })
    }

    fn check_deadlines(&mut self) {
        self.executions.iter_mut().for_each(Execution::check_deadline);
        let now = clock::monotonic_ms();
        let Some(program) = &mut self.program else { return };
        if now >= program.wall_deadline_ms {
            // Nothing is waited for any more: neither its end nor the reader of its output.
            self.pumps = Pumps::default();
            self.end_program(Verdict::Wall);
        } else if now >= program.look_ms {
            let is_quiet = program.seen.is_quiet();
            program.look_ms = now + program.seen.pause_ms();
            if is_quiet {
                return;
            }
            // Where the kernel took one of many processes, the others would go on without it.
            let short =
                program.limits.memory_bytes.is_some() && self.memory_events.as_ref().is_some_and(killed_for_memory);
            let over = if short {
                Some(Verdict::Memory)
            } else {
                watch::over(&program.limits, self.used.cpu_usec, &mut program.seen)
            };
            if let Some(verdict) = over {
                self.end_program(verdict);
            }
        }
    }

    /// Kills everything in the box but us. The first reason counts.
    fn end_program(&mut self, verdict: Verdict) {
        if let Some(program) = &mut self.program
            && program.verdict == Verdict::Exited
        {
            program.verdict = verdict;
            (program.wall_deadline_ms, program.look_ms) = (u64::MAX, u64::MAX);
            kill_all();
            if verdict == Verdict::Output {
                // Only now: a program that is to be killed shall not learn first that nobody reads.
                self.pumps = Pumps::default();
            }
        }
    }

    fn serve_executions(&mut self, ready: &[bool]) {
        for (execution, ready) in self.executions.iter_mut().zip(ready) {
            if *ready {
                execution.read();
            }
        }
    }

    /// Takes the ends of children.
    fn reap(&mut self) {
        loop {
            let Dead { pid, status, used } = match sys::take_any_end(false) {
                Ok(Some(dead)) => dead,
                Err(rustix::io::Errno::INTR) => continue,
                Ok(None) => return,
                Err(_none) => {
                    self.alone = true;
                    return;
                }
            };
            self.used.add(used);
            if let Some(program) = self.program.as_mut().filter(|program| program.pid == pid) {
                program.status = Some(status);
                program.look_ms = u64::MAX;
            } else if let Some(index) = self.executions.iter().position(|execution| execution.pid() == pid) {
                let channel = self.executions.swap_remove(index).finish(status);
                self.channels.push(channel);
            }
        }
    }

    /// Whether the program is dead, its output out, and the box with it at its end; then the owner has been told.
    fn finished(&mut self) -> bool {
        let Some((status, verdict, again)) =
            self.program.as_ref().and_then(|program| Some((program.status?, program.verdict, program.again)))
        else {
            return false;
        };
        if self.pumps.len() > 0 {
            // What it left running would hold its output open.
            kill_all();
            return false;
        }
        let collect = self.program.as_mut().and_then(|program| program.collect.take());
        if again || collect.is_some() {
            self.end_all();
        }
        if let Some(collect) = collect {
            files::collect(&collect, |files, fds| {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                channel::send(&self.owner, &Report::Collected(files), &fds).is_ok()
            });
        }
        let outcome = self.outcome(verdict, status);
        let again = again && self.is_as_new(&outcome);
        // If the owner is gone there is nobody to tell.
        let _ = channel::send(&self.owner, &Report::Ended(Outcome { again, ..outcome }), &[]);
        !again
    }

    /// Has this process alone in the box: nobody can change anything then.
    fn end_all(&mut self) {
        if !self.alone {
            kill_all();
        }
        while !self.alone {
            match sys::take_any_end(true) {
                Ok(dead) => dead.iter().for_each(|dead| self.used.add(dead.used)),
                Err(rustix::io::Errno::INTR) => {}
                Err(_none) => self.alone = true,
            }
        }
    }

    /// Whether another program finds this box as if there had been none, and then it may come.
    fn is_as_new(&mut self, outcome: &Outcome) -> bool {
        let by_itself = matches!(outcome.verdict, Verdict::Exited | Verdict::Signalled);
        let unasked = self.channels.is_empty() && self.executions.is_empty();
        let short = self.memory_events.as_ref().is_some_and(killed_for_memory);
        let is = by_itself && unasked && !short && self.again.as_mut().is_some_and(Again::make);
        if is {
            (self.program, self.used, self.pumps) = (None, Used::default(), Pumps::default());
        }
        is
    }

    fn outcome(&self, verdict: Verdict, status: ExitStatus) -> Outcome {
        let used = self.used;
        let signal = status.signal();
        let for_memory = || self.memory_events.as_ref().is_some_and(killed_for_memory);
        let verdict = match (verdict, signal) {
            (Verdict::Exited, Some(_)) if for_memory() => Verdict::Memory,
            (Verdict::Exited, Some(_)) => Verdict::Signalled,
            (verdict, _) => verdict,
        };
        let (cpu_usec, memory_peak_bytes) = (used.cpu_usec, used.peak_bytes);
        Outcome { verdict, code: status.code(), signal, cpu_usec, memory_peak_bytes, again: false }
    }

    /// One order; false when the owner is gone.
    fn serve_owner(&mut self) -> bool {
        let Ok(Some((order, fds))) = channel::receive::<Order>(&self.owner) else { return false };
        match order {
            Order::Launch { command, limits, collect, again } => {
                let sent = match self.launch(&command, limits, collect, again, fds) {
                    // Whoever gave the streams waits for the end; waking it now would only cost time.
                    Ok(outside) if outside.is_empty() => Ok(()),
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
            Order::Place(placed) => match files::place(&placed, fds) {
                Ok(()) => true,
                Err(failure) => {
                    // Whoever is told lets go of the box. Without its files the program must not be started.
                    let _ = channel::send(&self.owner, &Report::Failed(failure), &[]);
                    false
                }
            },
            Order::Signal(number) => {
                self.signal(number, rustix::process::kill_process);
                true
            }
            Order::SignalGroup(number) => {
                self.signal(number, rustix::process::kill_process_group);
                true
            }
        }
    }

    fn signal(&self, number: i32, kill: impl FnOnce(Pid, Signal) -> rustix::io::Result<()>) {
        if let Some(program) = self.program.as_ref().filter(|program| program.status.is_none())
            && let Some(signal) = Signal::from_named_raw(number)
        {
            // A program that just ended is reported anyway.
            let _ = kill(program.pid, signal);
        }
    }

    /// Returns the outer ends of the streams it made.
    fn launch(
        &mut self,
        command: &Command,
        limits: RunLimits,
        collect: Option<Collect>,
        again: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<Vec<OwnedFd>, Failure> {
        if self.program.is_some() {
            return Err(Failure::plain(Step::Invalid, "a second program for one box"));
        }
        let mut streams = if fds.is_empty() { Streams::make(command)? } else { Streams::given(fds)? };
        if let Some(limit) = limits.output_bytes {
            (streams, self.pumps) = Pumps::between(streams, limit)?;
        }
        self.alone = false;
        let pid = launch::launch(self.confines(), command, streams.inside())?;
        let now = clock::monotonic_ms();
        let looked_at = limits.cpu_ms.is_some() || limits.memory_bytes.is_some();
        let seen = watch::Seen::default();
        self.program = Some(Program {
            pid,
            collect,
            wall_deadline_ms: limits.wall_ms.map_or(u64::MAX, |wall| now.saturating_add(wall)),
            look_ms: if looked_at { now + seen.pause_ms() } else { u64::MAX },
            seen,
            verdict: Verdict::Exited,
            status: None,
            again,
            limits,
        });
        Ok(streams.outside)
    }

    fn confines(&self) -> launch::Confines<'_> {
        launch::Confines { spec: self.spec, processes_max: self.processes_max, shortage: self.shortage.as_ref() }
    }

    fn serve_channel(&mut self, index: usize) {
        let Ok(Some((request, _))) = channel::receive::<DoorRequest>(&self.channels[index]) else {
            self.channels.remove(index);
            return;
        };
        let channel = self.channels[index].as_fd();
        let sent = match request {
            DoorRequest::Socket { kind, count } => door::answer_sockets(channel, kind, count),
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
        self.alone = false;
        let started = if self.executions.len() < EXECUTIONS_MAX {
            Execution::start(self.confines(), command, timeout_ms, channel)
        } else {
            let what = format!("more than {EXECUTIONS_MAX} programs beside the box's own");
            Err((Failure::plain(Step::Invalid, what), channel))
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

/// Everything in the process namespace but process 1, which is us. Nobody there when it fails.
fn kill_all() {
    let _ = sys::kill_everybody();
}

fn answer_one(channel: BorrowedFd<'_>, made: Result<OwnedFd, rustix::io::Errno>) -> std::io::Result<()> {
    match made {
        Ok(socket) => door::answer(channel, Ok(&[socket.as_fd()])),
        Err(errno) => door::answer(channel, Err(errno)),
    }
}
