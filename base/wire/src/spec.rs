//! What a stack file declares, with every short form expanded, every default filled in, every name resolved.
//!
//! The stack-file parser produces it, control stores it per revision, the scheduler places it, the container
//! component runs it. Field names follow the compose specification; units are last.

mod delivery;
mod route;

pub use delivery::{AccessLog, Balance, Delivery, HashKey, Hedge, NoAccessLog, PriorityClass};
pub use route::{
    Aside, Ban, BasicAuth, Cache, ClientCertificates, Coding, Compress, Conditions, Cors, FRAMING_HEADERS, ForwardAuth,
    Hsts, IgnoreQuery, Mirror, ProxyProtocol, RateKey, RateLimit, Redirect, Route, Rules,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One stack: services that are deployed, changed and reverted together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stack {
    pub name: String,
    pub services: BTreeMap<String, Service>,
    /// Networks by the name used in the file.
    pub networks: BTreeMap<String, Network>,
    /// Named volumes by the name used in the file.
    pub volumes: BTreeMap<String, Volume>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Cluster-wide name: `<stack>_<name>`, or an external network's own.
    pub name: String,
    /// Shared between stacks; made when missing, never removed with a stack.
    pub external: bool,
    /// Declared `internal: true`: no egress for services that have only such networks.
    pub internal: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Cluster-wide name: `<stack>_<name>`, or an external volume's own.
    pub name: String,
    pub external: bool,
    pub labels: BTreeMap<String, String>,
    /// The same data on every machine. Else its data is where its instance is, which stays there.
    pub shared: bool,
}

/// One service. Two services with equal specs need no restart to become each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `host` (the host's root file system, read-only), or an OCI reference as written.
    pub image: String,
    pub pull_policy: PullPolicy,
    pub entrypoint: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    /// Values may hold Go templates (`{{.Task.Slot}}`), filled in per instance.
    pub environment: BTreeMap<String, String>,
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    pub group_add: Vec<String>,
    /// May hold Go templates.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub container_name: Option<String>,
    pub labels: BTreeMap<String, String>,

    pub ports: Vec<Port>,
    /// Ports others on the service's networks reach, besides the targets of `ports`.
    pub expose: Vec<Expose>,
    pub routes: Vec<Route>,
    /// Networks by cluster-wide name, with the names the service also answers to there.
    pub networks: BTreeMap<String, Attachment>,
    /// Extra lines of /etc/hosts: name to address.
    pub extra_hosts: BTreeMap<String, String>,
    /// What the service may reach outside its networks: `*`, a name, `*.example.org`, a CIDR, each with an optional `:port`.
    pub egress: Vec<String>,
    pub dns_search: Vec<String>,

    pub mounts: Vec<Mount>,
    /// Configs and secrets, as files.
    pub files: Vec<File>,
    pub read_only: bool,
    pub shm_size_bytes: Option<u64>,

    pub replicas: u32,
    pub mode: Mode,
    pub placement: Placement,
    pub resources: Resources,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub init: bool,
    pub tty: bool,
    pub stdin_open: bool,

    pub healthcheck: Option<Healthcheck>,
    pub restart: RestartPolicy,
    pub update: UpdatePolicy,
    pub rollback: UpdatePolicy,
    #[serde(skip_serializing_if = "Disconnect::is_default")]
    pub disconnect: Disconnect,
    pub stop_signal: Option<String>,
    pub stop_grace_ms: u64,
    pub depends_on: BTreeMap<String, Dependency>,
    /// How many bytes of log are kept for the whole service.
    pub log_size_bytes_max: u64,
    /// Counted up by `service restart`: a change of it alone rolls every instance.
    pub restart_count: u32,
}

impl Default for Service {
    fn default() -> Self {
        Service {
            image: String::new(),
            pull_policy: PullPolicy::Missing,
            entrypoint: None,
            command: None,
            environment: BTreeMap::new(),
            working_dir: None,
            user: None,
            group_add: Vec::new(),
            hostname: None,
            domainname: None,
            container_name: None,
            labels: BTreeMap::new(),
            ports: Vec::new(),
            expose: Vec::new(),
            routes: Vec::new(),
            networks: BTreeMap::new(),
            extra_hosts: BTreeMap::new(),
            egress: Vec::new(),
            dns_search: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            read_only: false,
            shm_size_bytes: None,
            replicas: 1,
            mode: Mode::Replicated,
            placement: Placement::default(),
            resources: Resources::default(),
            ulimits: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            init: false,
            tty: false,
            stdin_open: false,
            healthcheck: None,
            restart: RestartPolicy::default(),
            update: UpdatePolicy::default(),
            rollback: UpdatePolicy::default(),
            disconnect: Disconnect::default(),
            stop_signal: None,
            stop_grace_ms: 10_000,
            depends_on: BTreeMap::new(),
            log_size_bytes_max: LOG_SIZE_BYTES_DEFAULT,
            restart_count: 0,
        }
    }
}

/// Kept per service unless `logging.options.max-size` says otherwise: weeks of a quiet service, and fifty such
/// services still fit a Raspberry Pi's card.
pub const LOG_SIZE_BYTES_DEFAULT: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// A published port: the gateway listens on `published` and serves the instances' `target`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The address to listen on; `None` is every address.
    #[serde(default)]
    pub host_ip: Option<String>,
    /// `None`: the gateway picks a free one.
    #[serde(default)]
    pub published: Option<u16>,
    pub target: u16,
    #[serde(default)]
    pub protocol: Protocol,
    /// Connections begin with TLS, which ends at the gateway.
    #[serde(default, skip_serializing_if = "route::is_false")]
    pub tls: bool,
    /// Instances are told of their clients first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expose {
    pub port: u16,
    #[serde(default)]
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub aliases: Vec<String>,
}

/// Something mounted into the instance at `target`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute, inside the instance. May hold Go templates, as may a source.
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MountSource {
    /// A path of the machine, made as a folder when missing.
    Bind {
        path: String,
    },
    /// A named volume, by cluster-wide name.
    Volume {
        name: String,
    },
    /// A folder of its own that lives as long as the instance.
    Anonymous,
    Tmpfs {
        size_bytes: Option<u64>,
    },
}

/// A config or secret placed in the instance as a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Which config or secret of the stack file it is.
    pub source: String,
    pub kind: FileKind,
    /// Absolute, inside the instance.
    pub target: String,
    pub mode: u32,
    #[serde(default)]
    pub uid: Option<u32>,
    #[serde(default)]
    pub gid: Option<u32>,
    /// The bytes, base 64.
    pub content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Config,
    Secret,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Replicated,
    /// One instance on every machine that fits.
    Global,
    /// `replicated-job` and `global-job`: runs to its end, is not replaced when it exits 0.
    ReplicatedJob,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    pub constraints: Vec<Constraint>,
    /// Label names to spread over.
    pub spread: Vec<String>,
    pub replicas_per_node_max: Option<u32>,
    /// Services of the same stack this one must (`with`) or must not (`without`) share a machine with.
    pub with: Vec<String>,
    pub without: Vec<String>,
    /// Devices the machine must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Ports of the machine itself, of which each instance takes all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<u16>,
}

/// What becomes of instances whose machine is away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disconnect {
    /// How long after its machine was last heard of an instance is replaced, given the verdict that it is down. 0: with
    /// the verdict.
    pub lost_after_ms: u64,
    pub reconcile: Reconcile,
    /// An instance is stopped by its own machine when that has had no word from who leads for so long, and none takes its
    /// slot before that is certain. Nothing: it runs on. What an instance was made with holds for as long as it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after_ms: Option<u64>,
}

/// A shorter one would end with a change of who leads, which takes up to five seconds.
pub const STOP_AFTER_MS_MIN: u64 = 6_000;

impl Disconnect {
    /// Then it is not written: the hash over a service's stored form must not change because there is a new field.
    fn is_default(&self) -> bool {
        *self == Disconnect::default()
    }
}

/// Which of two instances stays when a machine comes back whose instance was replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconcile {
    #[default]
    KeepReplacement,
    /// The old one, as soon as it is ready.
    KeepOriginal,
}

/// `node.labels.disk == ssd`, with the field and the value as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    pub cpu_reserved_millis: u64,
    pub memory_limit_bytes: Option<u64>,
    pub memory_reserved_bytes: u64,
    pub pids_limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    pub test: HealthTest,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// Failures in a row that make an instance unhealthy.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period_ms: u64,
    /// How often to ask within the start period.
    pub start_interval_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// A program and its arguments, run inside the instance; exit 0 is healthy.
    Command(Vec<String>),
    /// A line for the instance's `/bin/sh -c`.
    Shell(String),
    /// `x-bramble: healthcheck: {http: "8080/path"}`: a 2xx or 3xx answer is healthy.
    Http { port: u16, path: String },
    /// A connection is accepted.
    Tcp { port: u16 },
    /// `test: NONE` or `disable: true`: also switches off what the image declares.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// The first pause; it doubles with each failure up to five minutes.
    pub delay_ms: u64,
    pub attempts_max: Option<u32>,
    /// How long an instance must live for its start to count as a success.
    pub window_ms: u64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy { condition: RestartCondition::Any, delay_ms: 100, attempts_max: None, window_ms: 10_000 }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartCondition {
    Never,
    OnFailure,
    #[default]
    Any,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdatePolicy {
    /// Instances changed at the same time; 0 is all of them.
    pub parallelism: u32,
    /// Pause between two batches.
    pub delay_ms: u64,
    pub on_failure: OnFailure,
    /// How long after its start a new instance is watched for failure.
    pub monitor_ms: u64,
    /// Share of instances, 0 to 1, that may fail before `on_failure` happens.
    pub failure_ratio_max: f64,
    /// `None`: start-first, but stop-first for one instance with a volume, since two would share the data.
    pub order: Option<UpdateOrder>,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        UpdatePolicy {
            parallelism: 1,
            delay_ms: 0,
            on_failure: OnFailure::Rollback,
            monitor_ms: 5_000,
            failure_ratio_max: 0.0,
            order: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    StartFirst,
    StopFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub condition: DependencyCondition,
    /// Restart this service when the dependency is updated.
    #[serde(default)]
    pub restart: bool,
    /// Missing dependencies are an error.
    #[serde(default)]
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    Started,
    Healthy,
    CompletedSuccessfully,
}
