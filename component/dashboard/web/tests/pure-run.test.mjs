/** Running code, without a browser: blocks, input, typing, the stream through its breaks, links. */
import assert from "node:assert/strict";
import { after, before, beforeEach, mock, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

let vite;
const parts = {};

before(async () => {
  vite = await createServer({ root: fileURLToPath(new URL("..", import.meta.url)), logLevel: "error", server: { middlewareMode: true, hmr: false, ws: false, watch: null }, appType: "custom" });
  for (const name of ["blocks", "typing", "share", "stream", "wanted", "verdict", "heard"]) parts[name] = await vite.ssrLoadModule(`/src/run/${name}.ts`);
});
after(() => vite?.close());

function check(name, call, cases) {
  test(name, async () => {
    for (const [input, expected] of cases) assert.deepEqual(await call(input), expected, JSON.stringify(input));
  });
}

const utf8 = (text) => new TextEncoder().encode(text);
const text = (bytes) => new TextDecoder().decode(bytes);
/** A block of output, as the server sends it. */
function block(sequence, channel, content) {
  const payload = typeof content === "string" ? utf8(content) : Uint8Array.from(content);
  const bytes = parts.blocks.encode(sequence, payload);
  bytes[8] = channel;
  return bytes.buffer;
}

test("a block has its number first, the most significant byte before the others", () => {
  assert.deepEqual([...parts.blocks.encode(0x0102_0304_0506, utf8("ab"))], [0, 0, 1, 2, 3, 4, 5, 6, 0, 97, 98]);
  const { sequence, channel, payload } = parts.blocks.parse(block(258, 2, "ü"));
  assert.deepEqual([sequence, channel, text(payload)], [258, "stderr", "ü"]);
});
check("what is no block of output is none", (bytes) => parts.blocks.parse(Uint8Array.from(bytes).buffer), [
  [[], undefined], [[0, 0, 0, 0, 0, 0, 0, 1], undefined], [[0, 0, 0, 0, 0, 0, 0, 1, 0], undefined], [[0, 0, 0, 0, 0, 0, 0, 1, 9], undefined],
]);

test("blocks are acknowledged in batches, and what is left at the end", () => {
  const acks = new parts.blocks.Acks();
  const told = [];
  for (let sequence = 1; sequence <= 100; sequence += 1) told.push(acks.shown({ sequence, payload: new Uint8Array(1_500) }));
  assert.deepEqual(told.filter(Boolean), [42, 84]);
  assert.equal(acks.rest(), 100);
  assert.equal(acks.rest(), undefined);
});
test("many small blocks are acknowledged before there are too many of them", () => {
  const acks = new parts.blocks.Acks();
  let first;
  for (let sequence = 1; !first; sequence += 1) first = acks.shown({ sequence, payload: new Uint8Array(1) });
  assert.ok(first <= 1_100, String(first));
});

const sent = (blocks) => blocks.map((bytes) => [Number(new DataView(bytes.buffer).getBigUint64(0)), text(bytes.subarray(9))]);
test("input waits until it is wanted, and is numbered from one on", () => {
  const input = new parts.blocks.Input();
  input.add(utf8("one"));
  assert.deepEqual(input.due(), []);
  input.opened(0);
  input.add(utf8("two"));
  input.end();
  assert.deepEqual(sent(input.due()), [[1, "one"], [2, "two"], [3, ""]]);
  assert.equal(input.add(utf8("late")), false);
});
test("after a break input is sent again from what was taken on", () => {
  const input = new parts.blocks.Input();
  input.opened(0);
  for (const word of ["one", "two", "three"]) input.add(utf8(word));
  input.due();
  input.taken(1);
  input.broke();
  input.add(utf8("four"));
  assert.deepEqual(input.due(), []);
  input.taken(2);
  assert.deepEqual(sent(input.due()), [[3, "three"], [4, "four"]]);
  input.taken(4);
  assert.deepEqual(input.due(), []);
});
test("a page that was loaded anew goes on counting where the one before was", () => {
  const input = new parts.blocks.Input();
  input.add(utf8("early"));
  input.taken(7);
  assert.deepEqual(sent(input.due()), [[8, "early"]]);
});
test("no more input is on the way than the window, and no more waits than may", () => {
  const { Input, INPUT_WINDOW_BYTES, INPUT_WAITING_BYTES_MAX } = parts.blocks;
  const input = new Input();
  input.opened(0);
  assert.ok(input.add(new Uint8Array(INPUT_WAITING_BYTES_MAX)));
  assert.ok(!input.add(new Uint8Array(1)), "what waits is bounded");
  const first = input.due();
  assert.ok(first.reduce((sum, bytes) => sum + bytes.length, 0) <= INPUT_WINDOW_BYTES);
  assert.deepEqual(input.due(), []);
  input.taken(first.length);
  assert.ok(input.due().length > 0);
});

test("letters that blocks cut in two are whole, on each channel by itself", () => {
  const decoders = new parts.blocks.Decoders();
  const [a, b] = [utf8("€"), utf8("é")];
  const got = [decoders.text("stdout", a.subarray(0, 2)), decoders.text("stderr", b.subarray(0, 1)), decoders.text("stdout", a.subarray(2)), decoders.text("stderr", b.subarray(1))];
  assert.deepEqual(got, ["", "", "€", "é"]);
  decoders.text("stdout", a.subarray(0, 1));
  assert.equal(decoders.rest("stdout"), "\ufffd");
});

const typed = (keys) => {
  const typing = new parts.typing.Typing();
  return keys.flatMap((key) => typing.feed(key)).map((one) => Object.entries(one).map(([what, value]) => `${what} ${JSON.stringify(value)}`)[0]);
};
check("typing is shown at once and sent by the line", typed, [
  [["h", "i", "\r"], ['show "h"', 'show "i"', 'show "\\n"', 'send "hi\\n"']],
  [["ab", "\u007f", "c\r"], ['show "ab"', 'show "\\b \\b"', 'show "c\\n"', 'send "ac\\n"']],
  [["\u007f", "\u001b[A"], []],
  [["漢👍🏽\u007f\u007f"], [`show "漢👍🏽${"\\b \\b".repeat(4)}"`]],
  [["one\r\ntwo\nthr"], ['show "one\\ntwo\\nthr"', 'send "one\\ntwo\\n"']],
  [["abc\u0015\r"], [`show "abc${"\\b \\b".repeat(3)}\\n"`, 'send "\\n"']],
  [["ab\u0003\r"], ['show "ab^C\\n"', 'signal "INT"', 'show "\\n"', 'send "\\n"']],
  [["\u001b[200~pasted\u001b[201~", "\r"], ['show "pasted"', 'show "\\n"', 'send "pasted\\n"']],
  [["\u0004"], ["end true"]],
  [["ab\u0004"], ['show "ab"', 'send "ab"', "end true"]],
]);

class Socket {
  sent = [];
  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : sent([data])[0]);
  }
  close() {
    this.closed = true;
  }
  tell(word) {
    this.onmessage({ data: JSON.stringify(word) });
  }
  block(...of) {
    this.onmessage({ data: block(...of) });
  }
}

/** What a stream did: the sockets it opened, what its watcher was told, what it was given to show. */
function watched(start) {
  const it = { sockets: [], told: [], shown: [] };
  const note = (name) => (value) => it.told.push(value === undefined ? name : `${name} ${JSON.stringify(value?.message ?? value?.id ?? value)}`);
  const watcher = Object.fromEntries(["missed", "queued", "preparing", "began", "phase", "finished", "failed", "reached"].map((name) => [name, note(name)]));
  watcher.output = ({ channel, payload }, shown) => {
    it.told.push(`${channel} ${text(payload)}`);
    it.shown.push(shown);
  };
  it.stream = new parts.stream.RunStream(start, watcher, () => {
    const socket = new Socket();
    it.sockets.push(socket);
    return socket;
  });
  it.socket = () => it.sockets.at(-1);
  return it;
}
const begun = (more = {}) => {
  const it = watched({ run: { language: "python", detach: false, ...more } });
  it.socket().onopen();
  it.socket().tell({ accepted: { id: "r1", worker: 0 } });
  it.told.length = 0;
  return it;
};
beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
});
after(() => mock.timers.reset());

test("a run is told first, then its input; its end is acknowledged once all is on screen", () => {
  const it = watched({ run: { language: "python", detach: false } });
  it.stream.send(utf8("hi\n"));
  it.socket().onopen();
  it.socket().tell({ queued: { before: 2 } });
  assert.deepEqual(it.socket().sent, [{ run: { language: "python", detach: false } }]);
  it.socket().tell({ accepted: { id: "r1", worker: 0 } });
  it.stream.signal("INT");
  it.socket().block(1, 1, "hello");
  it.socket().tell({ ended: { verdict: "finished", message: "done", sequence: 2 } });
  assert.deepEqual(it.told, ["queued 2", "reached true", 'began "r1"', "stdout hello", 'finished "done"']);
  assert.ok(!it.socket().closed);
  const socket = it.socket();
  it.shown[0]();
  assert.deepEqual(socket.sent.slice(1), [[1, "hi\n"], { signal: "INT" }, { ack: 2 }]);
  assert.ok(socket.closed);
});

test("a stream that breaks is taken up after the last block that came, and nothing is shown twice", () => {
  const it = begun();
  it.stream.send(utf8("one"));
  it.stream.send(utf8("two"));
  it.socket().block(1, 1, "a");
  it.socket().onclose();
  it.stream.send(utf8("three"));
  mock.timers.tick(250);
  assert.equal(it.sockets.length, 2);
  it.socket().onopen();
  it.socket().tell({ accepted: { id: "r1", worker: 0 } });
  assert.deepEqual(it.socket().sent, [{ attach: { id: "r1", after: 1 } }], "no input before it is known what arrived");
  it.socket().tell({ taken: 1 });
  assert.deepEqual(it.socket().sent.slice(1), [[2, "two"], [3, "three"]]);
  it.socket().block(1, 1, "a");
  it.socket().block(2, 2, "b");
  assert.deepEqual(it.told, ["stdout a", "reached false", "reached true", 'began "r1"', "stderr b"]);
});

test("where nothing was taken the server does not say so, and input goes all the same", () => {
  const it = watched({ attach: "r1", inputEnded: false });
  it.socket().onopen();
  it.socket().tell({ accepted: { id: "r1", worker: 0 } });
  it.stream.send(utf8("one"));
  assert.deepEqual(it.socket().sent, [{ attach: { id: "r1", after: 0 } }]);
  it.socket().tell({ phase: "running" });
  assert.deepEqual(it.socket().sent.slice(1), [[1, "one"]]);
});

test("what was acknowledged before a page came is said to be missing", () => {
  const it = watched({ attach: "r1", inputEnded: true });
  it.socket().onopen();
  it.socket().tell({ accepted: { id: "r1", worker: 0 } });
  it.socket().tell({ taken: 3 });
  it.socket().block(40, 1, "late");
  assert.deepEqual(it.told.slice(2), ["missed 39", "stdout late"]);
  assert.ok(!it.stream.send(utf8("x")), "the input had ended");
});

test("after a quarter of a minute nobody comes back", () => {
  let now = 0;
  const clock = mock.method(performance, "now", () => now);
  const it = begun();
  it.socket().onclose();
  for (let round = 0; round < 40; round += 1) {
    now += 2_000;
    mock.timers.tick(2_000);
    it.socket().onclose?.();
  }
  clock.mock.restore();
  assert.match(it.told.at(-1), /^failed "the stream to the server broke and did not come back/);
  assert.ok(it.sockets.length > 5 && it.sockets.length < 12, String(it.sockets.length));
});

test("a run that no worker has is not waited for", () => {
  const it = watched({ run: { detach: true } });
  it.socket().onclose();
  assert.match(it.told.join(), /^failed "the stream to the server broke before/);
  mock.timers.tick(60_000);
  assert.equal(it.sockets.length, 1);
});

test("a problem ends it, and a break after the end is none", () => {
  const refused = begun();
  refused.socket().tell({ problem: { code: "B0901", message: "no such language" } });
  assert.deepEqual(refused.told, ['failed "no such language"']);
  const it = begun();
  it.socket().block(1, 1, "a");
  it.socket().tell({ ended: { message: "done", sequence: 2 } });
  it.socket().onclose();
  it.shown[0]();
  mock.timers.tick(60_000);
  assert.deepEqual([it.told, it.sockets.length], [["stdout a", 'finished "done"'], 1]);
});

const CODE = { language: "python", files: [{ name: "main.py", content: "print('ä € 👍')\n".repeat(200) }, { name: "a/b.py", content: "" }], args: "a 'b c'" };
test("code goes into a link and comes out of it the same", async () => {
  const link = await parts.share.pack(CODE);
  assert.match(link, /^[\w-]+$/);
  assert.ok(link.length < 300, `${link.length} letters`);
  assert.deepEqual(await parts.share.unpack(link), CODE);
});
const deflated = async (text) => Buffer.from(await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer()).toString("base64url");
test("what is no such link is refused, as is one that unpacks to too much", async () => {
  const files = [["a", "b"]];
  const wrong = ["null", "[]", "7", "{", JSON.stringify({ language: 1, files, args: "" }), JSON.stringify({ language: "c", files: [], args: "" }), JSON.stringify({ language: "c", files: [["a"]], args: "" }), JSON.stringify({ language: "c", files: [["a", "x".repeat(3 << 20)]], args: "" })];
  for (const text of wrong) assert.equal(await parts.share.unpack(await deflated(text)), undefined, text.slice(0, 60));
  const link = await parts.share.pack(CODE);
  for (const cut of ["", "%%%", "AAAA", link.slice(0, 40)]) assert.equal(await parts.share.unpack(cut), undefined, cut);
});

check("arguments are split as a shell does", (typed) => parts.wanted.argumentsIn(typed), [
  ["", []], ["a  b", ["a", "b"]], ["\"a b\" 'c d'", ["a b", "c d"]], ["--x=\"1 2\"y", ["--x=1 2y"]], ["a\\ b", ["a b"]], ["\"a\\\"b\" ''", ["a\"b", ""]], ["\"open", ["open"]], ["'it\\n'", ["it\\n"]],
]);
check("names of files lead nowhere else", ([name, others]) => parts.wanted.wrongName(name, others) === "", [
  [["a.py", []], true], [["a/b.py", []], true], [["", []], false], [["a.py", ["a.py"]], false], [["../a", []], false], [["/a", []], false], [["a/", []], false], [["a//b", []], false],
]);
test("only what was chosen is asked for", () => {
  const draft = { ...parts.wanted.EMPTY, language: "c", files: [{ name: "main.c", content: "" }] };
  const size = { columns: 80, rows: 24 };
  assert.deepEqual(parts.wanted.wantedOf(draft, size), { language: "c", files: draft.files, args: [], limits: {}, detach: false });
  assert.deepEqual(parts.wanted.wantedOf({ ...draft, args: "x", seconds: 1.5, memoryMib: 64, terminal: true, detach: true }, size), {
    language: "c", files: draft.files, args: ["x"], limits: { cpu_ms: 1500, wall_ms: 1500, memory_bytes: 64 << 20 }, terminal: size, detach: true,
  });
});
test("an example makes place for another one, what was written does not", () => {
  const all = [{ name: "c", main: "main.c", example: "int main;" }, { name: "lua", main: "main.lua", example: "print(1)" }];
  const draft = parts.wanted.inLanguage(parts.wanted.EMPTY, all[0], all);
  assert.deepEqual(draft.files, [{ name: "main.c", content: "int main;" }]);
  assert.deepEqual(parts.wanted.inLanguage(draft, all[1], all).files, [{ name: "main.lua", content: "print(1)" }]);
  const written = { ...draft, files: [{ name: "main.c", content: "mine" }] };
  assert.deepEqual(parts.wanted.inLanguage(written, all[1], all), { ...written, language: "lua" });
});

check("who hears the output is told its lines, and where they came from", (said) => {
  const heard = new parts.heard.Heard();
  for (const [channel, words] of said) heard.add(channel, words);
  return heard.lines;
}, [
  [[["stdout", "a"], ["stdout", "b\nc"]], ["ab", "c"]],
  [[["stdout", "a\n"], ["stderr", "no\nno"], ["stdout", "b\n"]], ["a", "Errors: no", "Errors: no", "b"]],
  [[["compiler", "\u001b[31mwrong\u001b[0m\r\n"]], ["Compiler: wrong"]],
]);
test("what is heard is bounded", () => {
  const heard = new parts.heard.Heard();
  for (let line = 0; line < 500; line += 1) heard.add("stdout", `${line}\n${"x".repeat(2_000)}`);
  assert.ok(heard.lines.length <= 50 && heard.lines.every((line) => line.length <= 500));
});

test("a verdict has a word and what it took, and one that is not known is shown as it is", () => {
  const times = { queue_usec: 310, box_usec: 240, compile_usec: 0, run_usec: 16_012 };
  const ended = { verdict: "finished", message: "", exit_code: 0, signal: null, cpu_usec: 14_210, memory_peak_bytes: 8_601_600, output_bytes: 6, times };
  assert.deepEqual(parts.verdict.verdictOf(ended), { word: "finished", tone: "ok" });
  assert.deepEqual(parts.verdict.verdictOf({ verdict: "of_boredom" }), { word: "of_boredom", tone: "quiet" });
  assert.deepEqual(parts.verdict.measures(ended).map(({ name, value }) => `${name} ${value}`), ["Exit code 0", "CPU 14 ms", "Memory 8.2 MiB", "Output 6 B", "Wall 17 ms", "Queue 310 µs", "Box 240 µs", "Compile 0 s", "Run 16 ms"]);
});
