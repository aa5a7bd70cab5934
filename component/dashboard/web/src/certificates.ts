/** What is to be said of a certificate. Pure. */
import { ago, until } from "./format";
import type { Tone } from "./parts/tone";
import type { CertificateState } from "./wire";

/** As the alert `certificate_ending`: enough to get another one by hand. */
const LEFT_MS_MIN = 14 * 86_400_000;

export interface Standing {
  word: string;
  tone: Tone;
  /** What is wrong; empty when nothing is. */
  why: string;
}

export function standing(one: CertificateState, nowMs: number): Standing {
  const why = one.problem || one.last_error;
  if (one.problem) return { word: "not shown", tone: "bad", why };
  // Wanted from a public authority, and not there yet.
  if (one.not_after_ms === 0) return { word: "missing", tone: one.last_error ? "bad" : "busy", why };
  if (one.not_after_ms <= nowMs) return { word: "ended", tone: "bad", why };
  if (one.not_before_ms > nowMs) return { word: "not yet valid", tone: "warn", why };
  if (one.not_after_ms - nowMs < LEFT_MS_MIN) return { word: "ends soon", tone: "warn", why };
  return { word: one.last_error ? "not renewed" : "valid", tone: one.last_error ? "warn" : "ok", why };
}

/** `in 5 d`, `2 d ago`. */
export function ending(one: CertificateState, nowMs: number): string {
  return one.not_after_ms > nowMs ? until(one.not_after_ms, nowMs) : ago(one.not_after_ms, nowMs);
}

/** Whom it is from, in a word. */
export function origin(one: CertificateState): string {
  if (one.source === "acme") return "a public authority, renewed by itself";
  if (one.source === "authority") return "this node's own authority, renewed by itself";
  return one.source;
}
