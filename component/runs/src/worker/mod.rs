//! A worker: a process for each core, which has boxes and runs code in them.
//!
//! Three threads: the *communicator* speaks with whoever watches runs, the *runner* has the boxes, and the *heartbeat*
//! tells the machine's node that both do. A run's bytes wait in [`run::Run`] between the two.
//!
//! Promises: what was written is there until it was acknowledged, whoever asks for it on whichever connection; a run whose
//! watcher is gone for good is killed at once; a worker whose node is gone for good ends, and every box with it.
//! Knows no language and no other machine: what to do is said completely in an [`Order`](crate::order::Order).

pub(crate) mod communicator;
mod compiled;
mod given;
mod heartbeat;
mod pool;
mod records;
mod run;
mod runner;
mod streams;
mod verdict;

use crate::order::Boxes;
use crate::pressure::{Bounds, Pressure};
use communicator::Communicator;
pub(crate) use communicator::{NO_ROOM, no_room, no_run};
use records::Records;
use run::Run;
use sandbox::Spawner;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Runs that wait for the runner to take them up: it does within a millisecond.
const STARTING_MAX: usize = 64;
/// Runs a worker has at most; most of those wait for a person. Each takes up to a megabyte.
const RUNS_MAX: usize = 1_000;
/// Strangers' programs come after the machine's services and Bramble's own processes.
const NICENESS: i32 = 5;

/// What its threads share.
struct Shared {
    number: u32,
    node: String,
    version: String,
    runs: Mutex<HashMap<String, Arc<Run>>>,
    records: Records,
    /// Takes no more runs.
    retires: AtomicBool,
    carried: AtomicU64,
    ran: AtomicU64,
    boxes: Mutex<Boxes>,
    /// When the node was last there, by the clock since the machine started.
    node_seen_ms: AtomicU64,
}

impl Shared {
    fn boxes(&self) -> MutexGuard<'_, Boxes> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Option<Arc<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// How many runs have not ended.
    fn running(&self) -> usize {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.values().filter(|run| !run.has_ended()).count()
    }

    /// False when there is no room, or such a run already.
    fn add(&self, run: &Arc<Run>) -> bool {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() >= RUNS_MAX || runs.contains_key(&run.order.id) {
            return false;
        }
        runs.insert(run.order.id.clone(), Arc::clone(run));
        true
    }

    fn forget(&self, id: &str) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// The whole life of a worker, whose socket for connections is standard input. Call it before any other thread exists.
pub fn run(number: u32, node: String, version: String, bounds: Bounds) -> io::Result<()> {
    // Whoever presses Ctrl-C means the node, which says what becomes of its workers.
    let _ = rustix::process::setsid();
    let listener = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
    // Without, it runs all the same, and less politely.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let spawner = Spawner::start_for_strangers()?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let shared = Arc::new(Shared {
        number,
        node,
        version,
        runs: Mutex::new(HashMap::new()),
        records: Records::default(),
        retires: AtomicBool::new(false),
        carried: AtomicU64::new(0),
        ran: AtomicU64::new(0),
        boxes: Mutex::default(),
        node_seen_ms: AtomicU64::new(world::clock::boot_ms()),
    });
    let (begin, begun) = mpsc::channel(STARTING_MAX);
    let beats = heartbeat::start(Arc::clone(&shared))?;
    let of_runner = Arc::clone(&shared);
    std::thread::Builder::new().name("runner".to_owned()).spawn(move || {
        if let Err(error) = runtime().and_then(|runtime| runtime.block_on(runner::run(of_runner, spawner, begun))) {
            tracing::error!(%error, "the runner ended");
        }
        // Without it nothing is run: the node starts another worker.
        std::process::exit(1);
    })?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Communicator { shared, begin, beats, pressure: Pressure::new(bounds) }.serve(listener).await
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Goes up as long as the thread it is on does not hang.
async fn tick(shared: Arc<Shared>, which: fn(&Shared) -> &AtomicU64) {
    const EVERY: Duration = Duration::from_millis(250);
    loop {
        which(&shared).fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(EVERY).await;
    }
}
