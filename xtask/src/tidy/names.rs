//! Names that say nothing: code without a room asks for the missing room to be named.

use super::Finding;
use super::tree::Tree;
use std::collections::BTreeSet;

const EMPTY: [&str; 8] = ["utils", "util", "common", "helpers", "helper", "misc", "manager", "managers"];
/// File types whose names we choose; a tool chooses those of its own configuration.
const OURS: [&str; 4] = [".rs", ".ts", ".mjs", ".svelte"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut folders = BTreeSet::new();
    for file in &tree.files {
        let Some(ending) = OURS.iter().find(|ending| file.path.ends_with(**ending)) else { continue };
        let stem = file.name().trim_end_matches(*ending);
        if is_empty(stem) {
            findings.push(Finding::new(&file.path, 0, "name", advice(stem)));
        }
        for part in file.path.split('/').rev().skip(1).filter(|part| is_empty(part)) {
            let end = file.path.find(part).map_or(0, |at| at + part.len());
            if folders.insert(file.path[..end].to_owned()) {
                findings.push(Finding::new(&file.path, 0, "name", advice(part)));
            }
        }
    }
    findings
}

fn is_empty(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    EMPTY.iter().any(|empty| lower == *empty || lower.ends_with(&format!("_{empty}")))
}

fn advice(name: &str) -> String {
    format!("`{name}` says nothing: name the one thing this code is about")
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn drawers_are_found_once_each() {
        expect(
            check,
            &[
                ("a/src/task_manager.rs", ""),
                ("a/src/utils.rs", ""),
                ("b/src/common/x.rs", ""),
                ("b/src/common/y.rs", ""),
                ("c/src/manage.rs", ""),
                ("docs/common.md", ""),
            ],
            &["a/src/task_manager.rs:0: name", "a/src/utils.rs:0: name", "b/src/common/x.rs:0: name"],
        );
    }
}
