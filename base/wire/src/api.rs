//! Bodies of the HTTP API under `/v1`. All JSON, snake case, times in milliseconds since 1970, sizes in bytes.

mod request;

mod cluster;

use crate::diagnostic::Diagnostic;
use crate::resource::{Instance, Node, Placed, Presence, Rollout, Status};
use crate::spec;
pub use cluster::{FloatingState, FloatingWanted, JoinToken, JoinTokenWanted, MachineRoles, RolesDetail, RolesWanted};
pub use request::{End, RequestRecord, Retry, Split, TlsSeen, Why};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The body of every answer that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `B0123`, explained in `docs/errors/`.
    pub code: String,
    pub message: String,
    #[serde(default)]
    pub hint: String,
    /// Findings in a stack file.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
}

/// A stack file with everything it refers to: the server reads nothing from the caller's machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StackFile {
    /// The file, byte for byte.
    pub source: String,
    /// For `${NAME}`: the caller's environment over its `.env`.
    pub variables: BTreeMap<String, String>,
    /// Contents (base 64) of `env_file`, `configs` and `secrets`, by the path as written.
    pub files: BTreeMap<String, String>,
    /// The folder relative paths start from, absolute.
    pub directory: String,
}

/// `PUT /v1/stacks/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    pub stack: String,
    pub revision: u64,
    /// False when the file says what is deployed already; the revision is then the one that was there.
    pub changed: bool,
    pub plan: Plan,
    pub warnings: Vec<Diagnostic>,
}

/// `POST /v1/stacks/{name}/plan`: what a deploy would do, without doing it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub stack: String,
    pub services: Vec<ServicePlan>,
    pub warnings: Vec<Diagnostic>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    pub service: String,
    pub action: Action,
    /// How many instances start and how many stop.
    pub start: u32,
    pub stop: u32,
    /// Each changed field, `image: nginx:1.26 -> nginx:1.27`.
    pub changes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Update,
    Scale,
    Remove,
    Keep,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackSummary {
    pub name: String,
    pub revision: u64,
    pub services: u32,
    pub instances_ready: u32,
    pub instances_wanted: u32,
    /// `running`, `deploying`, `degraded`, `removing`, or `failed: …`.
    pub state: String,
    pub changed_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackDetail {
    pub summary: StackSummary,
    pub spec: spec::Stack,
    pub services: Vec<ServiceSummary>,
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSummary {
    pub number: u64,
    pub created_ms: u64,
    pub cause: String,
    pub current: bool,
}

/// `POST /v1/stacks/{name}/revert`; without a number: the revision before the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revert {
    pub to: Option<u64>,
}

/// `GET /v1/stacks/{name}/diff?from=&to=`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    pub from: u64,
    pub to: u64,
    pub services: Vec<ServicePlan>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSummary {
    pub stack: String,
    pub service: String,
    pub image: String,
    pub instances_ready: u32,
    pub instances_wanted: u32,
    /// `running`, `updating`, `degraded`, `paused: …`, `failed: …`.
    pub state: String,
    /// Addresses the gateway serves it at, as URLs where it can: `http://localhost:2368`, `tcp://:3306`.
    pub endpoints: Vec<String>,
    /// The address other containers reach it at.
    pub address: String,
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    pub summary: ServiceSummary,
    pub spec: spec::Service,
    pub rollout: Option<Rollout>,
    pub instances: Vec<InstanceDetail>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceDetail {
    pub instance: Instance,
    pub status: Status,
    pub usage: Usage,
}

/// What an instance uses, as last sampled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Share of one core since the sample before: 1.0 is a whole core.
    pub cpu_cores: f64,
    pub memory_bytes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub processes: u64,
}

/// `POST /v1/services/{stack}/{service}/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    pub replicas: u32,
}

/// One line of `GET /v1/services/{stack}/{service}/logs`, which answers lines of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time_ms: u64,
    pub instance: String,
    /// `stdout`, `stderr`, or `bramble` for what the platform did to the instance.
    pub stream: String,
    pub line: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDetail {
    pub node: Node,
    /// As the machine reported it last, a few seconds ago.
    pub load: Load,
    pub instances: u32,
    #[serde(default)]
    pub presence: Presence,
    /// What it does for the cluster besides being there: `gateway`, `monitor`, `assigner`, `worker`, `voter`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Why nothing new comes here: `drained`, `under pressure`; empty where work may come.
    #[serde(default)]
    pub shut: String,
}

/// How busy a machine is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    pub load_1m: f64,
    /// Busy share of all cores, 0 to 1.
    pub cpu_busy: f64,
    pub memory_available_bytes: u64,
    pub disk_total_bytes: u64,
    pub disk_available_bytes: u64,
    /// Share of the last ten seconds in which something waited, 0 to 1.
    pub psi_cpu: f64,
    pub psi_memory: f64,
    pub psi_io: f64,
    pub cpu_reserved_millis: u64,
    pub memory_reserved_bytes: u64,
    /// By processes that are not Bramble's.
    pub owner_cpu_millis: u64,
    pub owner_memory_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// References that name it; empty when only its digest is left.
    pub references: Vec<String>,
    pub digest: String,
    pub size_bytes: u64,
    pub created_ms: u64,
    pub used_ms: u64,
    /// Instances that run from it.
    pub instances: u32,
}

/// A route of the gateway with what is behind it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteState {
    /// Empty for every host.
    pub hosts: Vec<String>,
    pub path: String,
    /// As `stack/service`.
    pub service: String,
    pub port: u16,
    pub priority: i32,
    pub weight: Option<u32>,
    /// Conditions and rules, in a word each.
    pub notes: Vec<String>,
    pub endpoints: Vec<EndpointState>,
}

/// What the gateway knows of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointState {
    pub instance: String,
    /// `closed` (requests flow), `half-open` (single ones try it) or `open` (it is left out).
    pub breaker: String,
    /// Since when requests flow, or do not.
    pub since_ms: u64,
    /// Why it is left out or only tried: `errors` or `unreachable`; empty while requests flow.
    pub why: String,
    /// When it is tried again; 0 unless it is left out.
    pub retry_ms: u64,
    pub in_flight: u64,
    pub latency_ms: Option<f64>,
    /// What its failures cost on top of its latency.
    pub penalty_ms: f64,
    /// How busy its machine is, from 0 to 1.
    pub load: f64,
    /// Where its machine is; empty where that is not said.
    pub zone: String,
    pub draining: bool,
}

/// A port of a service that the gateway serves, by whatever route or published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServedPort {
    /// As `stack/service`; an address for what routes ask outside of stacks.
    pub service: String,
    pub port: u16,
    pub endpoints: Vec<EndpointState>,
}

/// `POST /v1/routes/test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteQuestion {
    pub url: String,
    pub method: String,
    /// Lines such as `x-version: 2`.
    #[serde(default)]
    pub headers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteAnswer {
    pub tried: Vec<RouteTried>,
}

/// What would become of a request at one route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteTried {
    pub route: RouteState,
    /// Of such requests, from 0 to 1.
    pub share: f64,
    /// For people.
    pub why: String,
}

/// A client that a route turns away for a while, since it was refused too often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BanState {
    /// Its address; of IPv6 the network, by its first address.
    pub client: String,
    /// As `stack/service`.
    pub service: String,
    pub left_ms: u64,
}

/// `DELETE /v1/gateway/bans/{client}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanLifted {
    /// How many routes had turned it away.
    pub routes: u64,
}

/// A certificate the gateway shows, or a file that is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateState {
    /// Host names and addresses it is for.
    pub names: Vec<String>,
    pub issuer: String,
    pub not_before_ms: u64,
    pub not_after_ms: u64,
    /// The file it is from; `acme` for one from a public authority, `authority` for one that the node issued itself.
    pub source: String,
    /// Why it is not shown; empty when it is.
    pub problem: String,
    /// Why a public authority gave none, or no newer one; empty when it did or was not asked.
    pub last_error: String,
    /// When it is asked again.
    pub retry_ms: u64,
}

/// The certificate of the node's own authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityCertificate {
    pub pem: String,
}

/// `POST /v1/images/pull`; answers lines of [`PullProgress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    pub reference: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PullProgress {
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub layers_done: u32,
    pub layers: u32,
    /// Set in the last line of a pull that succeeded.
    pub digest: Option<String>,
    /// Set in the last line of one that failed.
    pub problem: Option<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    pub images: u32,
    pub freed_bytes: u64,
}

/// One line of `GET /v1/watch`: something under these keys changed. Ask again for what you show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub keys: Vec<String>,
}

/// `GET /v1/series?name=…&label=key:value&since_ms=…`: samples kept in memory, one every five seconds for an hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Time and value. Counters come as rates per second.
    pub points: Vec<(u64, f64)>,
}

/// One alert of `GET /v1/alerts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// What is wrong and what to do about it.
    pub summary: String,
    pub firing: bool,
    /// When it began to hold.
    pub since_ms: u64,
    pub value: f64,
}

/// One answer that the gateway's cache keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedAnswer {
    pub address: String,
    /// `stack/service`.
    pub service: String,
    pub status: u16,
    pub size_bytes: u64,
    pub age_ms: u64,
    /// How long it is still fresh; less than nothing when it is stale.
    pub ttl_ms: i64,
    /// How often it was given since it came or came back from disk.
    pub hits: u64,
    /// The headers that it varies by, with what they were.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub varies: String,
}

/// `GET /v1/cache`: the answers that were kept or came back from disk since the node started, those given most often
/// first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheListing {
    pub answers: Vec<CachedAnswer>,
    /// There are more than were asked for.
    pub more: bool,
}

/// `GET /v1/cache/stats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheStats {
    pub memory_bytes: u64,
    pub memory_bytes_max: u64,
    pub disk_bytes: u64,
    /// 0 without a disk.
    pub disk_bytes_max: u64,
    /// The disk that was wanted cannot be used.
    pub disk_lost: bool,
    /// Answers that memory gave up for others since the node started.
    pub evicted: u64,
    pub services: Vec<CacheService>,
}

/// What became of the requests of one service since the node started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheService {
    pub service: String,
    /// By result: `hit`, `stale`, `revalidated`, `miss`, `collapsed`, `uncacheable`, `bypass`.
    pub requests: BTreeMap<String, u64>,
    /// Bodies that were answered with what was kept.
    pub served_bytes: u64,
}

/// `POST /v1/cache/purge`: exactly one is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachePurge {
    /// Without a query it is every query of that path; http and https are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `stack/service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// That `cache-tag` or `surrogate-key` of the answer named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    pub all: bool,
}

/// Whether a machine takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    Active,
    /// Nothing new comes; what is there stays.
    Cordoned,
    /// Nothing new comes, and what is there moves away.
    Drained,
}

/// What a machine is to do from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWanted {
    pub availability: Availability,
}

/// What a machine's owner asks of the cluster. What is left out stays as it was, or is as by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsiderateWanted {
    /// Share of time in which something may wait for the processor, memory or the disk, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi_percent_max: Option<u32>,
    /// How long it is above before work moves away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// How long it is at half or below before work comes again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calm_ms: Option<u64>,
    /// When work may be here, each as `mon-fri 18:00-08:00`; `[]` is always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Vec<String>>,
    /// How long before its hours end work moves away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave_ms: Option<u64>,
    /// Left free besides what the owner uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_kept_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_kept_millis: Option<u64>,
}

/// Why a service's instances are where they are, and what would become of one more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceWhy {
    pub stack: String,
    pub service: String,
    pub slots: Vec<SlotWhy>,
    /// All machines of the cluster.
    pub machines: u32,
    /// Machines that would take one more instance now, the best first; at most ten are named.
    pub fitting: Vec<String>,
    pub fitting_count: u32,
    /// The others, by reason, the commonest first.
    pub refused: Vec<Refused>,
}

/// One slot of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotWhy {
    pub slot: u32,
    /// Empty while there is none.
    pub instance: String,
    pub node: String,
    /// How the machine was chosen, as it was then.
    pub placed: Option<Placed>,
    /// What keeps it from starting, or is about to happen to it; empty when all is well.
    pub note: String,
}

/// How many machines refused an instance for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The end of "2 of 3 machines …".
    pub reason: String,
    pub machines: u32,
}
