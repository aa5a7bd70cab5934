//! Keeps logs within their bounds. Plans from what is there (folders, sizes, times) and then deletes; what
//! is being written is never deleted, only its older half.

use super::{CURRENT, PREVIOUS};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Instances that ended and keep their logs, per service: as many as a person reads after a bad night, and
/// no more folders than a listing can bear.
pub const DEAD_INSTANCES_MAX: usize = 32;

/// How long the logs of a service stay that no stack has any more.
pub const GONE_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// What to keep of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    pub stack: String,
    pub service: String,
    /// All its instances together.
    pub size_bytes_max: u64,
    /// Instances whose shims write.
    pub live: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub instances: u64,
    pub files: u64,
    pub freed_bytes: u64,
    /// What all logs take now.
    pub kept_bytes: u64,
    /// Deletions that failed; each is logged.
    pub failed: u64,
}

/// One instance's folder as found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: String,
    current_bytes: u64,
    previous_bytes: u64,
    written_ms: u64,
}

impl Found {
    fn bytes(&self) -> u64 {
        self.current_bytes.saturating_add(self.previous_bytes)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    RemoveInstance(String, u64),
    RemovePrevious(String, u64),
}

pub(super) fn prune(root: &Path, now_ms: u64, keep: &[Keep]) -> Pruned {
    let keep: BTreeMap<(&str, &str), &Keep> =
        keep.iter().map(|keep| ((keep.stack.as_str(), keep.service.as_str()), keep)).collect();
    let mut pruned = Pruned::default();
    for (stack, stack_dir) in folders(root) {
        for (service, service_dir) in folders(&stack_dir) {
            let found: Vec<Found> = folders(&service_dir).iter().map(|(name, dir)| look(name, dir)).collect();
            pruned.kept_bytes += found.iter().map(Found::bytes).sum::<u64>();
            let wanted = keep.get(&(stack.as_str(), service.as_str())).copied();
            for step in plan(now_ms, wanted, found) {
                carry_out(&service_dir, &step, &mut pruned);
            }
            if wanted.is_none() {
                remove_empty(&service_dir, now_ms);
            }
        }
        remove_empty(&stack_dir, now_ms);
    }
    pruned
}

/// What to delete of one service, in this order. Pure.
fn plan(now_ms: u64, keep: Option<&Keep>, mut found: Vec<Found>) -> Vec<Step> {
    found.sort_by(|a, b| a.written_ms.cmp(&b.written_ms).then_with(|| a.name.cmp(&b.name)));
    let Some(keep) = keep else {
        let gone = found.iter().filter(|found| now_ms.saturating_sub(found.written_ms) > GONE_KEPT_MS);
        return gone.map(|found| Step::RemoveInstance(found.name.clone(), found.bytes())).collect();
    };
    let (live, dead): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|found| keep.live.contains(&found.name));
    let mut total: u64 = live.iter().chain(&dead).map(Found::bytes).sum();
    let mut dead_left = dead.len();
    let mut steps = Vec::new();
    for found in &dead {
        if total > keep.size_bytes_max || dead_left > DEAD_INSTANCES_MAX {
            total -= found.bytes();
            dead_left -= 1;
            steps.push(Step::RemoveInstance(found.name.clone(), found.bytes()));
        }
    }
    for found in &live {
        if total > keep.size_bytes_max && found.previous_bytes > 0 {
            total -= found.previous_bytes;
            steps.push(Step::RemovePrevious(found.name.clone(), found.previous_bytes));
        }
    }
    steps
}

fn carry_out(service_dir: &Path, step: &Step, pruned: &mut Pruned) {
    let (path, result, bytes) = match step {
        Step::RemoveInstance(name, bytes) => {
            let path = service_dir.join(name);
            let result = std::fs::remove_dir_all(&path);
            (path, result, bytes)
        }
        Step::RemovePrevious(name, bytes) => {
            let path = service_dir.join(name).join(PREVIOUS);
            let result = std::fs::remove_file(&path);
            (path, result, bytes)
        }
    };
    match (result, step) {
        (Ok(()), step) => {
            pruned.freed_bytes += bytes;
            pruned.kept_bytes -= bytes;
            match step {
                Step::RemoveInstance(..) => pruned.instances += 1,
                Step::RemovePrevious(..) => pruned.files += 1,
            }
        }
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => {}
        (Err(error), _) => {
            pruned.failed += 1;
            tracing::warn!(path = %path.display(), %error, "could not remove old logs");
        }
    }
}

/// The folders in `dir` by name; links are none.
fn folders(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

fn look(name: &str, dir: &Path) -> Found {
    let data = |file| std::fs::symlink_metadata(dir.join(file)).ok();
    let (current, previous) = (data(CURRENT), data(PREVIOUS));
    let size = |data: &Option<std::fs::Metadata>| data.as_ref().map_or(0, std::fs::Metadata::len);
    // A folder without a file is as old as itself: its shim may be about to write.
    let newest = current.as_ref().or(previous.as_ref()).cloned().or_else(|| std::fs::symlink_metadata(dir).ok());
    let seconds = newest.map_or(0, |data| u64::try_from(data.mtime()).unwrap_or(0));
    Found {
        name: name.to_owned(),
        current_bytes: size(&current),
        previous_bytes: size(&previous),
        written_ms: seconds.saturating_mul(1_000),
    }
}

/// Removes a folder that nobody has touched for a day; a younger one may be about to be written in.
fn remove_empty(dir: &Path, now_ms: u64) {
    let changed = std::fs::symlink_metadata(dir).map_or(0, |data| u64::try_from(data.mtime()).unwrap_or(0));
    let old = now_ms.saturating_sub(changed.saturating_mul(1_000)) > GONE_KEPT_MS;
    // Fails when it is not empty, which is what is wanted.
    if old && let Err(error) = std::fs::remove_dir(dir) {
        tracing::trace!(path = %dir.display(), %error, "folder stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, current_bytes: u64, previous_bytes: u64, written_ms: u64) -> Found {
        Found { name: name.to_owned(), current_bytes, previous_bytes, written_ms }
    }

    fn keep(size_bytes_max: u64, live: &[&str]) -> Keep {
        let live = live.iter().map(|name| (*name).to_owned()).collect();
        Keep { stack: "s".to_owned(), service: "w".to_owned(), size_bytes_max, live }
    }

    #[test]
    fn the_oldest_dead_instances_go_first_then_the_older_halves_of_live_ones() {
        let all = vec![found("live", 40, 50, 1), found("old", 10, 10, 2), found("new", 10, 0, 3)];
        let check = |bound: u64, expected: &[Step]| {
            assert_eq!(plan(9, Some(&keep(bound, &["live"])), all.clone()), expected, "{bound}");
        };
        let old = Step::RemoveInstance("old".to_owned(), 20);
        let new = Step::RemoveInstance("new".to_owned(), 10);
        let half = Step::RemovePrevious("live".to_owned(), 50);
        check(120, &[]);
        check(100, std::slice::from_ref(&old));
        check(99, &[old.clone(), new.clone()]);
        check(50, &[old, new, half]);
    }

    #[test]
    fn many_dead_instances_are_too_many_however_small() {
        let all = (0..40).map(|at| found(&format!("{at:02}"), 0, 0, at)).collect();
        let steps = plan(99, Some(&keep(1_000, &[])), all);
        assert_eq!(steps.len(), 40 - DEAD_INSTANCES_MAX);
        assert_eq!(steps[0], Step::RemoveInstance("00".to_owned(), 0));
    }

    #[test]
    fn logs_of_a_service_that_is_gone_stay_a_day() {
        let all = vec![found("a", 1, 0, 0), found("b", 1, 0, 2)];
        assert_eq!(plan(GONE_KEPT_MS + 1, None, all), [Step::RemoveInstance("a".to_owned(), 1)]);
    }
}
