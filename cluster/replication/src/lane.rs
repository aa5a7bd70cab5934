//! The log's own thread: it alone writes, so that a slow sync stalls no one else.
//!
//! A full disk does not fail a write here: it waits until there is room, since a failed write would end the group.
//! Whoever proposes asks [`Lane::admits`] first, so that this is the exception. Ends when it is closed or dropped.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use storage::log::{Batch, Log, LogError};
use wire::diagnostic::chain;
use world::worker::Worker;

/// Room kept for what the group itself has to write: votes, memberships, the first entry of a term.
const KEPT_BYTES: u64 = 64 * 1024;
/// How often a write that found the disk full is tried again.
const RETRY: Duration = Duration::from_millis(250);

pub(crate) type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

enum Request {
    Write(Batch, Done),
    /// Try to get room for the next segment.
    Prepare(tokio::sync::oneshot::Sender<()>),
    Close,
}

#[derive(Debug, Default)]
struct Shared {
    room_bytes: AtomicU64,
    full: AtomicBool,
    closing: AtomicBool,
    writes: AtomicU64,
    writing_us: AtomicU64,
    slowest_us: AtomicU64,
}

pub(crate) struct Lane {
    worker: Worker<Request>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Lane {
    pub(crate) fn start(mut log: Log) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.room_bytes.store(log.room_bytes(), Ordering::Release);
        // Not bounded by itself: the group has one write under way, its callers are bounded.
        let worker = Worker::start("replication.log", {
            let shared = Arc::clone(&shared);
            move |request| handle(&mut log, request, &shared)
        })?;
        Ok(Self { worker, shared })
    }

    /// Has `batch` written; `done` is called on the lane's thread once it is durable, or never will be.
    pub(crate) fn write(&self, batch: Batch, done: Done) {
        if let Err(Request::Write(_, done)) = self.worker.send(Request::Write(batch, done)) {
            done(Err(LogError::Broken));
        }
    }

    /// As [`Lane::write`], waiting. May be dropped; the write happens all the same.
    pub(crate) async fn written(&self, batch: Batch) -> Result<(), LogError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.write(batch, Box::new(move |result| drop(answer.send(result))));
        answered.await.unwrap_or(Err(LogError::Broken))
    }

    /// Whether `bytes` more can be written without the disk having to find room.
    pub(crate) async fn admits(&self, bytes: u64) -> bool {
        if self.has_room(bytes) {
            return true;
        }
        if self.is_full() {
            return false;
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let asked = self.worker.send(Request::Prepare(answer));
        asked.is_ok() && answered.await.is_ok() && self.has_room(bytes)
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.shared.room_bytes.load(Ordering::Acquire) >= bytes + KEPT_BYTES
    }

    /// Whether a write is waiting for room.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire)
    }

    /// Writes done since the start.
    pub(crate) fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// From now on a write that finds the disk full fails, the one that waits for room included.
    pub(crate) fn give_up(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.worker.wake();
    }

    /// Time spent in them, and in the slowest.
    pub(crate) fn writing(&self) -> (Duration, Duration) {
        let read = |microseconds: &AtomicU64| Duration::from_micros(microseconds.load(Ordering::Relaxed));
        (read(&self.shared.writing_us), read(&self.shared.slowest_us))
    }

    /// Ends the thread and waits for it. Blocks at most for one sync.
    pub(crate) fn close(&self) {
        self.give_up();
        drop(self.worker.send(Request::Close));
        if !self.worker.join() {
            tracing::error!("the log's thread panicked");
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
    }
}

fn handle(log: &mut Log, request: Request, shared: &Shared) -> ControlFlow<()> {
    match request {
        Request::Write(batch, done) => {
            let start = world::clock::monotonic();
            let result = write(log, &batch, shared);
            let took_us = u64::try_from((world::clock::monotonic() - start).as_micros()).unwrap_or(u64::MAX);
            shared.writing_us.fetch_add(took_us, Ordering::Relaxed);
            shared.slowest_us.fetch_max(took_us, Ordering::Relaxed);
            shared.writes.fetch_add(1, Ordering::Relaxed);
            shared.room_bytes.store(log.room_bytes(), Ordering::Release);
            if let Err(error) = &result {
                tracing::error!(error = chain(error), hint = error.hint(), "the log cannot be written");
            }
            done(result);
            log.tend();
            shared.room_bytes.store(log.room_bytes(), Ordering::Release);
        }
        Request::Prepare(done) => {
            log.prepare();
            shared.room_bytes.store(log.room_bytes(), Ordering::Release);
            // Whoever asked may have stopped waiting.
            if done.send(()).is_err() {
                tracing::trace!("nobody waits for room any more");
            }
        }
        Request::Close => return ControlFlow::Break(()),
    }
    ControlFlow::Continue(())
}

fn write(log: &mut Log, batch: &Batch, shared: &Shared) -> Result<(), LogError> {
    loop {
        let result = log.write(batch);
        let full = matches!(result, Err(LogError::DiskFull { .. }));
        let was_full = shared.full.swap(full, Ordering::AcqRel);
        if was_full != full {
            tracing::warn!(full, "the disk that holds the log has changed between full and not full");
        }
        if !full || shared.closing.load(Ordering::Acquire) {
            return result;
        }
        std::thread::park_timeout(RETRY);
    }
}
