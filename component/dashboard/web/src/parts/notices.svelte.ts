/** Short notices about what an action came to. Good news leaves by itself; trouble stays until it is closed. */
import { problemOf } from "../api";
import type { Problem } from "../wire";

/** Time to read a sentence. */
const SHOWN_MS = 5_000;
/** More than these would cover the page; the oldest goes. */
const NOTICES_MAX = 4;

export interface Notice {
  id: number;
  text: string;
  problem: Problem | undefined;
}

class Notices {
  all = $state.raw<Notice[]>([]);
  #next = 1;

  say(text: string): void {
    const id = this.#add(text, undefined);
    setTimeout(() => this.close(id), SHOWN_MS);
  }

  close(id: number): void {
    this.all = this.all.filter((notice) => notice.id !== id);
  }

  /** Runs an action and tells how it went; true when it went well. */
  async tell<T>(attempt: string, done: string | ((answer: T) => string), action: () => Promise<T>): Promise<boolean> {
    try {
      const answer = await action();
      this.say(typeof done === "string" ? done : done(answer));
      return true;
    } catch (cause) {
      this.#add(attempt, problemOf(cause));
      return false;
    }
  }

  #add(text: string, problem: Problem | undefined): number {
    const id = this.#next;
    this.#next += 1;
    this.all = [...this.all, { id, text, problem }].slice(-NOTICES_MAX);
    return id;
  }
}

export const notices = new Notices();
