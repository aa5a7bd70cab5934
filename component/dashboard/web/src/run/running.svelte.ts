/** A run as the view shows it: between its stream and its screen. */
import { socket } from "../api";
import { plural } from "../format";
import { route, to } from "../route.svelte";
import type { Accepted, Ended, Problem } from "../wire";
import { Decoders, dressed, type Block, type Output } from "./blocks";
import { Heard } from "./heard";
import { keepRun, type KeptRun } from "./kept";
import { RunStream, type Start, type Watcher } from "./stream";
import type { Screen } from "./terminal";
import { Typing, type Typed } from "./typing";
import { wantedOf, type Draft } from "./wanted";

const PATH = "/v1/runs/stream";
const PROTOCOL = "bramble.runs.v1";
/** What is typed is told apart from what the program says. */
const TYPED: [string, string] = ["\u001b[36m", "\u001b[39m"];
/** Who hears the output is told of it in sentences, not in letters. */
const HEARD_EVERY_MS = 500;
/** Words of the page's own between those of a program. */
const ASIDE: [string, string] = ["\u001b[2m", "\u001b[22m"];

export class Running implements Watcher {
  screen = $state.raw<Screen | undefined>();
  /** It has begun and not ended. */
  on = $state(false);
  /** What it is at. */
  said = $state("");
  connected = $state(true);
  accepted = $state.raw<Accepted | undefined>();
  ended = $state.raw<Ended | undefined>();
  problem = $state.raw<Problem | undefined>();
  /** What the problem kept from happening. */
  attempt = $state("");
  inputEnded = $state(false);
  terminal = $state(false);
  /** The newest lines of output, for who does not see the screen. */
  heard = $state.raw<string[]>([]);
  #detached = false;
  #stream: RunStream | undefined;
  #typing = new Typing();
  #decoders = new Decoders();
  #encoder = new TextEncoder();
  #heard = new Heard();
  #hearing: ReturnType<typeof setTimeout> | undefined;

  begin(draft: Draft): void {
    const screen = this.screen;
    if (!screen || this.on) return;
    this.#detached = draft.detach;
    keepRun(undefined);
    this.#start(draft.terminal, { run: wantedOf(draft, screen.size) });
    screen.focus();
  }

  /** Goes on watching a run, from the first of what is kept of it. */
  attach(run: KeptRun): void {
    if (this.on) return;
    this.#detached = true;
    this.inputEnded = run.inputEnded;
    this.#start(run.terminal, { attach: run.id, inputEnded: run.inputEnded });
  }

  kill(): void {
    if (this.accepted) {
      this.#stream?.signal("KILL");
      return;
    }
    // Whoever leaves before a worker has the run waits no more.
    this.#stream?.close();
    this.#aside("not run");
    this.#over();
  }

  endInput(): void {
    this.#do(this.#typing.end());
  }

  /** The view goes; so does the run, unless it was to go on alone. */
  leave(): void {
    this.#stream?.close();
  }

  typed(data: string): void {
    if (!this.on) return;
    if (this.terminal) this.#send(data);
    else if (!this.inputEnded) this.#do(this.#typing.feed(data));
    // The end of input does not keep anybody from interrupting.
    else if (data === "\u0003") this.#stream?.signal("INT");
  }

  resized(): void {
    if (this.on && this.terminal && this.screen) this.#stream?.resize(this.screen.size);
  }

  #start(terminal: boolean, start: Start): void {
    this.terminal = terminal;
    this.screen?.raw(terminal);
    this.screen?.clear();
    this.#typing = new Typing();
    this.#decoders = new Decoders();
    this.#heard = new Heard();
    this.heard = [];
    this.on = true;
    this.connected = true;
    this.said = "Connecting…";
    this.attempt = "run" in start ? "Not run" : "Not watched again";
    this.accepted = this.ended = this.problem = undefined;
    if ("run" in start) this.inputEnded = false;
    this.#stream = new RunStream(start, this, () => socket(PATH, PROTOCOL));
  }

  #do(all: Typed[]): void {
    for (const one of all) {
      if ("show" in one) this.screen?.write(TYPED[0] + one.show + TYPED[1]);
      else if ("send" in one) this.#send(one.send);
      else if ("signal" in one) this.#stream?.signal("INT");
      else {
        this.#stream?.endInput();
        this.inputEnded = true;
        this.#keep();
        this.#aside("end of input");
      }
    }
  }

  #send(text: string): void {
    if (!this.#stream?.send(this.#encoder.encode(text))) this.#aside("that was not sent: the program reads nothing, and what waits for it is too much already");
  }

  #aside(words: string): void {
    this.screen?.write(`${ASIDE[0]}[${words}]${ASIDE[1]}\r\n`);
  }

  #hear(channel: Output, text: string): void {
    // A program with a terminal draws; xterm tells who hears of that.
    if (this.terminal) return;
    this.#heard.add(channel, text);
    this.#hearing ??= setTimeout(() => {
      this.#hearing = undefined;
      this.heard = this.#heard.lines;
    }, HEARD_EVERY_MS);
  }

  #keep(): void {
    if (this.#detached && this.accepted) keepRun({ id: this.accepted.id, terminal: this.terminal, inputEnded: this.inputEnded });
  }

  #over(): void {
    this.on = false;
    this.connected = true;
    this.said = "";
    // Once all that it wrote is on screen, keys are the page's again.
    this.screen?.write("", () => {
      if (!this.on) this.screen?.raw(false);
    });
    if (!this.#detached) return;
    keepRun(undefined);
    route.rename(to("run"));
  }

  // What the stream tells.

  output({ channel, payload }: Block, shown: () => void): void {
    const text = this.#decoders.text(channel, payload);
    const seen = this.terminal && channel !== "compiler" ? text : dressed(channel, text);
    if (seen === "") shown();
    else this.screen?.write(seen, shown);
    this.#hear(channel, text);
  }

  missed(): void {
    this.#aside("what came before was shown before, and is not kept");
  }

  queued(before: number): void {
    this.said = before === 0 ? "Waiting for room: it is the next." : `Waiting for room: ${plural(before, "run")} before this one.`;
  }

  preparing(what: string): void {
    this.said = `Getting ready: ${what}. That is done once.`;
  }

  began(accepted: Accepted): void {
    this.accepted = accepted;
    this.said = "Starting…";
    this.#keep();
    if (this.#detached) route.rename(to("run", accepted.id));
  }

  again(why: string): void {
    this.#decoders = new Decoders();
    this.#aside(`${why}; it is run again from its beginning`);
  }

  phase(phase: "compiling" | "running"): void {
    this.said = phase === "compiling" ? "Compiling…" : "Running…";
  }

  reached(yes: boolean): void {
    this.connected = yes;
  }

  finished(ended: Ended): void {
    // Nothing is left of text that was whole.
    for (const channel of ["compiler", "stdout", "stderr"] as const) this.screen?.write(dressed(channel, this.#decoders.rest(channel)));
    this.ended = ended;
    this.#over();
  }

  failed(problem: Problem): void {
    this.problem = problem;
    this.#over();
  }
}
