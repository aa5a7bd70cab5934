/**
 * A run's output for who hears it: the newest lines as plain text, which channel they came on in words. The terminal
 * shows its text as a picture of rows, and what it has for screen readers keeps emoji and suggested words from being typed.
 */
import { runs } from "../ansi";
import type { Output } from "./blocks";

/** More than anybody listens to at once; what is older is in the terminal. */
const LINES_MAX = 50;
const LINE_LENGTH_MAX = 500;
const NAMES: Record<Output, string> = { stdout: "", stderr: "Errors: ", compiler: "Compiler: " };

export class Heard {
  #lines: string[] = [];
  #open: Output | undefined;

  add(channel: Output, text: string): void {
    if (text === "") return;
    const parts = text.slice(-LINES_MAX * LINE_LENGTH_MAX).split("\n");
    parts.forEach((part, at) => {
      const last = at === parts.length - 1;
      // After the end of a line nothing has begun yet.
      if (!last || part !== "") this.#put(channel, part, last);
    });
    this.#lines = this.#lines.slice(-LINES_MAX);
  }

  get lines(): string[] {
    return this.#lines.map((line) => runs(line).map((run) => run.text).join(""));
  }

  #put(channel: Output, part: string, last: boolean): void {
    const goesOn = this.#open === channel ? this.#lines.pop() : undefined;
    this.#lines.push(((goesOn ?? NAMES[channel]) + part).slice(0, LINE_LENGTH_MAX));
    this.#open = last ? channel : undefined;
  }
}
