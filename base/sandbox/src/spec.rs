//! What a box is made of, said completely: plain data that travels from the agent to the spawner.
//!
//! Names are resolved before they get here: users are numbers, paths are absolute.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How far the programs in a box are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Programs of this machine, on its own root file system (read-only).
    Host,
    /// An image somebody chose to run as a service: container root with the usual capabilities in its own user
    /// namespace, wide system calls, as Docker does.
    Service,
    /// Code of strangers: no capabilities, no new privileges, strict system calls, landlock.
    Untrusted,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The machine's own, read-only, with fresh `/tmp`, `/run` and `/dev`.
    Host,
    Dir(PathBuf),
    /// `lowers`: the top one first. Whiteouts and opaque folders are in `user.overlay.*`, since the mount is made
    /// inside the user namespace (`userxattr`).
    Overlay {
        lowers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    Bind(PathBuf),
    Tmpfs { size_bytes: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute, inside the box; made when missing.
    pub target: PathBuf,
    pub read_only: bool,
}

/// A file laid over the root, kept in memory: never in the upper folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub target: PathBuf,
    #[serde(with = "hex_bytes")]
    pub content: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Which users of this machine the box's users are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// One user: the command's user (container root for a parked box) is whoever runs the agent. When that is root,
    /// it is [`SINGLE_OUTSIDE_AS_ROOT`] instead, and mounts are translated: real root never enters a box.
    Single,
    /// The box has users 0 to `count`. When the agent is root they are `outside_start` and up, and mounts are
    /// translated so that files of users 0 and up belong to them. When it is not, user 0 is whoever runs the agent, so that its
    /// files are container root's, and 1 and up are `outside_start` and up, which /etc/subuid must give it.
    Range { outside_start: u32, count: u32 },
}

/// The user a box of a single user runs as when the agent is root: above what `useradd` hands out (60000, and 524288
/// and up for `/etc/subuid`), below systemd's container ranges.
pub const SINGLE_OUTSIDE_AS_ROOT: u32 = 493_216;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub pids: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Name as `nofile`, soft, hard. What exceeds the machine's own hard limit is cut to it.
    pub rlimits: Vec<(String, u64, u64)>,
}

impl Limits {
    /// Whether there is a limit on the box as a whole, which takes a control group.
    pub(crate) fn any_for_a_box(&self) -> bool {
        self.memory_bytes.is_some() || self.pids.is_some() || self.cpu_millis.is_some()
    }
}

/// Both have their own network namespace with nothing but loopback, up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    Isolated,
    /// Every IPv4 address is local; TCP connections to all but 127.0.0.0/8 arrive at the catch-all listener; DNS is
    /// listened for on 127.0.0.53:53; any user may bind any port.
    Door,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxSpec {
    /// Letters, digits, `.`, `_`, `-`: part of cgroup and process names.
    pub name: String,
    pub trust: Trust,
    pub root: Root,
    pub read_only: bool,
    pub mounts: Vec<Mount>,
    pub files: Vec<File>,
    pub hostname: String,
    pub ids: Ids,
    pub limits: Limits,
    /// As `NET_ADMIN` or `CAP_NET_ADMIN`, or `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// As `net.core.somaxconn`.
    pub sysctls: Vec<(String, String)>,
    pub shm_size_bytes: u64,
    pub network: Network,
    /// It gets what processors and disks have left when everybody else has had what they want.
    #[serde(default)]
    pub idle: bool,
}

/// 64 MiB, as Docker's.
pub const SHM_SIZE_BYTES_DEFAULT: u64 = 64 << 20;

impl BoxSpec {
    /// A box with nothing asked for: a base to change fields of.
    pub fn new(name: impl Into<String>, trust: Trust, root: Root) -> BoxSpec {
        let name = name.into();
        BoxSpec {
            hostname: "box".to_owned(),
            name,
            trust,
            root,
            read_only: false,
            mounts: Vec::new(),
            files: Vec::new(),
            ids: Ids::Single,
            limits: Limits::default(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            sysctls: Vec::new(),
            shm_size_bytes: SHM_SIZE_BYTES_DEFAULT,
            network: Network::Isolated,
            idle: false,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Absolute; empty is `/`.
    pub cwd: String,
    pub user: User,
    pub tty: bool,
}

/// A service to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimStart {
    /// The run folder of this box: socket, `state.json`, `exit.json`. Made when missing.
    pub dir: PathBuf,
    pub log_dir: PathBuf,
    pub log_size_bytes_max: u64,
    pub spec: BoxSpec,
    pub command: Command,
    /// On the clock since boot, which goes on while the machine sleeps: the box is killed then, unless it is prolonged before.
    #[serde(default)]
    pub ends_boot_ms: Option<u64>,
}

/// Bytes as a string of hex digits: JSON has no bytes, and a list of numbers is twice as long again.
pub(crate) mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes();
        if digits.len() % 2 != 0 {
            return Err(D::Error::custom("an odd number of hex digits"));
        }
        digits
            .chunks_exact(2)
            .map(|pair| match (value(pair[0]), value(pair[1])) {
                (Some(high), Some(low)) => Ok(high << 4 | low),
                (None, _) | (_, None) => Err(D::Error::custom("not a hex digit")),
            })
            .collect()
    }

    fn value(digit: u8) -> Option<u8> {
        char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
    }
}
