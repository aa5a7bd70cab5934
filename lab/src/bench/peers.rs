//! Other ways to run a program apart: bubblewrap, crun, runc, isolate.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What every box, ours or others', runs.
pub(super) const PROGRAM: &str = "/usr/bin/true";

/// A command that runs [`PROGRAM`] to its end, or why this machine has none.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) command: fn(&Path) -> Command,
}

pub(super) const BUBBLEWRAP: Peer = Peer { name: "bwrap", command: bubblewrap };
pub(super) const ENGINES: [Peer; 2] = [
    Peer { name: "crun", command: |folder| engine("crun", folder) },
    Peer { name: "runc", command: |folder| engine("runc", folder) },
];

fn bubblewrap(_folder: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command
        .args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"])
        .args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"])
        .args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", PROGRAM]);
    command
}

/// How judges use isolate: a box is made, a program run in it, and the box taken away; each box has its number.
pub(super) struct Isolate {
    number: String,
}

impl Isolate {
    pub(super) fn of(number: usize) -> Isolate {
        Isolate { number: number.to_string() }
    }

    pub(super) fn steps(&self) -> [Command; 3] {
        let whats: [&[&str]; 3] = [&["--init"], &["--run", "--", PROGRAM], &["--cleanup"]];
        whats.map(|what| {
            let mut command = Command::new("isolate");
            command.args(["--silent", "--box-id", &self.number]).args(what);
            command
        })
    }

    /// Whether it works here; if not, a sentence with the reason.
    pub(super) fn tried(&self) -> Result<(), String> {
        self.steps().into_iter().try_for_each(|mut step| ended_well("isolate", step.stdin(Stdio::null()).output()))
    }
}

fn engine(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command.arg("--root").arg(folder.join(name)).args(["run", "--bundle"]).arg(folder.join("bundle")).arg("measured");
    command
}

/// Lays out the folder the commands need: an OCI bundle with the machine's `/usr`.
pub(super) fn prepare(folder: &Path) -> std::io::Result<()> {
    let root = folder.join("bundle/rootfs");
    for place in ["usr", "proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(place))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    std::fs::write(folder.join("bundle/config.json"), bundle().to_string())
}

/// As `crun spec` and `runc spec` make it, shorter: the same namespaces, no control groups, no network but loopback.
fn bundle() -> Value {
    let mut namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
    let mut linux = json!({});
    if !rustix::process::geteuid().is_root() {
        namespaces.push(json!({"type": "user"}));
        let map = |outside: u32| json!([{"containerID": 0, "hostID": outside, "size": 1}]);
        linux["uidMappings"] = map(rustix::process::geteuid().as_raw());
        linux["gidMappings"] = map(rustix::process::getegid().as_raw());
    }
    linux["namespaces"] = json!(namespaces);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [PROGRAM],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=64m"]},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ],
        "linux": linux,
    })
}

impl Peer {
    /// Whether it works here; if not, a sentence with the reason.
    pub(super) fn tried(&self, folder: &Path) -> Result<(), String> {
        ended_well(self.name, (self.command)(folder).stdin(Stdio::null()).output())
    }
}

fn ended_well(name: &str, output: std::io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| format!("{name}: not measured: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = said.lines().last().unwrap_or("no reason given").to_owned();
    Err(format!("{name}: not measured: it ended with {}: {reason}", output.status))
}
