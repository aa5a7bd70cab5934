/** Numbers, sizes and times as people read them. Pure; `now` is always given. */

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const COUNT_UNITS = ["", "k", "M", "G"];

/** `0 B`, `512 KiB`, `1.5 GiB`: three digits that matter, the unit as memory limits are written. */
export function bytes(value: number): string {
  return scaled(value, 1024, BYTE_UNITS, " ");
}

export function bytesPerSecond(value: number): string {
  return `${bytes(value)}/s`;
}

/** `7`, `1.2k`. */
export function count(value: number): string {
  return scaled(value, 1000, COUNT_UNITS, "");
}

export function perSecond(value: number): string {
  return `${count(value)}/s`;
}

/** For what is rare: `0.5/min` from a rate per second. */
export function perMinute(value: number): string {
  return `${count(value * 60)}/min`;
}

/** A share from 0 to 1: `0 %`, `3.4 %`, `87 %`. */
export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<0.1 %";
  return `${value < 10 ? trimmed(value, 1) : Math.round(value)} %`;
}

/** Cores to a hundredth, below a tenth to a thousandth: `2`, `0.25`, `0.025`. */
export function cores(value: number): string {
  return trimmed(value, Math.abs(value) < 0.1 ? 3 : 2);
}

/** `850 µs`, `12 ms`, `1.4 s` from seconds. */
export function seconds(value: number): string {
  if (value === 0) return "0 s";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${trimmed(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  return `${trimmed(value, 1)} s`;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `4 s`, `12 min`, `3 h`, `5 d`: the largest unit, and a second one where it still matters. */
export function duration(ms: number): string {
  if (ms < MINUTE) return `${Math.max(0, Math.floor(ms / SECOND))} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  if (ms < DAY) return pair(ms, HOUR, "h", MINUTE, "min");
  return pair(ms, DAY, "d", HOUR, "h");
}

/** `just now`, `4 min ago`; nothing for a time that was never set. */
export function ago(timeMs: number, nowMs: number): string {
  if (timeMs === 0) return "never";
  const ms = nowMs - timeMs;
  // Clocks of browser and machines differ by a little; nothing on this page lies in the future.
  if (ms < 2 * SECOND) return "just now";
  if (ms < HOUR) return `${duration(ms)} ago`;
  return ms < DAY ? `${Math.floor(ms / HOUR)} h ago` : `${Math.floor(ms / DAY)} d ago`;
}

/** `in 5 d`, `now`; what is over is told by `ago`. */
export function until(timeMs: number, nowMs: number): string {
  const ms = timeMs - nowMs;
  if (ms < SECOND) return "now";
  if (ms < HOUR) return `in ${duration(ms)}`;
  return ms < DAY ? `in ${Math.floor(ms / HOUR)} h` : `in ${Math.floor(ms / DAY)} d`;
}

/** `21 Nov 2026` in the reader's own words, for what is days away. */
export function date(timeMs: number): string {
  return new Date(timeMs).toLocaleDateString(undefined, { dateStyle: "medium" });
}

/** The whole moment in the reader's own time zone, for tooltips. */
export function moment(timeMs: number): string {
  return timeMs === 0 ? "" : new Date(timeMs).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** `14:03:07.250` in the reader's own time zone, for log lines. */
export function timeOfDay(timeMs: number): string {
  const time = new Date(timeMs);
  const two = (value: number) => String(value).padStart(2, "0");
  const parts = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(":");
  return `${parts}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

/** `1 instance`, `2 instances`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${value} ${value === 1 ? one : many}`;
}

/** `running`, and why, of `failed: no machine has 64 GiB of memory`. */
export function splitState(state: string): { word: string; reason: string } {
  const colon = state.indexOf(":");
  return colon < 0
    ? { word: state, reason: "" }
    : { word: state.slice(0, colon).trim(), reason: state.slice(colon + 1).trim() };
}

function pair(ms: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % large) / small);
  const whole = `${Math.floor(ms / large)} ${largeName}`;
  return rest === 0 ? whole : `${whole} ${rest} ${smallName}`;
}

/** `#2` of an instance's id, `<stack>.<service>.2.<random>`. */
export function slot(instance: string): string {
  return `#${instance.split(".").at(-2) ?? instance}`;
}

function scaled(value: number, step: number, units: string[], gap: string): string {
  let rest = Math.abs(value);
  let unit = 0;
  // 999.5 would be shown as 1000 of the smaller unit.
  while (rest >= step - 0.5 && unit < units.length - 1) {
    rest /= step;
    unit += 1;
  }
  const digits = unit === 0 ? (rest < 10 && !Number.isInteger(rest) ? 1 : 0) : rest < 10 ? 2 : rest < 100 ? 1 : 0;
  return `${value < 0 ? "−" : ""}${trimmed(rest, digits)}${gap}${units[unit] ?? ""}`;
}

function trimmed(value: number, digits: number): string {
  return digits === 0 ? String(Math.round(value)) : value.toFixed(digits).replace(/\.?0+$/, "");
}
