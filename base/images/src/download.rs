//! Brings one blob onto the disk, piece by piece: what has arrived stays, and the next attempt (or the next start of
//! the process) goes on behind it.
//!
//! Promises that a finished download has the digest asked for. May be dropped at any await: the partial file stays
//! usable. Two downloads into one file wait for each other (flock), so a dropped one's last write does no harm.

use crate::digest::{Digest, Hasher};
use crate::error::PullError;
use crate::manifest::Descriptor;
use crate::registry::{ATTEMPTS_MAX, Registry, Repository, Source, pause};
use crate::store::blocking;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Written at once: large enough that handing it to a blocking thread costs nothing beside the writing.
const BATCH_BYTES: usize = 1 << 20;
const COPY_BYTES: usize = 128 << 10;
/// Attempts that each brought something. A line that breaks more often than that will not do.
const RESUMPTIONS_MAX: u32 = 100;

/// Downloads `blob` into `path`; `arrived` counts its bytes for whoever watches.
pub(crate) async fn download(
    registry: &Registry,
    sources: &[Source],
    repository: Repository<'_>,
    blob: &Descriptor,
    path: &Path,
    arrived: &AtomicU64,
) -> Result<(), PullError> {
    let mut partial = Partial::open(path, blob).await?;
    let mut failure = None;
    for source in sources {
        arrived.store(partial.length, Ordering::Relaxed);
        match from_source(registry, source, repository, blob, partial, arrived).await {
            Ok(()) => return Ok(()),
            Err(error @ (PullError::DiskFull { .. } | PullError::Disk { .. })) => return Err(error),
            Err(error) => failure = Some(error),
        }
        partial = Partial::open(path, blob).await?;
    }
    Err(failure.unwrap_or_else(|| PullError::Unknown { reference: repository.reference.to_owned() }))
}

async fn from_source(
    registry: &Registry,
    source: &Source,
    repository: Repository<'_>,
    blob: &Descriptor,
    mut partial: Partial,
    arrived: &AtomicU64,
) -> Result<(), PullError> {
    let (mut failed, mut resumed) = (0, 0);
    // What was there before this attempt may be what is wrong; then one attempt starts from nothing.
    let mut suspect = partial.length > 0;
    loop {
        let before = partial.length;
        let outcome = if before == blob.size {
            Ok(())
        } else {
            read_on(registry, source, repository, blob, &mut partial, arrived).await
        };
        let error = match outcome {
            Ok(()) => match partial.check(blob) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    partial.reset().await?;
                    if !std::mem::take(&mut suspect) {
                        return Err(error);
                    }
                    continue;
                }
            },
            Err(error) => error,
        };
        let progressed = partial.length > before;
        failed = if progressed { 1 } else { failed + 1 };
        resumed += 1;
        if !error.is_retryable() || failed >= ATTEMPTS_MAX || resumed >= RESUMPTIONS_MAX {
            return Err(error);
        }
        if let PullError::DiskFull { .. } | PullError::Disk { .. } = error {
            return Err(error);
        }
        tracing::debug!(layer = %blob.digest, at = partial.length, %error, "download goes on after a failure");
        pause(failed).await;
    }
}

/// One request, written down as far as it gets.
async fn read_on(
    registry: &Registry,
    source: &Source,
    repository: Repository<'_>,
    blob: &Descriptor,
    partial: &mut Partial,
    arrived: &AtomicU64,
) -> Result<(), PullError> {
    let what = format!("layer {}", blob.digest);
    let mut response = registry.blob(source, repository, &blob.digest, partial.length, blob.size).await?;
    let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
        && response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(range_start)
            == Some(partial.length);
    if partial.length > 0 && !goes_on {
        // The server does not know ranges, or has something else: from the start.
        partial.reset().await?;
        arrived.store(0, Ordering::Relaxed);
        if response.status() != StatusCode::OK {
            return Err(source.interrupted(&what, "it cannot be continued".to_owned()));
        }
    }
    let mut batch = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| source.cut(&what, &error));
        let (ended, failure) = match &chunk {
            Ok(Some(chunk)) => {
                batch.extend_from_slice(chunk);
                (false, None)
            }
            Ok(None) => (true, None),
            Err(error) => (true, Some(error.clone())),
        };
        if partial.length + batch.len() as u64 > blob.size {
            partial.reset().await?;
            let found = "more bytes".to_owned();
            return Err(PullError::DigestMismatch { what, expected: blob.digest.to_string(), found });
        }
        if batch.len() >= BATCH_BYTES || ended {
            partial.write(std::mem::take(&mut batch)).await?;
            arrived.store(partial.length, Ordering::Relaxed);
        }
        match failure {
            Some(error) => return Err(error),
            None if ended && partial.length < blob.size => {
                return Err(source.interrupted(&what, "it ended early".to_owned()));
            }
            None if ended => return Ok(()),
            None => {}
        }
    }
}

/// The first byte of `bytes 100-199/200`.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// A file being filled, with the digest of what it holds.
struct Partial {
    path: PathBuf,
    /// Taken while a blocking thread writes.
    open: Option<(File, Hasher)>,
    length: u64,
}

impl Partial {
    /// Opens what an earlier attempt left, reading it once for its digest.
    async fn open(path: &Path, blob: &Descriptor) -> Result<Partial, PullError> {
        let (path, size) = (path.to_owned(), blob.size);
        let opened = path.clone();
        let read = blocking(move || {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&opened)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            if file.metadata()?.len() > size {
                file.set_len(0)?;
            }
            let (mut hasher, mut length, mut buffer) = (Hasher::new(), 0, vec![0; COPY_BYTES]);
            loop {
                let got = file.read(&mut buffer)?;
                if got == 0 {
                    return Ok((file, hasher, length));
                }
                hasher.update(&buffer[..got]);
                length += got as u64;
            }
        });
        match read.await {
            Ok((file, hasher, length)) => Ok(Partial { path, open: Some((file, hasher)), length }),
            Err(error) => Err(PullError::disk(&path, error)),
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), PullError> {
        let (mut file, mut hasher) = self.open.take().expect("a partial file is open between writes");
        let length = bytes.len() as u64;
        let written = blocking(move || {
            file.write_all(&bytes)?;
            hasher.update(&bytes);
            Ok((file, hasher))
        });
        match written.await {
            Ok(open) => {
                self.open = Some(open);
                self.length += length;
                Ok(())
            }
            Err(error) => {
                let error = PullError::disk(&self.path, error);
                if let PullError::DiskFull { .. } = error {
                    // Others need the room more: the state of record lives on this disk too.
                    let _ = std::fs::remove_file(&self.path);
                }
                Err(error)
            }
        }
    }

    /// Starts over with an empty file.
    async fn reset(&mut self) -> Result<(), PullError> {
        let (mut file, _) = self.open.take().expect("a partial file is open between writes");
        let emptied = blocking(move || {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        });
        let file = emptied.await.map_err(|error| PullError::disk(&self.path, error))?;
        self.open = Some((file, Hasher::new()));
        self.length = 0;
        Ok(())
    }

    fn check(&self, blob: &Descriptor) -> Result<(), PullError> {
        let (_, hasher) = self.open.as_ref().expect("a partial file is open between writes");
        let found: Digest = hasher.clone().finish();
        if found == blob.digest {
            return Ok(());
        }
        Err(PullError::DigestMismatch {
            what: "a layer".to_owned(),
            expected: blob.digest.to_string(),
            found: found.to_string(),
        })
    }
}
