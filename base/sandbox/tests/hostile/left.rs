//! What a box may have left behind, looked for from outside.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The user a box has outside when the runner is root: `spec::SINGLE_OUTSIDE_AS_ROOT`, which is the crate's own.
const BOX_USER_OF_ROOT: u32 = 493_216;
/// Where programs of any user could leave a file.
const SHARED_PLACES: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/var/crash"];
/// Where a box's mounts are made; one that shows outside would show there.
const MOUNT_PLACES: [&str; 6] = ["/tmp", "/proc", "/dev", "/dev/pts", "/dev/shm", "/run"];
const NAMESPACES: [&str; 5] = ["pid", "net", "mnt", "ipc", "user"];

/// What was there before the first box.
#[derive(Debug)]
pub(crate) struct Before {
    processes: BTreeSet<u32>,
    descriptors: usize,
    spawner_descriptors: usize,
    mounts: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// Whose traces are looked for.
pub(crate) struct Suspect<'a> {
    pub(crate) spawner: u32,
    pub(crate) box_name: &'a str,
    pub(crate) folder: &'a Path,
    /// As `net:[4026531840]`, of every box there was. Empty where this user may not look.
    pub(crate) namespaces: &'a BTreeSet<String>,
}

pub(crate) fn before(suspect: &Suspect<'_>) -> Before {
    Before {
        processes: processes().into_iter().filter(|pid| belongs_to_us(*pid)).collect(),
        descriptors: descriptors(std::process::id()),
        spawner_descriptors: descriptors(suspect.spawner),
        mounts: mounts(),
        files: files(suspect.folder),
    }
}

/// A sentence for each thing that should not be there.
pub(crate) fn found(before: &Before, suspect: &Suspect<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for pid in processes() {
        let child = parent(pid) == Some(suspect.spawner);
        let stranger = belongs_to_us(pid) && !before.processes.contains(&pid) && !ours(pid, suspect.spawner);
        if child || stranger {
            found.push(format!("process {pid} ({})", name(pid)));
        }
        let inside = namespaces(pid);
        found.extend(inside.intersection(suspect.namespaces).map(|kept| format!("{kept}, kept by process {pid}")));
    }
    for (pid, expected) in [(std::process::id(), before.descriptors), (suspect.spawner, before.spawner_descriptors)] {
        let now = descriptors(pid);
        // Fewer is no leak: a spawner closes what it had of the first box a moment after that is gone, and one that
        // was killed has none.
        if now > expected {
            found.push(format!("{now} descriptors in process {pid}, {expected} before"));
        }
    }
    found.extend(mounts().difference(&before.mounts).map(|mount| format!("mount {mount}")));
    found.extend(files(suspect.folder).difference(&before.files).map(|file| format!("file {file}")));
    cgroups(Path::new("/sys/fs/cgroup"), suspect.box_name, &mut found);
    found
}

/// The namespaces a process is in, as far as this user may know.
pub(crate) fn namespaces(pid: u32) -> BTreeSet<String> {
    let link = |kind: &&str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    NAMESPACES.iter().filter_map(link).map(|link| link.to_string_lossy().into_owned()).collect()
}

pub(crate) fn children(of: u32) -> Vec<u32> {
    processes().into_iter().filter(|pid| parent(*pid) == Some(of)).collect()
}

pub(crate) fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

pub(crate) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so what counts starts after its closing parenthesis.
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()
}

fn ours(pid: u32, spawner: u32) -> bool {
    pid == std::process::id() || pid == spawner
}

/// Whether it runs as the ordinary user, who starts nothing but tests. Root starts much else, so there the process
/// tree and the namespaces tell.
fn belongs_to_us(pid: u32) -> bool {
    let own = rustix::process::geteuid();
    !own.is_root() && fs::metadata(format!("/proc/{pid}")).is_ok_and(|place| place.uid() == own.as_raw())
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_a_box = |line: &&str| line.split(' ').nth(4).is_some_and(|point| MOUNT_PLACES.contains(&point));
    table.lines().filter(of_a_box).map(str::to_owned).collect()
}

/// Everything in the test's own folder, and what the box's user owns where anybody may write.
fn files(folder: &Path) -> BTreeSet<String> {
    let own = rustix::process::geteuid();
    let owner = if own.is_root() { BOX_USER_OF_ROOT } else { own.as_raw() };
    let mut found = BTreeSet::new();
    for place in SHARED_PLACES.iter().map(Path::new).chain(std::env::current_dir().as_deref()) {
        let Ok(entries) = fs::read_dir(place) else { continue };
        let owned = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|stat| stat.uid() == owner);
        found.extend(entries.flatten().filter(owned).map(|entry| entry.path().display().to_string()));
    }
    collect(folder, &mut found);
    found
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

fn cgroups(folder: &Path, box_name: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(box_name) {
            found.push(format!("control group {}", entry.path().display()));
        }
        cgroups(&entry.path(), box_name, found);
    }
}
