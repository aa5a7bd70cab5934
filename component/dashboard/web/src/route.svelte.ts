/**
 * Where the page is. Places live behind the `#`, so that the server needs no rule for them and any of them can be
 * linked to, also through a proxy that serves the page below a path.
 */

export type Place =
  | { view: "overview" }
  | { view: "stacks" }
  | { view: "stack"; stack: string }
  | { view: "service"; stack: string; service: string }
  | { view: "nodes" }
  | { view: "node"; node: string }
  | { view: "gateway"; service: string }
  | { view: "images" }
  | { view: "deploy"; stack: string | undefined }
  /** A run that goes on, or code that came with a link. */
  | { view: "run"; id: string | undefined; shared: string | undefined }
  | { view: "nowhere"; address: string };

export function parse(hash: string): Place {
  const address = hash.replace(/^#\/?/, "");
  let parts: string[];
  try {
    parts = address.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return { view: "nowhere", address };
  }
  const [first, second, third] = parts;
  if (first === undefined) return { view: "overview" };
  if (parts.length <= 3 && first === "stacks") {
    if (second === undefined) return { view: "stacks" };
    return third === undefined ? { view: "stack", stack: second } : { view: "service", stack: second, service: third };
  }
  if (first === "gateway" && parts.length !== 2 && parts.length <= 3) {
    return { view: "gateway", service: parts.slice(1).join("/") };
  }
  if (first === "run") {
    if (parts.length === 3 && second === "from") return { view: "run", id: undefined, shared: third };
    if (parts.length <= 2) return { view: "run", id: second, shared: undefined };
  }
  if (parts.length <= 2) {
    if (first === "nodes") return second === undefined ? { view: "nodes" } : { view: "node", node: second };
    if (first === "deploy") return { view: "deploy", stack: second };
    if (first === "images" && second === undefined) return { view: "images" };
  }
  return { view: "nowhere", address };
}

/** The address of a place, for `href`. */
export function to(...segments: string[]): string {
  return "#/" + segments.map(encodeURIComponent).join("/");
}

class Route {
  place = $state.raw<Place>(parse(location.hash));

  /** Reads the address again, after the browser or `session` changed it. */
  follow(): void {
    this.place = parse(location.hash);
  }

  go(address: string): void {
    location.hash = address;
  }

  /** The same view under another address: nothing is made anew, and going back leads past it. */
  rename(address: string): void {
    history.replaceState(null, "", address);
  }
}

export const route = new Route();
