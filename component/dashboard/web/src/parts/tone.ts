/** What the platform's state words mean to the eye. A tone is always shown with its word and shape, never as colour alone. */

export type Tone = "ok" | "busy" | "warn" | "bad" | "quiet";

const TONES: Record<string, Tone> = {
  running: "ok",
  ready: "ok",
  healthy: "ok",
  done: "ok",
  deploying: "busy",
  updating: "busy",
  starting: "busy",
  pulling: "busy",
  waiting: "busy",
  removing: "busy",
  stopping: "busy",
  degraded: "warn",
  paused: "warn",
  "backing off": "warn",
  drained: "warn",
  cordoned: "warn",
  "under pressure": "warn",
  failed: "bad",
  unhealthy: "bad",
  firing: "bad",
  closed: "ok",
  "half-open": "warn",
  open: "bad",
  exited: "quiet",
  stopped: "quiet",
};

/** A word the page does not know yet is shown quietly rather than dressed up as good or bad. */
export function toneOf(word: string): Tone {
  return TONES[word] ?? "quiet";
}

/** How pressed a resource is, as a share from 0 to 1. */
export function pressure(share: number, warnAt = 0.8, badAt = 0.95): Tone {
  if (share >= badAt) return "bad";
  return share >= warnAt ? "warn" : "ok";
}
