//! What runs on a connection: the tasks hyper starts for its streams, and how many there are.

use hyper::rt::Executor;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Starts streams as tasks, so that those of one connection use all cores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        // It ends with its stream, or with its connection.
        world::task::spawn("rpc stream", stream).detach();
    }
}

/// Streams of one connection, and since when there are none.
#[derive(Debug)]
pub(crate) struct Underway {
    count: AtomicUsize,
    idle_since_ms: AtomicU64,
}

/// A stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Underway>);

impl Underway {
    pub(crate) fn new() -> Underway {
        Underway { count: AtomicUsize::new(0), idle_since_ms: AtomicU64::new(world::clock::coarse_ms()) }
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Place {
        self.count.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(self))
    }

    /// How long until the connection has been idle for `limit`. `None` when it has been.
    pub(crate) fn idle_left(&self, limit: Duration) -> Option<Duration> {
        if self.count.load(Ordering::Acquire) > 0 {
            return Some(limit);
        }
        let idle_ms = world::clock::coarse_ms().saturating_sub(self.idle_since_ms.load(Ordering::Acquire));
        // A clock of a few milliseconds' grain may say that nothing is left just before there is.
        limit.checked_sub(Duration::from_millis(idle_ms)).filter(|left| !left.is_zero())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.idle_since_ms.store(world::clock::coarse_ms(), Ordering::Release);
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}
