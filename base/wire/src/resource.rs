//! What control keeps (durable) and what machines report (soft), with the keys both live under.

use crate::identity::{ClusterId, NodeId};
use crate::spec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Keys of the durable space. Names never hold a `/`.
pub mod key {
    /// [`super::StackHead`].
    pub fn stack(name: &str) -> String {
        format!("stack/{name}")
    }
    /// [`super::StackRevision`]; the number is padded so that keys sort by it.
    pub fn revision(stack: &str, number: u64) -> String {
        format!("revision/{stack}/{number:012}")
    }
    pub fn revisions(stack: &str) -> String {
        format!("revision/{stack}/")
    }
    /// [`super::Rollout`].
    pub fn rollout(stack: &str, service: &str) -> String {
        format!("rollout/{stack}/{service}")
    }
    /// [`super::Instance`].
    pub fn instance(id: &str) -> String {
        format!("instance/{id}")
    }
    /// [`super::Address`].
    pub fn address(stack: &str, service: &str) -> String {
        format!("address/{stack}/{service}")
    }
    /// [`super::Node`], in both spaces: what is declared, and what the machine reports.
    pub fn node(id: &str) -> String {
        format!("node/{id}")
    }
    /// [`super::Status`], soft space only.
    pub fn status(instance: &str) -> String {
        format!("status/{instance}")
    }
    /// [`super::Load`], soft space only.
    pub fn load(node: &str) -> String {
        format!("load/{node}")
    }

    pub fn runs(node: &str) -> String {
        format!("runs/{node}")
    }
    /// [`super::Verdict`].
    pub fn verdict(node: &str) -> String {
        format!("verdict/{node}")
    }
    /// [`super::Member`].
    pub fn member(id: &str) -> String {
        format!("member/{id}")
    }
    /// What the cluster keeps of a join token.
    pub fn token(id: &str) -> String {
        format!("token/{id}")
    }
    /// [`super::ClusterAuthority`].
    pub const AUTHORITY: &str = "cluster/authority";
    /// Who has which role.
    pub const ROLES: &str = "cluster/roles";
    /// How many of each role there are to be at least.
    pub const ROLES_WANTED: &str = "cluster/roles-wanted";
    /// [`super::Floating`].
    pub const FLOATING: &str = "cluster/floating";
    /// [`super::LastBackup`].
    pub const LAST_BACKUP: &str = "cluster/backup";
    pub const MEMBERS: &str = "member/";
    pub const TOKENS: &str = "token/";
    /// [`super::Fence`].
    pub fn fence(instance: &str) -> String {
        format!("fence/{instance}")
    }
    pub const FENCES: &str = "fence/";
    pub const STACKS: &str = "stack/";
    pub const ROLLOUTS: &str = "rollout/";
    pub const INSTANCES: &str = "instance/";
    pub const ADDRESSES: &str = "address/";
    pub const NODES: &str = "node/";
    pub const STATUSES: &str = "status/";
}

/// Which revision of a stack is wanted now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackHead {
    pub name: String,
    /// The revision wanted. Revisions only ever grow: a revert is a new one with an old content.
    pub revision: u64,
    /// Set while the stack's instances are being stopped for good.
    #[serde(default)]
    pub removing: bool,
}

/// One applied stack. Never changed, so that history is what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackRevision {
    pub stack: spec::Stack,
    pub number: u64,
    pub created_ms: u64,
    /// The stack file as it was given, with its variables filled in; empty for `scale` and `restart`.
    pub source: String,
    /// Why it exists: `deploy`, `scale web to 3`, `revert to 4`, `rollback from 6: …`.
    pub cause: String,
}

/// A service's place on a machine. The planner writes it; the machine's agent makes it so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// `<stack>.<service>.<slot>.<random>`: unique for ever.
    pub id: String,
    pub stack: String,
    pub service: String,
    /// From 1; an instance that replaces another keeps its slot.
    pub slot: u32,
    /// The stack revision its spec comes from.
    pub revision: u64,
    pub node: String,
    pub wanted: Wanted,
    /// What of the service's spec an instance is made of, as a hash: an instance of another shape is replaced.
    #[serde(default)]
    pub shape: String,
    /// With this instance's templates filled in.
    pub spec: spec::Service,
    pub created_ms: u64,
    #[serde(default)]
    pub placed: Placed,
}

/// How its machine was chosen, as it was then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placed {
    /// The machine it was moved away from; empty if it was not.
    pub moved_from: String,
    /// Why it was moved.
    pub cause: String,
    /// Instances of the service that were to stay, in the same zone or whatever else it is spread over, outermost first.
    pub spread: Vec<u32>,
    /// Instances of the service that were to stay, on the same machine.
    pub same: u32,
    /// What was really used of the machine, in thousandths of its scarcest resource.
    pub used_per_mille: u32,
    /// What was reserved of it.
    pub reserved_per_mille: u32,
    /// All instances there.
    pub instances: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Running,
    /// Take it out of traffic, stop it within its grace, then it is removed.
    Stopped,
}

/// What became of bringing a service to its revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub stack: String,
    pub service: String,
    pub revision: u64,
    pub state: RolloutState,
    /// Why it failed or is paused; empty otherwise.
    pub reason: String,
    pub started_ms: u64,
    pub changed_ms: u64,
    /// The shape being rolled out; a revision that leaves a service's shape alone starts no rollout.
    #[serde(default)]
    pub shape: String,
    /// New instances that failed while they were watched, each counted once.
    #[serde(default)]
    pub failed: Vec<String>,
    /// The last revision at which this service was rolled out whole: where a rollback goes.
    #[serde(default)]
    pub good_revision: Option<u64>,
    /// It undoes a failed one; if it fails too, nothing is undone again.
    #[serde(default)]
    pub rolling_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    Running,
    Done,
    Paused,
    Failed,
}

/// The address a service answers at inside containers, the same for as long as the stack exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub stack: String,
    pub service: String,
    /// In 198.18.0.0/15, which no network uses (RFC 2544).
    pub ip: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    pub id: String,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub version: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub labels: BTreeMap<String, String>,
    /// `manager` or `worker`, as placement constraints say it.
    pub role: String,
    /// Nothing new comes here, and what is here moves away.
    pub drained: bool,
    pub started_ms: u64,
    /// What this machine cannot do and what would change that, a sentence each.
    pub limits: Vec<String>,
    /// What fails together with it: a room, a power strip. Empty: its label `zone`.
    pub zone: String,
    /// Nothing new comes here; what is here stays.
    pub cordoned: bool,
    pub devices: Vec<String>,
    /// Named volumes that have a folder here, by cluster-wide name.
    pub volumes: Vec<String>,
    /// Ports that programs other than ours listen on.
    pub ports_taken: Vec<u16>,
    /// It has an owner who comes first.
    pub considerate: Option<Considerate>,
    /// Cores that compute wrong.
    pub faults: Vec<CoreFault>,
    /// What its clocks on the wall show, east of Greenwich.
    pub utc_offset_minutes: i32,
}

/// A core that computes wrong, as its machine found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreFault {
    /// As the kernel counts them.
    pub core: u32,
    /// The kind of work: `sha256`, `float`, `memory`, …
    pub test: String,
    /// What is known to be right, or the part of it that differs.
    pub expected: String,
    pub got: String,
    /// Another core gave a wrong answer too: then it is the memory, or what all cores share.
    pub elsewhere: bool,
    pub found_ms: u64,
}

/// What a machine's owner asks of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Considerate {
    /// Share of time in which something waited for the processor, memory or the disk (pressure stall information).
    pub psi_percent_max: u32,
    /// How long it must be above before work moves away; then one instance leaves each time so long.
    pub hold_ms: u64,
    /// How long it must be at half of the bound or below before work comes again.
    pub calm_ms: u64,
    /// When work may be here; none is always.
    pub hours: Vec<Hours>,
    /// How long before its hours end work moves away.
    pub leave_ms: u64,
    /// Left free besides what the owner uses.
    pub memory_kept_bytes: u64,
    pub cpu_kept_millis: u64,
}

impl Default for Considerate {
    fn default() -> Considerate {
        Considerate {
            psi_percent_max: 20,
            hold_ms: 30_000,
            calm_ms: 120_000,
            hours: Vec::new(),
            leave_ms: 600_000,
            memory_kept_bytes: 0,
            cpu_kept_millis: 0,
        }
    }
}

/// From one minute of the week to another, by the machine's own clock; 0 is Monday, 00:00. May go round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    pub from_minute: u32,
    /// The first minute that is no longer part of it.
    pub to_minute: u32,
}

/// What is really used of a machine, as it reports. Never stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    pub at_ms: u64,
    pub cpu_busy_millis: u64,
    pub memory_available_bytes: u64,
    /// By processes that are not ours.
    pub owner_cpu_millis: u64,
    pub owner_memory_bytes: u64,
    /// The worst of processor, memory and disk, over ten seconds.
    pub psi_percent: u32,
    pub psi_cpu_percent: u32,
    pub psi_memory_percent: u32,
    pub psi_io_percent: u32,
    /// Load average of one minute, in thousandths.
    pub load_1m_millis: u64,
    pub disk_total_bytes: u64,
    pub disk_available_bytes: u64,
}

/// What those who watch the machines have agreed on about one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub node: String,
    pub presence: Presence,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    #[default]
    Up,
    /// Not heard of, not yet judged.
    Silent { since_ms: u64 },
    /// By verdict. What is there counts as lost.
    Down {
        /// When it was last heard of.
        since_ms: u64,
    },
}

/// A demand that an instance be kept from running before another is started in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub instance: String,
    pub node: String,
    pub demanded_ms: u64,
    /// Its lease is revoked or has run out on its machine's own clock: it runs no longer, whatever became of the machine.
    #[serde(default)]
    pub done: bool,
}

/// A machine that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// As instances and people name it.
    pub id: String,
    /// Who it is: made of its key.
    pub node: NodeId,
    /// As replicated groups count it.
    pub number: u64,
    pub hostname: String,
    /// Where its peers reach it, the likeliest first.
    pub addresses: Vec<SocketAddr>,
    /// As its join token said.
    pub zone: Option<String>,
    pub role: Option<String>,
    pub joined_ms: u64,
    /// 99 of 100 writes were on its disk within this time; `None` until that was measured.
    #[serde(default)]
    pub fsync_p99_us: Option<u64>,
    /// It was removed: its certificates count no more.
    #[serde(default)]
    pub revoked: bool,
    /// Which of its lives was there last; `None` until it said so.
    #[serde(default)]
    pub incarnation: Option<Incarnation>,
}

/// One life of a machine: from a start of its program to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// It grows with each, as the machine itself counts.
    pub number: u64,
    /// Two with one number are two machines.
    pub word: String,
}

/// Addresses that are always the gateway's, whichever machine that is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Floating {
    pub addresses: Vec<FloatingAddress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingAddress {
    pub ip: IpAddr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// `None`: whichever has an address of the same network.
    #[serde(default)]
    pub interface: Option<String>,
}

/// When the state of record was last written to a file, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    pub at_ms: u64,
    /// What was in it.
    pub revision: u64,
    /// Who wrote it.
    pub machine: String,
}

/// The authority that signs what the machines of a cluster are known by.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAuthority {
    pub cluster: ClusterId,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for ClusterAuthority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClusterAuthority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// How an instance is, as its machine sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub instance: String,
    pub phase: Phase,
    /// Whether requests may go to it: started, and healthy if it has a health check.
    pub ready: bool,
    pub health: Health,
    /// A sentence: why it waits, what it pulls, why it exited.
    pub message: String,
    pub started_ms: u64,
    pub changed_ms: u64,
    /// Starts after the first one.
    pub restarts: u32,
    pub exit: Option<Exit>,
    /// Ports it listens on, found by looking.
    pub listening: Vec<u16>,
    /// What the image says it serves.
    pub image_ports: Vec<spec::Expose>,
    pub pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not looked at yet, or waiting for a dependency.
    #[default]
    Waiting,
    Pulling,
    Starting,
    Running,
    /// Died; starts again after a pause.
    BackingOff,
    Stopping,
    /// Ended and stays so: exited by policy, or stopped.
    Exited,
    /// Cannot run, and trying again by itself would not help.
    Failed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No health check.
    #[default]
    None,
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The program's code, or 128 + the signal.
    pub code: i32,
    /// For people: `killed: over its 64 MiB memory limit`.
    pub reason: String,
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records as the first version stored them.
    const NODE_1: &str = r#"{"id":"n1","hostname":"lab-7","os":"linux","arch":"x86_64","version":"0.1.0","cores":4,
        "memory_bytes":8000000000,"labels":{"zone":"a"},"role":"manager","drained":false,"started_ms":1,"limits":[]}"#;
    const INSTANCE_1: &str = r#"{"id":"s.web.1.abcdef","stack":"s","service":"web","slot":1,"revision":3,"node":"n1",
        "wanted":"running","shape":"00","spec":{"image":"a","placement":{"constraints":[],"spread":[],
        "replicas_per_node_max":null,"with":["db"],"without":[]}},"created_ms":5}"#;

    #[test]
    fn what_the_first_version_stored_is_read() {
        let node: Node = serde_json::from_str(NODE_1).expect("a stored record is read for ever");
        assert_eq!((node.cores, node.zone.as_str(), node.cordoned, node.considerate), (4, "", false, None));
        let instance: Instance = serde_json::from_str(INSTANCE_1).expect("a stored record is read for ever");
        assert_eq!((instance.placed, instance.spec.disconnect), (Placed::default(), spec::Disconnect::default()));
        assert_eq!(instance.spec.placement.with, ["db"]);
        assert!(instance.spec.placement.devices.is_empty());
    }
}
