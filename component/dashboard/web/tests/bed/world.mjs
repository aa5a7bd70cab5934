/** The cluster the fake server tells of: small, lively, with something in every state. Only tests know it. */

export const TOKEN = "t0k3n-for-tests";
const MIB = 1 << 20;
const GIB = 1 << 30;

export function spec(image, more = {}) {
  return {
    image,
    entrypoint: null,
    command: null,
    environment: {},
    user: null,
    ports: [],
    routes: [],
    networks: {},
    egress: [],
    mounts: [],
    files: [],
    replicas: 1,
    mode: "replicated",
    resources: { cpu_limit_millis: null, cpu_reserved_millis: 0, memory_limit_bytes: null, memory_reserved_bytes: 0, pids_limit: null },
    healthcheck: null,
    depends_on: {},
    ...more,
  };
}

function language(name, title, main, example, more = {}) {
  return { name, title, aliases: [], extensions: [], compiled: false, example, main, machines: [{ node: "n1", version: `${title} 1.2`, copied: true, lack: "" }], ...more };
}

export function world(now) {
  const minutes = (count) => now - count * 60_000;
  const web = spec("host", {
    command: ["/app/publishing", "--listen", "0.0.0.0:8080"],
    replicas: 3,
    environment: { DATA_DIR: "/data", SESSION_SECRET: "do-not-show-this", RUST_LOG: "info" },
    ports: [{ host_ip: null, published: 8080, target: 8080, protocol: "tcp" }],
    routes: [{ hosts: ["blog.example.org"], path_prefix: "/", port: 8080, strip_prefix: false, priority: 0, tls: true }],
    networks: { publishing_default: { aliases: ["web"] } },
    egress: ["*.example.org:443"],
    mounts: [
      { source: { kind: "volume", name: "publishing_data" }, target: "/data", read_only: false },
      { source: { kind: "bind", path: "/srv/publishing/bin" }, target: "/app", read_only: true },
      { source: { kind: "tmpfs", size_bytes: 64 * MIB }, target: "/tmp", read_only: false },
    ],
    files: [{ source: "tls_key", kind: "secret", target: "/run/secrets/tls_key", mode: 288, content: "" }],
    resources: { cpu_limit_millis: 500, cpu_reserved_millis: 100, memory_limit_bytes: 256 * MIB, memory_reserved_bytes: 64 * MIB, pids_limit: null },
    healthcheck: { test: { http: { port: 8080, path: "/healthz" } }, interval_ms: 5_000, timeout_ms: 2_000, retries: 3, start_period_ms: 0, start_interval_ms: 0 },
    depends_on: { search: { condition: "healthy", restart: false, required: true } },
  });
  const search = spec("docker.io/getmeili/meilisearch:v1.9");
  const mail = spec("registry.example.org/team/mail-sender:2024-11-01-a1b2c3d");
  return {
    stacks: [
      { name: "publishing", revision: 12, state: "running", changed_ms: minutes(42), source: PUBLISHING },
      { name: "mailing", revision: 3, state: "degraded", changed_ms: minutes(3), source: "services:\n  mail:\n    image: registry.example.org/team/mail-sender:2024-11-01-a1b2c3d\n" },
    ],
    services: [
      { stack: "publishing", service: "web", spec: web, state: "running", endpoints: ["http://localhost:8080", "https://blog.example.org"], address: "198.18.0.2", rollout: "done" },
      { stack: "publishing", service: "search", spec: search, state: "running", endpoints: ["tcp://:7701"], address: "198.18.0.3", rollout: "done" },
      { stack: "mailing", service: "mail", spec: mail, state: "degraded", endpoints: [], address: "198.18.0.9", rollout: "failed" },
    ],
    instances: [
      instance("publishing.web.1.k3x9q2", web, "n1", { phase: "running", ready: true, health: "healthy", started_ms: minutes(61) }, { cpu_cores: 0.21, memory_bytes: 148 * MIB }),
      instance("publishing.web.2.p0d8f1", web, "n2", { phase: "running", ready: true, health: "healthy", started_ms: minutes(61), restarts: 2 }, { cpu_cores: 0.46, memory_bytes: 231 * MIB }),
      instance("publishing.web.3.zz81ma", web, "n1", { phase: "running", ready: true, health: "healthy", started_ms: minutes(42) }, { cpu_cores: 0.02, memory_bytes: 97 * MIB }),
      instance("publishing.search.1.w8e7r6", search, "n1", { phase: "running", ready: true, health: "none", started_ms: minutes(500) }, { cpu_cores: 0.004, memory_bytes: 312 * MIB }),
      instance("mailing.mail.1.q1w2e3", mail, "n2", { phase: "backing_off", ready: false, health: "none", started_ms: 0, restarts: 7, message: "exited with code 1 three times in a minute; starts again in 12 s", exit: { code: 1, reason: "exited with code 1", at_ms: now - 4_000 } }, {}),
    ],
    revisions: {
      publishing: [
        { number: 12, created_ms: minutes(42), cause: "scale web to 3", current: true },
        { number: 11, created_ms: minutes(61), cause: "deploy", current: false },
        { number: 10, created_ms: minutes(64), cause: "rollback from 9: 2 of 2 new instances failed while they were watched", current: false },
        { number: 9, created_ms: minutes(65), cause: "deploy", current: false },
      ],
      mailing: [{ number: 3, created_ms: minutes(3), cause: "deploy", current: true }],
    },
    nodes: [
      node("n1", "lab-pc-04", "manager", now, {}, { cpu_busy: 0.34, load_1m: 1.42, psi_cpu: 0.021, psi_io: 0.004 }, 3),
      node("n2", "raspberry-kitchen", "worker", now, { disk: "sd", room: "kitchen" }, { cpu_busy: 0.91, load_1m: 4.9, psi_cpu: 0.47, psi_memory: 0.08, psi_io: 0.31, memory_available_bytes: 0.3 * GIB, disk_available_bytes: 3 * GIB }, 2),
    ],
    images: [
      { references: ["docker.io/getmeili/meilisearch:v1.9", "docker.io/getmeili/meilisearch:latest"], digest: "sha256:" + "9f86d081884c7d65".repeat(4), size_bytes: 162 * MIB, created_ms: minutes(60 * 24 * 40), used_ms: minutes(500), instances: 1 },
      { references: [], digest: "sha256:" + "2c26b46b68ffc68f".repeat(4), size_bytes: 71 * MIB, created_ms: minutes(60 * 24 * 90), used_ms: 0, instances: 0 },
    ],
    alerts: [
      { name: "InstanceRestarts", labels: { stack: "mailing", service: "mail" }, summary: "mailing/mail restarted 7 times in ten minutes: look at the end of its log for what it says before it exits", firing: true, since_ms: minutes(2), value: 7 },
      { name: "DiskAlmostFull", labels: { node: "n2" }, summary: "raspberry-kitchen has 3 GiB of disk left: remove images nobody uses with bramble image prune", firing: false, since_ms: now - 20_000, value: 0.05 },
    ],
    requests: REQUESTS.map(([back, more]) => request(now - back, more)),
    ports: [
      {
        service: "publishing/web",
        port: 8080,
        endpoints: [
          endpoint(SLOTS[1], { since_ms: minutes(61), in_flight: 3, latency_ms: 4.2 }),
          endpoint(SLOTS[2], { breaker: "open", since_ms: minutes(2), why: "errors", retry_ms: now + 600_000, latency_ms: 812, penalty_ms: 4_100 }),
          endpoint(SLOTS[3], { since_ms: minutes(1), latency_ms: 3.1 }),
        ],
      },
      { service: "publishing/search", port: 7700, endpoints: [endpoint("publishing.search.1.w8e7r6", { breaker: "half-open", since_ms: minutes(9), why: "unreachable" })] },
    ],
    languages: [
      language("c", "C (GCC)", "main.c", "int main(void) { return 0; }\n", { compiled: true }),
      language("go", "Go", "main.go", "package main\n", { machines: [{ node: "n1", version: "", copied: false, lack: "/usr/bin/go is not there" }] }),
      language("python", "Python 3", "main.py", "name = input(\"What is your name? \")\nprint(f\"Hello, {name}!\")\n"),
    ],
    bans: [{ client: "203.0.113.9", service: "publishing/web", left_ms: 42 * 60_000 }],
    certificates: [
      certificate(["blog.example.org", "www.blog.example.org"], minutes(60 * 24 * 30), now + 60 * DAY, "acme", { issuer: "Let's Encrypt R11" }),
      certificate(["old.example.org"], minutes(60 * 24 * 360), now + 5 * DAY, "old.crt", { issuer: "Example CA" }),
      certificate([], 0, 0, "broken.crt", { problem: "its key is another's" }),
      certificate(["new.example.org"], 0, 0, "acme", { last_error: "the authority could not reach http://new.example.org/.well-known/acme-challenge", retry_ms: now + 600_000 }),
    ],
    logs: LOGS.map(([back, slot, stream, line]) => ({ time_ms: now - back, instance: SLOTS[slot], stream, line })),
  };
}

const DAY = 86_400_000;

/** A line of the access log. */
export function request(timeMs, more = {}) {
  return {
    time_ms: timeMs,
    trace: "0af7651916cd43dd8448eb211c80319c",
    span: "b7ad6b7169203331",
    client: "203.0.113.44",
    method: "GET",
    host: "blog.example.org",
    path: "/",
    version: "HTTP/2",
    status: 200,
    service: "publishing/web",
    route: "blog.example.org/",
    instance: "publishing.web.1.k3x9q2",
    bytes_in: 0,
    bytes_out: 5_120,
    sends: 1,
    reused: true,
    split: { queue_us: 40, connect_us: 0, answer_us: 3_100, body_us: 210, total_us: 3_360 },
    end: "complete",
    why: "sampled",
    ...more,
  };
}

const REQUESTS = [
  [50_000, { path: "/posts/the-quiet-season?page=2&token=***" }],
  [42_000, {
    method: "POST", path: "/comments", status: 502, code: "B0605", why: "error", instance: undefined, sends: 2, bytes_in: 2_300, bytes_out: 180, reused: false,
    trace: "4bf92f3577b34da6a3ce929d0e0e4736", parent: "00f067aa0ba902b7", tls: { version: "1.3", resumed: true }, request_id: "order-4711",
    retries: [{ instance: "publishing.web.2.p0d8f1", why: "connect" }, { instance: "publishing.web.3.zz81ma", why: "broken" }],
    split: { queue_us: 120_000, connect_us: 31_000, answer_us: 640_000, body_us: 9_000, total_us: 800_400 },
  }],
  [30_000, { host: "nobody.example.org", path: "/wp-login.php", status: 404, code: "B0601", why: "error", service: undefined, route: undefined, instance: undefined, sends: 0, split: { queue_us: 0, connect_us: 0, answer_us: 0, body_us: 0, total_us: 90 } }],
  [20_000, { path: "/export/everything-there-is-in-one-very-long-file-name-that-does-not-break-anywhere.tar.gz", status: 200, why: "slow", end: "left", split: { queue_us: 100, connect_us: 300, answer_us: 1_900_000, body_us: 4_200_000, total_us: 6_100_500 } }],
  [6_000, { path: "/search?q=rain", status: 0, why: "error", end: "left", split: { queue_us: 60, connect_us: 0, answer_us: 2_400_000, body_us: 0, total_us: 2_400_100 } }],
];

function endpoint(id, more) {
  return { instance: id, breaker: "closed", since_ms: 0, why: "", retry_ms: 0, in_flight: 0, latency_ms: null, penalty_ms: 0, load: 0.2, zone: "", draining: false, ...more };
}

function certificate(names, from, until, source, more) {
  return { names, issuer: "", not_before_ms: from, not_after_ms: until, source, problem: "", last_error: "", retry_ms: 0, ...more };
}

export const SLOTS = { 1: "publishing.web.1.k3x9q2", 2: "publishing.web.2.p0d8f1", 3: "publishing.web.3.zz81ma" };

const LOGS = [
  [61_000, 1, "bramble", "started: pid 4211"],
  [60_900, 1, "stdout", "\u001b[2m2026-11-20T22:50:00Z\u001b[0m \u001b[32m INFO\u001b[0m publishing: listening on 0.0.0.0:8080"],
  [30_000, 2, "stdout", "\u001b[2m2026-11-20T22:50:31Z\u001b[0m \u001b[33m WARN\u001b[0m publishing::search: slow answer \u001b[1mtook=\u001b[0m812ms"],
  [20_000, 2, "stderr", "\u001b[31mERROR\u001b[0m cannot reach search: connection refused <script>alert(1)</script>"],
  [12_000, 3, "stdout", "GET /posts/the-quiet-season 200 1.2ms \u001b[38;5;208morange\u001b[0m \u001b[38;2;10;120;200mtrue colour\u001b[0m"],
  [4_000, 1, "stdout", "GET / 200 0.8ms"],
];

const PUBLISHING = `name: publishing
services:
  web:
    image: host
    command: ["/app/publishing", "--listen", "0.0.0.0:8080"]
    ports: ["8080:8080"]
    environment:
      DATA_DIR: /data
      SESSION_SECRET: "\${SESSION_SECRET:?say one}"
    deploy:
      replicas: 3
  search:
    image: getmeili/meilisearch:v1.9 # full text
`;

function instance(id, ofSpec, onNode, status, usage) {
  const [stack, service, slot] = id.split(".");
  return {
    instance: { id, stack, service, slot: Number(slot), revision: 12, node: onNode, wanted: "running", spec: ofSpec, created_ms: status.started_ms },
    status: { instance: id, phase: "waiting", ready: false, health: "none", message: "", started_ms: 0, changed_ms: 0, restarts: 0, exit: null, listening: [8080], image_ports: [], pid: 4211, ...status },
    usage: { cpu_cores: 0, memory_bytes: 0, read_bytes: 0, written_bytes: 0, received_bytes: 0, sent_bytes: 0, processes: 3, ...usage },
  };
}

export { instance };

function node(id, hostname, role, now, labels, load, instances) {
  const memory_bytes = id === "n1" ? 16 * GIB : 4 * GIB;
  return {
    node: {
      id, hostname, os: "linux", arch: id === "n1" ? "x86_64" : "aarch64", version: "0.1.0", cores: id === "n1" ? 8 : 4, memory_bytes, labels, role,
      drained: false, started_ms: now - 5 * 86_400_000,
      limits: id === "n1" ? [] : ["memory limits are watched, not enforced: cgroups are not delegated to this user; run `sudo loginctl enable-linger` and log in again"],
    },
    load: {
      load_1m: 0, cpu_busy: 0, memory_available_bytes: 9.4 * GIB, disk_total_bytes: id === "n1" ? 476 * GIB : 29 * GIB, disk_available_bytes: 211 * GIB,
      psi_cpu: 0, psi_memory: 0, psi_io: 0, cpu_reserved_millis: 300, memory_reserved_bytes: 192 * MIB, owner_cpu_millis: 400, owner_memory_bytes: 2 * GIB, ...load,
    },
    instances,
    presence: "up",
    shut: "",
    roles: id === "n1" ? ["gateway", "monitor", "voter"] : ["worker"],
  };
}

/** Samples of one name, as the server would keep them: made from the moment, so that every run draws the same shape. */
export function series(state, name, filters, since, now) {
  const STEP = 5_000;
  const points = (base, swing, phase) => {
    const out = [];
    for (let time = Math.ceil(since / STEP) * STEP; time <= now; time += STEP) {
      const at = (now - time) / 60_000 + phase;
      out.push([time, Math.max(0, base + swing * Math.sin(at * 0.9) + swing * 0.4 * Math.sin(at * 3.7))]);
    }
    return out;
  };
  const wanted = (labels) => filters.map((filter) => filter.split(/:(.*)/)).every(([key, value]) => labels[key] === value);
  const made = [];
  const add = (labels, base, swing, phase = 0) => wanted(labels) && made.push({ name, labels, points: points(base, swing, phase) });
  if (name.startsWith("bramble_instance_")) {
    state.instances.forEach(({ instance: { id, stack, service }, usage }, at) => {
      const labels = { instance: id, stack, service };
      if (name.endsWith("cpu_cores")) add(labels, usage.cpu_cores, usage.cpu_cores * 0.4, at);
      else if (name.endsWith("memory_bytes")) add(labels, usage.memory_bytes, 6 * MIB, at);
      else add(labels, 40_000 * (at + 1), 20_000, at);
    });
  } else if (name === "bramble_gateway_breaker") {
    // Out for the last two minutes, and once before, being tried in between.
    const out = (back) => (back < 120_000 || (back > 200_000 && back < 240_000) ? 1 : back < 150_000 ? 0.5 : 0);
    for (const { service, endpoints } of state.ports) {
      for (const { instance, breaker } of endpoints) {
        const values = points(0, 0).map(([time]) => [time, breaker === "closed" ? 0 : breaker === "open" ? out(now - time) : 0.5]);
        if (wanted({ service, instance })) made.push({ name, labels: { service, instance }, points: values });
      }
    }
  } else if (name === "bramble_gateway_ejections_total") {
    add({ service: "publishing/web" }, 0.01, 0.02);
  } else if (name === "bramble_gateway_in_flight") {
    add({ service: "publishing/web", instance: SLOTS[1] }, 3, 2);
  } else if (name === "bramble_gateway_strain") {
    add({ class: "normal" }, 0.04, 0.03);
  } else if (name === "bramble_gateway_connections") {
    add({}, 212, 30);
  } else if (name === "bramble_gateway_requests_total") {
    add({ service: "publishing/web", class: "2xx", method: "GET" }, 120, 30);
    add({ service: "publishing/web", class: "4xx", method: "GET" }, 3, 2, 2);
    add({ service: "publishing/web", class: "5xx", method: "POST" }, 0.2, 0.3, 5);
  } else if (name === "bramble_gateway_request_seconds") {
    add({ service: "publishing/web", quantile: "p50" }, 0.0018, 0.0004);
    add({ service: "publishing/web", quantile: "p95" }, 0.009, 0.002, 1);
    add({ service: "publishing/web", quantile: "p99" }, 0.031, 0.012, 2);
  } else if (name === "bramble_node_psi") {
    ["cpu", "memory", "io"].forEach((kind, at) => add({ kind }, 0.06 * (3 - at), 0.05, at));
  } else if (name.startsWith("bramble_node_")) {
    const base = { bramble_node_cpu_busy: 0.34, bramble_node_load1: 1.4 }[name] ?? 9.4 * GIB;
    add({}, base, base * 0.2);
  }
  return made;
}
