//! Which files a stack file refers to, so that the caller can load them before it is parsed.
//!
//! Never complains: what is wrong with the file is said when it is parsed.

use crate::files::joined;
use crate::findings::Findings;
use crate::interpolate::interpolate;
use crate::yaml::{self, Node};
use std::collections::BTreeMap;

/// More would not be a stack file, and the caller opens each one.
const REFERENCES_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// As written, variables filled in. A relative one starts from the folder of the file that names it.
    pub path: String,
    /// False for `env_file: [{path: …, required: false}]`.
    pub required: bool,
    pub kind: ReferenceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceKind {
    EnvFile,
    LabelFile,
    Config,
    Secret,
    /// Another stack file, which may refer to further ones: ask for its references too, and give those with the
    /// folder of this one before them (`common/base.yml` that names `app.env` means `common/app.env`).
    Include,
    /// As [`ReferenceKind::Include`].
    Extends,
}

/// The files that `source` refers to, in the order of the file, each once.
pub fn references(source: &[u8], variables: &BTreeMap<String, String>) -> Vec<Reference> {
    let Some(root) = yaml::read(source, 0, &mut Findings::new(true)) else { return Vec::new() };
    let mut found = Found { variables, references: Vec::new() };
    for item in one_or_list(root.get("include")) {
        match item.get("path") {
            Some(path) => one_or_list(Some(path)).iter().for_each(|path| found.add(path, true, ReferenceKind::Include)),
            None => found.add(item, true, ReferenceKind::Include),
        }
        one_or_list(item.get("env_file")).iter().for_each(|path| found.add(path, true, ReferenceKind::EnvFile));
    }
    for service in members(root.get("services")) {
        for item in one_or_list(service.get("env_file")) {
            let required = item.get("required").and_then(Node::text).and_then(crate::units::truth).unwrap_or(true);
            found.add(item.get("path").unwrap_or(item), required, ReferenceKind::EnvFile);
        }
        one_or_list(service.get("label_file")).iter().for_each(|path| found.add(path, true, ReferenceKind::LabelFile));
        if let Some(file) = service.get("extends").and_then(|extends| extends.get("file")) {
            found.add(file, true, ReferenceKind::Extends);
        }
    }
    for (section, kind) in [("configs", ReferenceKind::Config), ("secrets", ReferenceKind::Secret)] {
        for declared in members(root.get(section)) {
            if let Some(file) = declared.get("file") {
                found.add(file, true, kind);
            }
        }
    }
    found.references
}

/// Every file that a stack file and the files it brings in refer to, by the path seen from the main one: what
/// [`crate::Input::files`] wants. `read` opens a file, or answers `None` when it is not there.
pub fn gather(
    source: &[u8],
    variables: &BTreeMap<String, String>,
    read: &mut dyn FnMut(&Reference) -> Option<Vec<u8>>,
) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut waiting: Vec<Reference> = references(source, variables);
    while let Some(mut reference) = waiting.pop() {
        reference.path = joined("", &reference.path);
        if files.contains_key(&reference.path) || files.len() >= REFERENCES_MAX {
            continue;
        }
        let Some(content) = read(&reference) else { continue };
        if matches!(reference.kind, ReferenceKind::Include | ReferenceKind::Extends) {
            let folder = reference.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let further = references(&content, variables).into_iter();
            waiting.extend(further.map(|next| Reference { path: joined(folder, &next.path), ..next }));
        }
        files.insert(reference.path, content);
    }
    files
}

struct Found<'v> {
    variables: &'v BTreeMap<String, String>,
    references: Vec<Reference>,
}

impl Found<'_> {
    fn add(&mut self, path: &Node, required: bool, kind: ReferenceKind) {
        let Some(text) = path.text() else { return };
        let Ok(filled) = interpolate(text, self.variables) else { return };
        let is_full = self.references.len() >= REFERENCES_MAX;
        let known = self.references.iter_mut().find(|known| known.path == filled.text && known.kind == kind);
        match known {
            Some(known) => known.required |= required,
            None if filled.text.is_empty() || is_full => {}
            None => self.references.push(Reference { path: filled.text, required, kind }),
        }
    }
}

fn one_or_list(node: Option<&Node>) -> Vec<&Node> {
    match node {
        Some(node) if node.items().is_empty() => vec![node],
        Some(node) => node.items().iter().collect(),
        None => Vec::new(),
    }
}

fn members(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    node.map(Node::entries).unwrap_or_default().iter().map(|entry| &entry.value)
}
