//! Tasks: each has a name and an owner. Dropping the owner's [`Task`] cancels the work at its next await.

use crate::simulated;
use std::future::Future;
use tokio::task::JoinHandle;

/// A running task, owned: dropped, it is cancelled; [`Task::detach`] says that it ends by itself.
#[derive(Debug)]
#[must_use = "a dropped task is cancelled"]
pub struct Task<T = ()> {
    name: &'static str,
    handle: Option<JoinHandle<T>>,
}

/// Starts `work` under `name` on the current runtime.
pub fn spawn<T: Send + 'static>(name: &'static str, work: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task { name, handle: Some(start(work)) }
}

/// Starts `work` for a library that keeps its tasks in its own way; everybody else spawns.
pub fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    match simulated::current() {
        None => tokio::spawn(work),
        Some(host) => host.spawn(work),
    }
}

/// Does what blocks where it keeps nobody waiting. `None` when it panicked. Dropped while it waits, the work may end all the same.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match simulated::current() {
        None => tokio::task::spawn_blocking(work).await.ok(),
        Some(host) => {
            host.block().await;
            Some(work())
        }
    }
}

impl<T> Task<T> {
    /// Lets the task end by itself; its own inputs closing must be what ends it.
    pub fn detach(mut self) {
        self.handle = None;
    }

    /// Waits for the end. `None` when it was cancelled or panicked (a panic is logged with the task's name). Dropped
    /// while it waits, it cancels the task: it is the owner.
    pub async fn join(mut self) -> Option<T> {
        match self.handle.as_mut()?.await {
            Ok(value) => Some(value),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(task = self.name, "task panicked");
                }
                None
            }
        }
    }

    /// Ends the work at its next await, and waits until it has let go of everything it held.
    pub async fn cancel(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.abort();
            if handle.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(task = self.name, "task panicked");
            }
        }
    }

    /// Whether the work has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}
