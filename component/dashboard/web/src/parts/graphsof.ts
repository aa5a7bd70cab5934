/** Which graphs a service, the gateway and a machine have: names of series, and how their samples become lines. */
import * as format from "../format";
import { sumBy, type Line } from "../samples";
import type { Series } from "../wire";
import type { Wanted } from "./Graphs.svelte";

/** Answers by their class look the same on every service, whichever of them it gives. */
const CLASS_COLOURS: Record<string, string> = {
  "1xx": "--line-8",
  "2xx": "--line-6",
  "3xx": "--line-4",
  "4xx": "--line-3",
  "5xx": "--bad",
};

export function ofService(stack: string, service: string): Wanted[] {
  const perSlot = (answers: Series[][]): Line[] => sumBy(answers[0] ?? [], (labels) => slotOf(labels.instance));
  const both = (names: [string, string]) => (answers: Series[][]): Line[] =>
    names.flatMap((name, at) => sumBy(answers[at] ?? [], () => name));
  const instances = (name: string) => ({ name, labels: [`stack:${stack}`, `service:${service}`] });
  const gateway = (name: string) => ({ name, labels: [`service:${stack}/${service}`] });
  return [
    {
      title: "Requests",
      series: [gateway("bramble_gateway_requests_total")],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => labels.class ?? "all"),
      colour: (label) => CLASS_COLOURS[label],
      format: format.perSecond,
      atLeast: 1,
    },
    {
      title: "Latency",
      series: [gateway("bramble_gateway_request_seconds")],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => labels.quantile),
      format: format.seconds,
      atLeast: 0.001,
    },
    {
      title: "CPU, in cores",
      series: [instances("bramble_instance_cpu_cores")],
      lines: perSlot,
      format: format.cores,
      atLeast: 0.1,
    },
    {
      title: "Memory",
      series: [instances("bramble_instance_memory_bytes")],
      lines: perSlot,
      format: format.bytes,
      binary: true,
      atLeast: 1 << 20,
    },
    {
      title: "Network",
      series: [instances("bramble_instance_received_bytes_total"), instances("bramble_instance_sent_bytes_total")],
      lines: both(["received", "sent"]),
      format: format.bytesPerSecond,
      binary: true,
      atLeast: 1024,
    },
    {
      title: "Disk",
      series: [instances("bramble_instance_read_bytes_total"), instances("bramble_instance_written_bytes_total")],
      lines: both(["read", "written"]),
      format: format.bytesPerSecond,
      binary: true,
      atLeast: 1024,
    },
  ];
}

/** What the gateway does for one service, or for all of them when `service` is empty. */
export function ofGateway(service: string): Wanted[] {
  const of = (name: string, ...labels: string[]) => ({ name, labels: service === "" ? labels : [`service:${service}`, ...labels] });
  const named = (names: string[]) => (answers: Series[][]): Line[] =>
    names.flatMap((name, at) => sumBy(answers[at] ?? [], () => name));
  const all: Wanted[] = [
    {
      title: "Requests",
      series: [of("bramble_gateway_requests_total")],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => labels.class),
      colour: (label) => CLASS_COLOURS[label],
      format: format.perSecond,
      atLeast: 1,
    },
    {
      title: "Ninety-nine in a hundred answered within",
      series: [of("bramble_gateway_request_seconds", "quantile:p99")],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => labels.service || "no service"),
      format: format.seconds,
      atLeast: 0.001,
    },
    {
      title: "Under way and waiting",
      series: [of("bramble_gateway_in_flight"), of("bramble_gateway_waiting"), of("bramble_gateway_gathering")],
      lines: named(["under way", "waiting", "not sent yet"]),
      format: format.count,
      atLeast: 1,
    },
    {
      title: "Left out",
      series: [of("bramble_gateway_ejections_total"), of("bramble_gateway_no_endpoint_total")],
      lines: named(["instances left out", "requests nobody was ready for"]),
      format: format.perMinute,
      atLeast: 1 / 60,
      none: "No instance was left out so far.",
    },
    {
      title: "Tried again",
      series: [of("bramble_gateway_retries_total"), of("bramble_gateway_hedges_total"), of("bramble_gateway_upstream_failures_total")],
      lines: named(["sent again", "asked twice", "failures behind the gateway"]),
      format: format.perSecond,
      atLeast: 1,
      none: "Nothing had to be tried again so far.",
    },
    {
      title: "Refused",
      series: [of("bramble_gateway_shed_total"), of("bramble_gateway_refused_total"), of("bramble_gateway_bans_total")],
      lines: named(["too much to do", "by rules of routes", "clients banned"]),
      format: format.perSecond,
      atLeast: 1,
      none: "Nothing was refused so far.",
    },
  ];
  return service === "" ? [...all, ...ofClients()] : all;
}

/** What is nobody's in particular. */
function ofClients(): Wanted[] {
  return [
    {
      title: "Client connections",
      series: [
        { name: "bramble_gateway_connections", labels: [] },
        { name: "bramble_gateway_resting_connections", labels: [] },
      ],
      lines: (answers) => [
        ...sumBy(answers[0] ?? [], () => "open"),
        ...sumBy(answers[1] ?? [], () => "at rest"),
      ],
      format: format.count,
      atLeast: 1,
    },
    {
      title: "Strain: what has to wait for the processor",
      series: [{ name: "bramble_gateway_strain", labels: [] }],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => labels.class),
      format: format.percent,
      atLeast: 0.1,
    },
    {
      title: "Missing from the access log",
      series: [{ name: "bramble_gateway_log_dropped_total", labels: [] }],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => labels.reason),
      format: format.perMinute,
      atLeast: 1 / 60,
      none: "Nothing is missing.",
    },
  ];
}

export function ofNode(node: string): Wanted[] {
  // A series without the label comes from the only machine there is.
  const own = (labels: Record<string, string>) => labels.node === undefined || labels.node === node;
  const one = (name: string) => (answers: Series[][]): Line[] =>
    sumBy(answers[0] ?? [], (labels) => (own(labels) ? name : undefined));
  return [
    {
      title: "CPU busy",
      series: [{ name: "bramble_node_cpu_busy", labels: [] }],
      lines: one("busy"),
      format: format.percent,
      atLeast: 0.1,
    },
    {
      title: "Pressure: share of time something waited",
      series: [{ name: "bramble_node_psi", labels: [] }],
      lines: (answers) => sumBy(answers[0] ?? [], (labels) => (own(labels) ? labels.kind : undefined)),
      format: format.percent,
      atLeast: 0.1,
    },
    {
      title: "Load, 1 minute",
      series: [{ name: "bramble_node_load1", labels: [] }],
      lines: one("load"),
      format: format.cores,
      atLeast: 1,
    },
    {
      title: "Memory available",
      series: [{ name: "bramble_node_memory_available_bytes", labels: [] }],
      lines: one("available"),
      format: format.bytes,
      binary: true,
      atLeast: 1 << 20,
    },
    {
      title: "Disk available",
      series: [{ name: "bramble_node_disk_available_bytes", labels: [] }],
      lines: one("available"),
      format: format.bytes,
      binary: true,
      atLeast: 1 << 20,
    },
  ];
}

/** `#2` of `<stack>.<service>.2.<random>`: an instance that replaces another continues its line. */
function slotOf(instance: string | undefined): string {
  return `#${instance?.split(".").at(-2) ?? "?"}`;
}
