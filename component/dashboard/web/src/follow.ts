/** A log that is followed: the newest lines, then each as it is written, with no line twice after a gap. */
import { lines, problemOf } from "./api";
import { seen, whileSeen } from "./presence";
import type { Problem } from "./wire";

const RETRY_MS = 2_000;

export interface Followed<T> {
  /** With its query. */
  address: string;
  /** How many of those that are there already. */
  tail: number;
  /** How many at most of those that were missed. */
  missedMax: number;
  timeOf: (line: T) => number;
  take: (batch: T[]) => void;
  /** Why nothing comes, or that it does again. */
  tell: (problem: Problem | undefined) => void;
}

/** Goes on until the signal aborts or the server refuses. */
export async function follow<T>(what: Followed<T>, signal: AbortSignal): Promise<void> {
  let newest = 0;
  while (!signal.aborted) {
    try {
      const from = newest === 0 ? `&tail=${what.tail}` : `&tail=${what.missedMax}&since_ms=${newest + 1}`;
      await whileSeen(signal, async (stop) => {
        for await (const batch of lines<T>(what.address + from, stop, () => what.tell(undefined))) {
          for (const line of batch) newest = Math.max(newest, what.timeOf(line));
          what.take(batch);
        }
      });
    } catch (cause) {
      if (signal.aborted) return;
      const problem = problemOf(cause);
      what.tell(problem);
      // A refusal, of a pattern say, will be the same the next time; only silence is worth another try.
      if (problem.code !== "") return;
    }
    if (signal.aborted) return;
    if (document.hidden) {
      await seen(signal);
      continue;
    }
    // The stream ended: the server went, or what is followed did. Go on after the last line seen.
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
