/** The life of circuit breakers, from the samples of `bramble_gateway_breaker`: 0 closed, 0.5 half open, 1 open. Pure. */
import type { EndpointState, Series, ServedPort } from "./wire";

export type Breaker = EndpointState["breaker"];

/** A time in which a breaker stayed as it was. */
export interface Stay {
  breaker: Breaker;
  fromMs: number;
  toMs: number;
}

/** As for graphs: three missed samples are no jitter any more. */
const GAP_MS = 15_000;
/** The newest sample stands until the next one is due. */
const SAMPLE_MS = 5_000;

export function breakerOf(value: number): Breaker {
  if (value >= 1) return "open";
  return value > 0 ? "half-open" : "closed";
}

/** Samples as stays, the oldest first; where nothing was sampled there is none. */
export function stays(points: Series["points"], nowMs: number): Stay[] {
  const out: Stay[] = [];
  for (const [time, value] of points) {
    if (value === null) continue;
    const breaker = breakerOf(value);
    const last = out.at(-1);
    const near = last !== undefined && time - last.toMs <= GAP_MS;
    if (last && near) last.toMs = time;
    if (last && near && last.breaker === breaker) continue;
    out.push({ breaker, fromMs: time, toMs: time });
  }
  const last = out.at(-1);
  if (last) last.toMs = Math.max(last.toMs, Math.min(last.toMs + SAMPLE_MS, nowMs));
  return out;
}

/** How often it opened, and for how long it was not closed. */
export function summed(life: Stay[]): { times: number; outMs: number } {
  let times = 0;
  let outMs = 0;
  let out = false;
  for (const stay of life) {
    if (stay.breaker !== "closed") {
      outMs += stay.toMs - stay.fromMs;
      if (!out) times += 1;
    }
    out = stay.breaker !== "closed";
  }
  return { times, outMs };
}

/** An instance at one of its ports. */
export interface Served extends EndpointState {
  service: string;
  port: number;
}

const ORDER: Record<Breaker, number> = { open: 0, "half-open": 1, closed: 2 };

/** Those that are left out first, then by name. */
export function served(ports: ServedPort[]): Served[] {
  const all = ports.flatMap(({ service, port, endpoints }) => endpoints.map((one) => ({ ...one, service, port })));
  return all.sort(
    (a, b) =>
      ORDER[a.breaker] - ORDER[b.breaker] ||
      a.service.localeCompare(b.service) ||
      a.port - b.port ||
      a.instance.localeCompare(b.instance, undefined, { numeric: true }),
  );
}
