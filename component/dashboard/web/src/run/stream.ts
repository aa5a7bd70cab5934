/**
 * One run, watched over a WebSocket from its beginning or from where another watcher left it, through breaks of the
 * stream, to its end. Knows the protocol of docs/runs.md and nothing of what is shown.
 */
import type { Accepted, Ended, Problem, RunAsked, RunTold, RunWanted, TerminalSize } from "../wire";
import { Acks, Input, parse, type Block } from "./blocks";

/** So long the worker keeps a run whose stream broke. */
export const COME_BACK_MS = 15_000;
/** A run that was told to go on alone keeps its end for ten minutes. */
export const COME_BACK_DETACHED_MS = 600_000;
/** A server that restarts is back within seconds. */
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 2_000;
/** An attempt that has not come through by then is given up for the next. */
const CONNECT_MS = 5_000;
const NORMAL = 1000;

/** What of a WebSocket is used, so that tests can stand in for one. */
export type Socket = Pick<WebSocket, "onopen" | "onmessage" | "onclose" | "send" | "close">;

export type Start = { run: RunWanted } | { attach: string; inputEnded: boolean };

export interface Watcher {
  /** Call `shown` once it is on screen: only then is it acknowledged. */
  output(block: Block, shown: () => void): void;
  /** So many blocks had been acknowledged before this page came, and are not kept. */
  missed(blocks: number): void;
  queued(before: number): void;
  preparing(what: string): void;
  began(accepted: Accepted): void;
  /** Its machine is gone, and it begins anew: what it wrote so far counts no more. */
  again(why: string): void;
  phase(phase: "compiling" | "running"): void;
  finished(ended: Ended): void;
  /** It was not run, or nobody knows what became of it. Nothing more follows. */
  failed(problem: Problem): void;
  reached(yes: boolean): void;
}

export class RunStream {
  readonly input: Input;
  #socket: Socket | undefined;
  #open = false;
  #over = false;
  #id: string | undefined;
  #attached: boolean;
  #detached: boolean;
  /** The last block that came. */
  #last = 0;
  #underway = 0;
  #acks = new Acks();
  #end: Ended | undefined;
  #brokenSince: number | undefined;
  #retryMs = RETRY_MS_MIN;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly start: Start,
    readonly watcher: Watcher,
    readonly connect: () => Socket,
  ) {
    this.#attached = "attach" in start;
    this.#id = "attach" in start ? start.attach : undefined;
    this.#detached = "attach" in start || start.run.detach;
    this.input = new Input("attach" in start && start.inputEnded);
    this.#dial();
  }

  /** Typed text or pasted; false when too much of it waits. */
  send(bytes: Uint8Array): boolean {
    const kept = this.input.add(bytes);
    this.#pump();
    return kept;
  }

  endInput(): void {
    this.input.end();
    this.#pump();
  }

  signal(name: "INT" | "KILL"): void {
    this.#say({ signal: name });
  }

  resize(size: TerminalSize): void {
    this.#say({ resize: size });
  }

  /** Nobody watches any more: a run that was not detached is killed by this. */
  close(): void {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  #dial(): void {
    const socket = this.connect();
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#broke(), CONNECT_MS);
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#open = true;
      if ("run" in this.start && this.#id === undefined) this.#say({ run: this.start.run });
      else this.#say({ attach: { id: this.#id ?? "", after: this.#last } });
    };
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === "string") this.#told(JSON.parse(data) as RunTold);
      else if (data instanceof ArrayBuffer) this.#block(data);
    };
    socket.onclose = () => this.#broke();
  }

  #say(asked: RunAsked): void {
    if (this.#open) this.#socket?.send(JSON.stringify(asked));
  }

  #told(told: RunTold): void {
    if (this.#over) return;
    if (told.queued) this.watcher.queued(told.queued.before);
    if (told.preparing !== undefined) this.watcher.preparing(told.preparing);
    if (told.problem) this.#fail({ code: "", message: "it was not run", hint: "", diagnostics: [], ...told.problem });
    if (told.again !== undefined) {
      this.#last = 0;
      this.#acks = new Acks();
      this.watcher.again(told.again);
    }
    if (told.accepted) this.#accepted(told.accepted);
    if (told.taken !== undefined) this.input.taken(told.taken);
    if (told.phase) {
      this.#goesOn();
      this.watcher.phase(told.phase);
    }
    if (told.ended) this.#ended(told.ended);
    this.#pump();
  }

  #accepted(accepted: Accepted): void {
    this.#id = accepted.id;
    this.#brokenSince = undefined;
    this.#retryMs = RETRY_MS_MIN;
    this.input.expects(accepted.next_input ?? 1);
    // What of the input has arrived of a run that one comes back to is said next.
    if (!this.#attached) this.input.opened(0);
    this.watcher.reached(true);
    this.watcher.began(accepted);
  }

  /** Something came that follows what is taken: nothing was, if it was not said. */
  #goesOn(): void {
    this.input.opened(0);
  }

  #block(bytes: ArrayBuffer): void {
    const block = parse(bytes);
    // Said again after a break, though it had come.
    if (this.#over || !block || block.sequence <= this.#last) return;
    this.#goesOn();
    if (this.#last === 0 && block.sequence > 1) this.watcher.missed(block.sequence - 1);
    this.#last = block.sequence;
    this.#underway += 1;
    const acks = this.#acks;
    this.watcher.output(block, () => this.#shown(block, acks));
  }

  #shown(block: Block, acks: Acks): void {
    this.#underway -= 1;
    // What a run wrote that began anew meanwhile has other numbers.
    const upTo = acks === this.#acks ? acks.shown(block) : undefined;
    if (upTo !== undefined) this.#say({ ack: upTo });
    this.#settle();
  }

  #ended(ended: Ended): void {
    if (this.#end) return;
    this.#end = ended;
    this.watcher.finished(ended);
    this.#settle();
  }

  /** Once all of it is on screen, the worker need keep nothing of it any more. */
  #settle(): void {
    if (!this.#end || this.#underway > 0 || this.#over) return;
    this.#say({ ack: this.#end.sequence });
    this.close();
  }

  #pump(): void {
    if (!this.#open) return;
    for (const block of this.input.due()) this.#socket?.send(block);
  }

  #broke(): void {
    if (this.#over) return;
    this.#drop();
    this.input.broke();
    // Everything has come; that it could not be acknowledged costs the worker a minute of keeping it.
    if (this.#end) return;
    if (this.#id === undefined) {
      this.#fail(trouble("the stream to the server broke before a worker had the run", "Is bramble still running, and this machine's network up? Run it again."));
      return;
    }
    const now = performance.now();
    this.#brokenSince ??= now;
    if (now - this.#brokenSince > (this.#detached ? COME_BACK_DETACHED_MS : COME_BACK_MS)) {
      this.#fail(trouble("the stream to the server broke and did not come back", this.#detached ? `Its id is ${this.#id}; bramble runs show says what became of it.` : "The run was killed when nobody watched it any more."));
      return;
    }
    this.#attached = true;
    this.watcher.reached(false);
    this.#timer = setTimeout(() => this.#dial(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
  }

  #fail(problem: Problem): void {
    this.close();
    this.watcher.failed(problem);
  }

  /** Lets go of the socket; what it still says concerns nobody. */
  #drop(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#open = false;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(NORMAL);
  }
}

function trouble(message: string, hint: string): Problem {
  return { code: "", message, hint, diagnostics: [] };
}
