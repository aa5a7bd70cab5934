//! What our processes say to each other. Agent, spawner, shim and init are the same binary, but after an upgrade of
//! the agent an older shim still speaks: fields are only ever added, with a default.

use crate::failure::Failure;
use crate::spec::{BoxSpec, Command, ShimStart, hex_bytes};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Agent to spawner; the channel for the answer, a [`Report`], comes with it: a parked box's init keeps it as its
/// owner's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SpawnRequest {
    Shim(Box<ShimStart>),
    Park(Box<BoxSpec>),
}

/// Owner (shim, or the agent for a parked box) to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Starts the box's program. Standard input, output and error come with it; if not, init makes them, owned by the
    /// program's user, so that `/dev/stdout` can be opened by name.
    Launch {
        command: Command,
        limits: RunLimits,
        #[serde(default)]
        collect: Option<Collect>,
        /// Whether the box is to wait for another program then, if it can be as new. Its [`Outcome`] tells.
        #[serde(default)]
        again: bool,
    },
    /// Files for the program, before it is launched. The content of those without text comes with them, as descriptors in
    /// this order. Only a failure is answered.
    Place(Vec<Placed>),
    /// Serves door requests on the channel that comes with it.
    Serve,
    /// For the program itself.
    Signal(i32),
    /// For its whole process group, as a terminal does it.
    SignalGroup(i32),
}

/// Init to its owner; for a box with a shim, also shim to agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// From a shim: the program runs.
    Started {
        pid: u32,
        network: NetworkReport,
    },
    Built {
        network: NetworkReport,
    },
    Failed(Failure),
    /// Only for streams that init made, which come with it: the reading ends of standard output and error, or one end
    /// of a terminal.
    Launched,
    /// What the program left in the folder that was to be collected, some files at a time; their descriptors come with
    /// them. Nothing of the box runs any more by then.
    Collected(Vec<Collected>),
    /// The program ended. So does init next, and everything in the box with it, unless it is as new.
    Ended(Outcome),
}

/// What the network of a box can do on this kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Whether TCP connections to any address reach the catch-all listener. If not, each address has to be listened
    /// on ([`crate::Shim::listen`]).
    pub redirect: bool,
    /// Why not.
    pub redirect_lack: String,
    /// Ports that are ours, not a program's.
    pub catch_all_port: u16,
}

/// Bounds of one run of a parked box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    pub wall_ms: Option<u64>,
    /// Over all processes of the box.
    pub cpu_ms: Option<u64>,
    /// Resident memory over all processes of the box, for machines where no cgroup bounds it.
    pub memory_bytes: Option<u64>,
    /// Standard output and error together.
    pub output_bytes: Option<u64>,
}

/// A file for a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Absolute, inside the box; folders are made when missing.
    pub target: String,
    pub mode: u32,
    /// What is in it, where that is short enough to be said. Otherwise a descriptor comes with it.
    #[serde(default)]
    pub text: Option<String>,
}

/// What is wanted of what a program leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// Absolute, inside the box.
    pub folder: String,
    pub files_max: u32,
    /// Of all files together.
    pub bytes_max: u64,
}

/// A file that a program left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Below the folder, with `/` between.
    pub name: String,
    pub mode: u32,
    pub size_bytes: u64,
}

/// Which bound ended a program, if one did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    #[default]
    Exited,
    Signalled,
    Wall,
    Cpu,
    Memory,
    Output,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub verdict: Verdict,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Processor time of all processes that were waited for.
    pub cpu_usec: u64,
    /// The largest process's peak.
    pub memory_peak_bytes: u64,
    /// Nothing is left of it: the box waits for another program.
    #[serde(default)]
    pub again: bool,
}

/// Agent to shim: one request per connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ShimRequest {
    Hello,
    /// A channel to init for door requests.
    Channel,
    Signal(i32),
    Kill,
    Usage,
    Listening,
    /// Answered when the box has ended.
    Watch,
    /// Keeps the sockets that come with it, by these names, in place of those kept before.
    Hold {
        names: Vec<String>,
    },
    Held,
    /// The box may live until then, by the clock since boot; never shorter than it might already. Without a time it has no end.
    Prolong {
        boot_ms: Option<u64>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ShimAnswer {
    Hello {
        pid: u32,
        network: NetworkReport,
    },
    /// The channel comes with it.
    Channel,
    Done,
    Usage(Usage),
    Listening(Vec<u16>),
    Exited(ExitRecord),
    /// The sockets come with it, in this order.
    Held {
        names: Vec<String>,
    },
    Failed {
        errno: i32,
    },
}

/// Agent to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum DoorRequest {
    Socket {
        kind: SocketKind,
        /// Several at once, so that a connection does not wait for a round trip to init each time.
        #[serde(default)]
        count: u8,
    },
    Listen {
        address: SocketAddr,
        kind: SocketKind,
    },
    CatchAll,
    Dns,
    Exec {
        command: Command,
        timeout_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum DoorAnswer {
    /// What was asked for comes with it, if there is such a thing.
    Sockets,
    Executed(ExecResult),
    NotExecuted(Failure),
    Failed {
        errno: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    Tcp4,
    Tcp6,
    Udp4,
}

/// What became of a program started beside the box's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// The program's code, or 128 + the signal.
    pub code: i32,
    /// The last 4 KiB of what it wrote.
    #[serde(with = "hex_bytes")]
    pub output: Vec<u8>,
    pub timed_out: bool,
}

/// What a box uses. Counters count from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub cpu_usec: u64,
    pub memory_bytes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub processes: u64,
}

/// How a box ended: `exit.json`, and so a stored format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitRecord {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub oom: bool,
    /// For people: `exited with 3`, `killed by SIGKILL`, `killed: over its 64 MiB memory limit`.
    pub reason: String,
    pub at_ms: u64,
    /// Killed because nobody had prolonged it.
    pub overdue: bool,
}
