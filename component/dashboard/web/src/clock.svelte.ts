/** The page's two beats: the second for relative times, and the sampling beat for graphs and loads. Both rest while hidden. */
import { clockAheadMs } from "./api";

/** Telemetry keeps one sample every five seconds: asking more often shows nothing new. */
export const SAMPLE_MS = 5_000;
const SECOND_MS = 1_000;

class Clock {
  /** The server's time, so that "3 s ago" holds on a machine whose own clock is off. */
  now = $state(Date.now());
  #samplers = new Set<() => void>();

  constructor() {
    setInterval(() => {
      if (!document.hidden) this.now = Date.now() - clockAheadMs;
    }, SECOND_MS);
    setInterval(() => this.#sample(), SAMPLE_MS);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.now = Date.now() - clockAheadMs;
      this.#sample();
    });
  }

  /** Calls back at each sampling beat while the page is visible; the answer stops it. */
  onSample(callback: () => void): () => void {
    this.#samplers.add(callback);
    return () => this.#samplers.delete(callback);
  }

  #sample(): void {
    if (document.hidden) return;
    for (const sampler of this.#samplers) sampler();
  }
}

export const clock = new Clock();
