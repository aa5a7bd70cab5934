//! The ordered key-value store: named tables of bytes, changed all at once. Over redb, whose only user this is.
//!
//! Promises: a write is there whole or not at all, and durable when it returns if it was asked to be; every value
//! carries a checksum of its own; a full disk is an error after which reading goes on and writing works again once
//! there is room. Knows nothing of what the keys mean. Everything blocks.

use redb::{Database, Durability, ReadableDatabase, StorageBackend, TableDefinition, TableError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use world::disk::{Disk, File};

/// What is read twice soon; whoever needs all of it all the time keeps it in memory itself.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// The checksum before each value.
const CHECKSUM_BYTES: usize = 4;

/// A table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub &'static str);

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One part of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        table: Table,
        key: Vec<u8>,
    },
    /// Deletes every key of the table that is less than `end`.
    DeleteBefore {
        table: Table,
        end: Vec<u8>,
    },
    /// Deletes every key of the table.
    Clear {
        table: Table,
    },
}

/// When a write has to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// When the call returns.
    Now,
    /// With the next write that says [`Sync::Now`]; a crash before it loses this one.
    Later,
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("{doing} {path}")]
    Failed {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {path}: the disk is full")]
    DiskFull { path: PathBuf },
    #[error("{path} is damaged: {what}")]
    Corrupt { path: PathBuf, what: String },
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
}

impl KvError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Failed { .. } | Self::Io { .. } => "check the disk and the permissions of the data directory",
            Self::DiskFull { .. } => "free space on this disk; nothing that was acknowledged is lost",
            Self::Corrupt { .. } => {
                "the disk has lost what was written: replace it, and restore this machine's data directory or let it join anew"
            }
            Self::Locked { .. } => "stop the other process, or use another data directory",
        }
    }
}

/// An open store.
#[derive(Debug)]
pub struct Kv {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Gone after a failure, until the next use opens it again: redb does not go on after one.
    database: Mutex<Option<Arc<Database>>>,
}

impl Kv {
    /// Opens the store at `path`, making it if there is none.
    ///
    /// # Errors
    /// [`KvError`]; [`KvError::Corrupt`] when the disk returns something else than was written.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, KvError> {
        let store = Self { disk, path: path.to_owned(), database: Mutex::new(None) };
        store.create()?;
        let database = store.open_database(&store.path, true)?;
        *store.database() = Some(Arc::new(database));
        Ok(store)
    }

    /// The value at `key`.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(table.definition()) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            table.get(key)?.map(|value| unsealed(key, value.value())).transpose()
        })
    }

    /// Every key of a table with its value, in order.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn all(&self, table: Table) -> Result<Vec<Pair>, KvError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(table.definition()) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::new();
            for pair in table.range::<&[u8]>(..)? {
                let (key, value) = pair?;
                let value = unsealed(key.value(), value.value())?;
                found.push((key.value().to_vec(), value));
            }
            Ok(found)
        })
    }

    /// Makes all changes, in order, or none.
    ///
    /// # Errors
    /// [`KvError`]; then nothing was changed, or, if the failure came at the very end, everything.
    pub fn write(&self, changes: &[Change], sync: Sync) -> Result<(), KvError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            let durability = match sync {
                Sync::Now => Durability::Immediate,
                Sync::Later => Durability::None,
            };
            transaction.set_durability(durability)?;
            // Which of the two last states is whole is then known without trusting checksums, for one more sync.
            transaction.set_two_phase_commit(true);
            let mut tables = BTreeMap::<Table, Vec<&Change>>::new();
            for change in changes {
                tables.entry(table_of(change)).or_default().push(change);
            }
            for (table, changes) in tables {
                let mut table = transaction.open_table(table.definition())?;
                for change in changes {
                    apply(&mut table, change)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn database(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.database.lock().expect("opening the database never panics")
    }

    /// Runs `work` on the database, opening it again if an earlier failure closed it.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, KvError> {
        let database = {
            let mut held = self.database();
            match &*held {
                Some(database) => Arc::clone(database),
                None => {
                    let database = Arc::new(self.open_database(&self.path, false)?);
                    *held = Some(Arc::clone(&database));
                    database
                }
            }
        };
        guarded(|| work(&database)).map_err(|failure| {
            *self.database() = None;
            Self::explain("use", &self.path, failure)
        })
    }

    /// Makes an empty store under another name first, so that `path` is never a half-made one.
    fn create(&self) -> Result<(), KvError> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let io = |doing| move |source| KvError::Io { doing, path: self.path.clone(), source };
        self.disk.make_dir(directory).map_err(io("create the directory of"))?;
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let names = self.disk.list(directory).map_err(io("list the directory of"))?;
        if names.contains(&name) {
            return Ok(());
        }
        let unfinished = self.path.with_extension("unfinished");
        let file = self.disk.open(&unfinished).map_err(io("create"))?;
        file.truncate(0).map_err(io("create"))?;
        drop(file);
        drop(self.open_database(&unfinished, false)?);
        self.disk.rename(&unfinished, &self.path).map_err(io("create"))?;
        self.disk.sync_dir(directory).map_err(io("create"))
    }

    fn open_database(&self, path: &Path, verify: bool) -> Result<Database, KvError> {
        let io = |source| KvError::Io { doing: "open", path: path.to_owned(), source };
        let file = self.disk.open(path).map_err(io)?;
        if !file.try_lock().map_err(io)? {
            return Err(KvError::Locked { path: path.to_owned() });
        }
        let opened = guarded(|| {
            let mut database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(Backend { file })?;
            if verify && !database.check_integrity()? {
                return Err(Failure::Damaged("pages or their bookkeeping are not as they were written"));
            }
            Ok(database)
        });
        opened.map_err(|failure| Self::explain("open", path, failure))
    }

    fn explain(doing: &'static str, path: &Path, failure: Failure) -> KvError {
        match failure {
            Failure::Damaged(what) => KvError::Corrupt { path: path.to_owned(), what: what.to_owned() },
            Failure::Database(source) => Self::failed(doing, path, *source),
        }
    }

    fn failed(doing: &'static str, path: &Path, error: redb::Error) -> KvError {
        if let redb::Error::Corrupted(what) = error {
            return KvError::Corrupt { path: path.to_owned(), what };
        }
        if let redb::Error::Io(source) = &error
            && matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return KvError::DiskFull { path: path.to_owned() };
        }
        KvError::Failed { doing, path: path.to_owned(), source: Box::new(error) }
    }
}

enum Failure {
    Damaged(&'static str),
    Database(Box<redb::Error>),
}

/// redb trusts the pages it reads: on a damaged one it may panic (seen: 4.4, a flipped bit in a table's name page).
/// What comes from a disk must not end the process, so the panic stops here and says what it means.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or(Err(Failure::Damaged("a page makes no sense")))
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

fn table_of(change: &Change) -> Table {
    match change {
        Change::Put { table, .. }
        | Change::Delete { table, .. }
        | Change::DeleteBefore { table, .. }
        | Change::Clear { table } => *table,
    }
}

fn apply(table: &mut redb::Table<'_, &'static [u8], &'static [u8]>, change: &Change) -> Result<(), Failure> {
    match change {
        Change::Put { key, value, .. } => {
            table.insert(key.as_slice(), sealed(key, value).as_slice())?;
        }
        Change::Delete { key, .. } => {
            table.remove(key.as_slice())?;
        }
        Change::DeleteBefore { end, .. } => table.retain_in::<&[u8], _>(..end.as_slice(), |_, _| false)?,
        Change::Clear { .. } => table.retain(|_, _| false)?,
    }
    Ok(())
}

/// The value with the checksum of key and value before it.
fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(key), value);
    [&checksum.to_le_bytes(), value].concat()
}

fn unsealed(key: &[u8], stored: &[u8]) -> Result<Vec<u8>, Failure> {
    let (checksum, value) =
        stored.split_first_chunk::<CHECKSUM_BYTES>().ok_or(Failure::Damaged("a value's checksum is wrong"))?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(key), value);
    if u32::from_le_bytes(*checksum) == expected {
        Ok(value.to_vec())
    } else {
        Err(Failure::Damaged("a value's checksum is wrong"))
    }
}

/// redb's file, through the disk's door.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn File>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}
