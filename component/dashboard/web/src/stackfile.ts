/**
 * What the deploy view must know about a stack file before the server reads it: its name, the variables it asks for,
 * and colours for the eye. Guesses only; what is right is for the server to say.
 */

export interface Variable {
  name: string;
  /** Of `${NAME:-fallback}`; undefined where the file has none. */
  fallback: string | undefined;
}

/** The top-level `name:`, if the file has one. */
export function nameIn(source: string): string | undefined {
  return /^name:[ \t]*["']?([A-Za-z0-9][\w.-]*)/m.exec(source)?.[1];
}

/** Every `${NAME}` and `$NAME` outside comments, once, in order; `$$` is an escaped dollar. */
export function variablesIn(source: string): Variable[] {
  const found = new Map<string, Variable>();
  const text = source.replace(/^\s*#.*$/gm, "").replaceAll("$$", "");
  for (const match of text.matchAll(/\$(?:\{([A-Za-z_]\w*)(?:(:?[-?+])([^}]*))?\}|([A-Za-z_]\w*))/g)) {
    const name = match[1] ?? match[4];
    if (name === undefined || found.has(name)) continue;
    found.set(name, { name, fallback: match[2]?.endsWith("-") ? match[3] : undefined });
  }
  return [...found.values()];
}

/** Whether it mounts or reads something relative to the folder it lies in. */
export function hasRelativePaths(source: string): boolean {
  return /(^|[\s"':[,-])\.{1,2}\//m.test(source.replace(/^\s*#.*$/gm, ""));
}

/** The lines of an `.env` file: `NAME=value`, quotes taken off, comments left out. */
export function environmentIn(text: string): Record<string, string> {
  const out: Record<string, string> = {};
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$/.exec(line);
    if (!match?.[1]) continue;
    out[match[1]] = (match[2] ?? "").replace(/^(["'])(.*)\1$/, "$2");
  }
  return out;
}

export interface Piece {
  text: string;
  kind: "plain" | "key" | "comment" | "string" | "variable";
}

const PIECE = /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')|(\$\{[^}]*\}|\$[A-Za-z_]\w*)/g;

/** One line of YAML in pieces to be coloured. */
export function pieces(line: string): Piece[] {
  const key = /^(\s*(?:- +)?)([\w./-]+)(:)(?=\s|$)/.exec(line);
  const out: Piece[] = [];
  let rest = line;
  if (key) {
    out.push({ text: key[1] ?? "", kind: "plain" }, { text: (key[2] ?? "") + ":", kind: "key" });
    rest = line.slice(key[0].length);
  }
  let from = 0;
  for (const match of rest.matchAll(PIECE)) {
    // A `#` starts a comment only after a blank, as in `image: a#b`.
    if (match[1] && match.index > 0 && !/\s/.test(rest[match.index - 1] ?? "")) continue;
    out.push({ text: rest.slice(from, match.index), kind: "plain" });
    out.push({ text: match[0], kind: match[1] ? "comment" : match[2] ? "string" : "variable" });
    from = match.index + match[0].length;
  }
  out.push({ text: rest.slice(from), kind: "plain" });
  return out.filter((piece) => piece.text !== "");
}
