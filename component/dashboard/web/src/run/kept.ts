/** What outlives a reload of the tab: the code being written, and which run goes on. Gone with the tab. */
import type { Draft } from "./wanted";

const DRAFT = "bramble.run.draft";
const RUN = "bramble.run.on";

/** A run that goes on when nobody watches. */
export interface KeptRun {
  id: string;
  terminal: boolean;
  inputEnded: boolean;
}

export function keptDraft(): Draft | undefined {
  return read<Draft>(DRAFT);
}

export function keepDraft(draft: Draft): void {
  write(DRAFT, draft);
}

export function keptRun(): KeptRun | undefined {
  return read<KeptRun>(RUN);
}

export function keepRun(run: KeptRun | undefined): void {
  write(RUN, run);
}

function read<T>(key: string): T | undefined {
  try {
    return (JSON.parse(sessionStorage.getItem(key) ?? "null") as T | null) ?? undefined;
  } catch {
    return undefined;
  }
}

function write(key: string, value: unknown): void {
  try {
    if (value === undefined) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Without storage, or without room in it, this lasts as long as the view.
  }
}
