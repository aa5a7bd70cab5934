//! Reading typed values out of the tree: every refusal names the place, what was found and what would be right.
//!
//! Owns the rule that no key is passed over: a map is read through [`Fields`], which at the end reports each key
//! nobody asked for. Never knows what a service is.

use crate::findings::{Findings, Place};
use crate::units::{self, Wrong};
use crate::words;
use crate::yaml::{Entry, Node, Value};
use std::collections::BTreeMap;

/// Keys that do not belong into a map, each with where they do.
pub(crate) type Elsewhere = &'static [(&'static str, &'static str)];

/// Items of one list or map. Some checks compare each with each; a hostile file must not make that costly.
pub(crate) const ITEMS_MAX: usize = 1000;

/// A value together with the way to it.
#[derive(Debug, Clone)]
pub(crate) struct At<'n> {
    pub(crate) place: Place,
    pub(crate) node: &'n Node,
}

/// Keys that are understood and not honoured, each with what happens instead.
pub(crate) type Instead = &'static [(&'static str, &'static str)];

impl<'n> At<'n> {
    pub(crate) fn root(node: &'n Node) -> At<'n> {
        At { place: Place { spot: node.spot, path: String::new() }, node }
    }

    fn member(&self, entry: &'n Entry) -> At<'n> {
        At::of_entry(&self.place.path, entry)
    }

    fn of_entry(path: &str, entry: &'n Entry) -> At<'n> {
        // What is said about a whole list or map, or about nothing, is said at its key.
        let spot = match entry.value.value {
            Value::Text { .. } => entry.value.spot,
            Value::Null | Value::List(_) | Value::Map(_) => entry.spot,
        };
        At { place: Place { spot, path: joined(path, &entry.key) }, node: &entry.value }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// Any scalar, as it was written.
    pub(crate) fn text(&self, findings: &mut Findings) -> Option<&'n str> {
        let text = self.node.text();
        if text.is_none() {
            self.expected("a text", findings);
        }
        text
    }

    pub(crate) fn expected(&self, what: &str, findings: &mut Findings) {
        findings.error(&self.place, format!("expected {what}, found {}", self.node.kind()), "");
    }

    /// A text that must not be empty.
    pub(crate) fn filled_text(&self, findings: &mut Findings) -> Option<&'n str> {
        let text = self.text(findings)?;
        if text.is_empty() {
            findings.error(&self.place, "the value is empty", "fill it in, or remove the key");
            return None;
        }
        Some(text)
    }

    pub(crate) fn convert<T>(&self, findings: &mut Findings, with: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.text(findings)?;
        match with(text) {
            Ok(value) => Some(value),
            Err((wrong, hint)) => {
                findings.error(&self.place, format!("`{}` {wrong}", shortened(text)), hint);
                None
            }
        }
    }

    pub(crate) fn truth(&self, findings: &mut Findings) -> Option<bool> {
        self.convert(findings, |text| units::truth(text).ok_or(("is not a truth value", "write `true` or `false`")))
    }

    pub(crate) fn duration_ms(&self, findings: &mut Findings) -> Option<u64> {
        self.convert(findings, units::duration_ms)
    }

    pub(crate) fn size_bytes(&self, findings: &mut Findings) -> Option<u64> {
        self.convert(findings, units::size_bytes)
    }

    pub(crate) fn cpu_millis(&self, findings: &mut Findings) -> Option<u64> {
        self.convert(findings, units::cpu_millis)
    }

    pub(crate) fn file_mode(&self, findings: &mut Findings) -> Option<u32> {
        self.convert(findings, units::file_mode)
    }

    pub(crate) fn decimal(&self, findings: &mut Findings) -> Option<f64> {
        self.convert(findings, |text| units::decimal(text).ok_or(("is not a number", "")))
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn whole(&self, min: u64, max: u64, findings: &mut Findings) -> Option<u64> {
        let text = self.text(findings)?;
        let digits = text.trim();
        let number = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
        match number {
            Some(number) if (min..=max).contains(&number) => Some(number),
            Some(_) | None => {
                let message = format!("`{}` is not a whole number from {min} to {max}", shortened(text));
                findings.error(&self.place, message, "");
                None
            }
        }
    }

    pub(crate) fn whole_u32(&self, min: u32, max: u32, findings: &mut Findings) -> Option<u32> {
        self.whole(u64::from(min), u64::from(max), findings).and_then(|number| u32::try_from(number).ok())
    }

    /// One of the words of a table.
    pub(crate) fn one_of<T: Copy>(&self, table: &[(&'static str, T)], findings: &mut Findings) -> Option<T> {
        let text = self.text(findings)?;
        if let Some((_, value)) = table.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let choices: Vec<String> = table.iter().map(|(word, _)| format!("`{word}`")).collect();
        let hint = match words::closest(text, table.iter().map(|(word, _)| *word)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => String::new(),
        };
        findings.error(&self.place, format!("`{}` is not one of {}", shortened(text), choices.join(", ")), hint);
        None
    }

    /// The items of a list; anything else is an error.
    pub(crate) fn list(&self, findings: &mut Findings) -> Vec<At<'n>> {
        match &self.node.value {
            Value::List(items) => self.numbered(items, findings),
            Value::Null => Vec::new(),
            Value::Text { .. } | Value::Map(_) => {
                self.expected("a list", findings);
                Vec::new()
            }
        }
    }

    fn numbered(&self, items: &'n [Node], findings: &mut Findings) -> Vec<At<'n>> {
        if items.len() > ITEMS_MAX {
            findings.error(&self.place, format!("the list has more than {ITEMS_MAX} items"), "");
            return Vec::new();
        }
        let path = &self.place.path;
        let at = |(index, node): (usize, &'n Node)| At {
            place: Place { spot: node.spot, path: format!("{path}[{index}]") },
            node,
        };
        items.iter().enumerate().map(at).collect()
    }

    /// One item, or a list of them.
    pub(crate) fn one_or_list(&self, findings: &mut Findings) -> Vec<At<'n>> {
        match &self.node.value {
            Value::List(items) => self.numbered(items, findings),
            Value::Null => Vec::new(),
            Value::Text { .. } | Value::Map(_) => vec![self.clone()],
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, findings: &mut Findings) -> Vec<String> {
        self.list(findings).iter().filter_map(|item| item.text(findings)).map(String::from).collect()
    }

    /// One text, or a list of them.
    pub(crate) fn text_or_texts(&self, findings: &mut Findings) -> Vec<String> {
        self.one_or_list(findings).iter().filter_map(|item| item.text(findings)).map(String::from).collect()
    }

    /// The members of a map with free keys.
    pub(crate) fn members(&self, findings: &mut Findings) -> Vec<(&'n Entry, At<'n>)> {
        match &self.node.value {
            Value::Map(entries) if entries.len() > ITEMS_MAX => {
                findings.error(&self.place, format!("the map has more than {ITEMS_MAX} keys"), "");
                Vec::new()
            }
            Value::Map(entries) => entries.iter().map(|entry| (entry, self.member(entry))).collect(),
            Value::Null => Vec::new(),
            Value::Text { .. } | Value::List(_) => {
                self.expected("a map", findings);
                Vec::new()
            }
        }
    }

    /// `{NAME: value}` or `["NAME=value"]`; a value that is missing is `None`. `separators` part name and value.
    pub(crate) fn pairs(&self, separators: &[char], findings: &mut Findings) -> Vec<Pair<'n>> {
        if self.is_list() {
            let mut pairs = Vec::new();
            for item in self.list(findings) {
                let Some(text) = item.text(findings) else { continue };
                let (name, value) = match text.split_once(separators) {
                    Some((name, value)) => (name, Some(value)),
                    None => (text, None),
                };
                pairs.push(Pair { name, value, at: item });
            }
            return pairs;
        }
        let mut pairs = Vec::new();
        for (entry, at) in self.members(findings) {
            let value = if at.is_null() { None } else { at.text(findings) };
            if value.is_some() || at.is_null() {
                pairs.push(Pair { name: &entry.key, value, at });
            }
        }
        pairs
    }

    /// Pairs as a map, in which a missing value is empty.
    pub(crate) fn text_map(&self, findings: &mut Findings) -> BTreeMap<String, String> {
        let pairs = self.pairs(&['='], findings);
        pairs.into_iter().map(|pair| (pair.name.to_string(), pair.value.unwrap_or_default().to_string())).collect()
    }

    /// A map with known keys.
    pub(crate) fn fields(&self, findings: &mut Findings) -> Option<Fields<'n>> {
        match &self.node.value {
            Value::Map(entries) => Some(Fields { path: self.place.path.clone(), entries, asked: Vec::new() }),
            Value::Null | Value::Text { .. } | Value::List(_) => {
                self.expected("a map", findings);
                None
            }
        }
    }
}

/// One `NAME=value`.
#[derive(Debug, Clone)]
pub(crate) struct Pair<'n> {
    pub(crate) name: &'n str,
    pub(crate) value: Option<&'n str>,
    pub(crate) at: At<'n>,
}

/// A map being read key by key.
pub(crate) struct Fields<'n> {
    path: String,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The value of a key, unless it is missing or null.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<At<'n>> {
        self.take_even_null(name).filter(|at| !at.is_null())
    }

    /// As [`Fields::take`], but an empty text counts as missing: it comes of a variable that is not set.
    pub(crate) fn take_filled(&mut self, name: &'static str) -> Option<At<'n>> {
        self.take(name).filter(|at| at.node.text() != Some(""))
    }

    pub(crate) fn take_even_null(&mut self, name: &'static str) -> Option<At<'n>> {
        self.asked.push(name);
        self.entries.iter().find(|entry| entry.key == name).map(|entry| At::of_entry(&self.path, entry))
    }

    pub(crate) fn truth(&mut self, name: &'static str, findings: &mut Findings) -> bool {
        self.take(name).and_then(|at| at.truth(findings)).unwrap_or_default()
    }

    pub(crate) fn text(&mut self, name: &'static str, findings: &mut Findings) -> Option<String> {
        self.take(name).and_then(|at| at.text(findings)).map(String::from)
    }

    pub(crate) fn texts(&mut self, name: &'static str, findings: &mut Findings) -> Vec<String> {
        self.take(name).map(|at| at.text_or_texts(findings)).unwrap_or_default()
    }

    /// The keys nobody asked for, for maps in which any key may stand.
    pub(crate) fn rest(self) -> Vec<(String, Place)> {
        let left = self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str()));
        left.map(|entry| (entry.key.clone(), Place { spot: entry.spot, path: joined(&self.path, &entry.key) }))
            .collect()
    }

    /// Reports every key that was not asked for: those of `instead` as a warning, others as an error. Keys that start
    /// with `x-` are the writer's own.
    pub(crate) fn finish(self, instead: Instead, findings: &mut Findings) {
        self.finish_with(instead, &[], findings);
    }

    /// As [`Fields::finish`], with advice for unknown keys that have a place elsewhere.
    pub(crate) fn finish_with(self, instead: Instead, elsewhere: Elsewhere, findings: &mut Findings) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.asked.contains(&key) || key.starts_with("x-") {
                continue;
            }
            let place = Place { spot: entry.spot, path: joined(&self.path, key) };
            if let Some((_, what)) = instead.iter().find(|(name, _)| *name == key) {
                if is_asked_for(&entry.value) {
                    findings.warn(&place, format!("`{key}` is not honoured"), *what);
                }
                continue;
            }
            let moved = elsewhere.iter().find(|(name, _)| *name == key).map(|(_, advice)| advice.to_string());
            let known = self.asked.iter().copied().chain(instead.iter().map(|(name, _)| *name));
            let hint = match (moved, words::closest(key, known)) {
                (Some(advice), _) => advice,
                (None, Some(meant)) => format!("did you mean `{meant}`?"),
                (None, None) if self.path.is_empty() => "a key of your own starts with `x-`".to_string(),
                (None, None) => format!("a key of your own starts with `x-`; `{}` knows no such key", self.path),
            };
            findings.error(&place, format!("unknown key `{}`", shortened(key)), hint);
        }
    }
}

/// `privileged: false` asks for nothing.
fn is_asked_for(node: &Node) -> bool {
    match &node.value {
        Value::Null => false,
        Value::Text { text, .. } => !text.is_empty() && text != "false",
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
    }
}

fn joined(path: &str, key: &str) -> String {
    let key = shortened(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A value in a message: long ones are cut, control characters do not reach a terminal.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut out: String = text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    out
}
