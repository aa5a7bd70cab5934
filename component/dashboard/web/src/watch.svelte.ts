/**
 * The live wire: one stream of changed keys for the whole page. Views say which keys they show and are told to ask
 * again; after a gap in the stream everybody is, since what was missed cannot be known.
 */
import { ApiError, lines } from "./api";
import { seen, whileSeen } from "./presence";
import type { Changed } from "./wire";

const RETRY_MS_MIN = 500;
/** A server that restarts is back within seconds; a longer pause would be felt, a shorter one would hammer it. */
const RETRY_MS_MAX = 8_000;

/** `undefined` instead of keys: anything may have changed. */
type Listener = (keys: string[] | undefined) => void;

class Watch {
  state = $state<"connecting" | "live" | "lost">("connecting");
  #listeners = new Set<Listener>();

  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start(): () => void {
    const stop = new AbortController();
    this.state = "connecting";
    void this.#run(stop.signal);
    return () => stop.abort();
  }

  async #run(signal: AbortSignal): Promise<void> {
    let pauseMs = RETRY_MS_MIN;
    // The first time, every view has just asked; after a gap each must ask again.
    let again = false;
    const opened = () => {
      pauseMs = RETRY_MS_MIN;
      this.state = "live";
      if (again) this.#tell(undefined);
    };
    while (!signal.aborted) {
      try {
        await whileSeen(signal, async (stop) => {
          for await (const batch of lines<Changed>("/v1/watch", stop, opened)) {
            this.#tell(batch.flatMap((changed) => changed.keys));
          }
        });
      } catch (cause) {
        if (cause instanceof ApiError && cause.status === 401) return;
      }
      if (signal.aborted) return;
      again = true;
      if (document.hidden) {
        this.state = "connecting";
        await seen(signal);
        continue;
      }
      this.state = "lost";
      await pause(pauseMs * (0.5 + Math.random() / 2), signal);
      pauseMs = Math.min(pauseMs * 2, RETRY_MS_MAX);
    }
  }

  #tell(keys: string[] | undefined): void {
    for (const listener of this.#listeners) listener(keys);
  }
}

/** Ends early when aborted or when the machine comes back online. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

export const watch = new Watch();
