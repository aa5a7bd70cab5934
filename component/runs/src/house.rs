//! What one machine does with runs: a wish becomes an order for its own workers, with the root file system of the language as
//! this machine has it.
//!
//! Promises that a refusal says what would be right, and that a run which was asked for twice under one id is begun once, and
//! not at all after it was given up.

use crate::files;
use crate::language::{Language, LanguageError, Languages};
use crate::ledger::Ledger;
use crate::meters::Meters;
use crate::order::{Limits, Opening, Order};
use crate::roots::{self, RootError};
use crate::session::{RefusedRun, Session, opened};
use crate::talk::{Watching, Wish};
use crate::worker::{no_room, no_run};
use crate::workers::{self, Workers};
use images::Store;
use sha2::{Digest, Sha256};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use wire::run::{LanguageDetail, LanguageOn, RunRecord, RunWanted, Running, Told};

/// How long a worker may take to accept or refuse.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long workers that are being started are waited for.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Until a worker that is gone is known to be.
const LOST_PATIENCE: Duration = Duration::from_secs(5);
/// Arguments and environment together: the kernel allows 2 MB, and a line of words needs less.
const WORDS_BYTES_MAX: usize = 128 << 10;
/// How long a list of languages waits for what their programs say of their versions.
const VERSIONS_PATIENCE: Duration = Duration::from_secs(1);
const TOLD_MAX: usize = 16;
/// What can be run here changes when somebody installs or removes it.
const ABLE_AGE_MAX: Duration = Duration::from_secs(10);
/// Ids of runs that were begun here, or shall not be.
const SEEN_MAX: usize = 20_000;

/// What it is made of.
pub struct Parts {
    /// For compiled code and what is packed.
    pub folder: PathBuf,
    /// Languages of whoever runs the machine.
    pub languages: PathBuf,
    pub node: String,
    pub images: Store,
    pub workers: Arc<Workers>,
    pub ledger: Ledger,
    pub meters: Meters,
    /// Why this machine takes no runs at the moment, if it does not.
    pub refuses: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Whether its owner comes first.
    pub gives_way: Box<dyn Fn() -> bool + Send + Sync>,
}

pub struct House {
    parts: Parts,
    languages: Languages,
    seen: Mutex<Seen>,
    /// One copy of a language is made at a time.
    copying: Arc<tokio::sync::Mutex<()>>,
    versions: Arc<Versions>,
    able: Mutex<Option<Able>>,
}

/// What can be run here, with the copy of each language that has been copied, and when that was looked up.
struct Able {
    at: std::time::Instant,
    roots: BTreeMap<String, Option<PathBuf>>,
}

/// What programs say of their versions, by language; `None` while one is asked.
#[derive(Default)]
struct Versions {
    known: Mutex<BTreeMap<String, Option<String>>>,
    more: Notify,
}

impl Versions {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of wishes.
#[derive(Default)]
struct Seen {
    fates: BTreeMap<String, Fate>,
    order: VecDeque<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Begun,
    /// In no attempt up to this one.
    Void(u64),
}

impl Seen {
    fn insert(&mut self, id: &str, fate: Fate) {
        if self.fates.insert(id.to_owned(), fate).is_none() {
            self.order.push_back(id.to_owned());
        }
        while self.order.len() > SEEN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.fates.remove(&oldest);
            }
        }
    }
}

/// A wish that is on its way to a worker; dropped, it may be asked again.
struct Beginning<'a> {
    house: &'a House,
    id: Option<String>,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let mut seen = self.house.seen();
            seen.fates.remove(&id);
            seen.order.retain(|known| *known != id);
        }
    }
}

impl House {
    pub fn open(parts: Parts) -> Result<House, LanguageError> {
        let languages = Languages::open(&parts.languages)?;
        Ok(House {
            parts,
            languages,
            seen: Mutex::default(),
            copying: Arc::default(),
            versions: Arc::default(),
            able: Mutex::new(None),
        })
    }

    pub fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    pub fn workers(&self) -> &Arc<Workers> {
        &self.parts.workers
    }

    pub fn meters(&self) -> &Meters {
        &self.parts.meters
    }

    pub fn node(&self) -> &str {
        &self.parts.node
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with a wish wherever it is run, if anything.
    pub fn check(&self, wanted: &RunWanted) -> Result<&Language, RefusedRun> {
        let language = self.languages.of_run(wanted).map_err(RefusedRun::Wrong)?;
        let mut named = wanted.files.clone();
        if let Some(first) = named.first_mut().filter(|file| file.name.is_empty()) {
            first.name.clone_from(&language.main);
        }
        files::check(&named).map_err(RefusedRun::Wrong)?;
        words(wanted).map_err(RefusedRun::Wrong)?;
        Limits::of(&wanted.limits, &language.limits).map_err(RefusedRun::Wrong)?;
        Ok(language)
    }

    /// Gives a wish to one of this machine's workers.
    pub async fn take(&self, wish: &Wish, told: &mpsc::Sender<Told>) -> Result<Session, RefusedRun> {
        if let Some(why) = (self.parts.refuses)() {
            return Err(RefusedRun::Told(Box::new(no_room(&why))));
        }
        // One that was begun under this id is carried on.
        let known = {
            let mut seen = self.seen();
            let known = seen.fates.get(&wish.id).copied();
            if known.is_none() || matches!(known, Some(Fate::Void(attempt)) if wish.attempt > attempt) {
                seen.insert(&wish.id, Fate::Begun);
                None
            } else {
                known
            }
        };
        match known {
            Some(Fate::Begun) => {
                return self.watch(&Watching { id: wish.id.clone(), turns: true, ..Watching::default() }).await;
            }
            Some(Fate::Void(_)) => return Err(RefusedRun::Told(Box::new(no_run(&wish.id)))),
            None => {}
        }
        let mut beginning = Beginning { house: self, id: Some(wish.id.clone()) };
        let order = self.order(wish, told).await?;
        self.give(&order, &mut beginning).await
    }

    /// Gives the order to the first worker that takes it. Workers that are only being started are waited for.
    async fn give(&self, order: &Order, beginning: &mut Beginning<'_>) -> Result<Session, RefusedRun> {
        self.parts.workers.ensure();
        let patience = world::clock::monotonic() + START_PATIENCE;
        loop {
            let changed = self.parts.workers.changed.notified();
            let mut refused = RefusedRun::NoWorker(io::ErrorKind::NotFound.into());
            for path in self.parts.workers.by_load() {
                // From here on it may have begun, whatever becomes of who asked; until the worker says that it has not.
                let id = beginning.id.take();
                match connect(&path, &Opening::Run(Box::new(order.clone()))).await {
                    Ok(session) => {
                        let (node, worker) = (&self.parts.node, session.accepted.worker);
                        self.parts.ledger.begun(order.record(node, worker, world::clock::unix_ms()));
                        if !self.parts.workers.gave(&path) {
                            // What it had was given up, maybe a moment before this was known of.
                            let lost = self.parts.ledger.lose(|record| record.id == order.id).await;
                            lost.iter().for_each(|record| self.parts.meters.ended(record));
                        }
                        return Ok(session);
                    }
                    Err(RefusedRun::Told(problem)) => {
                        (refused, beginning.id) = (RefusedRun::Told(problem), id);
                    }
                    // A worker at whose socket nobody listens has begun nothing.
                    Err(RefusedRun::NoWorker(error)) if is_refused(&error) => {
                        beginning.id = id;
                        if !matches!(refused, RefusedRun::Told(_)) {
                            refused = RefusedRun::NoWorker(error);
                        }
                    }
                    Err(RefusedRun::NoWorker(source)) => {
                        return Err(RefusedRun::Unreachable { machine: order_to(&path), source });
                    }
                    Err(other) => return Err(other),
                }
            }
            // None was started yet, or all just ended.
            let starts = matches!(refused, RefusedRun::NoWorker(_)) && world::clock::monotonic() < patience;
            if !starts || tokio::time::timeout_at(patience.into(), changed).await.is_err() {
                return Err(refused);
            }
        }
    }

    /// A line to a run of this machine that goes on, or whose end nobody has got.
    pub async fn watch(&self, watching: &Watching) -> Result<Session, RefusedRun> {
        for path in self.parts.workers.all() {
            match connect(&path, &Opening::Attach(watching.clone())).await {
                Ok(session) => return Ok(session),
                Err(RefusedRun::Superseded) => return Err(RefusedRun::Superseded),
                Err(_) => {}
            }
        }
        Err(RefusedRun::Told(Box::new(no_run(&watching.id))))
    }

    /// What becomes of a run that none of the workers has: they may not have been found out to be gone yet.
    pub async fn outcome(&self, id: &str) -> Option<RunRecord> {
        let ended = async {
            loop {
                let changed = self.parts.workers.changed.notified();
                match self.parts.ledger.find(id) {
                    Some(record) if record.verdict.is_none() => {}
                    found => return found,
                }
                changed.await;
            }
        };
        let ended = tokio::time::timeout(LOST_PATIENCE, ended).await;
        ended.ok().flatten().or_else(|| self.parts.ledger.find(id))
    }

    /// From now on a run of this id is not begun here in any attempt up to this one. Whether it was.
    pub fn void(&self, id: &str, attempt: u64) -> bool {
        let mut seen = self.seen();
        match seen.fates.get(id).copied() {
            Some(Fate::Begun) => true,
            // Begun by a process of this node before this one.
            Some(Fate::Void(_)) | None if self.parts.ledger.find(id).is_some() => true,
            Some(Fate::Void(before)) => {
                seen.insert(id, Fate::Void(before.max(attempt)));
                false
            }
            None => {
                seen.insert(id, Fate::Void(attempt));
                false
            }
        }
    }

    /// Ends a run, whoever watches it. One that is only on its way here does not begin.
    pub async fn end(&self, id: &str) {
        self.void(id, u64::MAX);
        let all = self.parts.workers.all();
        let told = all.iter().map(|path| async move {
            let Ok((mut reader, _writer)) = workers::open(path, &Opening::Kill(id.to_owned())).await else { return };
            // Its closing says that it was heard. A worker that is gone has ended its runs.
            let _ = tokio::time::timeout(ANSWER_DEADLINE, reader.next()).await;
        });
        futures::future::join_all(told).await;
    }

    /// How it stands, for others.
    pub fn running(&self) -> Running {
        let (_, _, running, _) = self.parts.workers.figures();
        Running {
            running,
            cores: self.parts.workers.count(),
            languages: self
                .able(|roots| roots.iter().map(|(language, root)| (language.clone(), root.is_some())).collect()),
            refuses: (self.parts.refuses)().unwrap_or_default(),
            turns: true,
            ..Running::default()
        }
    }

    /// Each language that can be run here, as `look` wants to know of its copy.
    fn able<T>(&self, look: impl FnOnce(&BTreeMap<String, Option<PathBuf>>) -> T) -> T {
        let mut able = self.able.lock().unwrap_or_else(PoisonError::into_inner);
        let at = world::clock::monotonic();
        let known = able.take().filter(|able| at.saturating_duration_since(able.at) < ABLE_AGE_MAX);
        let known = known.unwrap_or_else(|| {
            let here = self.languages.all().iter().filter(|language| roots::lack(language).is_none());
            let with_copy = |language: &Language| (language.name.clone(), roots::found(&self.parts.images, language));
            Able { at, roots: here.map(with_copy).collect() }
        });
        look(&able.insert(known).roots)
    }

    async fn order(&self, wish: &Wish, told: &mpsc::Sender<Told>) -> Result<Order, RefusedRun> {
        let mut wanted = wish.wanted.clone();
        let language = self.check(&wanted)?.clone();
        if let Some(first) = wanted.files.first_mut().filter(|file| file.name.is_empty()) {
            first.name.clone_from(&language.main);
        }
        let limits = Limits::of(&wanted.limits, &language.limits).map_err(RefusedRun::Wrong)?;
        let root = self.root(&language, told).await?;
        let names: Vec<String> = wanted.files.iter().map(|file| file.name.clone()).collect();
        let mut run = language.command(&language.run, &names);
        run.extend(wanted.args.iter().cloned());
        let compile = language.command(&language.compile, &names);
        let code = hash(&wanted, &[]);
        let compiled_as = hash(&wanted, &[format!("{compile:?}{:?}", language.env), root.display().to_string()]);
        Ok(Order {
            id: wish.id.clone(),
            who: wish.who.clone(),
            language: language.name.clone(),
            limits,
            root,
            compile,
            keep: language.keep.clone(),
            run,
            env: language.env.clone(),
            code_sha256: code,
            compiled: self.parts.folder.join("compiled"),
            compiled_as,
            asked_ms: wish.asked_ms,
            queue_usec: wish.queue_usec,
            place_usec: wish.place_usec,
            trace: wish.trace.clone(),
            idle: (self.parts.gives_way)(),
            wanted,
        })
    }

    /// The root file system of a language, copied from this machine if need be.
    async fn root(&self, language: &Language, told: &mpsc::Sender<Told>) -> Result<PathBuf, RefusedRun> {
        let refused = |source| RefusedRun::Language { language: language.title.clone(), source: Box::new(source) };
        // Somebody may have removed it since.
        let known = self.able(|roots| roots.get(&language.name).cloned().flatten());
        if let Some(known) = known.filter(|root| root.is_dir()) {
            return Ok(known);
        }
        if let Some(lack) = roots::lack(language) {
            return Err(refused(RootError::Lack(lack)));
        }
        if let Some(found) = roots::found(&self.parts.images, language) {
            return Ok(found);
        }
        // Whoever does not listen is not told.
        let told = told.clone();
        let tell = move |what: String| drop(told.try_send(Told::Preparing(what)));
        let from = if language.root.image.is_empty() { "this machine" } else { &language.root.image };
        tell(format!("copying {} from {from}, once", language.title));
        let copying = Arc::clone(&self.copying).lock_owned().await;
        // Others have waited for the same.
        if let Some(found) = roots::found(&self.parts.images, language) {
            return Ok(found);
        }
        let (images, meters, wanted) = (self.parts.images.clone(), self.parts.meters.clone(), language.clone());
        let (made, making) = oneshot::channel();
        let make = async move {
            let began = world::clock::monotonic();
            let root = roots::make(&images, &wanted, tell).await;
            meters.copied(began.elapsed(), root.is_ok());
            match &root {
                Ok(_) => tracing::info!(language = wanted.name, seconds = began.elapsed().as_secs_f64(), "copied"),
                Err(error) => {
                    let why = wire::diagnostic::chain(error);
                    tracing::warn!(language = wanted.name, why, "a language cannot be copied");
                }
            }
            drop(copying);
            // Whoever asked may be gone: the next one finds it.
            let _ = made.send(root);
        };
        // Ends when it is copied.
        world::task::spawn("a copy of a language", make).detach();
        let root = making.await.unwrap_or(Err(RootError::Ended)).map_err(refused)?;
        *self.able.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.parts.workers.changed.notify_waiters();
        Ok(root)
    }

    /// Copies a language before anybody waits for it.
    pub async fn prepare(&self, name: &str) -> Result<(), RefusedRun> {
        let (told, _nobody) = mpsc::channel(TOLD_MAX);
        self.prepare_for(name, &told).await
    }

    /// The same, for somebody who waits already.
    pub async fn prepare_for(&self, name: &str, told: &mpsc::Sender<Told>) -> Result<(), RefusedRun> {
        let known = self.languages.named(name).cloned();
        let language = known.ok_or_else(|| RefusedRun::Wrong(format!("no language is called {name:?}")))?;
        self.root(&language, told).await.map(|_| ())
    }

    /// All languages, with what this machine has of each.
    pub async fn languages(&self) -> Vec<LanguageDetail> {
        let all: Vec<_> = self.languages.all().iter().map(|language| (language, roots::lack(language))).collect();
        self.ask_versions(all.iter().filter(|(_, lack)| lack.is_none()).map(|(language, _)| *language)).await;
        let versions = self.versions.known().clone();
        let mut details = Vec::new();
        for (language, lack) in all {
            let version =
                versions.get(&language.name).filter(|_| lack.is_none()).cloned().flatten().unwrap_or_default();
            let on = LanguageOn {
                node: self.parts.node.clone(),
                version,
                copied: roots::found(&self.parts.images, language).is_some(),
                lack: lack.map_or_else(String::new, |path| format!("{path} is not there")),
            };
            details.push(LanguageDetail {
                name: language.name.clone(),
                title: language.title.clone(),
                aliases: language.aliases.clone(),
                extensions: language.extensions.clone(),
                compiled: !language.compile.is_empty(),
                example: language.example.trim_start().to_owned(),
                main: language.main.clone(),
                machines: vec![on],
            });
        }
        details
    }

    /// Asks the programs of these languages that were not asked yet, at once. One that is slow is known of the next time.
    async fn ask_versions(&self, languages: impl Iterator<Item = &Language>) {
        for language in languages {
            if let Entry::Vacant(unknown) = self.versions.known().entry(language.name.clone()) {
                unknown.insert(None);
                let (versions, language) = (Arc::clone(&self.versions), language.clone());
                let ask = async move {
                    let version = roots::version(&language).await;
                    versions.known().insert(language.name, Some(version));
                    versions.more.notify_waiters();
                };
                // Ends with the program, which is not waited for for ever.
                world::task::spawn("a language's version", ask).detach();
            }
        }
        let all = async {
            loop {
                let more = self.versions.more.notified();
                if self.versions.known().values().all(Option::is_some) {
                    return;
                }
                more.await;
            }
        };
        let _ = tokio::time::timeout(VERSIONS_PATIENCE, all).await;
    }

    /// Images that runs stand on: they are not to be pruned.
    pub fn images_in_use(&self) -> BTreeSet<String> {
        self.languages.all().iter().filter_map(|language| roots::digest(&self.parts.images, language)).collect()
    }
}

async fn connect(path: &Path, opening: &Opening) -> Result<Session, RefusedRun> {
    let connected = async {
        let (reader, writer) = workers::open(path, opening).await.map_err(RefusedRun::NoWorker)?;
        opened(reader, writer, None).await
    };
    tokio::time::timeout(ANSWER_DEADLINE, connected)
        .await
        .unwrap_or_else(|_| Err(RefusedRun::NoWorker(io::ErrorKind::TimedOut.into())))
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

fn order_to(path: &Path) -> String {
    format!("worker {}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// What is wrong with arguments and environment.
fn words(wanted: &RunWanted) -> Result<(), String> {
    let env = wanted.env.iter().map(|(name, value)| name.len() + value.len() + 2);
    let bytes: usize = wanted.args.iter().map(|word| word.len() + 1).chain(env).sum();
    if bytes > WORDS_BYTES_MAX {
        return Err(format!("arguments and environment have {bytes} bytes, {WORDS_BYTES_MAX} at most"));
    }
    if let Some((name, _)) = wanted.env.iter().find(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!("{name:?} is no name of an environment variable"));
    }
    let all = wanted.args.iter().chain(wanted.env.values());
    if all.into_iter().any(|word| word.contains('\0')) {
        return Err("arguments and environment may not have zero bytes".to_owned());
    }
    Ok(())
}

/// Of the code, and of what else its meaning follows from.
fn hash(wanted: &RunWanted, others: &[String]) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for file in &wanted.files {
        part(file.name.as_bytes());
        // Checked before.
        part(&files::content(file).unwrap_or_default());
    }
    others.iter().for_each(|other| part(other.as_bytes()));
    hex::encode(hash.finalize())
}
