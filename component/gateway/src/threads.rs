//! The threads that serve clients: one for each processor, each with a runtime of its own. A connection stays where it was
//! given to: nobody has to be woken elsewhere for it, and what it needs lies in one processor's cache.
//!
//! Owns the threads and who gets the next connection: whoever has fewest. Promises that without threads of its own
//! everything runs where the gateway was started, in the same way. Does not know what a connection is for.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;
use world::task::Task;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The number of the thread this is called in. 0 in all others, as in the first: they have nothing to confuse it with.
pub(crate) fn here() -> usize {
    HERE.get()
}

/// All of them.
#[derive(Clone)]
pub(crate) struct Threads(Arc<[Arc<Thread>]>);

pub(crate) struct Thread {
    number: usize,
    runtime: Handle,
    connections: AtomicUsize,
}

/// Dropped, the threads end with everything that runs there.
pub(crate) struct Ends {
    _ends: Vec<oneshot::Sender<()>>,
}

/// A connection's share of a thread.
pub(crate) struct Share(Arc<Thread>);

impl Threads {
    /// Starts as many as can be had of `wanted`; with none, the current runtime is the only one.
    pub(crate) fn start(wanted: usize) -> (Threads, Ends) {
        let (mut threads, mut ends) = (Vec::new(), Vec::new());
        for number in 0..wanted {
            match Thread::start(number) {
                Ok((thread, end)) => {
                    threads.push(Arc::new(thread));
                    ends.push(end);
                }
                Err(error) => {
                    tracing::warn!(%error, wanted, "the gateway serves with fewer threads: it got no more");
                    break;
                }
            }
        }
        if threads.is_empty() {
            threads.push(Arc::new(Thread { number: 0, runtime: Handle::current(), connections: AtomicUsize::new(0) }));
        }
        (Threads(threads.into()), Ends { _ends: ends })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Thread>> {
        self.0.iter()
    }

    /// Who has fewest connections; the current one rather than another that has as many.
    pub(crate) fn least_busy(&self) -> &Arc<Thread> {
        let least = self.0.iter().min_by_key(|thread| (thread.connections(), thread.number != here()));
        least.expect("there is always one")
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<(Thread, oneshot::Sender<()>)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
            HERE.set(number);
            // Its sender says nothing: that it is gone is the word.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok((Thread { number, runtime: handle, connections: AtomicUsize::new(0) }, end))
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Until the guard is dropped, sockets made by the caller are this thread's, and so are tasks.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Starts `work` there.
    pub(crate) fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Task {
        let _there = self.enter();
        world::task::spawn(name, work)
    }

    /// Counts one more connection, until what is returned is dropped.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Share(Arc::clone(self))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
