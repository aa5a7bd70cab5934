//! One run, between the thread that has its box and the thread that speaks with its watcher.

use crate::incoming::{Incoming, InputError};
use crate::order::Order;
use crate::outgoing::Outgoing;
use crate::talk::Watching;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, watch};
use wire::run::{Channel, Ended, Phase, TerminalSize};

/// What is kept for a watcher that has not acknowledged it: enough for 200 MB a second and a round trip of 5 ms.
const WINDOW_BYTES: usize = 1 << 20;
/// The same for a run that goes on without one, where nobody makes room: all that a run may write unless it says otherwise.
const DETACHED_WINDOW_BYTES: usize = 80 << 20;
/// What is kept of its output when somebody has had it, for whoever looks next.
const DETACHED_KEPT_BYTES: usize = 4 << 20;
/// What is written with several inputs is told when this much has come together, or all of it: nobody watches it letter by letter.
const TOGETHER_BYTES: usize = 64 << 10;
/// Signals and sizes that wait for the runner.
const CONTROLS_MAX: usize = 64;
const SIGNAL_KILL: i32 = 9;

/// What a watcher wants of the program besides input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Signal(i32),
    Resize(TerminalSize),
}

pub(super) struct Run {
    pub(super) order: Order,
    out: Mutex<Outgoing>,
    input: Mutex<Incoming>,
    /// Bounded by its box.
    compiler: Mutex<Vec<u8>>,
    /// Something was written, or input taken: for the connection.
    pub(super) wrote: Notify,
    /// There is room for more: for whoever reads from the program.
    pub(super) room: Notify,
    /// There is input: for whoever writes to the program.
    pub(super) fed: Notify,
    controls: mpsc::Sender<Control>,
    taken_controls: Mutex<Option<mpsc::Receiver<Control>>>,
    killed: watch::Sender<bool>,
    /// Whoever watched it is gone for good.
    abandoned: AtomicBool,
    ended: AtomicBool,
    phase: AtomicU8,
    /// The connection that counts; an older one ends.
    pub(super) connection: watch::Sender<u64>,
    /// Who keeps it.
    keeper: Mutex<String>,
    began_unix_ms: AtomicU64,
}

impl Run {
    pub(super) fn new(order: Order) -> Run {
        let (window, kept) =
            if order.wanted.detach { (DETACHED_WINDOW_BYTES, DETACHED_KEPT_BYTES) } else { (WINDOW_BYTES, 0) };
        let input = match order.wanted.stdin.as_ref().or(order.wanted.inputs.first()) {
            Some(text) => Incoming::whole(text.clone().into_bytes()),
            None => Incoming::default(),
        };
        let (controls, taken) = mpsc::channel(CONTROLS_MAX);
        Run {
            out: Mutex::new(Outgoing::new(window, kept, order.limits.output_bytes)),
            input: Mutex::new(input),
            compiler: Mutex::new(Vec::new()),
            wrote: Notify::new(),
            room: Notify::new(),
            fed: Notify::new(),
            controls,
            taken_controls: Mutex::new(Some(taken)),
            killed: watch::Sender::new(false),
            abandoned: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            phase: AtomicU8::new(0),
            connection: watch::Sender::new(0),
            keeper: Mutex::default(),
            began_unix_ms: AtomicU64::new(0),
            order,
        }
    }

    pub(super) fn out(&self) -> MutexGuard<'_, Outgoing> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn input(&self) -> MutexGuard<'_, Incoming> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keeper(&self) -> MutexGuard<'_, String> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more may be read from the program.
    pub(super) async fn has_room(&self) {
        loop {
            let made = self.room.notified();
            if self.out().has_room() {
                return;
            }
            made.await;
        }
    }

    /// What the program wrote; false when that is more than it may.
    pub(super) fn write(&self, channel: Channel, bytes: &[u8]) -> bool {
        let mut out = self.out();
        let within = out.write(channel, bytes);
        self.tell(&out);
        within
    }

    /// Of several inputs what is written goes together.
    fn tell(&self, out: &Outgoing) {
        if self.order.wanted.inputs.is_empty() || out.held_bytes() > TOGETHER_BYTES {
            self.wrote.notify_one();
        }
    }

    /// Whether somebody who comes to it understands what is said. With several inputs, only who asked for them.
    pub(super) fn is_for(&self, watching: &Watching) -> bool {
        // Who carries a connection on asked for it, whatever version it came by.
        self.order.wanted.inputs.is_empty() || watching.turns || watching.instead_of.is_some()
    }

    /// How often the program is run: once for each of its inputs.
    pub(super) fn turns(&self) -> usize {
        self.order.wanted.inputs.len().max(1)
    }

    /// What is told from outside already, and need not be told of.
    pub(super) fn is_input_whole(&self) -> bool {
        self.order.wanted.stdin.is_some() || !self.order.wanted.inputs.is_empty()
    }

    /// The next of several inputs has its turn. The first has it from the beginning.
    pub(super) fn turn(&self, index: usize) {
        if let Some(text) = self.order.wanted.inputs.get(index).filter(|_| index > 0) {
            *self.input() = Incoming::whole(text.clone().into_bytes());
            self.out().allow(self.order.limits.output_bytes);
            self.compiler.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// How it ended with one of several inputs.
    pub(super) fn turned(&self, ended: Ended) {
        let mut out = self.out();
        conclude(&mut out, Channel::Turn, ended);
        self.tell(&out);
    }

    /// What is not the program's own. What a compiler says is remembered.
    pub(super) fn push(&self, channel: Channel, bytes: &[u8]) {
        if channel == Channel::Compiler {
            self.compiler.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        }
        let mut out = self.out();
        out.push(channel, bytes);
        self.tell(&out);
    }

    pub(super) fn compiler_said(&self) -> Vec<u8> {
        self.compiler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn acknowledge(&self, sequence: u64) {
        self.out().acknowledge(sequence);
        self.room.notify_waiters();
    }

    pub(super) fn after(&self, sequence: u64) -> Option<(u64, Bytes)> {
        self.out().after(sequence)
    }

    pub(super) fn feed(&self, sequence: u64, payload: &[u8]) -> Result<(), InputError> {
        self.input().accept(sequence, payload)?;
        self.fed.notify_one();
        Ok(())
    }

    /// Of more than anybody means, the rest is dropped.
    pub(super) fn control(&self, control: Control) {
        if control == Control::Signal(SIGNAL_KILL) {
            self.kill();
        } else {
            let _ = self.controls.try_send(control);
        }
    }

    /// For the runner, once.
    pub(super) fn controls(&self) -> Option<mpsc::Receiver<Control>> {
        self.taken_controls.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends it, wherever it is.
    pub(super) fn kill(&self) {
        self.killed.send_replace(true);
    }

    /// Ends it, as nobody is there any more who wants to know how.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.kill();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(super) fn is_killed(&self) -> bool {
        *self.killed.borrow()
    }

    pub(super) async fn killed(&self) {
        let mut killed = self.killed.subscribe();
        // Its sender is this.
        let _ = killed.wait_for(|killed| *killed).await;
    }

    pub(super) fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Compiling => 1,
            Phase::Running => 2,
        };
        // With each of several inputs it is entered again, which is no news.
        if self.phase.swap(number, Ordering::AcqRel) != number {
            self.wrote.notify_one();
        }
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        match self.phase.load(Ordering::Acquire) {
            1 => Some(Phase::Compiling),
            2 => Some(Phase::Running),
            _none => None,
        }
    }

    /// The last block: how it ended. Numbered, so that it arrives once.
    pub(super) fn end(&self, ended: Ended) -> Ended {
        let ended = conclude(&mut self.out(), Channel::End, ended);
        self.ended.store(true, Ordering::Release);
        self.wrote.notify_one();
        ended
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Its end has arrived: there is nothing more to keep it for.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended() && self.out().is_acknowledged()
    }

    pub(super) fn began(&self) {
        self.began_unix_ms.store(world::clock::unix_ms(), Ordering::Relaxed);
    }

    pub(super) fn began_ms(&self) -> u64 {
        self.began_unix_ms.load(Ordering::Relaxed)
    }
}

/// Writes how it ended behind all else, with the number that this has.
fn conclude(out: &mut Outgoing, channel: Channel, mut ended: Ended) -> Ended {
    ended.sequence = out.last() + 1;
    // Plain data: it has a form in JSON.
    out.push(channel, &serde_json::to_vec(&ended).unwrap_or_default());
    ended
}
