//! YAML to a tree in which every key and value knows its line and column.
//!
//! Owns bounds against hostile files: size, depth, expansion of aliases. Anchors, aliases and `<<` are resolved here,
//! so that the rest never sees them. Never knows what a key means: a scalar stays the text that was written, and the
//! place that reads it decides whether `22:22` is a port or `yes` a truth.

use crate::findings::{Findings, Place, Spot};
use crate::read::shortened;
use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};
use std::collections::HashMap;

/// A thousand services with comments are about 2 MB; above this it is not a stack file.
pub(crate) const SOURCE_BYTES_MAX: usize = 4 << 20;
/// The deepest key of the compose specification is at ten.
const DEPTH_MAX: usize = 64;
/// What a file may grow to when its aliases are copied out: eight aliases of eight aliases of … stop here.
const EXPANDED_WEIGHT_MAX: usize = 64 << 20;
/// What a node costs beside its text, so that a file of empty lists is bounded too.
const NODE_WEIGHT: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Text {
        text: String,
        /// Written without quotes: `true` is a truth, `"true"` a text.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) spot: Spot,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value),
            Value::Null | Value::Text { .. } | Value::List(_) => None,
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Text { .. } | Value::List(_) => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Null | Value::Text { .. } | Value::Map(_) => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text { .. } => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads one document. `None` after an error that leaves nothing to read on with; findings say why.
pub(crate) fn read(source: &[u8], file: u16, findings: &mut Findings) -> Option<Node> {
    let whole = Place { spot: Spot { file, line: 0, column: 0 }, path: String::new() };
    if source.len() > SOURCE_BYTES_MAX {
        let message =
            format!("the file has {} bytes, more than the {SOURCE_BYTES_MAX} a stack file may have", source.len());
        findings.error(&whole, message, "split it into several stacks, or move large contents into files of their own");
        return None;
    }
    let text = decode(source, file, findings)?;
    Builder::new(file, findings).build(text)
}

fn decode<'s>(source: &'s [u8], file: u16, findings: &mut Findings) -> Option<&'s str> {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    let place_of = |offset: usize| {
        let before = &source[..offset];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Place { spot: spot(file, line, column), path: String::new() }
    };
    let text = match std::str::from_utf8(source) {
        Ok(text) => text,
        Err(error) => {
            findings.error(
                &place_of(error.valid_up_to()),
                "the file is not UTF-8 text",
                "save it with the encoding UTF-8",
            );
            return None;
        }
    };
    if let Some(offset) = source.iter().position(|byte| *byte == 0) {
        findings.error(&place_of(offset), "the file holds a NUL byte, so it is not a text", "");
        return None;
    }
    Some(text)
}

fn spot(file: u16, line: usize, column: usize) -> Spot {
    Spot { file, line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

/// A list or map that is still open.
struct Open {
    node: Node,
    anchor: usize,
    weight: usize,
    /// In a map: the key whose value comes next.
    key: Option<(String, Spot)>,
    /// In a map: where each key was first seen.
    seen: HashMap<String, Spot>,
    /// In a map: what `<<` brings, in order.
    merged: Vec<Node>,
}

struct Builder<'f> {
    file: u16,
    findings: &'f mut Findings,
    open: Vec<Open>,
    /// Finished anchored nodes and what copying each one costs.
    anchors: HashMap<usize, (Node, usize)>,
    weight: usize,
    root: Option<Node>,
    documents: usize,
}

/// `!reset`, with which compose takes a value away.
fn is_reset(tag: &Tag) -> bool {
    tag.is_custom() && tag.suffix() == "reset"
}

/// Reading cannot go on; the finding is made already.
struct Stopped;

impl<'f> Builder<'f> {
    fn new(file: u16, findings: &'f mut Findings) -> Builder<'f> {
        Builder { file, findings, open: Vec::new(), anchors: HashMap::new(), weight: 0, root: None, documents: 0 }
    }

    fn build(mut self, text: &str) -> Option<Node> {
        let options = granit_parser::options! {
            flow_nesting_limit: DEPTH_MAX,
            block_nesting_limit: DEPTH_MAX,
            emit_comments: false,
        };
        for next in Parser::new_from_str_with_options(text, options) {
            match next {
                Ok((event, span)) => {
                    if self.accept(event, span.start).is_err() {
                        return None;
                    }
                }
                Err(error) => {
                    self.syntax_error(&error, text);
                    return None;
                }
            }
        }
        if self.root.is_none() {
            let place = Place { spot: spot(self.file, 0, 0), path: String::new() };
            self.findings.error(&place, "the file is empty", "a stack file has at least `services:` with one service");
        }
        self.root
    }

    fn accept(&mut self, event: Event<'_>, start: Marker) -> Result<(), Stopped> {
        let spot = spot(self.file, start.line(), start.col() + 1);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let hint = "keep one document: remove the `---` line and what follows";
                    return self.stop(spot, "the file holds a second document", hint);
                }
                Ok(())
            }
            // Quoted, `\0` writes what the bytes of the file must not hold: no path or variable can have it.
            Event::Scalar(text, ..) if text.contains('\0') => self.stop(spot, "the text holds a NUL character", ""),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match text.as_ref() {
                    _ if tag.as_deref().is_some_and(is_reset) => Value::Null,
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Text { text: text.to_string(), plain },
                };
                self.warn_of_tag(spot, tag.as_deref());
                let weight = NODE_WEIGHT + text.len();
                self.charge(spot, weight)?;
                self.complete(Node { spot, value }, anchor, weight)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.warn_of_tag(spot, tag.as_deref());
                self.begin(spot, Value::List(Vec::new()), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.warn_of_tag(spot, tag.as_deref());
                self.begin(spot, Value::Map(Vec::new()), anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, weight)) => {
                    // Bounded before it is copied: what is anchored is itself within the bound.
                    let (node, weight) = (node.clone(), *weight);
                    self.charge(spot, weight)?;
                    self.complete(node, 0, weight)
                }
                None => self.stop(spot, "the alias stands inside what it refers to", "an anchor cannot hold itself"),
            },
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            // Told only when asked for, which the options do not.
            Event::Anchor(..) | Event::UnresolvedAlias(_) => Ok(()),
            // What later versions of the parser may tell.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, spot: Spot, value: Value, anchor: usize) -> Result<(), Stopped> {
        if self.open.len() >= DEPTH_MAX {
            return self.stop(spot, &format!("the file nests more than {DEPTH_MAX} levels deep"), "");
        }
        self.charge(spot, NODE_WEIGHT)?;
        self.open.push(Open {
            node: Node { spot, value },
            anchor,
            weight: NODE_WEIGHT,
            key: None,
            seen: HashMap::new(),
            merged: Vec::new(),
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stopped> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        for node in std::mem::take(&mut open.merged) {
            self.merge(&mut open, node);
        }
        self.complete(open.node, open.anchor, open.weight)
    }

    /// Adds what `<<` brings: keys that the map has itself, or that an earlier `<<` brought, win.
    fn merge(&mut self, open: &mut Open, from: Node) {
        let Value::Map(entries) = &mut open.node.value else { return };
        let Value::Map(brought) = from.value else { return };
        for entry in brought {
            if !open.seen.contains_key(&entry.key) {
                open.seen.insert(entry.key.clone(), entry.spot);
                entries.push(entry);
            }
        }
    }

    /// Counts what the tree grows by.
    fn charge(&mut self, spot: Spot, weight: usize) -> Result<(), Stopped> {
        self.weight += weight;
        if self.weight > EXPANDED_WEIGHT_MAX {
            let message = "with its aliases written out, the file is larger than a stack file may be";
            return self.stop(spot, message, "split it into several stacks");
        }
        Ok(())
    }

    /// Tags of YAML's own and those with which compose lays files over each other say nothing new in one file.
    fn warn_of_tag(&mut self, spot: Spot, tag: Option<&Tag>) {
        let of_yaml = |tag: &Tag| tag.suffix_in_namespace("tag:yaml.org,2002:").is_some();
        let Some(tag) = tag.filter(|tag| !of_yaml(tag) && !is_reset(tag) && tag.suffix() != "override") else {
            return;
        };
        let place = Place { spot, path: self.path_of_open() };
        let message = format!("the tag `{}` is not honoured", shortened(&tag.original()));
        self.findings.warn(&place, message, "the value is read as if it were not there");
    }

    /// Puts a finished node into the list or map that is open, or makes it the document.
    fn complete(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), Stopped> {
        self.weight += weight;
        if self.weight > EXPANDED_WEIGHT_MAX * 2 || weight > EXPANDED_WEIGHT_MAX {
            return self.stop(
                node.spot,
                "the file's aliases expand to more than a stack file may hold",
                "write it out",
            );
        }
        if anchor > 0 {
            self.weight += weight;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(mut open) = self.open.pop() else {
            self.root = Some(node);
            return Ok(());
        };
        open.weight += weight;
        let placed = match &mut open.node.value {
            Value::List(items) => {
                items.push(node);
                Ok(())
            }
            Value::Map(_) => self.place_in_map(&mut open, node),
            Value::Null | Value::Text { .. } => Ok(()),
        };
        self.open.push(open);
        placed
    }

    fn place_in_map(&mut self, open: &mut Open, node: Node) -> Result<(), Stopped> {
        let Some((key, key_spot)) = open.key.take() else {
            let key = match node.value {
                Value::Text { text, .. } => text,
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    return self.stop(node.spot, "a key must be a text, not a list or map", "");
                }
            };
            open.key = Some((key, node.spot));
            return Ok(());
        };
        if key == "<<" {
            return self.note_merge(open, node);
        }
        if let Some(first) = open.seen.get(&key) {
            if self.findings.is_full() {
                return Ok(());
            }
            let place = Place { spot: key_spot, path: self.path_with(&key) };
            let message =
                format!("the key `{key}` stands here a second time, first at {}", self.findings.describe(*first));
            self.findings.error(&place, message, "keep one of the two, or join them");
            return Ok(());
        }
        open.seen.insert(key.clone(), key_spot);
        if let Value::Map(entries) = &mut open.node.value {
            entries.push(Entry { key, spot: key_spot, value: node });
        }
        Ok(())
    }

    fn note_merge(&mut self, open: &mut Open, node: Node) -> Result<(), Stopped> {
        match node.value {
            Value::Map(_) => open.merged.push(node),
            Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                open.merged.extend(items);
            }
            Value::List(_) | Value::Null | Value::Text { .. } => {
                let place = Place { spot: node.spot, path: self.path_with("<<") };
                self.findings.error(
                    &place,
                    "`<<` takes a map or a list of maps",
                    "write `<<: *name` with the anchor of a map",
                );
            }
        }
        Ok(())
    }

    /// The way to a key of the map that was just taken off the stack of open ones.
    fn path_with(&self, key: &str) -> String {
        let mut path = String::new();
        for open in &self.open {
            match (&open.key, &open.node.value) {
                (Some((key, _)), _) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                (None, Value::List(items)) => path.push_str(&format!("[{}]", items.len())),
                (None, Value::Null | Value::Text { .. } | Value::Map(_)) => {}
            }
        }
        if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
    }

    fn stop(&mut self, spot: Spot, message: &str, hint: &str) -> Result<(), Stopped> {
        self.findings.error(&Place { spot, path: self.path_of_open() }, message, hint);
        Err(Stopped)
    }

    fn path_of_open(&self) -> String {
        let keys: Vec<&str> =
            self.open.iter().filter_map(|open| open.key.as_ref().map(|(key, _)| key.as_str())).collect();
        keys.join(".")
    }

    fn syntax_error(&mut self, error: &ScanError, text: &str) {
        let mark = error.marker();
        let place = Place { spot: spot(self.file, mark.line(), mark.col() + 1), path: self.path_of_open() };
        let line = text.lines().nth(mark.line().saturating_sub(1)).unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        let message = error.kind().to_string();
        let hint = if indent.contains('\t') || message.contains("tab") {
            "YAML is indented with spaces: replace the tab"
        } else if message.contains("mapping values") || message.contains("':'") || message.contains("simple key") {
            "look at the indentation here and above, and put a text with `: ` in it into quotes"
        } else if message.contains("anchor") {
            "an alias `*name` needs an anchor `&name` further up"
        } else if line.trim_start().starts_with(['@', '`', '%', '*', '&', '!', '|', '>', '{', '['])
            || line.contains(": *")
        {
            "put a text that starts with a special character into quotes"
        } else {
            "look at the indentation, quotes and brackets here and on the lines above"
        };
        self.findings.error(&place, format!("this is not YAML: {message}"), hint);
    }
}
