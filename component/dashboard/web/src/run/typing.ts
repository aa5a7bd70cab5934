/**
 * What is typed for a program without a terminal of its own: nobody else echoes it, mends it and sends it line by line.
 * A machine: text as the keyboard gives it goes in, what to show and what to send comes out.
 */

export type Typed = { show: string } | { send: string } | { signal: string } | { end: true };

/** Back over one column, clearing it. */
const ERASE = "\b \b";

export class Typing {
  #line: string[] = [];

  /** What is typed and was not sent. */
  get line(): string {
    return this.#line.join("");
  }

  feed(keys: string): Typed[] {
    // What is pasted comes between these when a program, wrongly without a terminal, asked for it.
    const data = keys.replace(/^\u001b\[200~(.*?)(?:\u001b\[201~)?$/s, "$1");
    // Arrows and function keys: there is nothing here to move in.
    if (data.startsWith("\u001b")) return [];
    const out: Typed[] = [];
    for (const letter of letters(data.replaceAll("\r\n", "\r"))) this.#key(letter, out);
    return joined(out);
  }

  /** What is left is sent without an end of line, and nothing follows. */
  end(): Typed[] {
    const rest = this.#take();
    return rest === "" ? [{ end: true }] : [{ send: rest }, { end: true }];
  }

  #key(letter: string, out: Typed[]): void {
    switch (letter) {
      case "\r":
      case "\n":
        out.push({ show: "\n" }, { send: this.#take() + "\n" });
        return;
      case "\u007f":
      case "\b": {
        const gone = this.#line.pop();
        if (gone !== undefined) out.push({ show: ERASE.repeat(columns(gone)) });
        return;
      }
      case "\u0015":
        out.push({ show: ERASE.repeat(this.#line.reduce((sum, one) => sum + columns(one), 0)) });
        this.#line = [];
        return;
      case "\u0003":
        this.#line = [];
        out.push({ show: "^C\n" }, { signal: "INT" });
        return;
      case "\u0004":
        out.push(...this.end());
        return;
      default:
        // Other keys with Ctrl mean nothing; a tab is a letter.
        if (letter < " " && letter !== "\t") return;
        this.#line.push(letter);
        out.push({ show: letter === "\t" ? " " : letter });
    }
  }

  #take(): string {
    const line = this.line;
    this.#line = [];
    return line;
  }
}

/** What a reader takes for one letter, such as a flag made of two code points: one key erases it. */
function letters(text: string): string[] {
  // Firefox before 125: a flag takes two keys to erase there.
  if (!("Segmenter" in Intl)) return [...text];
  return [...new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)].map(({ segment }) => segment);
}

/** As wide as terminals show it: two for the scripts of East Asia and for emoji. */
function columns(letter: string): number {
  return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u.test(letter) ? 2 : 1;
}

/** Fewer and longer pieces: a pasted page is one block, not a thousand. */
function joined(all: Typed[]): Typed[] {
  const out: Typed[] = [];
  let show = "";
  let send = "";
  const flush = () => {
    if (show !== "") out.push({ show });
    if (send !== "") out.push({ send });
    show = "";
    send = "";
  };
  for (const one of all) {
    if ("show" in one) show += one.show;
    else if ("send" in one) send += one.send;
    else {
      flush();
      out.push(one);
    }
  }
  flush();
  return out;
}
