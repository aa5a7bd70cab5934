/**
 * The one door to the server: JSON requests, streams of JSON lines and sockets under `/v1`, with the token and a deadline.
 * Every failure, also of the network, comes out as an `ApiError` with a message and a hint.
 */
import { session } from "./session.svelte";
import type { Problem } from "./wire";

/** Long enough for a plan of a large stack on a Raspberry Pi, short enough that a dead server is noticed. */
const DEADLINE_MS = 15_000;
/** A log line is at most 64 KiB; as JSON with every byte escaped, six times that. */
const LINE_LENGTH_MAX = 1 << 20;

export class ApiError extends Error {
  constructor(
    /** 0 when there was no answer at all. */
    readonly status: number,
    readonly problem: Problem,
  ) {
    super(problem.message);
  }
}

export async function request<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const response = await send(method, path, body, signal ? AbortSignal.any([signal, deadline]) : deadline);
  let text: string;
  try {
    text = await response.text();
  } catch (cause) {
    throw unreachable(cause);
  }
  if (text === "") return undefined as T;
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new ApiError(response.status, notBramble(response));
  }
}

/** The lines of a streamed answer as they come; ends when the server or the signal ends it. `opened` is told once. */
export async function* lines<T>(path: string, signal: AbortSignal, opened: () => void): AsyncGenerator<T[]> {
  const response = await send("GET", path, undefined, signal);
  opened();
  yield* split<T>(response, signal);
}

/** As `lines`, for what has a body and a stream of progress as its answer. */
export async function* progress<T>(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<T[]> {
  yield* split<T>(await send("POST", path, body, signal), signal);
}

async function* split<T>(response: Response, signal: AbortSignal): AsyncGenerator<T[]> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (!reader) return;
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop() ?? "";
      if (rest.length > LINE_LENGTH_MAX) throw new ApiError(response.status, notBramble(response));
      const batch = parts.filter((part) => part.trim() !== "").map((part) => JSON.parse(part) as T);
      if (batch.length > 0) yield batch;
    }
  } catch (cause) {
    if (signal.aborted) return;
    throw cause instanceof ApiError ? cause : unreachable(cause);
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** A stream both ways. Browsers send no headers with one, so the token is among the protocols that are offered. */
export function socket(path: string, protocol: string): WebSocket {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const opened = new WebSocket(url, [protocol, `bramble.token.${session.token ?? ""}`]);
  opened.binaryType = "arraybuffer";
  return opened;
}

/** A path with every segment escaped: `path("stacks", name)` is `/v1/stacks/<name>`. */
export function path(...segments: (string | number)[]): string {
  return "/v1/" + segments.map((segment) => encodeURIComponent(segment)).join("/");
}

export function problemOf(cause: unknown): Problem {
  return cause instanceof ApiError ? cause.problem : unreachable(cause).problem;
}

async function send(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
  const token = session.token;
  const headers: Record<string, string> = { accept: "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      cache: "no-store",
      credentials: "omit",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (cause) {
    throw unreachable(cause);
  }
  noteTime(response);
  if (response.ok) return response;
  if (response.status === 401) session.refuse(token);
  throw new ApiError(response.status, await readProblem(response));
}

async function readProblem(response: Response): Promise<Problem> {
  try {
    const given = (await response.json()) as Partial<Problem>;
    if (typeof given.message === "string") {
      return {
        code: given.code ?? "",
        message: given.message,
        hint: given.hint ?? "",
        diagnostics: given.diagnostics ?? [],
      };
    }
  } catch {
    // Not JSON: whatever stands between the page and the server answered.
  }
  return notBramble(response);
}

function notBramble(response: Response): Problem {
  return {
    code: "",
    message: `the answer to ${new URL(response.url).pathname} was not Bramble's (${response.status} ${response.statusText})`,
    hint: "If a proxy stands in front of Bramble, look at its configuration and its log.",
    diagnostics: [],
  };
}

function unreachable(cause: unknown): ApiError {
  const late = cause instanceof DOMException && cause.name === "TimeoutError";
  return new ApiError(0, {
    code: "",
    message: late ? `no answer within ${DEADLINE_MS / 1000} s` : "cannot reach the server",
    hint: "Is bramble still running on this machine, and is this machine's network up? The page tries again by itself.",
    diagnostics: [],
  });
}

/** How far this browser's clock is ahead of the server's, in milliseconds; 0 below what a header in seconds can tell. */
export let clockAheadMs = 0;
const CLOCK_DIFFERENCE_MS_MIN = 3_000;

function noteTime(response: Response): void {
  const served = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(served)) return;
  const ahead = Date.now() - served;
  clockAheadMs = Math.abs(ahead) < CLOCK_DIFFERENCE_MS_MIN ? 0 : ahead;
}
