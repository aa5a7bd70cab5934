/**
 * What a view shows: the answer to one GET, asked again whenever the watch names one of its keys, and, for values that
 * are only sampled and never stored, at each sampling beat. The old answer stays on screen while a new one is asked.
 */
import { untrack } from "svelte";
import { ApiError, problemOf, request } from "./api";
import { clock } from "./clock.svelte";
import { watch } from "./watch.svelte";
import type { Problem } from "./wire";

/** A rollout changes many keys in a burst; four answers a second look immediate and cost the server little. */
const PAUSE_MS = 250;
/** After a failure without a change to wait for, e.g. the server restarting. */
const RETRY_MS = 3_000;

export interface Live<T> {
  readonly data: T | undefined;
  /** The last ask failed; `data` is then what was known before. */
  readonly problem: Problem | undefined;
  refresh(): void;
}

/** What of a cluster's state a machine's line is made of. */
export const isOfNodes = (key: string) => /^(node|load|verdict|cluster)\//.test(key);

export interface Options {
  /** Which changed keys concern this answer; without it the watch is not listened to. */
  keys?: (key: string) => boolean;
  /** Ask at each sampling beat too. */
  sampled?: boolean;
  /** What is appended to the path anew at each ask: a moment that moves on. */
  suffix?: () => string;
}

/** Call while a component is set up; it ends with the component. `undefined` as path asks nothing. */
export function live<T>(path: () => string | undefined, options: Options = {}): Live<T> {
  let data = $state.raw<T | undefined>();
  let problem = $state.raw<Problem | undefined>();
  let refresh = () => {};

  $effect(() => {
    const now = path();
    untrack(() => {
      data = undefined;
      problem = undefined;
    });
    if (now === undefined) {
      refresh = () => {};
      return;
    }
    const { keys, sampled, suffix } = options;
    const asker = new Asker<T>(() => now + (suffix?.() ?? ""), (answer, failure, gone) => {
      // A failed repeat keeps what is shown, stale beside a notice being worth more than nothing; unless it is gone.
      if (answer !== undefined || gone) data = answer;
      problem = failure;
    });
    refresh = () => asker.ask();
    asker.ask();
    const stops = [() => asker.stop()];
    if (keys) stops.push(watch.listen((changed) => (changed === undefined || changed.some(keys)) && asker.ask()));
    if (sampled) stops.push(clock.onSample(() => asker.ask()));
    return () => stops.forEach((stop) => stop());
  });

  return {
    get data() {
      return data;
    },
    get problem() {
      return problem;
    },
    refresh: () => refresh(),
  };
}

/** At most one request under way and one more owed; never two closer than `PAUSE_MS`. */
class Asker<T> {
  #busy = false;
  #owed = false;
  #ended = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly path: () => string,
    readonly tell: (answer: T | undefined, problem: Problem | undefined, gone: boolean) => void,
  ) {}

  ask(): void {
    this.#owed = true;
    if (!this.#busy) void this.#run();
  }

  stop(): void {
    this.#ended.abort();
    clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    this.#busy = true;
    this.#owed = false;
    let pauseMs = PAUSE_MS;
    try {
      const answer = await request<T>("GET", this.path(), undefined, this.#ended.signal);
      if (!this.#ended.signal.aborted) this.tell(answer, undefined, false);
    } catch (cause) {
      if (this.#ended.signal.aborted) return;
      const problem = problemOf(cause);
      this.tell(undefined, problem, cause instanceof ApiError && cause.status === 404);
      if (problem.code === "") {
        // No answer of Bramble's: nothing will tell when it is back.
        this.#owed = true;
        pauseMs = RETRY_MS;
      }
    }
    this.#timer = setTimeout(() => {
      this.#busy = false;
      if (this.#owed) void this.#run();
    }, pauseMs);
  }
}
