/** What the records of the access log mean to people. Pure. */
import type { Tone } from "./parts/tone";
import type { RequestRecord, Split } from "./wire";

/** A part of the time a request took. */
export interface Part {
  name: string;
  /** What passed meanwhile. */
  meaning: string;
  us: number;
  /** Where it begins and how long it is, as shares of the whole. */
  from: number;
  share: number;
}

const PARTS: { key: keyof Split; name: string; meaning: string }[] = [
  { key: "queue_us", name: "Queue", meaning: "until an instance was found, failed ones included" },
  { key: "connect_us", name: "Connect", meaning: "until there was a connection to it" },
  { key: "answer_us", name: "Answer", meaning: "until the head of its answer" },
  { key: "body_us", name: "Body", meaning: "until the end of the answer's body" },
];

/** One after the other, as they passed. What the parts leave of the whole is the gateway's own, at the end. */
export function parts(split: Split): Part[] {
  const sum = PARTS.reduce((total, { key }) => total + split[key], 0);
  // Each is measured by itself: together they may be a few microseconds more than the whole.
  const whole = Math.max(split.total_us, sum, 1);
  let passed = 0;
  return PARTS.map(({ key, name, meaning }) => {
    const us = split[key];
    const part = { name, meaning, us, from: passed / whole, share: us / whole };
    passed += us;
    return part;
  });
}

/** When its end was, by which the log is ordered. */
export function endMs(record: RequestRecord): number {
  return record.time_ms + Math.floor(record.split.total_us / 1_000);
}

/** `502`, or `left` where the client did before there was an answer. */
export function statusWord(record: RequestRecord): string {
  return record.status === 0 ? "left" : String(record.status);
}

export function toneOfRequest(record: RequestRecord): Tone {
  if (record.status >= 500 || record.end === "cut") return "bad";
  if (record.status >= 400 || record.status === 0) return "warn";
  return record.status >= 300 ? "quiet" : "ok";
}

const ENDS = {
  complete: "the answer was passed on whole",
  left: "the client left in the middle",
  cut: "the instance broke off within its answer",
};
const WHYS = {
  all: "all requests of its route are told of",
  error: "it failed",
  slow: "it was slow",
  sampled: "it is of the sample",
  asked: "its traceparent asks for it",
};
const RETRIES: Record<string, string> = {
  connect: "no connection",
  broken: "broke off before an answer",
  closed: "had just closed the connection",
};

export function endOf(record: RequestRecord): string {
  if (record.status === 0) return "the client left before there was an answer";
  return record.code ? "the gateway's own answer" : ENDS[record.end];
}

export function whyTold(record: RequestRecord): string {
  return WHYS[record.why];
}

export function whyRetried(why: string): string {
  return RETRIES[why] ?? why;
}
