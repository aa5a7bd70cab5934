//! How the tests call the parser.

use stackfile::{Input, Parsed, parse};
use std::collections::BTreeMap;
use wire::diagnostic::{Diagnostic, Report};
use wire::spec::{Service, Stack};

/// A stack file with what it refers to.
#[derive(Default)]
pub(crate) struct Case {
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) directory: &'static str,
}

impl Case {
    pub(crate) fn new() -> Case {
        Case { directory: "/srv/shop", ..Case::default() }
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Case {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(crate) fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Case {
        self.files.insert(path.into(), content.into());
        self
    }

    pub(crate) fn parse(&self, source: impl AsRef<[u8]>) -> Parsed {
        parse(&self.input(source.as_ref()))
    }

    pub(crate) fn input<'a>(&'a self, source: &'a [u8]) -> Input<'a> {
        Input { name: "shop", source, variables: &self.variables, files: &self.files, directory: self.directory }
    }

    /// The stack of a file without errors.
    #[track_caller]
    pub(crate) fn stack(&self, source: &str) -> Stack {
        let parsed = self.parse(source);
        let shown = stackfile::render(&parsed.report, "compose.yml", source.as_bytes());
        parsed.stack.unwrap_or_else(|| panic!("{shown}"))
    }

    /// One service `web` with an image and these further lines, unindented.
    #[track_caller]
    pub(crate) fn web(&self, lines: &str) -> Service {
        self.stack(&web_source(lines)).services.remove("web").expect("the service is declared")
    }
}

pub(crate) fn web_source(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  web:\n    image: nginx\n{indented}")
}

/// `line:column path: message`.
pub(crate) fn brief(found: &Diagnostic) -> String {
    format!("{}:{} {}: {}", found.line, found.column, found.path, found.message)
}

pub(crate) fn errors(report: &Report) -> Vec<String> {
    report.errors.iter().map(brief).collect()
}

pub(crate) fn warnings(report: &Report) -> Vec<String> {
    report.warnings.iter().map(brief).collect()
}
