//! The same programs in bubblewrap, for whoever wants to know what a good sandbox without filters and watch lets
//! through. Asserts nothing.

use crate::programs;
use crate::world::{as_ordinary_user, turn};
use std::io::Read;
use std::process::{Command, Stdio};

/// Not run there: nothing in bubblewrap bounds what they take (endless forks of every generation, memory over many
/// processes), or they take a runner's own arguments.
const LEFT_OUT: [&str; 4] = ["fork-bomb-endless", "memory-bomb-shared-out", "hidden-bomb", "spin-unaccounted"];
const NAMES: [&str; 25] = [
    "fork-bomb",
    "thread-bomb",
    "kills",
    "daemon-left-behind",
    "malloc-bomb",
    "address-bomb",
    "memfd-bomb",
    "shm-bomb",
    "buffer-hoard",
    "socket-hoard",
    "descriptor-hoard",
    "disk-fill",
    "sparse",
    "sparse-ignored",
    "planted-links",
    "probes",
    "writes",
    "looks-into-others",
    "mounts",
    "namespaces",
    "families",
    "connects",
    "calls",
    "other-architecture",
    "side-channels",
];

#[test]
fn bubblewrap_beside() {
    let _turn = turn();
    if Command::new("bwrap").arg("--version").output().is_err() {
        println!("bwrap is not installed (apt-get install bubblewrap): nothing to compare with");
        return;
    }
    if rustix::process::geteuid().is_root() {
        let (mut again, _folder) = as_ordinary_user();
        let status = again.args(["--exact", "compare::bubblewrap_beside", "--nocapture"]).status().unwrap();
        assert!(status.success(), "as an ordinary user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let programs = programs::folder(folder.path());
    println!("left out: {}", LEFT_OUT.join(", "));
    for name in NAMES {
        let mut child = Command::new("timeout")
            .args(["--signal=KILL", "2", "prlimit", "--nproc=64", "--nofile=256", "--fsize=33554432", "--core=0"])
            .args(["--as=1073741824", "bwrap", "--unshare-all", "--die-with-parent", "--new-session"])
            .args(["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin"])
            .args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc"])
            .args(["--dev", "/dev", "--size", "67108864", "--tmpfs", "/tmp", "--ro-bind"])
            .arg(&programs)
            .args(["/programs", "/programs/hostile", name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let _ = child.stdout.take().unwrap().read_to_string(&mut said);
        let status = child.wait().unwrap();
        let allowed: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ALLOWED ")).collect();
        println!("bwrap {name}: {status}; allowed {}: {:?}", allowed.len(), &allowed[..allowed.len().min(3)]);
    }
}
