/**
 * A fake of the public API, for component behaviour only: it serves the built page with the very policy the app sends,
 * answers from `world.mjs`, records what it was asked to do, and lets a test change the world and say so on the watch.
 */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { TOKEN, instance, series, world } from "./world.mjs";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };

class Refusal extends Error {
  constructor(status, problem) {
    super(problem.message);
    this.status = status;
    this.problem = { hint: "", diagnostics: [], ...problem };
  }
}

export async function start() {
  const bed = new Bed();
  bed.policy = await policy();
  bed.serve = await page();
  await new Promise((resolve) => bed.server.listen(0, "127.0.0.1", resolve));
  bed.url = `http://127.0.0.1:${bed.server.address().port}`;
  return bed;
}

async function policy() {
  return (await readFile(join(ROOT, "content-security-policy.txt"), "utf8")).trim();
}

/** How the built page is served, with the very policy the app sends. */
export async function page() {
  await readFile(join(ROOT, "dist/index.html")).catch((cause) => {
    throw new Error("the page is not built: npm run build", { cause });
  });
  const headers = { "content-security-policy": await policy(), "x-content-type-options": "nosniff" };
  return async (path, response) => {
    const file = path === "/" ? "/index.html" : normalize(path);
    try {
      const bytes = await readFile(join(ROOT, "dist", file));
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", ...headers }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  };
}

class Bed {
  state = world(Date.now());
  token = TOKEN;
  /** Every changing request: `{ method, path, body }`. */
  asked = [];
  /** How often each path was read. */
  reads = new Map();
  #watchers = new Set();
  #tails = new Set();
  #requests = new Set();
  server = createServer((request, response) => void this.#serve(request, response));

  /** How many streams are open. */
  get streams() {
    return this.#watchers.size + this.#tails.size + this.#requests.size;
  }

  /** Resolves when no stream is open any more. */
  async allClosed() {
    const open = [...this.#watchers, ...this.#tails, ...this.#requests];
    await Promise.all(open.map((response) => new Promise((resolve) => response.on("close", resolve))));
  }

  get login() {
    return `${this.url}/#token=${this.token}`;
  }

  reset() {
    this.state = world(Date.now());
    this.token = TOKEN;
    this.asked = [];
    this.reads.clear();
    this.refuse = undefined;
    this.cut();
  }

  /** Tells every open watch that something under these keys changed. */
  changed(...keys) {
    for (const response of this.#watchers) response.write(JSON.stringify({ keys }) + "\n");
  }

  /** Breaks every open stream, as a restart of the server does. */
  cut() {
    for (const response of [...this.#watchers, ...this.#tails, ...this.#requests]) response.destroy();
    this.#watchers.clear();
    this.#tails.clear();
    this.#requests.clear();
  }

  /** Appends to the log and to every open tail whose filter wants it. */
  log(line) {
    this.state.logs.push(line);
    for (const response of this.#tails) if (response.wants(line)) response.write(JSON.stringify(line) + "\n");
  }

  /** Writes requests to the access log and to everyone who follows it and wants them. */
  request(...records) {
    this.state.requests.push(...records);
    for (const response of this.#requests) {
      const text = records.filter(response.wants).map((one) => JSON.stringify(one) + "\n").join("");
      if (text) response.write(text);
    }
  }

  async close() {
    this.cut();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  async #serve(request, response) {
    const url = new URL(request.url, "http://bed");
    if (!url.pathname.startsWith("/v1/")) return this.serve(url.pathname, response);
    let body = "";
    for await (const chunk of request) body += chunk;
    try {
      if (request.headers.authorization !== `Bearer ${this.token}`) {
        throw new Refusal(401, { code: "B0401", message: "the token is not known here", hint: "use the login link" });
      }
      const path = url.pathname.slice("/v1/".length).split("/").map(decodeURIComponent);
      const refusal = this.refuse?.(request.method, url.pathname);
      if (refusal) throw new Refusal(refusal.status, refusal);
      if (request.method !== "GET") this.asked.push({ method: request.method, path: url.pathname, body: body ? JSON.parse(body) : undefined });
      else this.reads.set(url.pathname, (this.reads.get(url.pathname) ?? 0) + 1);
      if (path[0] === "watch") return this.#stream(response, this.#watchers);
      if (path[0] === "services" && path[3] === "logs") return this.#tail(url, response);
      if (path[0] === "gateway" && path[1] === "requests") return this.#accessLog(url, response);
      if (path[1] === "pull") return this.#pull(response, JSON.parse(body).reference);
      const answer = this.#answer(request.method, path, url.searchParams, body ? JSON.parse(body) : undefined);
      response.writeHead(200, { "content-type": "application/json" }).end(answer === undefined ? "" : JSON.stringify(answer));
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      response.writeHead(cause.status, { "content-type": "application/json" }).end(JSON.stringify(cause.problem));
    }
  }

  #stream(response, into) {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.flushHeaders();
    into.add(response);
    response.on("close", () => into.delete(response));
  }

  #tail(url, response) {
    const { grep = "", instance: from } = Object.fromEntries(url.searchParams);
    response.wants = (line) => line.line.includes(grep) && (from === undefined || line.instance === from);
    if (grep === "/[/") throw new Refusal(422, { code: "B0301", message: "the pattern is not a regular expression", hint: "close the bracket" });
    this.#stream(response, this.#tails);
    const since = Number(url.searchParams.get("since_ms") ?? 0);
    for (const line of this.state.logs) if (line.time_ms >= since && response.wants(line)) response.write(JSON.stringify(line) + "\n");
  }

  #accessLog(url, response) {
    const { status = "", service, slow_ms: slowMs = 0, trace, since_ms: since = 0, tail } = Object.fromEntries(url.searchParams);
    const is = (wanted, has) => wanted === undefined || wanted === has;
    const answered = (one) => status === "" || (status === "gone" ? one.status === 0 : String(one.status)[0] === status[0]);
    response.wants = (one) => answered(one) && is(service, one.service) && is(trace, one.trace) && one.split.total_us >= slowMs * 1_000;
    this.#stream(response, this.#requests);
    const found = this.state.requests.filter((one) => one.time_ms + Math.floor(one.split.total_us / 1_000) >= since && response.wants(one));
    for (const one of found.slice(-tail)) response.write(JSON.stringify(one) + "\n");
  }

  /** Half of it at once; the rest, or why not, when the test calls `pulled`. */
  #pull(response, reference) {
    const line = (more) => response.write(JSON.stringify({ done_bytes: 0, total_bytes: 1 << 20, layers_done: 0, layers: 2, digest: null, problem: null, ...more }) + "\n");
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    line({ done_bytes: 1 << 19 });
    this.pulled = (problem) => {
      const digest = "sha256:" + "ab".repeat(32);
      if (!problem) this.state.images.push({ references: [reference], digest, size_bytes: 1 << 20, created_ms: Date.now(), used_ms: 0, instances: 0 });
      line(problem ? { problem } : { done_bytes: 1 << 20, digest });
      response.end();
    };
  }

  #answer(method, path, query, body) {
    const verb = `${method} ${path[0]}`;
    if (verb === "GET stacks") return this.#readStacks(path, query);
    if (path[0] === "stacks") return this.#writeStack(method, path, body);
    if (verb === "GET services") return path.length === 1 ? this.state.services.map((one) => this.#summary(one)) : this.#service(path);
    if (verb === "POST services") return this.#steer(path, body);
    if (verb === "GET instances") return this.state.instances;
    if (verb === "POST instances") return undefined;
    if (verb === "GET nodes") return path.length === 1 ? this.state.nodes : this.#one(this.state.nodes, ({ node }) => node.id === path[1], "machine");
    if (verb === "GET images") return this.state.images;
    if (verb === "POST images") {
      const kept = this.state.images.filter(({ instances }) => instances > 0);
      const pruned = { images: this.state.images.length - kept.length, freed_bytes: 71 << 20 };
      this.state.images = kept;
      return pruned;
    }
    if (path[0] === "gateway") return this.#gateway(method, path);
    if (verb === "GET certificates") return this.state.certificates;
    if (verb === "GET languages") return this.state.languages;
    if (verb === "GET alerts") return this.state.alerts;
    if (verb === "GET series") return series(this.state, query.get("name"), query.getAll("label"), Number(query.get("since_ms")), Date.now());
    throw new Refusal(404, { code: "B0404", message: `there is no ${method} /v1/${path.join("/")}` });
  }

  #gateway(method, [, what, client]) {
    if (what === "endpoints") return this.state.ports;
    if (method === "GET") return this.state.bans;
    const before = this.state.bans.length;
    this.state.bans = this.state.bans.filter((one) => one.client !== client);
    return { routes: before - this.state.bans.length };
  }

  #readStacks(path, query) {
    if (path.length === 1) return this.state.stacks.map((one) => this.#stack(one));
    const stack = this.#one(this.state.stacks, ({ name }) => name === path[1], "stack");
    if (path[2] === "revisions") return this.state.revisions[stack.name];
    if (path[2] === "diff") {
      const [from, to] = [Number(query.get("from")), Number(query.get("to"))];
      return { from, to, services: [{ service: "web", action: "scale", start: Math.max(0, to - from), stop: Math.max(0, from - to), changes: ["replicas: 2 -> 3"] }] };
    }
    const services = this.state.services.filter((one) => one.stack === stack.name).map((one) => this.#summary(one));
    return { summary: this.#stack(stack), spec: {}, services, source: stack.source };
  }

  #writeStack(method, path, body) {
    if (path[1] === "check") return check(body.source);
    if (method === "DELETE") {
      this.state.stacks = this.state.stacks.filter(({ name }) => name !== path[1]);
      this.state.services = this.state.services.filter(({ stack }) => stack !== path[1]);
      this.changed(`stack/${path[1]}`);
      return undefined;
    }
    const plan = { stack: path[1], services: planOf(body.source ?? ""), warnings: [] };
    if (path[2] === "plan") return plan;
    const revision = (this.state.stacks.find(({ name }) => name === path[1])?.revision ?? 0) + 1;
    return { stack: path[1], revision, changed: true, plan, warnings: [] };
  }

  #steer([, stack, service, what], body) {
    const one = this.#one(this.state.services, (other) => other.stack === stack && other.service === service, "service");
    if (what === "scale") {
      one.spec = { ...one.spec, replicas: body.replicas };
      one.state = "updating";
    }
    this.changed(`rollout/${stack}/${service}`);
    return undefined;
  }

  #service([, stack, service]) {
    const one = this.#one(this.state.services, (other) => other.stack === stack && other.service === service, "service");
    const rollout = { stack, service, revision: 12, state: one.rollout, reason: one.rollout === "failed" ? "the new instance exited 7 times" : "", started_ms: Date.now() - 180_000, changed_ms: 0, failures: 0 };
    return { summary: this.#summary(one), spec: one.spec, rollout, instances: this.#instances(one) };
  }

  #instances({ stack, service }) {
    return this.state.instances.filter(({ instance: of }) => of.stack === stack && of.service === service);
  }

  #summary(one) {
    const ready = this.#instances(one).filter(({ status }) => status.ready).length;
    return { stack: one.stack, service: one.service, image: one.spec.image, instances_ready: ready, instances_wanted: one.spec.replicas, state: one.state, endpoints: one.endpoints, address: one.address, revision: 12 };
  }

  #stack({ source: _, ...one }) {
    const services = this.state.services.filter(({ stack }) => stack === one.name).map((service) => this.#summary(service));
    const sum = (field) => services.reduce((total, service) => total + service[field], 0);
    return { ...one, services: services.length, instances_ready: sum("instances_ready"), instances_wanted: sum("instances_wanted") };
  }

  #one(all, is, what) {
    const found = all.find(is);
    if (!found) throw new Refusal(404, { code: "B0404", message: `there is no such ${what}`, hint: `see which there are with bramble ${what} ls` });
    return found;
  }

  /** Puts a stack into the world, as if it had been deployed, `ready` of its instances up. */
  deploy(name, ready, wanted, state) {
    this.state.stacks = [...this.state.stacks.filter((one) => one.name !== name), { name, revision: 1, state, changed_ms: Date.now(), source: "" }];
    this.state.revisions[name] = [{ number: 1, created_ms: Date.now(), cause: "deploy", current: true }];
    const template = this.state.services[0].spec;
    this.state.services = [...this.state.services.filter((one) => one.stack !== name), { stack: name, service: "hello", spec: { ...template, image: "host", replicas: wanted }, state, endpoints: ["http://localhost:9999"], address: "198.18.0.20", rollout: "done" }];
    this.state.instances = this.state.instances.filter((one) => one.instance.stack !== name);
    for (let slot = 1; slot <= wanted; slot += 1) {
      this.state.instances.push(instance(`${name}.hello.${slot}.abc${slot}`, template, "n1", { phase: slot <= ready ? "running" : "starting", ready: slot <= ready, started_ms: Date.now() }, {}));
    }
    this.changed(`stack/${name}`);
  }
}

/** A stand-in for the stack-file parser: `imagee` is a typing error, `latest` worth a warning. */
function check(source) {
  const found = (word, message, hint) =>
    source.split("\n").flatMap((row, at) => {
      const column = row.indexOf(word) + 1;
      return column > 0 ? [{ line: at + 1, column, path: `services.web.${word}`, message, hint }] : [];
    });
  const errors = found("imagee", "unknown field `imagee`", "did you mean `image`?");
  return { ok: errors.length === 0, errors, warnings: found("latest", "`latest` means another image each time it is pulled", "name a version") };
}

function planOf(source) {
  const names = [...source.matchAll(/^ {2}([\w-]+):\s*$/gm)].map(([, name]) => name);
  return names.map((service, at) => (at === 0
    ? { service, action: "create", start: 2, stop: 0, changes: [] }
    : { service, action: "update", start: 1, stop: 1, changes: ["image: nginx:1.26 -> nginx:1.27"] }));
}
