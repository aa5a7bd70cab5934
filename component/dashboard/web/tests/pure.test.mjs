/** The page's pure parts, without a browser. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

let vite;
const parts = {};

before(async () => {
  vite = await createServer({ root: fileURLToPath(new URL("..", import.meta.url)), logLevel: "error", server: { middlewareMode: true, hmr: false, ws: false, watch: null }, appType: "custom" });
  for (const name of ["format", "ansi", "samples", "stackfile", "requests", "breakers", "certificates"]) parts[name] = await vite.ssrLoadModule(`/src/${name}.ts`);
});
after(() => vite?.close());

function check(name, call, cases) {
  test(name, () => {
    for (const [input, expected] of cases) assert.deepEqual(call(input), expected, JSON.stringify(input));
  });
}

check("sizes keep three digits that matter", (value) => parts.format.bytes(value), [
  [0, "0 B"], [1, "1 B"], [1023, "1023 B"], [1024, "1 KiB"], [1536, "1.5 KiB"], [1_048_575, "1 MiB"], [268_435_456, "256 MiB"], [17_179_869_184, "16 GiB"], [2 ** 60, "1024 PiB"],
]);
check("counts shorten from a thousand on", (value) => parts.format.count(value), [[0, "0"], [0.25, "0.3"], [7, "7"], [999, "999"], [1200, "1.2k"], [999_999, "1M"]]);
check("cores keep what a small service uses", (value) => parts.format.cores(value), [[0, "0"], [0.025, "0.025"], [0.25, "0.25"], [1.5, "1.5"], [12, "12"]]);
check("shares are percents", (value) => parts.format.percent(value), [[0, "0 %"], [0.0004, "<0.1 %"], [0.034, "3.4 %"], [0.87, "87 %"], [1, "100 %"]]);
check("latencies choose their unit", (value) => parts.format.seconds(value), [[0, "0 s"], [0.00085, "850 µs"], [0.0012, "1.2 ms"], [0.031, "31 ms"], [1.44, "1.4 s"]]);
check("times are relative, in one unit", ([at, now]) => parts.format.ago(at, now), [
  [[0, 5], "never"], [[10_000, 11_000], "just now"], [[12_000, 10_000], "just now"], [[1, 12_001], "12 s ago"], [[1, 240_001], "4 min ago"], [[1, 7_200_001], "2 h ago"], [[1, 3 * 86_400_000], "2 d ago"],
]);
check("what comes is told in one unit", ([at, now]) => parts.format.until(at, now), [
  [[5, 10], "now"], [[12_000, 0], "in 12 s"], [[240_000, 0], "in 4 min"], [[7_300_000, 0], "in 2 h"], [[3 * 86_400_000, 0], "in 3 d"],
]);
check("durations keep a second unit where it matters", (ms) => parts.format.duration(ms), [[-5, "0 s"], [59_999, "59 s"], [3_660_000, "1 h 1 min"], [3_600_000, "1 h"], [90_000_000, "1 d 1 h"]]);
check("states fall into word and reason", (state) => parts.format.splitState(state), [
  ["running", { word: "running", reason: "" }], ["failed: no room: at all", { word: "failed", reason: "no room: at all" }],
]);

const looks = (line) => parts.ansi.runs(line).map(({ text, classes, colour }) => [text, classes, colour].filter(Boolean).join("|"));
check("colours become classes, everything else of an escape goes", looks, [
  ["plain", ["plain"]],
  ["\u001b[31mred\u001b[0m no", ["red|fg-1", " no"]],
  ["\u001b[1;4;32mx\u001b[22;24my", ["x|fg-2 bold underline", "y|fg-2"]],
  ["\u001b[94;41mx\u001b[39my", ["x|fg-12 bg-1", "y|bg-1"]],
  ["\u001b[38;5;9mx", ["x|fg-9"]],
  ["\u001b[38;5;196mx", ["x|rgb(255 0 0)"]],
  ["\u001b[38;5;244mx", ["x|rgb(128 128 128)"]],
  ["\u001b[38;2;1;2;999mx", ["x|rgb(1 2 255)"]],
  ["\u001b[38;2;1;2;3;1mx", ["x|bold|rgb(1 2 3)"]],
  ["\u001b[mx\u001b[Ky\u001b[2Jz", ["x", "y", "z"]],
  ["a\u001b]8;;http://example.org\u001b\\link\u001b]8;;\u001b\\b", ["a", "link", "b"]],
  ["a\u0007\u0000\tb\r", ["a", "\tb"]],
  ["cut off \u001b[3", ["cut off "]],
  ["\u001b[?25lhidden\u001b[?25h \u009b32mgreen", ["hidden", " ", "green|fg-2"]],
  ["", []],
]);
test("no line can make anything but text of itself, however broken", () => {
  const alphabet = ["\u001b", "[", "]", "3", "8", ";", "5", "m", ":", "\u0007", "\u009b", "x", "<", "é", "\u001b\\", "999999999999"];
  let seed = 7;
  const next = () => (seed = (seed * 48_271) % 2_147_483_647);
  for (let round = 0; round < 2_000; round += 1) {
    const line = Array.from({ length: next() % 24 }, () => alphabet[next() % alphabet.length]).join("");
    for (const run of parts.ansi.runs(line)) {
      assert.doesNotMatch(run.text, /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/, JSON.stringify(line));
      assert.match(run.classes, /^[a-z0-9 -]*$/, JSON.stringify(line));
      assert.match(run.colour ?? "", /^(rgb\(\d+ \d+ \d+\))?$/, JSON.stringify(line));
    }
  }
});

test("lines that miss a sample are joined, lines that were away are not", () => {
  const [times, a, b] = parts.samples.columns([
    { label: "a", points: [[5_000, 1], [10_000, 2], [15_000, 3]] },
    { label: "b", points: [[5_000, 7], [40_000, 8]] },
  ]);
  assert.deepEqual(times, [5, 5.001, 10, 15, 40]);
  assert.deepEqual(a, [1, undefined, 2, 3, undefined]);
  assert.deepEqual(b, [7, null, undefined, undefined, 8]);
});

check("a value between gaps is marked by a dot", (column) => parts.samples.lonely(column), [
  [[], []], [[1], [0]], [[1, 2], []], [[1, null, 2], [0, 2]], [[undefined, 1, undefined, null, 2, undefined, 3], [1]], [[1, 2, null, null, 3], [4]], [[null], []],
]);

test("a value that is old is not passed off as one of now", () => {
  const line = { label: "a", points: [[1_000, 1], [6_000, 2]] };
  assert.equal(parts.samples.newest(line, 11_000), 2);
  assert.equal(parts.samples.newest(line, 60_000), undefined);
  assert.equal(parts.samples.newest({ label: "a", points: [] }, 0), undefined);
});

test("samples add up by label, in the order of people", () => {
  const series = (code, instance, value) => ({ name: "n", labels: { code, instance }, points: [[5_000, value]] });
  assert.deepEqual(parts.samples.sumBy([series("10", "a", null), series("10", "a", 1), series("9", "a", 2), series("10", "b", 3), series("x", "a", 9)], ({ code }) => (code === "x" ? undefined : code)), [
    { label: "9", points: [[5_000, 2]] },
    { label: "10", points: [[5_000, 4]] },
  ]);
});

const split = (queue_us, connect_us, answer_us, body_us, total_us) => ({ queue_us, connect_us, answer_us, body_us, total_us });
check("the parts of a request follow each other and never leave its time", (times) => parts.requests.parts(split(...times)).map(({ from, share }) => [from, share]), [
  [[25, 25, 50, 0, 100], [[0, 0.25], [0.25, 0.25], [0.5, 0.5], [1, 0]]],
  [[0, 0, 50, 0, 100], [[0, 0], [0, 0], [0, 0.5], [0.5, 0]]],
  [[50, 0, 150, 0, 100], [[0, 0.25], [0.25, 0], [0.25, 0.75], [1, 0]]],
  [[0, 0, 0, 0, 0], [[0, 0], [0, 0], [0, 0], [0, 0]]],
]);
const record = (status, more = {}) => ({ status, end: "complete", ...more });
check("how a request ended has a word and a tone", (one) => [parts.requests.statusWord(one), parts.requests.toneOfRequest(one), parts.requests.endOf(one)], [
  [record(200), ["200", "ok", "the answer was passed on whole"]],
  [record(200, { end: "cut" }), ["200", "bad", "the instance broke off within its answer"]],
  [record(301), ["301", "quiet", "the answer was passed on whole"]],
  [record(404), ["404", "warn", "the answer was passed on whole"]],
  [record(503, { code: "B0603" }), ["503", "bad", "the gateway's own answer"]],
  [record(0, { end: "left" }), ["left", "warn", "the client left before there was an answer"]],
]);

const life = (points, now) => parts.breakers.stays(points.map(([at, value]) => [at * 1_000, value]), now * 1_000).map((stay) => `${stay.breaker} ${stay.fromMs / 1_000}-${stay.toMs / 1_000}`);
check("samples of a breaker become the times it stayed as it was", ([points, now]) => life(points, now), [
  [[[], 10], []],
  [[[[0, 0]], 2], ["closed 0-2"]],
  [[[[0, 0], [5, 0], [10, 1], [15, 0.5], [20, 0]], 60], ["closed 0-10", "open 10-15", "half-open 15-20", "closed 20-25"]],
  [[[[0, 1], [5, null], [10, 1]], 10], ["open 0-10"]],
  // It was not sampled meanwhile: nobody knows.
  [[[[0, 1], [5, 1], [60, 1]], 62], ["open 0-5", "open 60-62"]],
]);
check("out is out, whether it is tried or not", (words) => parts.breakers.summed(words.map((breaker, at) => ({ breaker, fromMs: at * 5_000, toMs: at * 5_000 + 5_000 }))), [
  [[], { times: 0, outMs: 0 }],
  [["closed", "closed"], { times: 0, outMs: 0 }],
  [["open", "half-open", "open", "closed", "half-open"], { times: 2, outMs: 20_000 }],
]);

const DAY = 86_400_000;
const shown = (from, to, more = {}) => ({ names: ["a"], issuer: "", source: "a.crt", not_before_ms: from * DAY, not_after_ms: to * DAY, problem: "", last_error: "", retry_ms: 0, ...more });
check("a certificate says how it stands", (one) => parts.certificates.standing(one, 100 * DAY).word, [
  [shown(1, 200), "valid"], [shown(1, 113), "ends soon"], [shown(1, 100), "ended"], [shown(101, 200), "not yet valid"],
  [shown(1, 200, { last_error: "refused" }), "not renewed"], [shown(0, 0, { last_error: "refused" }), "missing"], [shown(1, 200, { problem: "its key is another's" }), "not shown"],
]);

check("the name of a stack file is its top-level one", (source) => parts.stackfile.nameIn(source), [
  ["services:\n  web:\n    name: no\n", undefined], ["# name: no\nname: 'my-stack' # yes\n", "my-stack"], ["name: ${X}\n", undefined],
]);
check("variables are found once, with their fallback", (source) => parts.stackfile.variablesIn(source), [
  ["a: ${X:-1} $Y ${X} $$Z ${W?say it}", [{ name: "X", fallback: "1" }, { name: "Y", fallback: undefined }, { name: "W", fallback: undefined }]],
  ["# $X\n", []],
  ["price: 5$ and ${} and $1", []],
]);
check("relative paths are noticed", (source) => parts.stackfile.hasRelativePaths(source), [
  ["- ./data:/data", true], ["build: ../x", true], ["volumes: [\"./a:/a\"]", true], ["- ${BIN:-../bin}:/app", true], ["image: a/../b", false], ["# ./data", false], ["- data:/data", false],
]);
check("an env file is names and values", (text) => parts.stackfile.environmentIn(text), [
  ["A=1\r\n export B = 'two words' \n#C=3\nD=\n=5\nE=\"x", { A: "1", B: "two words", D: "", E: "\"x" }],
]);
test("colouring a line loses no character of it", () => {
  for (const line of ["", "  - key: \"va#lue\" # comment", "image: a#b ${X:-y}", "- 'it''s'", "\tx: [1, \"two\"]", "a: \"open", "# only"]) {
    assert.equal(parts.stackfile.pieces(line).map((piece) => piece.text).join(""), line);
  }
});
