//! A compose file to a spec, with every error at its place.
//!
//! Owns the reading of stack files: YAML with positions, variables, `extends` and `include`, every key of the compose
//! specification, Traefik labels, and the checks across services. Promises: never panics whatever the bytes; all
//! errors at once, in file order, each with line, column, path and advice; each key is honoured, or a warning says
//! what happens instead. Pure: never reads a file, the environment or a clock, and knows no machine.

mod dotenv;
mod files;
mod findings;
mod image;
mod interpolate;
mod load;
mod read;
mod references;
mod relations;
mod render;
mod route;
mod service;
mod stack;
mod template;
mod traefik;
mod units;
mod words;
mod yaml;

use std::collections::BTreeMap;
use wire::diagnostic::Report;
use wire::spec::Stack;

pub use dotenv::dotenv;
pub use interpolate::{InterpolateError, Interpolated, interpolate};
pub use references::{Reference, ReferenceKind, gather, references};
pub use render::render;
pub use template::{TemplateContext, TemplateError, fill_templates};

/// A stack file with everything it refers to.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The stack's name; empty to take the file's own `name:`.
    pub name: &'a str,
    /// The file, whatever it holds.
    pub source: &'a [u8],
    /// For `${NAME}`: the caller's environment over its `.env`.
    pub variables: &'a BTreeMap<String, String>,
    /// What [`references`] asks for, by the path as written or as [`gather`] names it.
    pub files: &'a BTreeMap<String, Vec<u8>>,
    /// The folder relative paths start from, absolute; empty when there is none, as in a browser.
    pub directory: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// Present exactly when there are no errors.
    pub stack: Option<Stack>,
    pub report: Report,
}

/// Reads a stack file in order to deploy it.
pub fn parse(input: &Input<'_>) -> Parsed {
    stack::parse(input, false)
}

/// Reads a stack file in order to say whether it is right: files it refers to need not be at hand, which is only
/// worth a warning.
pub fn check(input: &Input<'_>) -> Report {
    stack::parse(input, true).report
}
