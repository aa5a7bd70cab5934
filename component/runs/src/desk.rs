//! Where runs are asked for: what is wanted becomes an order, the order finds a worker, and whoever asked has a line to it.
//!
//! Promises that a refusal says what would be right, that who waits is told how many are before, and that no more wait than
//! can be served in reasonable time.

use crate::files;
use crate::language::{Language, LanguageError, Languages};
use crate::ledger::Ledger;
use crate::link::{Frame, Reader, Writer};
use crate::meters::Meters;
use crate::order::{Limits, Opening, Order};
use crate::roots::{self, RootError};
use crate::worker::no_run;
use crate::workers::{self, Workers, is_for_now};
use images::Store;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use wire::api::Problem;
use wire::run::{Accepted, Attach, LanguageDetail, LanguageOn, Queued, RunWanted, Told};

/// Runs that wait for a worker. At two a second, whoever comes last waits some minutes.
const WAITING_MAX: usize = 500;
/// Whether a machine is busy is known from one moment to the next, and nobody tells when it no longer is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a worker may take to accept or refuse.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Between two tries when there is no worker at all, as right after the first was started.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Arguments and environment together: the kernel allows 2 MB, and a line of words needs less.
const WORDS_BYTES_MAX: usize = 128 << 10;
const TOLD_MAX: usize = 16;

/// Why a run was not begun. Whose fault it is follows from the kind.
#[derive(Debug, thiserror::Error)]
pub enum RefusedRun {
    #[error("{0}")]
    Wrong(String),
    #[error("{language} cannot be run here: {source}")]
    Language {
        language: String,
        #[source]
        source: Box<RootError>,
    },
    #[error("{0} runs wait already")]
    TooMany(usize),
    #[error("{}", .0.message)]
    Worker(Box<Problem>),
    #[error("no worker answers")]
    NoWorker(#[source] io::Error),
}

impl RefusedRun {
    /// As the API says it, with its status.
    pub fn problem(&self) -> (u16, Problem) {
        let told = |code: &str, hint: &str| Problem {
            code: code.to_owned(),
            message: wire::diagnostic::chain(self),
            hint: hint.to_owned(),
            diagnostics: Vec::new(),
        };
        match self {
            RefusedRun::Wrong(_) => (400, told("B0901", "see `bramble run --help` and docs/runs.md")),
            RefusedRun::Language { .. } => (
                422,
                told(
                    "B0904",
                    "`bramble language ls` shows what can be run where; install the language's packages and try again",
                ),
            ),
            RefusedRun::TooMany(_) => (503, told("B0902", "try again in a minute, or add a machine")),
            RefusedRun::Worker(problem) => (if problem.code == no_run("").code { 404 } else { 503 }, *problem.clone()),
            RefusedRun::NoWorker(_) => (503, told("B0905", "the node's log says why its workers do not start")),
        }
    }
}

/// A line to the worker that has a run.
pub struct Session {
    pub accepted: Accepted,
    pub reader: Reader,
    pub writer: Writer,
}

/// What the desk is made of.
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
}

pub struct Desk {
    parts: Parts,
    languages: Languages,
    waiting: Mutex<VecDeque<u64>>,
    moved: Notify,
    next_ticket: std::sync::atomic::AtomicU64,
    /// One copy of a language is made at a time.
    copying: tokio::sync::Mutex<()>,
    versions: Mutex<BTreeMap<String, String>>,
}

impl Desk {
    pub fn open(parts: Parts) -> Result<Desk, LanguageError> {
        let languages = Languages::open(&parts.languages)?;
        Ok(Desk {
            parts,
            languages,
            waiting: Mutex::new(VecDeque::new()),
            moved: Notify::new(),
            next_ticket: std::sync::atomic::AtomicU64::new(0),
            copying: tokio::sync::Mutex::new(()),
            versions: Mutex::new(BTreeMap::new()),
        })
    }

    pub fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    pub fn workers(&self) -> &Arc<Workers> {
        &self.parts.workers
    }

    /// Begins a run for `who`. What happens until a worker has it is told meanwhile. Dropped while it waits, nothing is begun, or
    /// what was begun is killed.
    pub async fn begin(&self, wanted: RunWanted, who: &str, told: &mpsc::Sender<Told>) -> Result<Session, RefusedRun> {
        let asked = world::clock::monotonic();
        let mut order = self.order(wanted, who, told).await?;
        self.parts.workers.ensure();
        let ticket = self.queue()?;
        let (mut before, mut has_waited) = (usize::MAX, false);
        let mut patience = world::clock::monotonic() + START_PATIENCE;
        loop {
            let place = ticket.place();
            let changed = self.parts.workers.changed.notified();
            let moved = self.moved.notified();
            if place == 0 {
                order.queue_usec = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                match self.give(&order).await {
                    Ok(session) => return Ok(session),
                    Err(RefusedRun::Worker(problem)) if is_for_now(&problem) => {
                        patience = world::clock::monotonic() + START_PATIENCE;
                        has_waited = true;
                    }
                    // None was started yet, or all just ended.
                    Err(RefusedRun::NoWorker(_)) if world::clock::monotonic() < patience => {}
                    Err(refused) => return Err(refused),
                }
            }
            // Workers that are only being started are nothing to tell of.
            if place < before && (place > 0 || has_waited) {
                before = place;
                // Whoever does not listen is not told.
                let _ = told.try_send(Told::Queued(Queued { before: place as u64 }));
            }
            tokio::select! {
                () = changed => {}
                () = moved => {}
                () = tokio::time::sleep(LOOK_AGAIN), if place == 0 => {}
            }
        }
    }

    /// Gives the order to the first worker that takes it.
    async fn give(&self, order: &Order) -> Result<Session, RefusedRun> {
        let mut refused = RefusedRun::NoWorker(io::ErrorKind::NotFound.into());
        for path in self.parts.workers.by_load() {
            match connect(&path, &Opening::Run(Box::new(order.clone()))).await {
                Ok(session) => {
                    self.parts.workers.gave(&path);
                    return Ok(session);
                }
                Err(RefusedRun::Worker(problem)) => refused = RefusedRun::Worker(problem),
                Err(other) => {
                    if !matches!(refused, RefusedRun::Worker(_)) {
                        refused = other;
                    }
                }
            }
        }
        Err(refused)
    }

    /// A line to a run that goes on, or whose end nobody has got.
    pub async fn attach(&self, attach: Attach) -> Result<Session, RefusedRun> {
        for path in self.parts.workers.all() {
            if let Ok(session) = connect(&path, &Opening::Attach(attach.clone())).await {
                return Ok(session);
            }
        }
        Err(RefusedRun::Worker(Box::new(no_run(&attach.id))))
    }

    /// Ends a run, whoever watches it.
    pub async fn kill(&self, id: &str) {
        for path in self.parts.workers.all() {
            let Ok((mut reader, _writer)) = workers::open(&path, &Opening::Kill(id.to_owned())).await else { continue };
            // Its closing says that it was heard. A worker that is gone has ended its runs.
            let _ = tokio::time::timeout(ANSWER_DEADLINE, reader.next()).await;
        }
    }

    async fn order(&self, wanted: RunWanted, who: &str, told: &mpsc::Sender<Told>) -> Result<Order, RefusedRun> {
        let asked_ms = world::clock::unix_ms();
        let mut wanted = wanted;
        let language = self.languages.of_run(&wanted).map_err(RefusedRun::Wrong)?.clone();
        if let Some(first) = wanted.files.first_mut().filter(|file| file.name.is_empty()) {
            first.name.clone_from(&language.main);
        }
        files::check(&wanted.files).map_err(RefusedRun::Wrong)?;
        words(&wanted).map_err(RefusedRun::Wrong)?;
        let limits = Limits::of(&wanted.limits, &language.limits).map_err(RefusedRun::Wrong)?;
        let root = self.root(&language, told).await?;
        let names: Vec<String> = wanted.files.iter().map(|file| file.name.clone()).collect();
        let mut run = language.command(&language.run, &names);
        run.extend(wanted.args.iter().cloned());
        let compile = language.command(&language.compile, &names);
        let code = hash(&wanted, &[]);
        let compiled_as = hash(&wanted, &[format!("{compile:?}{:?}", language.env), root.display().to_string()]);
        Ok(Order {
            id: world::random::word(20),
            who: who.to_owned(),
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
            asked_ms,
            queue_usec: 0,
            wanted,
        })
    }

    /// The root file system of a language, copied from this machine if need be.
    async fn root(&self, language: &Language, told: &mpsc::Sender<Told>) -> Result<PathBuf, RefusedRun> {
        let refused = |source| RefusedRun::Language { language: language.title.clone(), source: Box::new(source) };
        if let Some(found) = roots::found(&self.parts.images, language)
            && roots::lack(language).is_none()
        {
            return Ok(found);
        }
        if let Some(lack) = roots::lack(language) {
            return Err(refused(RootError::Lack(lack)));
        }
        // Whoever does not listen is not told.
        let _ = told.try_send(Told::Preparing(format!("copying {} from this machine, once", language.title)));
        let copying = self.copying.lock().await;
        let began = world::clock::monotonic();
        let root = roots::ensure(&self.parts.images, language).await.map_err(refused)?;
        tracing::info!(language = language.name, seconds = began.elapsed().as_secs_f64(), "copied from this machine");
        drop(copying);
        Ok(root)
    }

    /// Copies a language before anybody waits for it.
    pub async fn prepare(&self, name: &str) -> Result<PathBuf, RefusedRun> {
        let known = self.languages.named(name).cloned();
        let language = known.ok_or_else(|| RefusedRun::Wrong(format!("no language is called {name:?}")))?;
        let (told, _nobody) = mpsc::channel(TOLD_MAX);
        self.root(&language, &told).await
    }

    /// All languages, with what this machine has of each.
    pub async fn languages(&self) -> Vec<LanguageDetail> {
        let mut details = Vec::new();
        for language in self.languages.all() {
            let lack = roots::lack(language);
            let version = if lack.is_none() { self.version(language).await } else { String::new() };
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

    async fn version(&self, language: &Language) -> String {
        let versions = || self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = versions().get(&language.name) {
            return known.clone();
        }
        let asked = language.clone();
        let version = world::task::blocking(move || roots::version(&asked)).await.unwrap_or_default();
        versions().insert(language.name.clone(), version.clone());
        version
    }

    /// Images that runs stand on: they are not to be pruned.
    pub fn images_in_use(&self) -> BTreeSet<String> {
        self.languages.all().iter().filter_map(|language| roots::digest(&self.parts.images, language)).collect()
    }

    fn queue(&self) -> Result<Ticket<'_>, RefusedRun> {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            self.parts.meters.refused();
            return Err(RefusedRun::TooMany(waiting.len()));
        }
        let number = self.next_ticket.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        waiting.push_back(number);
        self.parts.meters.waiting(waiting.len());
        Ok(Ticket { desk: self, number })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait.
struct Ticket<'a> {
    desk: &'a Desk,
    number: u64,
}

impl Ticket<'_> {
    fn place(&self) -> usize {
        self.desk.waiting().iter().position(|number| *number == self.number).unwrap_or(0)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.desk.waiting();
        waiting.retain(|number| *number != self.number);
        self.desk.parts.meters.waiting(waiting.len());
        drop(waiting);
        self.desk.moved.notify_waiters();
    }
}

async fn connect(path: &Path, opening: &Opening) -> Result<Session, RefusedRun> {
    let opened = async {
        let (mut reader, writer) = workers::open(path, opening).await?;
        match reader.next().await? {
            Some(Frame::Word(word)) => Ok((Frame::word::<Told>(&word)?, reader, writer)),
            Some(Frame::Blocks(_)) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let answer: io::Result<_> = match tokio::time::timeout(ANSWER_DEADLINE, opened).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match answer.map_err(RefusedRun::NoWorker)? {
        (Told::Accepted(accepted), reader, writer) => Ok(Session { accepted, reader, writer }),
        (Told::Problem(problem), ..) => Err(RefusedRun::Worker(Box::new(problem))),
        (Told::Queued(_) | Told::Preparing(_) | Told::Phase(_) | Told::Taken(_) | Told::Ended(_), ..) => {
            Err(RefusedRun::NoWorker(io::ErrorKind::InvalidData.into()))
        }
    }
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
