//! The stash itself.

use crate::disk::{self, Folder};
use crate::forgotten::{Forgotten, Journal, Record};
use crate::kept::{Held, Kept};
use foyer::{
    BlockEngineConfig, DeviceBuilder, Event, EventListener, FifoPicker, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, HybridCachePolicy, HybridCacheProperties, Location, LruConfig, PsyncIoEngineConfig,
    RecoverMode,
};
use meter::{Counter, Gauge, Meter, Registration};
use std::fs::{File, TryLockError};
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use world::task::Task;

/// What is written to the disk at once and given up at once. Values are smaller.
const BLOCK_BYTES: usize = 16 << 20;
/// Fewer blocks than these cannot be written and given up at the same time.
const BLOCKS_MIN: usize = 4;
/// A part of the memory with a lock of its own is large enough for several of the largest values.
const SHARD_VALUES_MIN: usize = 2;
const SHARDS_MAX: usize = 8;
/// Records of what was forgotten that wait to be written: those that forget wait then.
const RECORDS_WAITING_MAX: usize = 256;
/// Opening reads the heads of all blocks: a disk that takes longer than this for it is of no use to a cache.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// Between looks whether another process still has the folder. Meanwhile nothing is kept, which harms nobody.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// At most one warning per this time: a disk that fails fails with every value.
const WARN_EVERY_MS: u64 = 60_000;

/// What a stash is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub memory_bytes_max: usize,
    /// Where on disk, and how much at most; less than 64 MiB is none.
    pub disk: Option<(PathBuf, usize)>,
    /// Larger values are not taken.
    pub value_bytes_max: usize,
}

/// Where a value is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// It is soon of no use.
    Memory,
    Disk,
}

/// What a value was forgettable by from some moment on.
#[derive(Debug, Clone)]
pub struct Trace {
    sequence: u64,
    labels: Vec<u64>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    pub memory_bytes_max: u64,
    pub disk_bytes: u64,
    /// 0 without a disk.
    pub disk_bytes_max: u64,
    /// Values that memory gave up for others.
    pub evicted: u64,
    /// The disk that was wanted cannot be used.
    pub disk_lost: bool,
}

type Cache<V> = HybridCache<String, Held<V>>;

/// Values by key. Clones are the same stash.
pub struct Stash<V: Kept> {
    inner: Arc<Inner<V>>,
}

impl<V: Kept> Clone for Stash<V> {
    fn clone(&self) -> Self {
        Stash { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<V: Kept> {
    settings: Settings,
    /// Not there until what lies on disk has been looked through.
    cache: OnceLock<Cache<V>>,
    forgotten: Mutex<Forgotten>,
    /// To whoever writes the list; not there without a disk.
    journal: OnceLock<mpsc::Sender<Note>>,
    meters: Meters,
    opening: Mutex<Option<Task>>,
    /// Held for as long as the folder is this stash's.
    lock: Mutex<Option<File>>,
    /// It gives what is in memory, and takes nothing any more.
    closed: AtomicBool,
    _measured: OnceLock<Registration>,
}

/// For the list on disk.
struct Note {
    record: Record,
    /// Told when it is safe there.
    safe: Option<oneshot::Sender<io::Result<()>>>,
}

struct Meters {
    evicted: Counter,
    errors: Counter,
    lost: Gauge,
    warned_ms: AtomicU64,
}

impl Meters {
    fn new(meter: &Meter) -> Meters {
        Meters {
            evicted: meter.counter("bramble_cache_evictions_total", "Answers that memory gave up for others.", &[]),
            errors: meter.counter("bramble_cache_disk_errors_total", "What the cache's disk failed to do.", &[]),
            lost: meter.gauge("bramble_cache_disk_lost", "1 when the cache's disk cannot be used.", &[]),
            warned_ms: AtomicU64::new(0),
        }
    }

    fn error(&self, what: &str, error: &dyn std::fmt::Display) {
        self.errors.inc();
        let now_ms = world::clock::unix_ms();
        let last_ms = self.warned_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(last_ms) >= WARN_EVERY_MS
            && self.warned_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::warn!(%error, "the cache's disk cannot {what}");
        }
    }
}

impl<V: Kept> Stash<V> {
    /// Opens a stash and returns at once: until what lies on disk has been looked through, nothing is found and nothing
    /// is kept. Must be called within a Tokio runtime.
    pub fn open(settings: Settings, meter: &Meter) -> Stash<V> {
        let inner = Arc::new(Inner {
            settings,
            cache: OnceLock::new(),
            forgotten: Mutex::new(Forgotten::default()),
            journal: OnceLock::new(),
            meters: Meters::new(meter),
            opening: Mutex::new(None),
            lock: Mutex::new(None),
            closed: AtomicBool::new(false),
            _measured: OnceLock::new(),
        });
        let stash = Stash { inner };
        let opening = stash.clone();
        // It ends by itself; closing the stash cancels it.
        let task = world::task::spawn("cache opening", async move { opening.make().await });
        *stash.inner.opening.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        stash.measure(meter);
        stash
    }

    /// Waits until the disk has been looked through.
    pub async fn opened(&self) {
        let task = self.inner.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.join().await;
        }
    }

    /// How much was forgotten so far: to be asked for before the value is, and given with it.
    pub fn sequence(&self) -> u64 {
        self.forgotten().count()
    }

    /// What is kept under a key, from memory only. `None` says nothing about the disk.
    pub fn at_hand(&self, key: &str) -> Option<V> {
        let entry = self.inner.cache.get()?.memory().get(key)?;
        self.still(&entry)
    }

    /// What is kept under a key. May be dropped.
    pub async fn find(&self, key: &str) -> Option<V> {
        if self.is_closed() {
            return self.at_hand(key);
        }
        let cache = self.inner.cache.get()?;
        match cache.get(key).await {
            Ok(entry) => self.still(&entry?),
            Err(error) => {
                self.inner.meters.error("be read", &error);
                None
            }
        }
    }

    /// Whether there may be something under a key.
    pub fn may_have(&self, key: &str) -> bool {
        // Before it is known what lies on disk, everything may.
        self.inner.cache.get().is_none_or(|cache| cache.contains(key))
    }

    /// Keeps a value, if it is not too large. `sequence` is from before it was asked for; `labels` are what it can be
    /// forgotten by.
    pub fn put(&self, key: String, value: V, sequence: u64, labels: &[&str], lasting: Lasting) -> bool {
        let Some(cache) = self.inner.cache.get() else { return false };
        let labels: Vec<u64> = labels.iter().map(|label| number(label)).collect();
        let held = Held::new(value, sequence, labels);
        if self.is_closed() || held.size_bytes() > self.inner.settings.value_bytes_max || !self.finds(&held) {
            return false;
        }
        let location = match lasting {
            Lasting::Disk => Location::Default,
            Lasting::Memory => {
                // What lies there under this key is older.
                if cache.storage().may_contains(&key) {
                    cache.storage().delete(&key);
                }
                Location::InMem
            }
        };
        cache.insert_with_properties(key, held, HybridCacheProperties::default().with_location(location));
        true
    }

    /// Forgets what bears a label, or everything. With `durably`, waits until no power cut can bring it back.
    pub async fn forget(&self, label: Option<&str>, durably: bool) -> io::Result<()> {
        let (record, journal) = {
            let mut forgotten = self.forgotten();
            (forgotten.forget(label.map(number)), self.inner.journal.get().cloned())
        };
        let Some(journal) = journal else { return Ok(()) };
        let (safe, told) = oneshot::channel();
        let note = Note { record, safe: durably.then_some(safe) };
        if journal.send(note).await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if durably { told.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())) } else { Ok(()) }
    }

    /// For asking later whether what bears these labels now has been forgotten since.
    pub fn trace(&self, labels: &[&str]) -> Trace {
        Trace { sequence: self.sequence(), labels: labels.iter().map(|label| number(label)).collect() }
    }

    pub fn is_forgotten(&self, trace: &Trace) -> bool {
        !self.forgotten().finds(trace.sequence, &trace.labels)
    }

    pub fn usage(&self) -> Usage {
        let Settings { memory_bytes_max, disk, .. } = &self.inner.settings;
        let wide = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let cache = self.inner.cache.get();
        let disk = disk.as_ref().filter(|_| cache.is_some_and(HybridCache::is_hybrid));
        Usage {
            memory_bytes: wide(cache.map_or(0, |cache| cache.memory().usage())),
            memory_bytes_max: wide(*memory_bytes_max),
            disk_bytes: disk.map_or(0, |(path, _)| disk::used_bytes(&path.join("data"))),
            disk_bytes_max: disk.map_or(0, |(_, bytes)| wide(*bytes)),
            evicted: self.inner.meters.evicted.value(),
            disk_lost: self.inner.meters.lost.value() > 0.0,
        }
    }

    /// Keeps nothing any more, and waits, but not long, until what is kept is on disk: another may have the folder then.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        drop(self.inner.opening.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(cache) = self.inner.cache.get() {
            match tokio::time::timeout(CLOSE_DEADLINE, cache.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.inner.meters.error("be closed", &error),
                Err(_) => self.inner.meters.error("be closed", &"it takes too long"),
            }
        }
        // Another may have it now.
        drop(self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Relaxed)
    }

    fn still(&self, entry: &foyer::HybridCacheEntry<String, Held<V>>) -> Option<V> {
        let held: &Held<V> = entry;
        self.finds(held).then(|| held.0.value.clone())
    }

    fn finds(&self, held: &Held<V>) -> bool {
        self.forgotten().finds(held.0.sequence, &held.0.labels)
    }

    fn forgotten(&self) -> MutexGuard<'_, Forgotten> {
        // Consistent between any two statements.
        self.inner.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens memory and disk; memory alone, when the disk fails.
    async fn make(&self) {
        if let Some((path, size_bytes)) = self.inner.settings.disk.clone() {
            if let Err(error) = self.take_folder(&path).await {
                self.inner.meters.error("be locked", &error);
            }
            match tokio::time::timeout(OPEN_DEADLINE, self.make_with_disk(&path, size_bytes)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => self.inner.meters.error("be used", &error),
                Err(_) => self.inner.meters.error("be used", &"looking through it takes too long"),
            }
            self.inner.meters.lost.set(1.0);
        }
        match self.memory().storage().build().await {
            Ok(cache) => drop(self.inner.cache.set(cache)),
            Err(error) => self.inner.meters.error("be left out", &error),
        }
    }

    /// Waits until no other process has the folder: one that gives its place to this one does for a while.
    async fn take_folder(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("lock");
        let file = blocking(move || {
            beside.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            File::create(beside)
        });
        let file = file.await?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        *self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    async fn make_with_disk(&self, path: &Path, size_bytes: usize) -> io::Result<()> {
        let first = self.try_disk(path, size_bytes).await;
        let Err(error) = first else { return Ok(()) };
        // Once more, with nothing that lies there.
        tracing::warn!(%error, path = %path.display(), "the cache on disk is dropped");
        let owned = path.to_owned();
        blocking(move || disk::empty(&owned)).await?;
        self.try_disk(path, size_bytes).await
    }

    async fn try_disk(&self, path: &Path, size_bytes: usize) -> io::Result<()> {
        let blocks = size_bytes / BLOCK_BYTES;
        if blocks < BLOCKS_MIN {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "less than 64 MiB is no disk"));
        }
        let owned = path.to_owned();
        let (folder, journal, forgotten) = blocking(move || {
            let folder = Folder::open(&owned, size_bytes)?;
            let (journal, forgotten) = Journal::open(&folder.forgotten)?;
            Ok((folder, journal, forgotten))
        })
        .await?;
        let build = self.build_on(folder.data, blocks * BLOCK_BYTES);
        // In a task of its own: what reads a damaged disk may panic, and that must not be ours.
        let cache = world::task::spawn("cache recovery", build).join().await;
        let cache = cache.ok_or_else(|| io::Error::other("reading it failed"))?.map_err(io::Error::other)?;
        let (sender, notes) = mpsc::channel(RECORDS_WAITING_MAX);
        let (meanwhile, list) = {
            let mut known = self.forgotten();
            let before = std::mem::replace(&mut *known, forgotten);
            // What was forgotten since is forgotten of what lies here, too.
            let meanwhile = known.forget_as(&before);
            let _ = self.inner.journal.set(sender);
            (meanwhile, known.clone())
        };
        let weak = Arc::downgrade(&self.inner);
        // It ends with the last stash, whose end of the channel closes.
        world::task::spawn("cache journal", async move {
            let failed = move |error: &io::Error| {
                if let Some(inner) = weak.upgrade() {
                    inner.meters.error("be written", error);
                }
            };
            write_notes(journal, list, meanwhile, notes, failed).await;
        })
        .detach();
        let _ = self.inner.cache.set(cache);
        Ok(())
    }

    fn build_on(&self, folder: PathBuf, size_bytes: usize) -> impl Future<Output = foyer::Result<Cache<V>>> + use<V> {
        let memory = self.memory();
        async move {
            let device = FsDeviceBuilder::new(folder).with_capacity(size_bytes).build()?;
            let engine = BlockEngineConfig::new(device)
                .with_block_size(BLOCK_BYTES)
                // The oldest go first, so that no older value comes to light where a newer one is gone.
                .with_eviction_pickers(vec![Box::<FifoPicker>::default()]);
            memory
                .storage()
                .with_io_engine_config(PsyncIoEngineConfig::new())
                .with_engine_config(engine)
                .with_recover_mode(RecoverMode::Quiet)
                .build()
                .await
        }
    }

    fn memory(&self) -> foyer::HybridCacheBuilderPhaseMemory<String, Held<V>, foyer::DefaultHasher> {
        let Settings { memory_bytes_max, value_bytes_max, .. } = self.inner.settings;
        let shards = (memory_bytes_max / value_bytes_max.max(1) / SHARD_VALUES_MIN).clamp(1, SHARDS_MAX);
        HybridCacheBuilder::new()
            .with_name("bramble")
            // Written when they come, so that a node that is killed finds them again.
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .with_flush_on_close(false)
            .with_event_listener(Arc::new(Leaving { evicted: self.inner.meters.evicted.clone(), of: PhantomData::<V> }))
            .memory(memory_bytes_max)
            .with_shards(shards)
            .with_eviction_config(LruConfig::default())
            .with_weighter(|key: &String, held: &Held<V>| key.len() + held.size_bytes())
    }

    fn measure(&self, meter: &Meter) {
        let weak = Arc::downgrade(&self.inner);
        let collect = move |samples: &mut meter::Samples| {
            let Some(inner) = weak.upgrade() else { return };
            let cache = inner.cache.get();
            let bytes = cache.map_or(0, |cache| cache.memory().usage()) as f64;
            samples.gauge("bramble_cache_memory_bytes", "What answers take of the cache's memory.", &[], bytes);
            let statistics = cache.filter(|cache| cache.is_hybrid()).map(|cache| cache.statistics());
            let (read, written) = statistics.map_or((0, 0), |disk| (disk.disk_read_bytes(), disk.disk_write_bytes()));
            for (direction, bytes) in [("read", read), ("written", written)] {
                let help = "Bytes that the cache read from its disk and wrote to it.";
                samples.counter("bramble_cache_disk_bytes_total", help, &[("direction", direction)], bytes as f64);
            }
        };
        let _ = self.inner._measured.set(meter.collector(collect));
    }
}

/// Counts what memory gives up.
struct Leaving<V> {
    evicted: Counter,
    of: PhantomData<V>,
}

impl<V: Kept> EventListener for Leaving<V> {
    type Key = String;
    type Value = Held<V>;

    fn on_leave(&self, reason: Event, _key: &String, _value: &Held<V>) {
        if reason == Event::Evict {
            self.evicted.inc();
        }
    }
}

/// Writes the list until nobody can forget any more.
async fn write_notes(
    mut journal: Journal,
    mut list: Forgotten,
    meanwhile: Vec<Record>,
    mut notes: mpsc::Receiver<Note>,
    failed: impl Fn(&io::Error),
) {
    let mut due: Vec<Note> = meanwhile.into_iter().map(|record| Note { record, safe: None }).collect();
    loop {
        if due.is_empty() && notes.recv_many(&mut due, RECORDS_WAITING_MAX).await == 0 {
            return;
        }
        let (records, waiting): (Vec<Record>, Vec<_>) = due.drain(..).map(|note| (note.record, note.safe)).unzip();
        let durably = waiting.iter().any(Option::is_some);
        let work = tokio::task::spawn_blocking(move || {
            let written = write(&mut journal, &mut list, &records, durably);
            (journal, list, written)
        });
        let written = match work.await {
            Ok((known_journal, known_list, written)) => {
                (journal, list) = (known_journal, known_list);
                written
            }
            // The runtime ends.
            Err(_) => return,
        };
        if let Err(error) = &written {
            failed(error);
        }
        for safe in waiting.into_iter().flatten() {
            let told = match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            // Whoever asked may have left.
            let _ = safe.send(told);
        }
    }
}

fn write(journal: &mut Journal, list: &mut Forgotten, records: &[Record], durably: bool) -> io::Result<()> {
    for record in records {
        list.take(*record);
        journal.append(*record)?;
    }
    if journal.is_full() {
        journal.rewrite(list)?;
    }
    if durably { journal.sync() } else { Ok(()) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A label as a number (FNV-1a), never 0. Two that share one are forgotten together, which harms nobody.
fn number(label: &str) -> u64 {
    let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    label.bytes().fold(0xcbf2_9ce4_8422_2325, hash).max(1)
}
