//! Why a command failed, as a person reads it: what was attempted, the hint, the code.

use std::process::ExitCode;
use wire::api::Problem;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Boxed: results that fail are rare and should not make those that do not larger.
    problem: Box<Problem>,
    /// Used wrongly rather than failed.
    usage: bool,
    /// Shown before the message: a stack file's errors in their places.
    detail: String,
}

impl Failure {
    /// Something on this side.
    pub(crate) fn local(message: impl Into<String>) -> Failure {
        let message = message.into();
        let problem = Problem { code: String::new(), message, hint: String::new(), diagnostics: Vec::new() };
        Failure { problem: Box::new(problem), usage: false, detail: String::new() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { usage: true, ..Failure::local(message) }
    }

    pub(crate) fn code(mut self, code: &str) -> Failure {
        code.clone_into(&mut self.problem.code);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.problem.hint = hint.into();
        self
    }

    pub(crate) fn detail(mut self, detail: String) -> Failure {
        self.detail = detail;
        self
    }

    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Prints it and says how the process ends.
    pub(crate) fn show(&self, json: bool) -> ExitCode {
        if json {
            let text = serde_json::to_string_pretty(&self.problem).expect("a problem is plain data");
            println!("{text}");
        } else {
            if !self.detail.is_empty() {
                eprintln!("{}", self.detail.trim_end());
            }
            let code = if self.problem.code.is_empty() { String::new() } else { format!(" [{}]", self.problem.code) };
            eprintln!("error: {}{code}", self.problem.message);
            if !self.problem.hint.is_empty() {
                eprintln!("  hint: {}", self.problem.hint);
            }
        }
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure { problem: Box::new(problem), usage: false, detail: String::new() }
    }
}
