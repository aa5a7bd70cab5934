/**
 * What travels in a run's stream beside words: numbered blocks of bytes, what was shown of them, and what was typed.
 * Pure; docs/runs.md tells the protocol.
 */

/** One packet of a network, as the server has it. */
export const BLOCK_BYTES_MAX = 1_500;
/** Eight bytes of the number, one of the channel. */
const HEAD_BYTES = 9;
/** Whoever has more input on the way than this is cut off. */
export const INPUT_WINDOW_BYTES = 256 << 10;
/** What is pasted into a program that reads nothing waits here; beyond it is refused, not kept. */
export const INPUT_WAITING_BYTES_MAX = 1 << 20;
/** Often enough that the worker, which keeps 1 MiB, never waits for a page that keeps up; seldom enough to cost nothing. */
export const ACK_BYTES = 64 << 10;
/** A block costs the worker more than what is in it: a program that writes single letters must not outrun the batch. */
const BLOCK_COST_BYTES = 64;

export const STDIN = 0;
export type Output = "stdout" | "stderr" | "compiler";
const OUTPUTS: readonly (Output | undefined)[] = [undefined, "stdout", "stderr", "compiler"];

export interface Block {
  /** From 1 on, over all channels of a direction. Exact up to 2^53, which at a million a second are 285 years. */
  sequence: number;
  channel: Output;
  payload: Uint8Array;
}

export function encode(sequence: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_BYTES + payload.length);
  const head = new DataView(bytes.buffer);
  head.setBigUint64(0, BigInt(sequence));
  head.setUint8(8, STDIN);
  bytes.set(payload, HEAD_BYTES);
  return bytes;
}

/** `undefined` for what is no block of output. */
export function parse(bytes: ArrayBuffer): Block | undefined {
  if (bytes.byteLength < HEAD_BYTES) return undefined;
  const head = new DataView(bytes);
  const channel = OUTPUTS[head.getUint8(8)];
  return channel && { sequence: Number(head.getBigUint64(0)), channel, payload: new Uint8Array(bytes, HEAD_BYTES) };
}

/**
 * Which blocks to acknowledge when. A block counts once it is on screen: a terminal that is slow thereby slows the
 * program down, in place of piling its output up in this tab.
 */
export class Acks {
  #shown = 0;
  #told = 0;
  #bytes = 0;

  /** A block is on screen. Answers up to where to acknowledge now, if it is time. */
  shown(block: Pick<Block, "sequence" | "payload">): number | undefined {
    this.#shown = Math.max(this.#shown, block.sequence);
    this.#bytes += block.payload.length + BLOCK_COST_BYTES;
    return this.#bytes < ACK_BYTES ? undefined : this.rest();
  }

  /** Everything that is on screen and was not acknowledged. */
  rest(): number | undefined {
    if (this.#shown === this.#told) return undefined;
    this.#bytes = 0;
    this.#told = this.#shown;
    return this.#told;
  }
}

/**
 * What was typed, until it is the program's. It is sent as far as the window allows, and after a break of the stream
 * again from where the server says.
 */
export class Input {
  /** Not sent yet. */
  #waiting: Uint8Array[] = [];
  /** Sent and not taken, the first of them with the number after `#taken`. */
  #flying: Uint8Array[] = [];
  #flyingBytes = 0;
  #waitingBytes = 0;
  #taken = 0;
  #open = false;
  #ended = false;

  /** `ended`: a page that was here before has ended it already. */
  constructor(ended = false) {
    this.#ended = ended;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** False, and nothing of it is kept, when too much waits already or the input has ended. */
  add(bytes: Uint8Array): boolean {
    if (this.#ended || this.#waitingBytes + bytes.length > INPUT_WAITING_BYTES_MAX) return false;
    for (let from = 0; from < bytes.length; from += BLOCK_BYTES_MAX) this.#waiting.push(bytes.subarray(from, from + BLOCK_BYTES_MAX));
    this.#waitingBytes += bytes.length;
    return true;
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#waiting.push(new Uint8Array());
  }

  /** A worker has the run, or the stream of an old one stands again and this was `taken` of it. */
  opened(taken: number): void {
    if (this.#open) return;
    this.#forget(taken);
    this.#waiting = [...this.#flying, ...this.#waiting];
    this.#waitingBytes += this.#flying.reduce((sum, bytes) => sum + bytes.length, 0);
    this.#flying = [];
    this.#flyingBytes = 0;
    // A page that was loaded anew goes on counting where the one before it was.
    this.#taken = Math.max(this.#taken, taken);
    this.#open = true;
  }

  /** Which number the worker waits for: a page that was there before may have sent more than the program has taken. */
  expects(next: number): void {
    if (this.#flying.length === 0) this.#taken = Math.max(this.#taken, next - 1);
  }

  /** The stream broke: nothing is sent before it is known what arrived. */
  broke(): void {
    this.#open = false;
  }

  taken(sequence: number): void {
    if (this.#open) this.#forget(sequence);
    else this.opened(sequence);
  }

  /** The blocks to send now. */
  due(): Uint8Array<ArrayBuffer>[] {
    const out: Uint8Array<ArrayBuffer>[] = [];
    while (this.#open) {
      const next = this.#waiting[0];
      if (next === undefined || this.#flyingBytes + next.length + HEAD_BYTES > INPUT_WINDOW_BYTES) break;
      this.#waiting.shift();
      this.#waitingBytes -= next.length;
      this.#flying.push(next);
      this.#flyingBytes += next.length + HEAD_BYTES;
      out.push(encode(this.#taken + this.#flying.length, next));
    }
    return out;
  }

  #forget(taken: number): void {
    const gone = this.#flying.splice(0, Math.max(0, taken - this.#taken));
    for (const bytes of gone) this.#flyingBytes -= bytes.length + HEAD_BYTES;
    this.#taken += gone.length;
  }
}

/** Text of each channel, whole even where a block ends within a letter. */
export class Decoders {
  #of: Record<Output, TextDecoder> = { stdout: new TextDecoder(), stderr: new TextDecoder(), compiler: new TextDecoder() };

  text(channel: Output, payload: Uint8Array): string {
    return this.#of[channel].decode(payload, { stream: true });
  }

  /** What a channel stopped within. */
  rest(channel: Output): string {
    return this.#of[channel].decode();
  }
}

/** Ways to look different that stay different without colour. */
const LOOKS: Record<Output, [string, string]> = {
  stdout: ["", ""],
  // Red and italic.
  stderr: ["\u001b[31;3m", "\u001b[39;23m"],
  // Blue and bold.
  compiler: ["\u001b[34;1m", "\u001b[39;22m"],
};

/** Text as the terminal is to show it, so that it is seen which channel it came on. */
export function dressed(channel: Output, text: string): string {
  const [on, off] = LOOKS[channel];
  return text === "" ? "" : on + text + off;
}
