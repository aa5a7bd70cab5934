//! The database: connections, the schema, and work on both. Knows no table's meaning.
//!
//! Several processes share the file: write-ahead logging lets readers and one writer go on together, and a writer that
//! finds another waits for it.

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections of one instance. SQLite answers in microseconds; more would only wait for each other.
const CONNECTIONS_MAX: usize = 8;
/// How long a writer waits for another. Writes take milliseconds, so this is met only when the disk stalls.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The schema this program reads and writes; kept in the file as `user_version`.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open {path}")]
    Open { path: String, source: rusqlite::Error },
    #[error("{path} has schema {found}, and this program knows up to {SCHEMA_VERSION}: run a newer one")]
    Newer { path: String, found: i64 },
}

/// Why one piece of work failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("a query failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the work was cut off")]
    CutOff,
}

#[derive(Clone)]
pub(crate) struct Database {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Database {
    /// Opens the file, made when missing, and brings its schema up to date.
    pub(crate) async fn open(path: PathBuf) -> Result<Database, OpenError> {
        let shown = path.display().to_string();
        let database =
            Database { path: path.into(), idle: Arc::default(), turns: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let found = database.write(migrate).await;
        match found {
            Ok(found) if found > SCHEMA_VERSION => Err(OpenError::Newer { path: shown, found }),
            Ok(_) => Ok(database),
            Err(QueryError::Sqlite(source)) => Err(OpenError::Open { path: shown, source }),
            Err(QueryError::CutOff) => Err(OpenError::Open { path: shown, source: rusqlite::Error::InvalidQuery }),
        }
    }

    /// Runs `work` on one snapshot of the data.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.run(TransactionBehavior::Deferred, work).await
    }

    /// Runs `work` as the only writer, all of it or nothing.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.run(TransactionBehavior::Immediate, work).await
    }

    /// Dropped while it waits for its turn, nothing happens; once begun, the work runs to its end.
    async fn run<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueryError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| QueryError::CutOff)?;
        let (path, idle) = (Arc::clone(&self.path), Arc::clone(&self.idle));
        let done = tokio::task::spawn_blocking(move || {
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match waiting {
                Some(connection) => connection,
                None => connect(&path)?,
            };
            let transaction = connection.transaction_with_behavior(behavior)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            // Only a connection whose work went well is used again.
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(turn);
            Ok(value)
        });
        done.await.map_err(|_| QueryError::CutOff)?
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    log_ahead(&connection)?;
    connection.execute_batch(
        // FULL: what was answered as saved survives a power cut.
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;",
    )?;
    Ok(connection)
}

/// The change to write-ahead logging is the one lock that SQLite does not wait for: of several processes that begin
/// with a new file, all but one find it busy, or unchanged.
fn log_ahead(connection: &Connection) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    let attempts = BUSY_TIMEOUT.as_millis() / PAUSE.as_millis();
    let change = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    for _attempt in 0..attempts {
        match change() {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_unchanged) => {}
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    change().map(drop)
}

/// Brings the schema up to date and returns the version found before.
fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let found: i64 = transaction.query_row("SELECT user_version FROM pragma_user_version", [], |row| row.get(0))?;
    if found == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Database, OpenError};

    #[tokio::test]
    async fn two_openers_make_one_schema() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blog.sqlite");
        let opened = tokio::join!(Database::open(path.clone()), Database::open(path.clone()), Database::open(path));
        for opened in [opened.0, opened.1, opened.2] {
            opened.map(drop).expect("each opens it");
        }
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("blog.sqlite");
        let database = Database::open(path.clone()).await.expect("a database");
        database.write(|transaction| transaction.pragma_update(None, "user_version", 9)).await.expect("an update");
        assert!(matches!(Database::open(path).await, Err(OpenError::Newer { found: 9, .. })));
    }
}
