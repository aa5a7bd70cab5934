/** How a run ended, in the page's words. Pure. */
import { bytes, seconds } from "../format";
import type { Tone } from "../parts/tone";
import type { Ended, RunVerdict } from "../wire";

const WORDS: Record<RunVerdict, [string, Tone]> = {
  finished: ["finished", "ok"],
  wrong_exit: ["failed", "bad"],
  not_compiled: ["not compiled", "bad"],
  out_of_time: ["out of time", "warn"],
  out_of_memory: ["out of memory", "warn"],
  too_much_output: ["too much output", "warn"],
  killed: ["killed", "warn"],
  refused: ["refused", "bad"],
  lost: ["lost", "bad"],
};

export function verdictOf(ended: Ended): { word: string; tone: Tone } {
  // A newer server may know more ways to end.
  const [word, tone] = WORDS[ended.verdict] ?? [ended.verdict, "quiet"];
  return { word, tone };
}

export interface Measure {
  name: string;
  value: string;
  explained: string;
}

/** What it took, and then where its time went. */
export function measures({ exit_code, signal, cpu_usec, memory_peak_bytes, output_bytes, times }: Ended): Measure[] {
  const time = (usec: number) => seconds(usec / 1e6);
  const whole = times.queue_usec + times.box_usec + times.compile_usec + times.run_usec;
  return [
    ...(exit_code === null ? [] : [{ name: "Exit code", value: String(exit_code), explained: "what the program answered" }]),
    ...(signal === null ? [] : [{ name: "Signal", value: String(signal), explained: "what ended the program" }]),
    { name: "CPU", value: time(cpu_usec), explained: "processor time of all its processes" },
    { name: "Memory", value: bytes(memory_peak_bytes), explained: "the most it had at once" },
    { name: "Output", value: bytes(output_bytes), explained: "standard output and error together" },
    { name: "Wall", value: time(whole), explained: "by the clock, from the moment it was asked for" },
    { name: "Queue", value: time(times.queue_usec), explained: "until a worker had it" },
    { name: "Box", value: time(times.box_usec), explained: "until its box was ready; none for one that was built ahead" },
    { name: "Compile", value: time(times.compile_usec), explained: "none when it had been compiled before" },
    { name: "Run", value: time(times.run_usec), explained: "what the program took, by the clock" },
  ];
}
