/**
 * The terminal, loaded only where one is shown: xterm, made to work under a policy that refuses inline styles.
 *
 * xterm writes its rules into `<style>` elements and sets `style` attributes, both of which `style-src 'self'` refuses.
 * What the policy lets through is what a script that it let in does by itself: constructed stylesheets, and declarations
 * set through `element.style`. So while there is a terminal, its elements do that in place of the other.
 */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal, type ITheme } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import type { TerminalSize } from "../wire";

/** What can be scrolled back to; a program that never ends must not fill this tab. */
const SCROLLBACK_LINES = 5_000;
/** Back over the start of a line that is longer than the terminal is wide. */
const REVERSE_WRAP = "\u001b[?45h";

export interface Screen {
  readonly size: TerminalSize;
  /** Calls back once it is on screen. */
  write(text: string, done?: () => void): void;
  clear(): void;
  focus(): void;
  /** Whether keys go to a program that has the terminal: then Tab is one of them, and lines end as it says. */
  raw(yes: boolean): void;
  colours(): void;
  dispose(): void;
}

export interface ScreenEvents {
  typed(data: string): void;
  resized(size: TerminalSize): void;
  /** Ctrl and Enter, which is the page's. */
  run(): void;
}

export function openScreen(host: HTMLElement, label: string, events: ScreenEvents): Screen {
  const sheets: CSSStyleSheet[] = [];
  const strict = underPolicy(sheets);
  const terminal = new Terminal({
    scrollback: SCROLLBACK_LINES,
    convertEol: true,
    minimumContrastRatio: 4.5,
    fontFamily: getComputedStyle(host).fontFamily,
    fontSize: 13,
    lineHeight: 1.25,
    theme: themeOf(host),
  });
  let raw = false;
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  strict.during(() => terminal.open(host));
  terminal.textarea?.setAttribute("aria-label", label);
  terminal.attachCustomKeyEventHandler((event) => mine(event, terminal, raw, events));
  terminal.onData((data) => events.typed(data));
  terminal.onResize(({ cols, rows }) => events.resized({ columns: cols, rows }));
  const fitted = new ResizeObserver(() => fit.fit());
  fitted.observe(host);
  fit.fit();
  terminal.write(REVERSE_WRAP);

  return {
    get size() {
      return { columns: terminal.cols, rows: terminal.rows };
    },
    write: (text, done) => terminal.write(text, done),
    clear() {
      terminal.reset();
      if (!raw) terminal.write(REVERSE_WRAP);
    },
    focus() {
      terminal.focus();
      // On a phone it is below the code; and what is not seen is not drawn.
      host.scrollIntoView({ block: "nearest" });
    },
    raw(yes) {
      raw = yes;
      // What has the terminal draws on it, which no text in a row tells of.
      terminal.options.screenReaderMode = yes;
      terminal.options.convertEol = !yes;
    },
    colours() {
      terminal.options.theme = themeOf(host);
    },
    dispose() {
      fitted.disconnect();
      terminal.dispose();
      strict.end();
    },
  };
}

/** False for keys that are not the program's. */
function mine(event: KeyboardEvent, terminal: Terminal, raw: boolean, events: ScreenEvents): boolean {
  const control = event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && control && !raw) {
    if (event.type === "keydown") events.run();
    event.preventDefault();
    return false;
  }
  // Nobody who came by keyboard gets caught: without a terminal of its own a program has no use for Tab.
  if (event.key === "Tab") return raw && !event.shiftKey;
  // With something selected these copy, as everywhere.
  return !(control && event.key === "c" && terminal.hasSelection());
}

interface UnderPolicy {
  /** Runs what makes `<style>` elements: xterm makes all of them while it is opened. */
  during(open: () => void): void;
  end(): void;
}

/**
 * xterm has an option for the document it is to use, which would be the place for this; version 6 makes the scroll bar
 * and the letters with the page's own all the same.
 */
function underPolicy(sheets: CSSStyleSheet[]): UnderPolicy {
  HTMLSpanElement.prototype.setAttribute = setAttribute;
  open += 1;
  return {
    during(make) {
      const create = document.createElement.bind(document) as (name: string, options?: ElementCreationOptions) => HTMLElement;
      const value = (name: string, options?: ElementCreationOptions) => (name === "style" ? styleElement(create, sheets) : create(name, options));
      Object.defineProperty(document, "createElement", { value, configurable: true });
      try {
        make();
      } finally {
        Reflect.deleteProperty(document, "createElement");
      }
    },
    end() {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => !sheets.includes(one));
      open -= 1;
      if (open === 0) Reflect.deleteProperty(HTMLSpanElement.prototype, "setAttribute");
    },
  };
}

/** How many terminals there are. */
let open = 0;

/** Letters in colours beyond the sixteen; the same for any other span, only let through. */
function setAttribute(this: HTMLSpanElement, name: string, value: string): void {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/** Stands in for a `<style>`, which even without rules is refused. */
function styleElement(create: (name: string) => HTMLElement, sheets: CSSStyleSheet[]): HTMLElement {
  const sheet = new CSSStyleSheet();
  sheets.push(sheet);
  document.adoptedStyleSheets.push(sheet);
  return Object.defineProperty(create("template"), "textContent", { set: (text: string) => sheet.replaceSync(text) });
}

/** The page's colours for xterm, which knows no CSS variables. The sixteen are those of logs, see style/log.css. */
function themeOf(host: HTMLElement): ITheme {
  const probe = document.createElement("span");
  host.append(probe);
  const colour = (name: string) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const [ink, muted, bad, ok, warn, busy] = ["--ink", "--muted", "--bad", "--ok", "--warn", "--busy"].map(colour) as [string, string, string, string, string, string];
  const [magenta, cyan, ground, selection] = ["--line-5", "--line-2", "--surface", "--accent-soft"].map(colour) as [string, string, string, string];
  probe.remove();
  return {
    background: ground,
    foreground: ink,
    cursor: ink,
    cursorAccent: ground,
    selectionBackground: selection,
    black: muted, red: bad, green: ok, yellow: warn, blue: busy, magenta, cyan, white: ink,
    brightBlack: muted, brightRed: bad, brightGreen: ok, brightYellow: warn, brightBlue: busy, brightMagenta: magenta, brightCyan: cyan, brightWhite: ink,
  };
}
