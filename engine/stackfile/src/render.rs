//! A report as text for a terminal: each finding with its line and a mark under the place.

use std::fmt::Write as _;
use wire::diagnostic::{Diagnostic, Report};

/// Longer lines are cut around the place, so that the mark stays in sight.
const LINE_LETTERS_MAX: usize = 160;

/// Lines beyond this are not shown: nobody wrote them by hand, and finding the place in them costs.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Errors and warnings in the order of the file, as compilers print them. Plain text: the caller colours.
pub fn render(report: &Report, file_name: &str, source: &[u8]) -> String {
    let text = String::from_utf8_lossy(source);
    let lines: Vec<&str> = text.lines().collect();
    let errors = report.errors.iter().map(|found| ("error", found));
    let warnings = report.warnings.iter().map(|found| ("warning", found));
    let mut found: Vec<(&str, &Diagnostic)> = errors.chain(warnings).collect();
    found.sort_by_key(|(_, finding)| (finding.line, finding.column));
    let mut out = String::new();
    for (word, finding) in found {
        render_one(&mut out, word, finding, file_name, &lines);
    }
    out
}

fn render_one(out: &mut String, word: &str, finding: &Diagnostic, file_name: &str, lines: &[&str]) {
    let width = finding.line.to_string().len();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{word}: {}", finding.message);
    if finding.line == 0 {
        let _ = writeln!(out, " --> {file_name}");
    } else {
        let _ = writeln!(out, "{:width$}--> {file_name}:{}:{}", " ", finding.line, finding.column);
        let index = usize::try_from(finding.line - 1).unwrap_or(usize::MAX);
        if let Some(line) = lines.get(index).filter(|line| line.len() <= LINE_BYTES_MAX) {
            let (shown, mark) = windowed(line, usize::try_from(finding.column).unwrap_or(1).max(1) - 1);
            let _ = writeln!(out, "{:width$} |", "");
            let _ = writeln!(out, "{} | {shown}", finding.line);
            let _ = writeln!(out, "{:width$} | {}^", "", " ".repeat(mark));
        }
    }
    if !finding.path.is_empty() {
        let _ = writeln!(out, "{:width$} = at: {}", "", finding.path);
    }
    if !finding.hint.is_empty() {
        let _ = writeln!(out, "{:width$} = hint: {}", "", finding.hint);
    }
    out.push('\n');
}

/// The part of a line to show, and how far the mark stands in it. Tabs and control characters become blanks.
fn windowed(line: &str, column: usize) -> (String, usize) {
    let letters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = column.min(letters.len());
    let start = if letters.len() <= LINE_LETTERS_MAX { 0 } else { column.saturating_sub(LINE_LETTERS_MAX / 2) };
    let shown: String = letters.iter().skip(start).take(LINE_LETTERS_MAX).collect();
    (shown.trim_end().to_string(), column - start)
}
