/**
 * The words of the public API as the page uses them: JSON shapes only, times in milliseconds since 1970, sizes in bytes.
 * Fields the page never shows are left out.
 */

export interface Diagnostic {
  /** From 1; 0 means the whole file. */
  line: number;
  column: number;
  path: string;
  message: string;
  hint: string;
}

export interface Problem {
  code: string;
  message: string;
  hint: string;
  diagnostics: Diagnostic[];
}

export interface Report {
  ok: boolean;
  errors: Diagnostic[];
  warnings: Diagnostic[];
}

export interface StackFile {
  source: string;
  variables: Record<string, string>;
  /** Contents in base 64, by the path as written in the source. */
  files: Record<string, string>;
  directory: string;
}

export type Action = "create" | "update" | "scale" | "remove" | "keep";

export interface ServicePlan {
  service: string;
  action: Action;
  start: number;
  stop: number;
  changes: string[];
}

export interface Plan {
  stack: string;
  services: ServicePlan[];
  warnings: Diagnostic[];
}

export interface Deployed {
  stack: string;
  revision: number;
  changed: boolean;
  plan: Plan;
  warnings: Diagnostic[];
}

export interface Diff {
  from: number;
  to: number;
  services: ServicePlan[];
}

export interface StackSummary {
  name: string;
  revision: number;
  services: number;
  instances_ready: number;
  instances_wanted: number;
  state: string;
  changed_ms: number;
}

export interface ServiceSummary {
  stack: string;
  service: string;
  image: string;
  instances_ready: number;
  instances_wanted: number;
  state: string;
  endpoints: string[];
  address: string;
  revision: number;
}

export interface StackDetail {
  summary: StackSummary;
  services: ServiceSummary[];
  source: string;
}

export interface RevisionSummary {
  number: number;
  created_ms: number;
  cause: string;
  current: boolean;
}

export interface Rollout {
  revision: number;
  state: "running" | "done" | "paused" | "failed";
  reason: string;
  started_ms: number;
  changed_ms: number;
  failures: number;
}

export type Phase = "waiting" | "pulling" | "starting" | "running" | "backing_off" | "stopping" | "exited" | "failed";
export type Health = "none" | "starting" | "healthy" | "unhealthy";

export interface Instance {
  id: string;
  stack: string;
  service: string;
  slot: number;
  revision: number;
  node: string;
  wanted: "running" | "stopped";
  spec: ServiceSpec;
  created_ms: number;
}

export interface Status {
  phase: Phase;
  ready: boolean;
  health: Health;
  message: string;
  started_ms: number;
  changed_ms: number;
  restarts: number;
  exit: { code: number; reason: string; at_ms: number } | null;
  listening: number[];
  pid: number | null;
}

export interface Usage {
  cpu_cores: number;
  memory_bytes: number;
  read_bytes: number;
  written_bytes: number;
  received_bytes: number;
  sent_bytes: number;
  processes: number;
}

export interface InstanceDetail {
  instance: Instance;
  status: Status;
  usage: Usage;
}

export type HealthTest =
  | { command: string[] }
  | { shell: string }
  | { http: { port: number; path: string } }
  | { tcp: { port: number } }
  | "none";

export type MountSource =
  | { kind: "bind"; path: string }
  | { kind: "volume"; name: string }
  | { kind: "anonymous" }
  | { kind: "tmpfs"; size_bytes: number | null };

export interface ServiceSpec {
  image: string;
  entrypoint: string[] | null;
  command: string[] | null;
  environment: Record<string, string>;
  user: string | null;
  ports: { host_ip: string | null; published: number | null; target: number; protocol: "tcp" | "udp" }[];
  routes: { hosts: string[]; path_prefix: string; port: number; tls: boolean }[];
  networks: Record<string, { aliases: string[] }>;
  egress: string[];
  mounts: { source: MountSource; target: string; read_only: boolean }[];
  files: { source: string; kind: "config" | "secret"; target: string }[];
  replicas: number;
  mode: "replicated" | "global" | "replicated_job";
  resources: {
    cpu_limit_millis: number | null;
    cpu_reserved_millis: number;
    memory_limit_bytes: number | null;
    memory_reserved_bytes: number;
  };
  healthcheck: { test: HealthTest; interval_ms: number; timeout_ms: number; retries: number } | null;
  depends_on: Record<string, { condition: "started" | "healthy" | "completed_successfully" }>;
}

export interface ServiceDetail {
  summary: ServiceSummary;
  spec: ServiceSpec;
  rollout: Rollout | null;
  instances: InstanceDetail[];
}

export interface LogLine {
  time_ms: number;
  instance: string;
  stream: string;
  line: string;
}

export interface Node {
  id: string;
  hostname: string;
  os: string;
  arch: string;
  version: string;
  cores: number;
  memory_bytes: number;
  labels: Record<string, string>;
  role: string;
  drained: boolean;
  started_ms: number;
  limits: string[];
}

export interface Load {
  load_1m: number;
  cpu_busy: number;
  memory_available_bytes: number;
  disk_total_bytes: number;
  disk_available_bytes: number;
  psi_cpu: number;
  psi_memory: number;
  psi_io: number;
  cpu_reserved_millis: number;
  memory_reserved_bytes: number;
  /** By programs that are not Bramble's. */
  owner_cpu_millis: number;
  owner_memory_bytes: number;
}

/** Up, or since when it has not been heard of. */
export type Presence = "up" | { silent: { since_ms: number } } | { down: { since_ms: number } };

export interface NodeDetail {
  node: Node;
  load: Load;
  instances: number;
  presence: Presence;
  /** What it does for the cluster besides being there. */
  roles: string[];
  /** Why nothing new comes here; empty where work may come. */
  shut: string;
}

export interface Image {
  references: string[];
  digest: string;
  size_bytes: number;
  created_ms: number;
  used_ms: number;
  instances: number;
}

export interface PullProgress {
  done_bytes: number;
  total_bytes: number;
  layers_done: number;
  layers: number;
  /** Set in the last line of a pull that succeeded. */
  digest: string | null;
  /** Set in the last line of one that failed. */
  problem: Problem | null;
}

export interface Pruned {
  images: number;
  freed_bytes: number;
}

export interface Changed {
  keys: string[];
}

export interface Series {
  name: string;
  labels: Record<string, string>;
  /** `null` where a quantile of nothing was asked for. */
  points: [number, number | null][];
}

export interface Alert {
  name: string;
  labels: Record<string, string>;
  summary: string;
  firing: boolean;
  since_ms: number;
  value: number;
}

/** One request as the gateway saw it; what there was none of is left out. */
export interface RequestRecord {
  time_ms: number;
  trace?: string;
  span?: string;
  parent?: string;
  request_id?: string;
  client: string;
  method: string;
  host?: string;
  path: string;
  version: string;
  tls?: { version: string; resumed: boolean };
  /** 0 when the client left before there was one. */
  status: number;
  code?: string;
  service?: string;
  route?: string;
  instance?: string;
  bytes_in: number;
  bytes_out: number;
  sends: number;
  retries?: { instance: string; why: string }[];
  hedged?: boolean;
  reused: boolean;
  split: Split;
  end: "complete" | "left" | "cut";
  why: "all" | "error" | "slow" | "sampled" | "asked";
}

export interface Split {
  queue_us: number;
  connect_us: number;
  answer_us: number;
  body_us: number;
  total_us: number;
}

export interface EndpointState {
  instance: string;
  breaker: "closed" | "half-open" | "open";
  since_ms: number;
  why: "" | "errors" | "unreachable";
  retry_ms: number;
  in_flight: number;
  latency_ms: number | null;
  penalty_ms: number;
  draining: boolean;
}

export interface ServedPort {
  service: string;
  port: number;
  endpoints: EndpointState[];
}

export interface BanState {
  client: string;
  service: string;
  left_ms: number;
}

export interface BanLifted {
  /** How many routes had turned it away. */
  routes: number;
}

export interface CertificateState {
  names: string[];
  issuer: string;
  not_before_ms: number;
  not_after_ms: number;
  source: string;
  problem: string;
  last_error: string;
  retry_ms: number;
}

/** A language, and which machines can run it. */
export interface LanguageDetail {
  name: string;
  title: string;
  compiled: boolean;
  example: string;
  /** What the first file is called. */
  main: string;
  machines: { node: string; version: string; copied: boolean; lack: string }[];
}

export interface TerminalSize {
  columns: number;
  rows: number;
}

/** What is to be run; what is left out is the language's or Bramble's own. */
export interface RunWanted {
  language: string;
  files: { name: string; content: string }[];
  args: string[];
  limits: { cpu_ms?: number; wall_ms?: number; memory_bytes?: number };
  terminal?: TerminalSize;
  detach: boolean;
}

export interface Accepted {
  id: string;
  node: string;
  worker: number;
  language: string;
  /** The number of the block of input that comes next. */
  next_input?: number;
  terminal?: boolean;
}

export type RunVerdict =
  | "finished"
  | "wrong_exit"
  | "not_compiled"
  | "out_of_time"
  | "out_of_memory"
  | "too_much_output"
  | "killed"
  | "refused"
  | "lost";

export interface Ended {
  verdict: RunVerdict;
  message: string;
  exit_code: number | null;
  signal: number | null;
  /** Of the block this was; none follows. */
  sequence: number;
  cpu_usec: number;
  memory_peak_bytes: number;
  output_bytes: number;
  times: { queue_usec: number; place_usec?: number; box_usec: number; compile_usec: number; run_usec: number };
}

/** What whoever watches a run is told, besides blocks: one of these at a time. */
export interface RunTold {
  queued?: { before: number };
  preparing?: string;
  accepted?: Accepted;
  phase?: "compiling" | "running";
  taken?: number;
  ended?: Ended;
  /** Its machine is gone; it begins anew, with blocks from 1 on. Says why. */
  again?: string;
  problem?: Partial<Problem>;
}

/** What whoever watches a run says: one of these at a time. */
export type RunAsked =
  | { run: RunWanted }
  | { attach: { id: string; after: number } }
  | { ack: number }
  | { signal: string }
  | { resize: TerminalSize };
