/**
 * Code as a link: everything of it is behind the `#`, which browsers never send, so that no server keeps it. Compressed,
 * since chats cut long links off. Opening one fills the editor and runs nothing.
 */
import type { CodeFile } from "./wanted";

export interface Shared {
  language: string;
  files: CodeFile[];
  /** As typed. */
  args: string;
}

/** Of what a link is unpacked to: whoever made it may wish to fill this tab's memory. */
const UNPACKED_BYTES_MAX = 2 << 20;
/** Browsers differ in how long an address may be; this works in all of them. */
export const LINK_LENGTH_MAX = 64_000;
const FILES_MAX = 64;

export async function pack(shared: Shared): Promise<string> {
  const { language, files, args } = shared;
  const text = JSON.stringify({ language, files: files.map(({ name, content }) => [name, content]), args });
  const packed = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(packed).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** `undefined` for what `pack` did not make. */
export async function unpack(link: string): Promise<Shared | undefined> {
  try {
    const bytes = Uint8Array.from(atob(link.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    return read(JSON.parse(await inflated(bytes)) as unknown);
  } catch {
    return undefined;
  }
}

async function inflated(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const decoder = new TextDecoder();
  let text = "";
  let length = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return text + decoder.decode();
    length += value.length;
    if (length > UNPACKED_BYTES_MAX) {
      await reader.cancel();
      throw new Error("the link holds too much");
    }
    text += decoder.decode(value, { stream: true });
  }
}

function read(value: unknown): Shared | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { language, files, args } = value as Record<string, unknown>;
  if (typeof language !== "string" || typeof args !== "string" || !Array.isArray(files)) return undefined;
  if (files.length === 0 || files.length > FILES_MAX) return undefined;
  const all: CodeFile[] = [];
  for (const one of files as unknown[]) {
    if (!Array.isArray(one)) return undefined;
    const [name, content] = one as unknown[];
    if (typeof name !== "string" || typeof content !== "string") return undefined;
    all.push({ name, content });
  }
  return { language, files: all, args };
}
