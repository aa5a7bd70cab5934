//! What was found wrong while reading: collected, never printed, handed out in file order.
//!
//! Owns where a finding is. A finding inside a file that the main one extends or includes is reported at the line of
//! the main file that brought it in, with the other file's place in the message, since a reader has one file open.

use std::collections::{HashMap, HashSet};
use wire::diagnostic::{Diagnostic, Report};

/// A report longer than this helps nobody, and a hostile file must not make one of millions of lines.
const FINDINGS_MAX: usize = 500;

/// A place in one of the files; lines and columns count from 1, 0 is the whole file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Spot {
    /// Index into the files read so far; 0 is the main one.
    pub(crate) file: u16,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A spot together with the way to it through the document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) spot: Spot,
    pub(crate) path: String,
}

/// A file that takes part: the main one, or one that it extends or includes.
#[derive(Debug, Clone, Default)]
struct Origin {
    name: String,
    /// Where relative paths written in it start, seen from the main file's folder; empty for that folder itself.
    folder: String,
    /// The main file's line that brought it in.
    via: Spot,
}

pub(crate) struct Findings {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    origins: Vec<Origin>,
    /// Values that could not be filled in, about which everything is said.
    spoilt: HashSet<Spot>,
    /// Values in which a variable is missing, which may be why they are wrong.
    emptied: HashMap<Spot, String>,
    /// Whether files that the caller did not bring are only worth a warning.
    pub(crate) lenient: bool,
}

impl Findings {
    pub(crate) fn new(lenient: bool) -> Findings {
        Findings {
            errors: Vec::new(),
            warnings: Vec::new(),
            origins: vec![Origin::default()],
            spoilt: HashSet::new(),
            emptied: HashMap::new(),
            lenient,
        }
    }

    /// Registers another file, brought in at `via`.
    pub(crate) fn add_file(&mut self, name: &str, via: Spot) -> u16 {
        let via = self.in_main(via);
        let folder = name.rsplit_once('/').map(|(folder, _)| folder.to_string()).unwrap_or_default();
        self.origins.push(Origin { name: name.to_string(), folder, via });
        u16::try_from(self.origins.len() - 1).unwrap_or(u16::MAX)
    }

    pub(crate) fn file_count(&self) -> usize {
        self.origins.len()
    }

    /// The folder, seen from the main file's, that relative paths written at `spot` start from.
    pub(crate) fn folder(&self, spot: Spot) -> &str {
        self.origins.get(usize::from(spot.file)).map_or("", |origin| &origin.folder)
    }

    pub(crate) fn error(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        if self.spoilt.contains(&place.spot) {
            return;
        }
        let mut hint = hint.into();
        if let Some(name) = self.emptied.get(&place.spot) {
            let separator = if hint.is_empty() { "" } else { "; " };
            hint = format!("set the variable `{name}`, which is empty here{separator}{hint}");
        }
        let found = self.diagnostic(place, message.into(), hint);
        if !self.is_full() && !self.errors.contains(&found) {
            self.errors.push(found);
        }
    }

    pub(crate) fn warn(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        let found = self.diagnostic(place, message.into(), hint.into());
        if self.warnings.len() < FINDINGS_MAX && !self.warnings.contains(&found) {
            self.warnings.push(found);
        }
    }

    /// Nothing further is said about the value at this spot.
    pub(crate) fn spoil(&mut self, spot: Spot) {
        self.spoilt.insert(spot);
    }

    /// What is wrong with the value at this spot may be due to a variable that is not set.
    pub(crate) fn note_empty(&mut self, spot: Spot, variable: &str) {
        self.emptied.entry(spot).or_insert_with(|| variable.to_string());
    }

    /// A file that the caller should have brought and did not.
    pub(crate) fn missing_file(&mut self, place: &Place, message: String, hint: &str) {
        if self.lenient { self.warn(place, message, hint) } else { self.error(place, message, hint) }
    }

    /// How a message names a second place, such as the first of two duplicates.
    pub(crate) fn describe(&self, spot: Spot) -> String {
        match self.origins.get(usize::from(spot.file)) {
            Some(origin) if spot.file > 0 => format!("{} line {}", origin.name, spot.line),
            Some(_) | None => format!("line {}", spot.line),
        }
    }

    /// Further errors would not be kept: whoever makes many may stop.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= FINDINGS_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(crate) fn into_report(self) -> Report {
        let Findings { mut errors, mut warnings, .. } = self;
        errors.sort_by_key(|found| (found.line, found.column));
        warnings.sort_by_key(|found| (found.line, found.column));
        Report { ok: errors.is_empty(), errors, warnings }
    }

    fn in_main(&self, spot: Spot) -> Spot {
        match self.origins.get(usize::from(spot.file)) {
            Some(origin) if spot.file > 0 => origin.via,
            Some(_) | None => spot,
        }
    }

    fn diagnostic(&self, place: &Place, message: String, hint: String) -> Diagnostic {
        let main = self.in_main(place.spot);
        let message = match self.origins.get(usize::from(place.spot.file)) {
            Some(origin) if place.spot.file > 0 => {
                format!("in {} line {} column {}: {message}", origin.name, place.spot.line, place.spot.column)
            }
            Some(_) | None => message,
        };
        Diagnostic { line: main.line, column: main.column, path: place.path.clone(), message, hint }
    }
}
