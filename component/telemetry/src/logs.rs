//! What instances said, and what Bramble did to them.
//!
//! Owns the reading of `<logs>/<stack>/<service>/<instance>/{current,previous}`. Each instance's shim writes
//! `current`, a line as `<unix_ms> <o|e|b> <text>`, and renames it to `previous` when it is full; the agent
//! adds its own lines (`b`) with [`Logs::note`]. Reading goes from the end backwards and stops when it has
//! enough, so the last hundred lines of a gigabyte cost as much as those of a page.
//!
//! Promises: lines of several instances come in time order, those of one instance always in the order they
//! were written; bytes that are no text, lines without an end, and names that climb out of the folder do
//! no harm. Knows no container: folders are all there is.

mod backwards;
mod cursor;
mod filter;
mod follow;
mod line;
mod merge;
mod note;
mod prune;
mod watch;

pub use filter::GREP_BYTES_MAX;
pub use follow::{FOLLOW_LINES, Follow};
pub use line::LINE_BYTES_MAX;
pub use note::{NOTE_BYTES_MAX, NoteError};
pub use prune::{DEAD_INSTANCES_MAX, GONE_KEPT_MS, Keep, Pruned};

use backwards::Search;
use filter::Filter;
use merge::Chain;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use watch::Place;
use wire::api::LogLine;

/// Most lines one query answers; who wants more asks again with `until_ms`.
pub const LINES_MAX: usize = 10_000;

/// Most text one query answers: what a page can hold, and no query can make the agent hold.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Most of the logs one query looks through: a fraction of a second, and all of the logs of a service with
/// anything like the usual bound. One that would go on says where it stopped.
pub const SEARCH_BYTES_MAX: u64 = 256 << 20;

/// Queries that search at a time; more wait. They read a disk, which others need too.
pub const QUERIES_MAX: usize = 4;

/// Most follows at a time. Each holds an inotify instance, of which a user has 128 for all programs.
pub const FOLLOWS_MAX: usize = 64;

/// The file a shim writes, and the one it wrote before.
pub(crate) const CURRENT: &str = "current";
pub(crate) const PREVIOUS: &str = "previous";

/// The logs of this machine.
#[derive(Debug, Clone)]
pub struct Logs {
    root: PathBuf,
    follows: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    search_bytes_max: u64,
}

/// Held by whoever waits for an answer; dropped, the search for it is given up.
#[derive(Debug, Default)]
struct Wanted {
    given_up: Arc<AtomicBool>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// Which lines; the default is the newest [`LINES_MAX`] of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
    /// Text that occurs in the line, or a regular expression as `/…/` (`/…/i`: letters of either case).
    pub grep: Option<String>,
    /// Only the newest so many.
    pub tail: Option<usize>,
    pub instance: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("{0:?} is not a name logs are kept under")]
    Name(String),
    #[error("the pattern has {0} bytes, more than {GREP_BYTES_MAX}")]
    PatternLong(usize),
    #[error("the pattern is not a regular expression")]
    Pattern(#[source] Box<regex::Error>),
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("watching {}", path.display())]
    Watch { path: PathBuf, source: std::io::Error },
    #[error("{FOLLOWS_MAX} logs are being followed already")]
    TooMany,
    #[error("the search was given up")]
    GivenUp,
}

impl QueryError {
    /// What to do about it; empty when there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            QueryError::Name(_) => "names hold no slash and do not begin with a dot",
            QueryError::PatternLong(_) => "search for a part of it",
            QueryError::Pattern(_) => "leave the slashes away to search for the text as it is",
            QueryError::Read { .. } => "the agent must be able to read its own data folder",
            QueryError::Watch { .. } => "raise fs.inotify.max_user_instances or fs.inotify.max_user_watches",
            QueryError::TooMany => "close a page or a command that shows logs",
            QueryError::GivenUp => "",
        }
    }

    /// Whether the caller asked for something that cannot be.
    pub fn is_callers_fault(&self) -> bool {
        match self {
            QueryError::Name(_) | QueryError::PatternLong(_) | QueryError::Pattern(_) => true,
            QueryError::Read { .. } | QueryError::Watch { .. } | QueryError::TooMany | QueryError::GivenUp => false,
        }
    }
}

impl Logs {
    pub fn new(root: &Path) -> Logs {
        Logs::bounded(root, SEARCH_BYTES_MAX)
    }

    /// Logs of which a query looks through `search_bytes_max` instead of [`SEARCH_BYTES_MAX`].
    pub fn bounded(root: &Path, search_bytes_max: u64) -> Logs {
        let (follows, queries) = (Semaphore::new(FOLLOWS_MAX), Semaphore::new(QUERIES_MAX));
        Logs { root: root.to_owned(), follows: Arc::new(follows), queries: Arc::new(queries), search_bytes_max }
    }

    /// Where the shim of an instance writes.
    pub fn instance_dir(&self, stack: &str, service: &str, instance: &str) -> Result<PathBuf, QueryError> {
        Ok(self.service_dir(stack, service)?.join(name(instance)?))
    }

    /// The lines asked for, oldest first. A service without logs has none. Blocks on the disk: see
    /// [`Logs::query`].
    pub fn query_blocking(&self, stack: &str, service: &str, query: &Query) -> Result<Vec<LogLine>, QueryError> {
        self.search(stack, service, query, Arc::default())
    }

    fn search(
        &self,
        stack: &str,
        service: &str,
        query: &Query,
        given_up: Arc<AtomicBool>,
    ) -> Result<Vec<LogLine>, QueryError> {
        let _span = tracing::debug_span!("logs query", stack, service).entered();
        let filter = Filter::new(query)?;
        let dir = self.service_dir(stack, service)?;
        let instances = match &query.instance {
            Some(instance) => vec![name(instance)?.to_owned()],
            None => instances(&dir)?,
        };
        merge::newest(chains(&dir, &instances)?, &filter, Search { bytes_left: self.search_bytes_max, given_up })
    }

    /// [`Logs::query_blocking`] on a thread that may block, when it is its turn. May be dropped anywhere: a
    /// search that runs is given up at its next read.
    pub async fn query(&self, stack: &str, service: &str, query: Query) -> Result<Vec<LogLine>, QueryError> {
        let permit = self.queries.clone().acquire_owned().await.map_err(|_| QueryError::GivenUp)?;
        let (logs, stack, service) = (self.clone(), stack.to_owned(), service.to_owned());
        let wanted = Wanted::default();
        let given_up = wanted.given_up.clone();
        let search = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            logs.search(&stack, &service, &query, given_up)
        });
        search.await.unwrap_or(Err(QueryError::GivenUp))
    }

    /// The lines asked for, then every new one as it is written, of instances there are and will be. Needs a
    /// runtime, and asks the kernel for a few watches before it returns. Ends when it is dropped.
    pub fn follow(&self, stack: &str, service: &str, query: Query) -> Result<Follow, QueryError> {
        let filter = Filter::new(&query)?;
        let only = query.instance.as_deref().map(name).transpose()?.map(str::to_owned);
        let place =
            Place { root: self.root.clone(), stack: name(stack)?.to_owned(), service: name(service)?.to_owned(), only };
        let permit = self.follows.clone().try_acquire_owned().map_err(|_| QueryError::TooMany)?;
        follow::start(place, filter, permit)
    }

    /// Adds a line of the platform's own to an instance's log: what it did, and why.
    pub fn note(&self, stack: &str, service: &str, instance: &str, text: &str) -> Result<(), NoteError> {
        let dir = self.instance_dir(stack, service, instance).map_err(|_| NoteError::Name)?;
        note::append(&dir, world::clock::unix_ms(), text)
    }

    /// Brings every service under its bound, what is dead first and the oldest of that first. Blocks.
    pub fn prune(&self, now_ms: u64, keep: &[Keep]) -> Pruned {
        prune::prune(&self.root, now_ms, keep)
    }

    /// How many follow a log now.
    pub fn follows(&self) -> usize {
        FOLLOWS_MAX - self.follows.available_permits()
    }

    fn service_dir(&self, stack: &str, service: &str) -> Result<PathBuf, QueryError> {
        Ok(self.root.join(name(stack)?).join(name(service)?))
    }
}

/// A name that is one folder below another, and nothing else.
fn name(name: &str) -> Result<&str, QueryError> {
    let bad = name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains(['/', '\0']);
    if bad { Err(QueryError::Name(name.to_owned())) } else { Ok(name) }
}

fn chains(dir: &Path, instances: &[String]) -> Result<Vec<Chain>, QueryError> {
    instances.iter().map(|instance| Chain::open(dir, instance)).collect()
}

/// The instances that have a folder, sorted.
fn instances(dir: &Path) -> Result<Vec<String>, QueryError> {
    let failed = |source| QueryError::Read { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // Links are not followed: nobody but us makes folders here, and we make none.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let (true, Ok(instance)) = (is_dir, entry.file_name().into_string())
            && name(&instance).is_ok()
        {
            found.push(instance);
        }
    }
    found.sort();
    Ok(found)
}
