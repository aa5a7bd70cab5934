//! How fast this machine's disk really writes: what the state of record would wait for.

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const FILE: &str = "written-to-measure";
/// Of a page each, as small entries of a log are.
const WRITE: [u8; 4_096] = [0x42; 4_096];
const WRITES: u64 = 100;
/// What others do to the disk at that moment is not its fault: the best of so many rounds counts.
const ROUNDS: usize = 3;
/// A disk that takes longer for a round is slow whatever the others say.
const ROUND_MAX: Duration = Duration::from_secs(5);

/// Within how many microseconds 99 of 100 writes were on the disk of `folder`. Blocks for some hundred writes.
pub fn fsync_p99_us(folder: &Path) -> io::Result<u64> {
    let path = folder.join(FILE);
    let measured = rounds(&path);
    // Gone at the latest with the next start, which writes to the same.
    let _ = std::fs::remove_file(&path);
    measured
}

fn rounds(path: &Path) -> io::Result<u64> {
    let file = File::create(path)?;
    // As in a log whose segments are made beforehand. Where a file system cannot, writes are a little slower.
    let _ = fallocate(&file, FallocateFlags::empty(), 0, WRITES * WRITE.len() as u64);
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let began = world::clock::monotonic();
        let mut took = Vec::new();
        for number in 0..WRITES {
            let write = world::clock::monotonic();
            file.write_all_at(&WRITE, number * WRITE.len() as u64)?;
            fdatasync(&file)?;
            let now = world::clock::monotonic();
            took.push(u64::try_from(now.saturating_duration_since(write).as_micros()).unwrap_or(u64::MAX));
            if now.saturating_duration_since(began) > ROUND_MAX {
                break;
            }
        }
        took.sort_unstable();
        let at = took.len().saturating_sub(1) * 99 / 100;
        best = best.min(took.get(at).copied().unwrap_or(u64::MAX));
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_disk_is_measured_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let p99_us = super::fsync_p99_us(folder.path()).expect("it can be written to");
        assert!(p99_us > 0 && p99_us < u64::MAX);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let nowhere = folder.path().join("nowhere");
        super::fsync_p99_us(&nowhere).expect_err("there is no such folder");
    }
}
