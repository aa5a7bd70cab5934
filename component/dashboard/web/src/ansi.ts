/**
 * Colours of log lines. Turns a line with ANSI escapes into runs of plain text with a look; every other escape and
 * control character is dropped. The text is only ever set as text, never as markup, so a log cannot inject anything.
 */

export interface Run {
  text: string;
  /** Class names of `log.css`: `fg-1`, `bg-4`, `bold`, `dim`, `italic`, `underline`. */
  classes: string;
  /** A colour beyond the sixteen named ones. */
  colour: string | undefined;
}

interface Look {
  fg: number | string | undefined;
  bg: number | undefined;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
}

const PLAIN: Look = { fg: undefined, bg: undefined, bold: false, dim: false, italic: false, underline: false };

/** Escape sequences (CSI, also cut off; OSC; the short ones), or a control character other than tab. */
const ESCAPE =
  /(?:\u001b\[|\u009b)([0-?]*)([ -/]*[@-~])?|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[@-Z\\-_]?|[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g;

export function runs(line: string): Run[] {
  const out: Run[] = [];
  let look: Look = { ...PLAIN };
  let from = 0;
  const push = (text: string) => {
    if (text !== "") out.push({ text, classes: classesOf(look), colour: typeof look.fg === "string" ? look.fg : undefined });
  };
  for (const match of line.matchAll(ESCAPE)) {
    push(line.slice(from, match.index));
    from = match.index + match[0].length;
    if (match[2] === "m") look = applied(look, match[1] ?? "");
  }
  push(line.slice(from));
  return out;
}

/** Only the text, for copying and searching. */
export function plain(line: string): string {
  return line.replace(ESCAPE, "");
}

function applied(before: Look, parameters: string): Look {
  const codes = parameters.split(/[;:]/).map((code) => Number(code || "0"));
  let look = { ...before };
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(at + 1));
      at += used;
      if (code === 38) look.fg = colour;
      // Backgrounds beyond the named ones are left out: they would fight the theme.
      else look.bg = typeof colour === "number" ? colour : undefined;
    } else {
      look = basic(look, code);
    }
  }
  return look;
}

function basic(look: Look, code: number): Look {
  if (code === 0) return { ...PLAIN };
  if (code === 1) return { ...look, bold: true };
  if (code === 2) return { ...look, dim: true };
  if (code === 3) return { ...look, italic: true };
  if (code === 4) return { ...look, underline: true };
  if (code === 22) return { ...look, bold: false, dim: false };
  if (code === 23) return { ...look, italic: false };
  if (code === 24) return { ...look, underline: false };
  if (code >= 30 && code <= 37) return { ...look, fg: code - 30 };
  if (code === 39) return { ...look, fg: undefined };
  if (code >= 40 && code <= 47) return { ...look, bg: code - 40 };
  if (code === 49) return { ...look, bg: undefined };
  if (code >= 90 && code <= 97) return { ...look, fg: code - 90 + 8 };
  if (code >= 100 && code <= 107) return { ...look, bg: code - 100 + 8 };
  return look;
}

/** `5;n` or `2;r;g;b`: the colour and how many codes it took. */
function extended(codes: number[]): [number | string | undefined, number] {
  const [kind, a = 0, b = 0, c = 0] = codes;
  if (kind === 5) return [palette(a), 2];
  if (kind === 2) return [`rgb(${byte(a)} ${byte(b)} ${byte(c)})`, 4];
  return [undefined, codes.length];
}

/** The 256 colours: 16 named ones, a cube of 6×6×6, and greys. */
function palette(index: number): number | string {
  if (index < 16) return index;
  if (index >= 232) {
    const grey = byte(8 + (index - 232) * 10);
    return `rgb(${grey} ${grey} ${grey})`;
  }
  const level = (value: number) => (value === 0 ? 0 : 55 + value * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}

function byte(value: number): number {
  return Math.max(0, Math.min(255, Math.round(value) || 0));
}

function classesOf(look: Look): string {
  const classes: string[] = [];
  if (typeof look.fg === "number") classes.push(`fg-${look.fg}`);
  if (look.bg !== undefined) classes.push(`bg-${look.bg}`);
  for (const name of ["bold", "dim", "italic", "underline"] as const) if (look[name]) classes.push(name);
  return classes.join(" ");
}
