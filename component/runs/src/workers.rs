//! A machine's workers: a process for each core, started when there is something to run, watched, started again.
//!
//! A worker outlives the node's process for some seconds, so that a node that is replaced finds its workers with all their runs: each
//! listens at a socket in a folder that every process of the node knows.

use crate::ledger::Ledger;
use crate::link::{Frame, Reader, Writer};
use crate::meters::Meters;
use crate::order::{Beat, Numbered, Opening, ToWorker};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot};
use world::task::Task;

/// A worker says twice a second that it lives.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// So many beats without its threads having done anything: they hang.
const STUCK_BEATS: u32 = 10;
/// Between a worker's end and the next one's start, and what that grows to when it ends again and again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long one has to answer that it is there.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Longer paths do not fit a socket's address.
const SOCKET_PATH_MAX: usize = 100;

/// What starting one takes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where their sockets are.
    pub folder: PathBuf,
    /// The program, with what comes before [`Workers`]' own arguments.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// This machine.
    pub node: String,
    pub version: String,
    pub count: u32,
}

pub struct Workers {
    settings: Settings,
    known: Mutex<BTreeMap<PathBuf, Worker>>,
    /// Something ended or told how it is: whoever waits for room looks again.
    pub changed: Notify,
    ledger: Ledger,
    meters: Meters,
    keepers: Mutex<Option<Vec<Task>>>,
}

/// One that lives.
#[derive(Debug, Clone)]
struct Worker {
    beat: Beat,
    /// Given to it since it told how many it has.
    given: u32,
}

impl Workers {
    pub fn new(settings: Settings, ledger: Ledger, meters: Meters) -> Arc<Workers> {
        let (known, keepers) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
        Arc::new(Workers { settings, known, changed: Notify::new(), ledger, meters, keepers })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Worker>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up workers that another process of this node has left, and starts all others if there is one of those.
    pub async fn adopt(self: &Arc<Self>) {
        let mut found = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.settings.folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if UnixStream::connect(&path).await.is_ok() {
                found.push(path);
            } else if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove the socket of a worker that is gone");
            }
        }
        if !found.is_empty() {
            self.begin(found);
        }
    }

    /// Has workers, if there are none yet.
    pub fn ensure(self: &Arc<Self>) {
        if self.keepers().is_none() {
            self.begin(Vec::new());
        }
    }

    fn keepers(&self) -> MutexGuard<'_, Option<Vec<Task>>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, mut found: Vec<PathBuf>) {
        let mut keepers = self.keepers();
        if keepers.is_some() {
            return;
        }
        let mut tasks = Vec::new();
        for number in 0..self.settings.count {
            let mine = found.iter().position(|path| number_of(path) == Some(number)).map(|index| found.remove(index));
            tasks.push(world::task::spawn("a worker's keeper", Arc::clone(self).keep(number, mine)));
        }
        for path in found {
            // More than this machine should have: they end when their runs do.
            let this = Arc::clone(self);
            tasks.push(world::task::spawn("a surplus worker", async move {
                if let Err(error) = this.attend(&path, true).await {
                    tracing::debug!(%error, "a surplus worker ended");
                }
            }));
        }
        *keepers = Some(tasks);
    }

    /// Has a worker of this number for as long as the node lives. May be dropped anywhere: the worker goes on for a while.
    async fn keep(self: Arc<Self>, number: u32, mut found: Option<PathBuf>) {
        let mut pause = RESTART_PAUSE;
        loop {
            let (path, mut child) = match found.take() {
                Some(path) => (path, None),
                None => match self.start(number) {
                    Ok((path, child)) => (path, Some(child)),
                    Err(error) => {
                        tracing::error!(number, %error, "cannot start a worker");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RESTART_PAUSE_MAX);
                        continue;
                    }
                },
            };
            let began = world::clock::monotonic();
            let ended = self.attend(&path, false).await;
            self.known().remove(&path);
            if let Some(child) = &mut child {
                // It may hang: what it had is given up.
                let _ = child.start_kill();
                let _ = child.wait().await;
            }
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a worker's socket");
            }
            let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            let lost = self.ledger.lose(|record| record.worker == number).await;
            tracing::warn!(number, reason, lost = lost.len(), "a worker is gone; another is started");
            self.meters.worker_lost();
            lost.iter().for_each(|record| self.meters.ended(record));
            self.changed.notify_waiters();
            pause =
                if began.elapsed() > RESTART_PAUSE_MAX { RESTART_PAUSE } else { (pause * 2).min(RESTART_PAUSE_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    fn start(&self, number: u32) -> io::Result<(PathBuf, Child)> {
        let Settings { folder, program, arguments, node, .. } = &self.settings;
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{number}-{}", world::random::word(6)));
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            let what = format!("the path {} is too long for a socket: use a shorter data folder", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = UnixListener::bind(&path)?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--number", &number.to_string(), "--node", node]);
        command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null());
        Ok((path, command.spawn()?))
    }

    /// Listens to a worker until it is gone or hangs.
    async fn attend(&self, path: &Path, retire: bool) -> io::Result<()> {
        let mut beats = open(path, &Opening::Beats).await?.0;
        let (mut records, mut to_worker) = open(path, &Opening::Node).await?;
        if retire {
            to_worker.word(&ToWorker::Retire).await?;
        }
        let mut stuck = Stuck::default();
        let mut writing: VecDeque<(u64, oneshot::Receiver<()>)> = VecDeque::new();
        let mut hello =
            tokio::time::timeout(HELLO_DEADLINE, beats.next()).await.map_err(|_| io::ErrorKind::TimedOut)?;
        loop {
            let Some(Frame::Word(word)) = hello? else { return Ok(()) };
            let beat: Beat = Frame::word(&word)?;
            if beat.version != self.settings.version && !beat.retires {
                to_worker.word(&ToWorker::Retire).await?;
            }
            if stuck.is_so(&beat) {
                return Err(io::Error::other("it hangs"));
            }
            let boxes = beat.boxes;
            // What one that another process of this node has left did before is counted where it was.
            let before = self.known().insert(path.to_owned(), Worker { beat, given: 0 });
            self.meters.boxes(before.map_or(boxes, |before| before.beat.boxes), boxes);
            self.changed.notify_waiters();
            let next = tokio::time::timeout(SILENCE_MAX, async {
                loop {
                    let written = async {
                        match writing.front_mut() {
                            Some((number, written)) => (*number, written.await),
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        beat = beats.next() => return beat,
                        (number, done) = written => {
                            writing.pop_front();
                            let mut kept = done.is_ok().then_some(number);
                            // Written together, they are told of together.
                            while let Some((number, written)) = writing.front_mut()
                                && let Ok(()) = written.try_recv()
                            {
                                kept = kept.map(|_| *number);
                                writing.pop_front();
                            }
                            // What could not be written is said again by its worker, to the next process of this node.
                            if let Some(number) = kept {
                                to_worker.word(&ToWorker::Kept(number)).await?;
                            }
                        }
                        record = records.next() => match record? {
                            Some(Frame::Word(word)) => writing.push_back(self.record(Frame::word(&word)?).await),
                            Some(Frame::Blocks(_)) | None => return Ok(None),
                        }
                    }
                }
            });
            hello = next.await.map_err(|_| io::Error::other("it is silent"))?;
        }
    }

    /// Takes a worker's record; its number, and what ends when it is on the disk.
    async fn record(&self, numbered: Numbered) -> (u64, oneshot::Receiver<()>) {
        let Numbered { number, record } = numbered;
        let (news, written) = self.ledger.enter(record.clone()).await;
        if news && record.verdict.is_some() {
            self.meters.ended(&record);
            self.changed.notify_waiters();
        }
        (number, written)
    }

    /// Workers that take runs, the one with the fewest first.
    pub fn by_load(&self) -> Vec<PathBuf> {
        let known = self.known();
        let mut able: Vec<(u32, u32, PathBuf)> = known
            .iter()
            .filter(|(_, worker)| !worker.beat.retires && worker.beat.version == self.settings.version)
            .map(|(path, worker)| (worker.beat.runs + worker.given, worker.beat.number, path.clone()))
            .collect();
        able.sort();
        able.into_iter().map(|(_, _, path)| path).collect()
    }

    /// Numbers of those that live, or are being taken up.
    pub fn numbers(&self) -> Vec<u32> {
        self.known().values().map(|worker| worker.beat.number).chain(self.found()).collect()
    }

    fn found(&self) -> Vec<u32> {
        self.all().iter().filter_map(|path| number_of(path)).collect()
    }

    /// All that there may be, those too that have not told of themselves since this process began.
    pub fn all(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.settings.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// It was given a run, which it has not told of yet. False when it is gone already.
    pub fn gave(&self, path: &Path) -> bool {
        let mut known = self.known();
        let worker = known.get_mut(path);
        let is_known = worker.is_some();
        worker.into_iter().for_each(|worker| worker.given += 1);
        is_known
    }

    /// How many live, how many should, how many runs they have and how many boxes that wait.
    pub fn figures(&self) -> (usize, u32, u32, u32) {
        let known = self.known();
        let sum = |of: fn(&Beat) -> u32| known.values().map(|worker| of(&worker.beat)).sum();
        let wanted = if self.keepers().is_some() { self.settings.count } else { 0 };
        (known.len(), wanted, sum(|beat| beat.runs), sum(|beat| beat.boxes.ready))
    }

    /// How many there should be once there is something to run.
    pub fn count(&self) -> u32 {
        self.settings.count
    }

    /// Lets go of all, who go on for a while: another process of this node takes them up.
    pub fn leave(&self) {
        drop(self.keepers().take());
    }

    /// Ends all of them, and their runs.
    pub fn stop(&self) {
        self.leave();
        for (path, worker) in std::mem::take(&mut *self.known()) {
            if let Some(pid) = i32::try_from(worker.beat.pid).ok().and_then(rustix::process::Pid::from_raw) {
                // Gone already is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Which worker a socket is of.
fn number_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// A connection to a worker, with its first words said.
pub async fn open(path: &Path, opening: &Opening) -> io::Result<(Reader, Writer)> {
    let (reader, writer) = UnixStream::connect(path).await?.into_split();
    let (reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    writer.word(opening).await?;
    Ok((reader, writer))
}

/// Finds out whether a worker's threads do something.
#[derive(Default)]
struct Stuck {
    last: (u64, u64),
    beats: u32,
}

impl Stuck {
    fn is_so(&mut self, beat: &Beat) -> bool {
        let now = (beat.carried, beat.ran);
        let moved = now.0 != self.last.0 && now.1 != self.last.1;
        self.last = now;
        self.beats = if moved { 0 } else { self.beats + 1 };
        self.beats >= STUCK_BEATS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_hangs_when_one_of_its_threads_does() {
        let beat = |carried, ran| Beat { carried, ran, ..Beat::default() };
        let mut stuck = Stuck::default();
        assert!(!(1..100).any(|number| stuck.is_so(&beat(number, number))));
        let hung = (0..100).position(|number| stuck.is_so(&beat(100 + number, 99)));
        assert_eq!(hung, Some(STUCK_BEATS as usize - 1));
    }

    #[test]
    fn a_socket_says_whose_it_is() {
        let check = |name: &str, number: Option<u32>| assert_eq!(number_of(Path::new(name)), number);
        check("/x/3-abc", Some(3));
        check("/x/y-abc", None);
        check("/x/3", None);
    }
}
