//! What holds init and everything it starts from then on: sysctls while there is a way to them, then landlock,
//! capabilities, no new privileges, seccomp.

use crate::build::privileges;
use crate::failure::{During, Failure, Step};
use crate::seccomp;
use crate::spec::{BoxSpec, Ids, Network, Trust};
use crate::sys;
use landlock::{ABI, Access, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError};
use rustix::fs::{FileType, Mode, OFlags};

/// Sysctls of the box's namespaces, through the machine's proc: they go by who writes, not by which proc.
pub(crate) fn sysctls(spec: &BoxSpec) -> Result<(), Failure> {
    if spec.trust == Trust::Untrusted {
        // No user namespace in the namespace: its capabilities are what most kernel bugs need first.
        write_sysctl("user.max_user_namespaces", "0")?;
    }
    if spec.network == Network::Door {
        // Ports below 1024 need no capability, so that an image that drops them all can serve port 80.
        write_sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
    }
    if spec.trust == Trust::Service {
        let last = match spec.ids {
            Ids::Single => 0,
            Ids::Range { count, .. } => count.saturating_sub(1),
        };
        // So that `ping` works without a raw socket, as Docker has it. A box without is still a box.
        let _ = write_sysctl("net.ipv4.ping_group_range", &format!("0 {last}"));
    }
    spec.sysctls.iter().try_for_each(|(name, value)| write_sysctl(name, value))
}

/// Whether a sysctl is of a namespace the box has for itself. All others are the machine's, and a file's owner (real
/// root, should it ever get here) may write them.
pub(crate) fn sysctl_is_namespaced(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) && !name.contains("..");
    let message_queues = "fs.mqueue.";
    plain
        && (name.starts_with("net.")
            || name.starts_with(message_queues)
            || name.starts_with("kernel.msg")
            || name.starts_with("kernel.shm")
            || name == "kernel.sem")
}

fn write_sysctl(name: &str, value: &str) -> Result<(), Failure> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| rustix::io::write(fd, value.as_bytes()))
        .map(drop)
        .during(Step::Sysctl, || name.to_owned())
}

/// For good. Filters are installed while there is a capability that allows it without `no new privileges`, which
/// would take set-uid programs from service images.
pub(crate) fn confine(spec: &BoxSpec) -> Result<(), Failure> {
    let kept = privileges::of_init(spec);
    privileges::bound(kept)?;
    match spec.trust {
        Trust::Host => no_new_privileges()?,
        Trust::Service => {}
        Trust::Untrusted => {
            no_new_privileges()?;
            restrict_paths(spec).map_err(|_refused| Failure::plain(Step::Confine, "landlock"))?;
        }
    }
    sys::install_filter(seccomp::filter(spec.trust)?).during(Step::Confine, || "seccomp filter".to_owned())?;
    privileges::keep(kept)
}

fn no_new_privileges() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).during(Step::Confine, || "no new privileges".to_owned())
}

/// Reading and running everywhere, writing where the spec says. A second wall behind the mounts' own flags; a kernel
/// without landlock has only the first.
fn restrict_paths(spec: &BoxSpec) -> Result<(), RulesetError> {
    let abi = ABI::V5;
    let read = AccessFs::from_read(abi);
    // No new nodes: those of /dev are all there will be.
    let write = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    let mut places = vec![("/", read), ("/tmp", write), ("/run", write), ("/dev", write), ("/proc", write)];
    if !spec.read_only {
        places.push(("/", write));
    }
    places.extend(spec.mounts.iter().filter(|mount| !mount.read_only).filter_map(|mount| {
        let target = mount.target.to_str()?;
        Some((target, write))
    }));
    for (path, access) in places {
        // What is not there needs no rule.
        let Ok(place) = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
        let folder =
            rustix::fs::fstat(&place).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let access = if folder { access } else { access & AccessFs::from_file(abi) };
        rules = rules.add_rule(PathBeneath::new(place, access))?;
    }
    rules.restrict_self().map(drop)
}
