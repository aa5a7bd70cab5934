//! What this machine can do for boxes, and what is missing, in sentences for people.

use crate::build::network;
use crate::cgroup::{self, Controller};
use crate::sys;
use rustix::process::{WaitOptions, geteuid, waitpid};
use std::path::Path;

/// What [`capabilities`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Without them there are no boxes at all.
    pub user_namespaces: bool,
    /// A box may have users besides the agent's own.
    pub id_ranges: bool,
    /// Mounts can translate owners: the agent is root, on Linux 5.19 or later.
    pub idmapped_mounts: bool,
    /// Whether connections of a box can be redirected to its door.
    pub redirect: bool,
    /// Limits that hold for a box as a whole.
    pub memory_limit: bool,
    pub pids_limit: bool,
    pub cpu_limit: bool,
    /// `2`, `1`, or 0 for none that can be used.
    pub cgroup_version: u32,
    /// Highest landlock ABI; 0 without.
    pub landlock_abi: u32,
    /// A sentence for each lack: what does not work, and what would change that.
    pub lacks: Vec<String>,
}

/// Tries what a box needs, in short-lived processes of its own. A millisecond or two; ask once.
pub fn capabilities() -> Capabilities {
    let root = geteuid().is_root();
    // A namespace alone says little: AppArmor lets it be made and then refuses everything in it.
    let user_namespaces =
        works(|| separate(libc::CLONE_NEWUSER | libc::CLONE_NEWUTS) && rustix::system::sethostname(b"trial").is_ok());
    let redirect = works(|| separate(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) && network::redirect_works());
    let places = cgroup::places();
    let has = |wanted: Controller, name: &str| {
        places.iter().any(|(controller, place)| match controller {
            Controller::Unified => cgroup::bounds(place, name),
            Controller::Memory | Controller::Pids | Controller::Cpu | Controller::Cpuacct => *controller == wanted,
        })
    };
    let mut found = Capabilities {
        user_namespaces,
        id_ranges: root || (program_exists("newuidmap") && program_exists("newgidmap") && has_range("/etc/subuid")),
        idmapped_mounts: root && kernel_version() >= OVERLAY_WITH_TRANSLATED_LAYERS,
        redirect,
        memory_limit: has(Controller::Memory, "memory"),
        pids_limit: has(Controller::Pids, "pids"),
        cpu_limit: has(Controller::Cpu, "cpu"),
        cgroup_version: match places.first() {
            Some((Controller::Unified, _)) => 2,
            Some((Controller::Memory | Controller::Pids | Controller::Cpu | Controller::Cpuacct, _)) => 1,
            None => 0,
        },
        landlock_abi: sys::landlock_abi(),
        lacks: Vec::new(),
    };
    found.lacks = lacks(&found);
    found
}

fn lacks(found: &Capabilities) -> Vec<String> {
    const DELEGATE: &str = "run the agent under systemd with Delegate=yes and DelegateSubgroup=agent, or as root";
    let sentences = [
        (
            found.idmapped_mounts || !geteuid().is_root(),
            "images cannot be run as root: this kernel is older than 5.19; run the agent as an ordinary user".to_owned(),
        ),
        (
            found.user_namespaces,
            "containers cannot run: this kernel refuses user namespaces to this user; set user.max_user_namespaces above \
             0 and kernel.apparmor_restrict_unprivileged_userns to 0"
                .to_owned(),
        ),
        (
            found.id_ranges,
            "containers have a single user, so images that switch users (most databases, nginx) fail: install newuidmap (package uidmap) and give this user a range in /etc/subuid \
             and /etc/subgid"
                .to_owned(),
        ),
        (
            found.redirect,
            "containers reach only addresses that are known beforehand: load the kernel module nf_tables".to_owned(),
        ),
        (found.memory_limit, format!("memory limits hold per process, not per container: {DELEGATE}")),
        (found.pids_limit, format!("limits on the number of processes hold per user, not per container: {DELEGATE}")),
        (found.cpu_limit, format!("processor limits are not kept: {DELEGATE}")),
        (
            found.landlock_abi > 0,
            "strangers' code is held by mounts alone: this kernel has no landlock (boot with lsm=landlock,…)".to_owned(),
        ),
    ];
    sentences.into_iter().filter(|(works, _)| !works).map(|(_, sentence)| sentence).collect()
}

/// Since when overlayfs takes layers whose owners are translated.
const OVERLAY_WITH_TRANSLATED_LAYERS: (u32, u32) = (5, 19);

/// `6.1.0-18-amd64` is (6, 1).
fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether `trial` succeeds in a process of its own.
fn works(trial: impl FnOnce() -> bool) -> bool {
    let Ok(child) = sys::fork(|| i32::from(!trial())) else { return false };
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
    matches!(ended, Ok(Some((_, status))) if status.exit_status() == Some(0))
}

fn separate(namespaces: i32) -> bool {
    sys::unshare(namespaces).is_ok()
}

fn program_exists(name: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(name).exists())
}

/// Whether the file gives this user a range, by name or number.
fn has_range(file: &str) -> bool {
    let uid = geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let ranges = std::fs::read_to_string(file).unwrap_or_default();
    ranges.lines().filter_map(|line| line.split(':').next()).any(|owner| owner == uid || Some(owner) == name)
}
