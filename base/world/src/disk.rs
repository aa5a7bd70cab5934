//! The disk's door: files, names, and when either is really there.
//!
//! Everything blocks; whoever is on an async runtime calls from a thread of its own. Content is durable after
//! [`File::sync_data`], a name (created, renamed, removed) after [`Disk::sync_dir`] of its directory: the rules
//! POSIX really gives, and the ones [`Simulated`] punishes for being forgotten.

mod simulated;

pub use simulated::Simulated;

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Names and their files.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file for reading and writing, creating it empty if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates a directory and those above it.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
}

/// An open file.
pub trait File: Send + Sync + fmt::Debug + 'static {
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset` on; an end before that is an error.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`. When it fails, any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Takes room on the disk for the first `length` bytes without changing the file's length, so that writing them
    /// does not find the disk full. Where the file system cannot, it does nothing.
    fn reserve(&self, length: u64) -> io::Result<()>;

    /// Makes the content and the length durable. After an error nobody knows what is on the disk.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes the file for this handle alone; false when another process or handle has it. Ends with the handle.
    fn try_lock(&self) -> io::Result<bool>;
}

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

impl Disk for Real {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)?;
        // Its own name has to be durable as well, or a power cut takes all that is in it.
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        std::fs::File::open(directory)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: std::fs::File,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
