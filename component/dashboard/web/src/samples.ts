/** Series of the API as columns for a graph: one shared time axis, gaps where nothing was measured. Pure. */
import type { Series } from "./wire";

export interface Line {
  label: string;
  points: [number, number][];
}

/** Times in seconds, then one column per line. `undefined` is joined over, `null` is a gap. */
export type Columns = [number[], ...(number | null | undefined)[][]];

/** Three missed samples are no jitter any more: the instance was away, and a line across would lie. */
const GAP_MS = 15_000;

export function columns(lines: Line[]): Columns {
  const times = new Set<number>();
  for (const line of lines) {
    let before: number | undefined;
    for (const [time] of line.points) {
      times.add(time);
      if (before !== undefined && time - before > GAP_MS) times.add(before + 1);
      before = time;
    }
  }
  const axis = [...times].sort((a, b) => a - b);
  const index = new Map(axis.map((time, at) => [time, at]));
  const values = lines.map((line) => {
    const column = new Array<number | null | undefined>(axis.length).fill(undefined);
    let before: number | undefined;
    for (const [time, value] of line.points) {
      if (before !== undefined && time - before > GAP_MS) column[index.get(before + 1) ?? 0] = null;
      column[index.get(time) ?? 0] = value;
      before = time;
    }
    return column;
  });
  return [axis.map((time) => time / 1000), ...values];
}

/** Adds up series of the same label value: requests of all instances by `code`, say. */
export function sumBy(series: Series[], key: (labels: Record<string, string>) => string | undefined): Line[] {
  const groups = new Map<string, Map<number, number>>();
  for (const one of series) {
    const label = key(one.labels);
    if (label === undefined) continue;
    const sums = groups.get(label) ?? new Map<number, number>();
    groups.set(label, sums);
    for (const [time, value] of one.points) if (value !== null) sums.set(time, (sums.get(time) ?? 0) + value);
  }
  return [...groups]
    .map(([label, sums]) => ({ label, points: [...sums].sort((a, b) => a[0] - b[0]) }))
    .sort((a, b) => a.label.localeCompare(b.label, undefined, { numeric: true }));
}

/** The newest value, unless it is too old to pass for one of now. */
export function newest(line: Line, nowMs: number): number | undefined {
  const [time, value] = line.points.at(-1) ?? [];
  return time !== undefined && nowMs - time <= GAP_MS ? value : undefined;
}

/** Where a column has a value with a gap on both sides: no line leads there, so a dot must. */
export function lonely(column: (number | null | undefined)[]): number[] {
  const out: number[] = [];
  let alone = true;
  let value: number | undefined;
  for (const [at, one] of column.entries()) {
    if (one === undefined) continue;
    if (one === null) {
      if (value !== undefined && alone) out.push(value);
      value = undefined;
      alone = true;
    } else {
      alone = value === undefined;
      value = at;
    }
  }
  if (value !== undefined && alone) out.push(value);
  return out;
}
