//! Members that forget what they must do, to see that the simulation would notice.

use replication::Group;
use std::io;
use std::path::Path;
use std::sync::Arc;
use storage::replicated::{ProposeError, Proposer, Waiting};
use world::disk::{Disk, File, Simulated};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Careless {
    /// Reads what it has without asking whether it is up to date.
    Reads,
    /// Acknowledges what it has not synced.
    Syncs,
    /// Passes on to the next leader what it decided as the last one.
    PassesOn,
}

/// The group, as a careless member uses it.
pub(crate) struct Member(pub(crate) Group, pub(crate) Option<Careless>);

impl Proposer for Member {
    fn propose(&self, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        self.0.propose(command)
    }

    fn propose_leading(&self, term: u64, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        match self.1 {
            Some(Careless::PassesOn) => self.0.propose(command),
            Some(Careless::Reads | Careless::Syncs) | None => self.0.propose_leading(term, command),
        }
    }

    fn ask(&self, question: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        self.0.ask(question)
    }

    fn barrier(&self) -> Waiting<'_, Result<(), ProposeError>> {
        match self.1 {
            Some(Careless::Reads) => Box::pin(async { Ok(()) }),
            Some(Careless::Syncs | Careless::PassesOn) | None => self.0.barrier(),
        }
    }

    fn leading(&self) -> Option<u64> {
        self.0.leading()
    }
}

/// The disk, as a careless member uses it.
pub(crate) fn disk(disk: Simulated, careless: Option<Careless>) -> Arc<dyn Disk> {
    match careless {
        Some(Careless::Syncs) => Arc::new(Unsynced(disk)),
        Some(Careless::Reads | Careless::PassesOn) | None => Arc::new(disk),
    }
}

#[derive(Debug)]
struct Unsynced(Simulated);

impl Disk for Unsynced {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(path)?;
        // The state's store is what it is; the log is what acknowledging rests on.
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        Ok(if is_log { Arc::new(UnsyncedFile(file)) } else { file })
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.0.make_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }
}

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn File>);

impl File for UnsyncedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.0.reserve(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}
