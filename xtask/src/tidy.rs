//! What the house asks of its files, a rule per module. A rule reads the [`tree::Tree`] and returns findings.

mod changelog;
mod errors;
mod links;
mod manifest;
mod map;
mod names;
mod rust;
mod source;
mod text;
pub(crate) mod tree;
mod web;

use std::fmt;
use tree::Tree;

/// One place that breaks a rule, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1; 0 is the file as a whole.
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) advice: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line.max(1), self.rule, self.advice)
    }
}

/// Every finding of every rule, by place.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let rules: [fn(&Tree) -> Vec<Finding>; 9] = [
        manifest::check,
        map::check,
        names::check,
        rust::check,
        errors::check,
        changelog::check,
        text::check,
        links::check,
        web::check,
    ];
    let mut findings: Vec<Finding> = rules.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings
}

/// Compares what a rule says of a tree with `path:line: rule` lines.
#[cfg(test)]
fn expect(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expected: &[&str]) {
    let tree = Tree::of(files);
    let found: Vec<String> =
        rule(&tree).iter().map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.rule)).collect();
    assert_eq!(found, expected);
}
