//! Control groups: limits and accounts of a whole box, where this machine lets us have them.
//!
//! Version 2 where our own group may be divided, version 1 as root, otherwise none: then only the limits per process
//! hold, and [`crate::capabilities`] says so.

use crate::build::Accounts;
use crate::failure::{Failure, Step};
use crate::spec::Limits;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The folder all boxes' groups are in.
const PARENT: &str = "bramble";
/// Version 1 controllers a box is in.
const CONTROLLERS: [Controller; 4] = [Controller::Memory, Controller::Pids, Controller::Cpu, Controller::Cpuacct];
/// The period of processor limits: the kernel's own default.
const CPU_PERIOD_USEC: u64 = 100_000;
/// A group whose processes were just killed is busy until they are gone.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE_NANOS: i64 = 2_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    /// All of version 2.
    Unified,
    Memory,
    Pids,
    Cpu,
    Cpuacct,
}

/// The groups of one box; empty where there are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroup {
    folders: Vec<(Controller, PathBuf)>,
}

impl Controller {
    /// Whether a box needs a group of this kind. Of those that are made one by one, each costs as much as all else that makes a
    /// small box: where only limits are to be held, the user namespace bounds processes as well.
    fn serves(self, limits: &Limits, accounts: Accounts) -> bool {
        accounts == Accounts::Usage
            || match self {
                Controller::Unified => true,
                Controller::Memory => limits.memory_bytes.is_some(),
                Controller::Cpu => limits.cpu_millis.is_some(),
                Controller::Pids | Controller::Cpuacct => false,
            }
    }

    fn name(self) -> &'static str {
        match self {
            Controller::Unified => "unified",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
        }
    }

    fn from_name(name: &str) -> Option<Controller> {
        CONTROLLERS.into_iter().chain([Controller::Unified]).find(|controller| controller.name() == name)
    }
}

/// Where boxes' groups can be made on this machine. Looked for once per process and its forks.
pub(crate) fn places() -> &'static [(Controller, PathBuf)] {
    static PLACES: OnceLock<Vec<(Controller, PathBuf)>> = OnceLock::new();
    PLACES.get_or_init(find_places)
}

fn find_places() -> Vec<(Controller, PathBuf)> {
    let mounts = Mounts::read();
    if let Some(place) = mounts.unified.as_deref().and_then(unified_place) {
        return vec![(Controller::Unified, place)];
    }
    let mut places: Vec<_> =
        mounts.divided.into_iter().map(|(controller, mount)| (controller, mount.join(PARENT))).collect();
    places.retain(|(_, folder)| fs::create_dir_all(folder).is_ok() && may_write(folder));
    places
}

/// Where control groups are mounted.
#[derive(Default)]
struct Mounts {
    unified: Option<PathBuf>,
    divided: Vec<(Controller, PathBuf)>,
}

impl Mounts {
    fn read() -> Mounts {
        let mut found = Mounts::default();
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            let Some((mount, kind)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let mut kind = kind.split(' ');
            match (kind.next(), kind.nth(1)) {
                (Some("cgroup2"), _) => found.unified = Some(PathBuf::from(point)),
                (Some("cgroup"), Some(options)) => {
                    let controllers = options.split(',').filter_map(Controller::from_name);
                    found.divided.extend(controllers.map(|controller| (controller, PathBuf::from(point))));
                }
                (_, _) => {}
            }
        }
        found
    }
}

/// The version 2 group this process is in, unless that is the root of all.
fn own_group(mount: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty()).then(|| mount.join(path))
}

/// Whether a group can bound the memory and the processes of groups below it.
fn offers_limits(group: &Path) -> bool {
    let offered = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    ["memory", "pids"].iter().all(|needed| offered.split_whitespace().any(|name| name == *needed))
}

/// Our own group's folder for boxes, if memory and pids can be divided there. `cpu` often cannot: what a user is
/// delegated lacks it by default.
fn unified_place(mount: &Path) -> Option<PathBuf> {
    let own = own_group(mount)?;
    let base = if own.file_name().is_some_and(|name| name == AGENT) { own.parent()?.to_path_buf() } else { own };
    if !offers_limits(&base) {
        return None;
    }
    let place = base.join(PARENT);
    fs::create_dir_all(&place).ok()?;
    for folder in [&base, &place] {
        fs::write(folder.join("cgroup.subtree_control"), "+memory +pids").ok()?;
        let _ = fs::write(folder.join("cgroup.subtree_control"), "+cpu");
    }
    may_write(&place).then_some(place)
}

/// The group the agent itself has to be in, below a delegated one, so that the latter can be divided: version 2 allows
/// no processes in a group with children that have controllers. systemd does that with `Delegate=yes` and
/// `DelegateSubgroup=agent`; for older ones, and for scopes, [`settle`] does.
const AGENT: &str = "agent";

/// Moves this process out of the way when it is alone in a group that was given to it. Before others are forked.
pub(crate) fn settle() {
    let Some(own) = Mounts::read().unified.as_deref().and_then(own_group) else { return };
    let settled = own.file_name().is_some_and(|name| name == AGENT);
    let pid = rustix::process::getpid().as_raw_nonzero().to_string();
    let alone = fs::read_to_string(own.join("cgroup.procs")).is_ok_and(|processes| processes.trim() == pid);
    if settled || !alone || !offers_limits(&own) || !may_write(&own.join("cgroup.subtree_control")) {
        return;
    }
    let place = own.join(AGENT);
    // Refused, it stays where it is, and boxes have no groups.
    let _ = fs::create_dir_all(&place).and_then(|()| fs::write(place.join("cgroup.procs"), pid));
}

/// Whether groups in `place` can have limits of a kind.
pub(crate) fn bounds(place: &Path, controller: &str) -> bool {
    let enabled = fs::read_to_string(place.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller)
}

/// Removes groups whose maker is gone without having removed them: it was killed. The kernel keeps those that have
/// processes.
pub(crate) fn sweep() {
    for (_, place) in places() {
        let Ok(groups) = fs::read_dir(place) else { continue };
        for group in groups.flatten() {
            let name = group.file_name();
            if name.to_str().and_then(maker).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                // In use after all when it fails.
                let _ = fs::remove_dir(group.path());
            }
        }
    }
}

/// The process that made a group, by the group's name: `<box>.<process>-<number>`.
fn maker(name: &str) -> Option<u32> {
    name.rsplit_once('.')?.1.split_once('-')?.0.parse().ok()
}

fn may_write(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

impl Cgroup {
    /// Makes the groups of a box and sets its limits. None at all is fine unless the kernel refuses halfway.
    pub(crate) fn create(name: &str, limits: &Limits, accounts: Accounts) -> Result<Cgroup, Failure> {
        // Boxes may share a name (a pool of parked ones does), groups may not.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}.{}-{number}", rustix::process::getpid().as_raw_nonzero());
        let mut made = Cgroup::default();
        for (controller, place) in places().iter().filter(|(controller, _)| controller.serves(limits, accounts)) {
            let folder = place.join(&name);
            if fs::create_dir(&folder).is_err() {
                // Left by a process with our number, long ago.
                let _ = fs::remove_dir(&folder);
                if let Err(error) = fs::create_dir(&folder) {
                    made.remove();
                    return Err(Failure::io(Step::Cgroup, folder.display().to_string(), &error));
                }
            }
            made.folders.push((*controller, folder));
        }
        for (file, value) in made.settings(limits) {
            if let Err(error) = fs::write(&file, value) {
                made.remove();
                return Err(Failure::io(Step::Cgroup, file.display().to_string(), &error));
            }
        }
        Ok(made)
    }

    /// As written down in `state.json`.
    pub(crate) fn from_saved(folders: &[(String, PathBuf)]) -> Cgroup {
        let known = |(name, path): &(String, PathBuf)| Some((Controller::from_name(name)?, path.clone()));
        Cgroup { folders: folders.iter().filter_map(known).collect() }
    }

    pub(crate) fn to_saved(&self) -> Vec<(String, PathBuf)> {
        self.folders.iter().map(|(controller, path)| (controller.name().to_owned(), path.clone())).collect()
    }

    fn settings(&self, limits: &Limits) -> Vec<(PathBuf, String)> {
        let mut settings = Vec::new();
        for (controller, folder) in &self.folders {
            let mut set = |file: &str, value: Option<String>| {
                // What is missing is a controller we were not given, which `capabilities` tells.
                settings.extend(value.map(|value| (folder.join(file), value)).filter(|(file, _)| file.exists()));
            };
            let quota = limits.cpu_millis.map(|millis| (millis * CPU_PERIOD_USEC / 1000).max(1000));
            match controller {
                Controller::Unified => {
                    set("memory.max", limits.memory_bytes.map(|bytes| bytes.to_string()));
                    // A box over its limit ends whole: half a service is worse than none.
                    set("memory.oom.group", limits.memory_bytes.map(|_bytes| "1".to_owned()));
                    set("pids.max", limits.pids.map(|pids| pids.to_string()));
                    set("cpu.max", quota.map(|quota| format!("{quota} {CPU_PERIOD_USEC}")));
                }
                Controller::Memory => set("memory.limit_in_bytes", limits.memory_bytes.map(|bytes| bytes.to_string())),
                Controller::Pids => set("pids.max", limits.pids.map(|pids| pids.to_string())),
                Controller::Cpu => set("cpu.cfs_quota_us", quota.map(|quota| quota.to_string())),
                Controller::Cpuacct => {}
            }
        }
        settings
    }

    /// Puts a process in.
    pub(crate) fn enter(&self, pid: Pid) -> Result<(), Failure> {
        for (_, folder) in &self.folders {
            let file = folder.join("cgroup.procs");
            fs::write(&file, pid.as_raw_nonzero().to_string())
                .map_err(|error| Failure::io(Step::Cgroup, file.display().to_string(), &error))?;
        }
        Ok(())
    }

    /// Whether the box's memory is bounded and counted as a whole.
    pub(crate) fn bounds_memory(&self) -> bool {
        self.find(Controller::Unified, "").or_else(|| self.find(Controller::Memory, "")).is_some()
    }

    /// Whether the number of its processes is.
    pub(crate) fn bounds_processes(&self) -> bool {
        self.find(Controller::Unified, "").or_else(|| self.find(Controller::Pids, "")).is_some()
    }

    /// Whether the kernel killed a process of the box for memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.memory_events().is_some_and(|events| killed_for_memory(&events))
    }

    /// The file that counts that.
    pub(crate) fn memory_events(&self) -> Option<OwnedFd> {
        let file = self
            .find(Controller::Unified, "memory.events")
            .or_else(|| self.find(Controller::Memory, "memory.oom_control"))?;
        rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    pub(crate) fn cpu_usec(&self) -> Option<u64> {
        self.find(Controller::Unified, "cpu.stat")
            .and_then(|file| field(&file, "usage_usec"))
            .or_else(|| number(&self.find(Controller::Cpuacct, "cpuacct.usage")?).map(|nanos| nanos / 1000))
    }

    /// What the box holds, without file pages the kernel would give up first.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let (used, stat, inactive) = match self.find(Controller::Unified, "memory.current") {
            Some(used) => (used, self.find(Controller::Unified, "memory.stat")?, "inactive_file"),
            None => (
                self.find(Controller::Memory, "memory.usage_in_bytes")?,
                self.find(Controller::Memory, "memory.stat")?,
                "total_inactive_file",
            ),
        };
        Some(number(&used)?.saturating_sub(field(&stat, inactive).unwrap_or(0)))
    }

    pub(crate) fn processes(&self) -> Option<u64> {
        let file =
            self.find(Controller::Unified, "pids.current").or_else(|| self.find(Controller::Pids, "pids.current"))?;
        number(&file)
    }

    fn find(&self, wanted: Controller, file: &str) -> Option<PathBuf> {
        self.folders.iter().find(|(controller, _)| *controller == wanted).map(|(_, folder)| folder.join(file))
    }

    /// Removes the groups. Their processes must be dead, but may still be on their way out.
    pub(crate) fn remove(&self) {
        for (_, folder) in &self.folders {
            for _try in 0..REMOVE_TRIES {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: REMOVE_PAUSE_NANOS };
                        // An interrupted pause is only a shorter one.
                        let _ = rustix::thread::nanosleep(&pause);
                    }
                    Ok(()) | Err(_) => break,
                }
            }
        }
    }
}

/// Whether the kernel has killed for memory, by a file of [`Cgroup::memory_events`]. May be asked again.
pub(crate) fn killed_for_memory(events: &OwnedFd) -> bool {
    // Half a dozen short lines.
    let mut text = [0; 1024];
    let read = rustix::io::pread(events, &mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(text.get(..read).unwrap_or_default());
    value_of(&text, "oom_kill").is_some_and(|kills| kills > 0)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    value_of(&fs::read_to_string(file).ok()?, name)
}

/// The value in a line `name value`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{maker, value_of};

    #[test]
    fn a_groups_name_tells_who_made_it() {
        assert_eq!(maker("shop.web.1.x7f3.1234-0"), Some(1234));
        assert_eq!(maker("cgroup.procs"), None);
        assert_eq!(maker("tasks"), None);
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(value_of(text, "oom_kill"), Some(2));
        assert_eq!(value_of(text, "oom"), None);
    }
}
