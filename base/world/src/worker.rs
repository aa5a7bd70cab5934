//! A worker that blocks: it has a thread of its own and does what it is sent, one after the other.
//!
//! On a [simulated](crate::simulated) machine it is a task that takes its time and then does it at once.

use crate::simulated;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

#[derive(Debug)]
pub struct Worker<R> {
    way: Way<R>,
}

#[derive(Debug)]
enum Way<R> {
    Thread { requests: mpsc::Sender<R>, thread: Mutex<Option<JoinHandle<()>>> },
    Simulated(tokio::sync::mpsc::UnboundedSender<R>),
}

impl<R: Send + 'static> Worker<R> {
    /// Starts a worker named `name`. It ends when `work` says so or nobody can send to it any more. What waits is not bounded here:
    /// whoever sends has a bound of its own.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(
        name: &'static str,
        mut work: impl FnMut(R) -> ControlFlow<()> + Send + 'static,
    ) -> std::io::Result<Self> {
        if let Some(host) = simulated::current() {
            let (requests, mut received) = tokio::sync::mpsc::unbounded_channel();
            let own = host.clone();
            drop(host.spawn(async move {
                while let Some(request) = received.recv().await {
                    own.block().await;
                    if work(request).is_break() {
                        return;
                    }
                }
            }));
            return Ok(Self { way: Way::Simulated(requests) });
        }
        let (requests, received) = mpsc::channel();
        let run = move || {
            while let Ok(request) = received.recv() {
                if work(request).is_break() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { way: Way::Thread { requests, thread: Mutex::new(Some(thread)) } })
    }

    /// Has `request` done after what was sent before it.
    ///
    /// # Errors
    /// The request, when the worker has ended.
    pub fn send(&self, request: R) -> Result<(), R> {
        match &self.way {
            Way::Thread { requests, .. } => requests.send(request).map_err(|unsent| unsent.0),
            Way::Simulated(requests) => requests.send(request).map_err(|unsent| unsent.0),
        }
    }

    /// Ends a pause that its work makes by parking its thread.
    pub fn wake(&self) {
        if let Way::Thread { thread, .. } = &self.way
            && let Some(thread) = &*thread.lock().unwrap_or_else(PoisonError::into_inner)
        {
            thread.thread().unpark();
        }
    }

    /// Waits until the worker has ended, which it must have been told to; false when it panicked. Blocks. A simulated one ends
    /// by itself.
    pub fn join(&self) -> bool {
        let Way::Thread { thread, .. } = &self.way else { return true };
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}
