/** What is being written and how it is to be run, and what the server is asked for because of it. Pure. */
import type { LanguageDetail, RunWanted, TerminalSize } from "../wire";

export interface CodeFile {
  name: string;
  content: string;
}

export interface Draft {
  language: string;
  /** The first is what is run; never empty. */
  files: CodeFile[];
  /** As typed, to be split as a shell does. */
  args: string;
  /** By the clock and of the processor; `undefined` leaves it to the language. */
  seconds: number | undefined;
  memoryMib: number | undefined;
  terminal: boolean;
  detach: boolean;
}

export const EMPTY: Draft = {
  language: "",
  files: [{ name: "main", content: "" }],
  args: "",
  seconds: undefined,
  memoryMib: undefined,
  terminal: false,
  detach: false,
};

/** `a "b c" 'd'` are three; a quote that never ends goes to the end. */
export function argumentsIn(text: string): string[] {
  const out: string[] = [];
  for (const match of text.matchAll(/(?:"(?:\\.|[^"\\])*"?|'[^']*'?|\\.|[^\s"'\\])+/gs)) {
    out.push(match[0].replace(/"((?:\\.|[^"\\])*)"?|'([^']*)'?|\\(.)/gs, (_, double: string | undefined, single: string | undefined, escaped: string | undefined) =>
      double?.replace(/\\(["\\])/g, "$1") ?? single ?? escaped ?? ""));
  }
  return out;
}

export function wantedOf(draft: Draft, size: TerminalSize): RunWanted {
  const ms = draft.seconds === undefined ? undefined : Math.round(draft.seconds * 1000);
  return {
    language: draft.language,
    files: draft.files,
    args: argumentsIn(draft.args),
    limits: {
      ...(ms === undefined ? {} : { cpu_ms: ms, wall_ms: ms }),
      ...(draft.memoryMib === undefined ? {} : { memory_bytes: Math.round(draft.memoryMib) * 2 ** 20 }),
    },
    ...(draft.terminal ? { terminal: size } : {}),
    detach: draft.detach,
  };
}

/** Why no machine can run it; empty if one can. */
export function lackOf(language: LanguageDetail): string {
  if (language.machines.some(({ lack }) => lack === "")) return "";
  return language.machines[0]?.lack ?? "no machine runs code";
}

/** Why a file cannot have this name; empty if it can. */
export function wrongName(name: string, others: string[]): string {
  if (name === "") return "A file needs a name.";
  if (others.includes(name)) return "Another file has this name.";
  if (name.startsWith("/") || name.split("/").some((part) => part === "" || part === "." || part === "..")) {
    return "A name leads to a place below the program's folder: no “..”, no “/” at its ends.";
  }
  return "";
}

/** The draft in another language. What nobody changed makes place for the new language's example. */
export function inLanguage(draft: Draft, to: LanguageDetail, all: LanguageDetail[]): Draft {
  const [first] = draft.files;
  const untouched = draft.files.length === 1 && (first?.content.trim() === "" || all.some(({ example }) => example === first?.content));
  return { ...draft, language: to.name, files: untouched ? [{ name: to.main, content: to.example }] : draft.files };
}
