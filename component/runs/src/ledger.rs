//! The record of runs: what was run, for whom, where, and what became of it. Added to and never changed.
//!
//! On the machine that had the run. The last ones are in memory too, for whoever asks; all of them are in a log on the disk,
//! of which the oldest goes when it is long. Nothing is on the disk of a machine that never ran anything.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storage::log::{Batch, Log, LogError, Options};
use tokio::sync::{mpsc, oneshot};
use wire::run::{RunRecord, RunVerdict};
use world::disk::Disk;

/// Ended runs that are in memory.
const RECENT_MAX: usize = 1_000;
/// Of the log on the disk: some hundred thousand runs.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Records that wait for the disk. Workers keep theirs until they are written.
const WAITING_MAX: usize = 1_024;
/// How long records wait for each other.
const TOGETHER: std::time::Duration = std::time::Duration::from_millis(20);
/// Written in one go.
const BATCH_MAX: usize = 256;
/// Read at the beginning: enough to have the recent ones whole.
const READ_MAX: u64 = 3 * RECENT_MAX as u64;

/// Where records are, for everybody on this machine.
#[derive(Clone)]
pub struct Ledger {
    known: Arc<Mutex<Known>>,
    writing: mpsc::Sender<(RunRecord, oneshot::Sender<()>)>,
}

#[derive(Default)]
struct Known {
    running: BTreeMap<String, Begun>,
    /// Ids in the order of their ends, the newest first, and what they are of.
    recent: VecDeque<String>,
    ended: HashMap<String, RunRecord>,
}

struct Begun {
    record: RunRecord,
    /// Its worker has told of it, too: it goes to the disk.
    told: bool,
}

impl Known {
    /// False for what was known already.
    fn take(&mut self, record: &RunRecord) -> bool {
        if self.ended.contains_key(&record.id) {
            return false;
        }
        if record.verdict.is_none() {
            let begun = Begun { record: record.clone(), told: true };
            return self.running.insert(record.id.clone(), begun).is_none_or(|before| !before.told);
        }
        self.running.remove(&record.id);
        self.recent.push_front(record.id.clone());
        self.ended.insert(record.id.clone(), record.clone());
        while self.recent.len() > RECENT_MAX {
            if let Some(oldest) = self.recent.pop_back() {
                self.ended.remove(&oldest);
            }
        }
        true
    }
}

impl Ledger {
    /// Reads what there is. The second part writes, for as long as it is run.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
    ) -> Result<(Ledger, impl Future<Output = ()> + Send + use<>), LogError> {
        let mut known = Known::default();
        let mut log = None;
        if folder.exists() {
            let (opened, _) = Log::open(Arc::clone(&disk), folder, Options::default())?;
            let reader = opened.reader();
            for index in reader.first().max(reader.next().saturating_sub(READ_MAX))..reader.next() {
                // A record of a later version that cannot be read is not lost for that.
                if let Ok(record) = serde_json::from_slice::<RunRecord>(&reader.read(index)?) {
                    known.take(&record);
                }
            }
            log = Some(opened);
        }
        let (writing, waiting) = mpsc::channel(WAITING_MAX);
        let ledger = Ledger { known: Arc::new(Mutex::new(known)), writing };
        Ok((ledger, write(disk, folder.to_owned(), log, waiting)))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has begun, as this node knows: its worker will say so too, unless it is gone before.
    pub fn begun(&self, record: RunRecord) {
        let mut known = self.known();
        if !known.ended.contains_key(&record.id) {
            known.running.entry(record.id.clone()).or_insert(Begun { record, told: false });
        }
    }

    /// Adds a record; returns once it is on the disk. True when it was news.
    pub async fn add(&self, record: RunRecord) -> bool {
        let (news, written) = self.enter(record).await;
        // An error is a writer that was told to end; what it had not written is said again by whoever keeps it.
        let _ = written.await;
        news
    }

    /// The same for who does not wait: whether it was news, and what ends when it is on the disk.
    pub async fn enter(&self, record: RunRecord) -> (bool, oneshot::Receiver<()>) {
        let news = self.known().take(&record);
        let (written, done) = oneshot::channel();
        if news {
            // As above.
            let _ = self.writing.send((record, written)).await;
        } else {
            let _ = written.send(());
        }
        (news, done)
    }

    pub fn find(&self, id: &str) -> Option<RunRecord> {
        let known = self.known();
        known.running.get(id).map(|begun| &begun.record).or_else(|| known.ended.get(id)).cloned()
    }

    /// Those that run, then the last ones that ended, newest first; only those of a trace, if one is meant.
    pub fn list(&self, most: usize, trace: Option<&str>) -> Vec<RunRecord> {
        let is_meant = |record: &&RunRecord| trace.is_none_or(|trace| record.trace == trace);
        let known = self.known();
        let mut running: Vec<RunRecord> =
            known.running.values().map(|begun| &begun.record).filter(is_meant).cloned().collect();
        running.sort_by_key(|record| std::cmp::Reverse(record.began_ms));
        let ended = known.recent.iter().filter_map(|id| known.ended.get(id)).filter(is_meant);
        running.extend(ended.take(most).cloned());
        running.truncate(most);
        running
    }

    pub fn running(&self) -> Vec<RunRecord> {
        self.known().running.values().map(|begun| begun.record.clone()).collect()
    }

    /// What becomes of runs whose worker is gone.
    pub async fn lose(&self, which: impl Fn(&RunRecord) -> bool) -> Vec<RunRecord> {
        let gone: Vec<RunRecord> = self.running().into_iter().filter(which).collect();
        let mut lost = Vec::new();
        for record in gone {
            let record =
                RunRecord { ended_ms: Some(world::clock::unix_ms()), verdict: Some(RunVerdict::Lost), ..record };
            if self.add(record.clone()).await {
                lost.push(record);
            }
        }
        lost
    }
}

/// Writes for as long as there is somebody to write for.
async fn write(
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    mut log: Option<Log>,
    mut waiting: mpsc::Receiver<(RunRecord, oneshot::Sender<()>)>,
) {
    let mut some = Vec::new();
    while waiting.recv_many(&mut some, BATCH_MAX).await > 0 {
        // Others come within a moment: they go to the disk together. Workers keep theirs meanwhile.
        tokio::time::sleep(TOGETHER).await;
        while some.len() < BATCH_MAX
            && let Ok(more) = waiting.try_recv()
        {
            some.push(more);
        }
        let (records, done): (Vec<_>, Vec<_>) = std::mem::take(&mut some).into_iter().unzip();
        let (disk, folder) = (Arc::clone(&disk), folder.clone());
        let written = world::task::blocking(move || {
            let mut open = match log.take() {
                Some(log) => log,
                None => Log::open(disk, &folder, Options::default())?.0,
            };
            append(&mut open, &records).map(|()| open)
        });
        log = match written.await {
            Some(Ok(open)) => Some(open),
            Some(Err(error)) => {
                // They are in memory; opened anew, the log may take the next ones.
                tracing::error!(error = %wire::diagnostic::chain(&error), "runs cannot be recorded on the disk");
                None
            }
            None => None,
        };
        for written in done {
            // Whoever does not wait does not need to know.
            let _ = written.send(());
        }
    }
}

fn append(log: &mut Log, records: &[RunRecord]) -> Result<(), LogError> {
    // Plain data: it has a form in JSON.
    let entries = records.iter().map(|record| serde_json::to_vec(record).unwrap_or_default()).collect();
    log.write(&Batch { entries, ..Batch::default() })?;
    let reader = log.reader();
    let kept_from = reader.first_of_last(LOG_BYTES_MAX);
    // A segment goes as a whole: purging now and then is enough.
    if kept_from > reader.first() + 4 * READ_MAX {
        log.write(&Batch { purge_to: Some(kept_from - 1), ..Batch::default() })?;
    }
    log.tend();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, verdict: Option<RunVerdict>) -> RunRecord {
        RunRecord { id: id.to_owned(), verdict, ..RunRecord::default() }
    }

    #[test]
    fn what_was_added_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("ledger");
        let disk = || Arc::new(world::disk::Real) as Arc<dyn Disk>;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (ledger, writing) = Ledger::open(disk(), &at).expect("opened");
            assert!(!at.exists(), "nothing was run, nothing is written");
            let adding = async {
                assert!(ledger.add(record("a", None)).await);
                assert!(ledger.add(record("b", None)).await);
                assert!(ledger.add(record("a", Some(RunVerdict::Finished))).await);
                // Known before its worker says so, and no more once it has ended.
                ledger.begun(record("c", None));
                assert_eq!(ledger.find("c"), Some(record("c", None)));
                assert!(ledger.add(record("c", None)).await, "it is not on the disk yet");
                assert!(ledger.add(record("c", Some(RunVerdict::Killed))).await);
                ledger.begun(record("c", None));
                assert_eq!(ledger.running(), [record("b", None)]);
                ledger.begun(record("d", None));
                assert_eq!(ledger.lose(|record| record.id == "d").await.len(), 1);
                // Said again, as after a break.
                assert!(!ledger.add(record("a", None)).await);
                assert!(!ledger.add(record("a", Some(RunVerdict::Finished))).await);
            };
            tokio::select! {
                () = writing => panic!("it is written to"),
                () = adding => {}
            }
        });
        runtime.block_on(async {
            let (ledger, writing) = Ledger::open(disk(), &at).expect("opened");
            assert_eq!(ledger.running(), [record("b", None)]);
            assert_eq!(ledger.find("a"), Some(record("a", Some(RunVerdict::Finished))));
            let losing = async {
                let lost = ledger.lose(|record| record.id == "b").await;
                assert_eq!(lost.len(), 1);
                assert!(ledger.lose(|_| true).await.is_empty());
            };
            tokio::select! {
                () = writing => panic!("it is written to"),
                () = losing => {}
            }
            assert_eq!(
                ledger.list(10, None).iter().map(|record| record.verdict).collect::<Vec<_>>(),
                [RunVerdict::Lost, RunVerdict::Lost, RunVerdict::Killed, RunVerdict::Finished].map(Some)
            );
        });
    }
}
