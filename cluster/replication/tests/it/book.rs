//! A machine for tests: it writes down every command it is given.

use replication::{CHECKPOINT_COMMANDS, Group, Network, OpenError, Options, Start, Timing};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use storage::kv::{Change, Kv, KvError, Sync, Table};
use storage::replicated::{Checkpoint, Machine, MachineError};
use world::disk::{Disk, Simulated};

const PAGES: Table = Table("pages");

/// Answers each command with how many there are.
#[derive(Debug)]
pub(crate) struct Book {
    kv: Arc<Kv>,
    pages: Mutex<Vec<Vec<u8>>>,
    saved: Mutex<Option<Vec<u8>>>,
}

impl Book {
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &str) -> Result<Arc<Self>, KvError> {
        let kv = Kv::open(disk, &PathBuf::from(path))?;
        let saved = kv.get(PAGES, b"mark")?;
        let pages = kv.get(PAGES, b"pages")?.map(|pages| split(&pages)).unwrap_or_default();
        Ok(Arc::new(Self { kv: Arc::new(kv), pages: Mutex::new(pages), saved: Mutex::new(saved) }))
    }

    pub(crate) fn pages(&self) -> Vec<Vec<u8>> {
        self.pages.lock().unwrap().clone()
    }
}

fn join(pages: &[Vec<u8>]) -> Vec<u8> {
    pages.iter().flat_map(|page| [&(page.len() as u32).to_le_bytes(), page.as_slice()].concat()).collect()
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (page, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        pages.push(page.to_vec());
        bytes = rest;
    }
    pages
}

impl Machine for Book {
    fn apply(&self, _index: u64, command: &[u8]) -> Vec<u8> {
        let mut pages = self.pages.lock().unwrap();
        pages.push(command.to_vec());
        (pages.len() as u64).to_le_bytes().to_vec()
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        [b"re: ", question].concat()
    }

    fn saved(&self) -> Option<Vec<u8>> {
        self.saved.lock().unwrap().clone()
    }

    fn checkpoint(&self) -> Box<dyn Checkpoint> {
        Box::new(Copy { kv: Arc::clone(&self.kv), pages: self.snapshot() })
    }

    fn snapshot(&self) -> Vec<u8> {
        join(&self.pages())
    }

    fn restore(&self, mark: &[u8], snapshot: &[u8]) -> Result<(), MachineError> {
        let copy = Copy { kv: Arc::clone(&self.kv), pages: snapshot.to_vec() };
        *self.pages.lock().unwrap() = split(snapshot);
        Box::new(copy).write(mark)
    }
}

struct Copy {
    kv: Arc<Kv>,
    pages: Vec<u8>,
}

impl Checkpoint for Copy {
    fn write(self: Box<Self>, mark: &[u8]) -> Result<(), MachineError> {
        let put = |key: &[u8], value: &[u8]| Change::Put { table: PAGES, key: key.to_vec(), value: value.to_vec() };
        self.kv.write(&[put(b"pages", &self.pages), put(b"mark", mark)], Sync::Now).map_err(|error| match error {
            KvError::DiskFull { .. } => MachineError::DiskFull,
            error
            @ (KvError::Failed { .. } | KvError::Io { .. } | KvError::Corrupt { .. } | KvError::Locked { .. }) => {
                MachineError::Failed(Box::new(error))
            }
        })
    }
}

/// Fast enough for a test to elect within a fraction of a second.
pub(crate) const TIMING: Timing = Timing { heartbeat_ms: 50, election_ms_min: 250, election_ms_max: 500 };

pub(crate) struct Member {
    pub(crate) disk: Simulated,
    pub(crate) book: Arc<Book>,
    pub(crate) group: Group,
}

/// Opens member `node` with its log and its state on `disk`.
pub(crate) async fn member(
    disk: &Simulated,
    node: u64,
    start: Start,
    network: Arc<dyn Network>,
) -> Result<Member, OpenError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let book =
        Book::open(Arc::clone(&shared), "/member/state.redb").map_err(|error| OpenError::Raft(error.to_string()))?;
    let group = Group::open(options(shared, Path::new("/member/log"), node, start), book.clone(), network).await?;
    Ok(Member { disk: disk.clone(), book, group })
}

pub(crate) fn options(disk: Arc<dyn Disk>, directory: &Path, node: u64, start: Start) -> Options {
    let log = storage::log::Options { segment_bytes: 256 * 1024 };
    Options {
        disk,
        directory: directory.to_owned(),
        node,
        start,
        timing: TIMING,
        log,
        checkpoint_commands: CHECKPOINT_COMMANDS,
        kept_bytes: 16 * 1024,
    }
}
