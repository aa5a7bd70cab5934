/**
 * The code editor, loaded only where code is written: CodeMirror, with a language's grammar fetched when it is chosen.
 *
 * It lives in a shadow root, where its library keeps rules in constructed stylesheets; in a document it would write
 * them into `<style>`, which the page's policy refuses.
 */
import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { HighlightStyle, StreamLanguage, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState, Prec, type Extension } from "@codemirror/state";
import { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

/** Each a chunk of its own, by the name of Bramble's language. Others are written without colours. */
const GRAMMARS: Record<string, () => Promise<Extension>> = {
  python: async () => (await import("@codemirror/lang-python")).python(),
  javascript: async () => (await import("@codemirror/lang-javascript")).javascript(),
  typescript: async () => (await import("@codemirror/lang-javascript")).javascript({ typescript: true }),
  c: async () => (await import("@codemirror/lang-cpp")).cpp(),
  cpp: async () => (await import("@codemirror/lang-cpp")).cpp(),
  java: async () => (await import("@codemirror/lang-java")).java(),
  rust: async () => (await import("@codemirror/lang-rust")).rust(),
  go: async () => (await import("@codemirror/lang-go")).go(),
  bash: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/shell")).shell),
  ruby: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/ruby")).ruby),
  lua: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/lua")).lua),
  perl: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/perl")).perl),
  haskell: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/haskell")).haskell),
};
/** What people of these languages indent by; the others take four. */
const INDENTS: Record<string, string> = { go: "\t", javascript: "  ", typescript: "  ", ruby: "  ", lua: "  ", haskell: "  ", bash: "  " };

export interface CodeEditor {
  /** Shows a file with what was undone and selected in it. `id` stays when a file is renamed. */
  show(id: number, text: string): void;
  /** The text was changed by somebody else, as a link that was opened. */
  replace(text: string): void;
  language(name: string): void;
  focus(): void;
  dispose(): void;
}

export interface EditorEvents {
  changed(text: string): void;
  run(): void;
}

export function openEditor(host: HTMLElement, label: string, events: EditorEvents): CodeEditor {
  const grammar = new Compartment();
  const states = new Map<number, EditorState>();
  let shown: number | undefined;
  let extension: Extension = [];
  let wanted = "";
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const view = new EditorView({ root, parent: root });
  const state = (text: string) => EditorState.create({ doc: text, extensions: [...basics(label, events), grammar.of(extension)] });
  const learn = () => view.dispatch({ effects: grammar.reconfigure(extension) });

  return {
    show(id, text) {
      if (shown === id) return;
      if (shown !== undefined) states.set(shown, view.state);
      shown = id;
      const before = states.get(id);
      view.setState(before?.doc.toString() === text ? before : state(text));
      // The language may have changed since this file was looked at.
      learn();
    },
    replace(text) {
      if (view.state.doc.toString() !== text) view.setState(state(text));
    },
    language(name) {
      wanted = name;
      const unit = indentUnit.of(INDENTS[name] ?? "    ");
      extension = unit;
      learn();
      void GRAMMARS[name]?.().then((found) => {
        if (wanted !== name) return;
        extension = [unit, found];
        learn();
      });
    },
    focus: () => view.focus(),
    dispose: () => view.destroy(),
  };
}

function basics(label: string, events: EditorEvents): Extension[] {
  const run = () => {
    events.run();
    return true;
  };
  return [
    lineNumbers(),
    highlightActiveLine(),
    highlightActiveLineGutter(),
    history(),
    drawSelection(),
    indentOnInput(),
    bracketMatching(),
    closeBrackets(),
    EditorState.tabSize.of(4),
    Prec.highest(keymap.of([{ key: "Mod-Enter", run }])),
    keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, indentWithTab]),
    EditorView.domEventHandlers({ beforeinput: replace }),
    EditorView.contentAttributes.of({ "aria-label": label }),
    EditorView.updateListener.of((update) => {
      if (update.docChanged) events.changed(update.state.doc.toString());
    }),
    syntaxHighlighting(COLOURS),
    LOOK,
  ];
}

/**
 * Typing over a selection. Left to itself, a browser gives the new text the look of the old one by a `style` attribute,
 * which the editor throws away and the policy refuses with an error in the console.
 */
function replace(event: InputEvent, view: EditorView): boolean {
  const text = event.data;
  const { from, to, empty } = view.state.selection.main;
  if (event.inputType !== "insertText" || text === null || empty || view.composing) return false;
  event.preventDefault();
  const insert = () => view.state.update(view.state.replaceSelection(text), { userEvent: "input.type", scrollIntoView: true });
  // Such as those that put brackets around what is selected.
  const handled = view.state.facet(EditorView.inputHandler).some((handler) => handler(view, from, to, text, insert));
  if (!handled) view.dispatch(insert());
  return true;
}

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword, tags.self], color: "var(--accent)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp, tags.character], color: "var(--ok)" },
  { tag: [tags.comment], color: "var(--muted)", fontStyle: "italic" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--line-3)" },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName), tags.macroName], color: "var(--busy)" },
  { tag: [tags.typeName, tags.className, tags.namespace], color: "var(--line-2)" },
  { tag: [tags.meta, tags.processingInstruction, tags.annotation], color: "var(--line-5)" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

const LOOK = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "var(--surface)", fontSize: "13px" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "20px" },
  ".cm-content": { padding: "10px 0", caretColor: "var(--ink)" },
  ".cm-cursor, .cm-dropCursor": { borderLeftColor: "var(--ink)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--muted)", borderRight: "1px solid var(--line)" },
  ".cm-lineNumbers .cm-gutterElement": { padding: "0 10px 0 12px" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--sunken) 45%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "var(--sunken)", color: "var(--ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "color-mix(in srgb, var(--accent) 26%, transparent)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--accent-soft)", outline: "1px solid var(--accent)" },
  "&.cm-focused .cm-nonmatchingBracket": { backgroundColor: "var(--bad-soft)" },
});
