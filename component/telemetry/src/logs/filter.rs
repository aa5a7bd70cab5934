//! Which lines a query wants: from when to when, and with what text. Pure.

use super::{LINES_MAX, Query, QueryError};
use regex::{Regex, RegexBuilder};

/// Longest pattern taken.
pub const GREP_BYTES_MAX: usize = 1_024;

/// Memory a compiled pattern may take: enough for any a person writes, too little for `(\w{1000}){1000}`.
const PATTERN_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) since_ms: u64,
    pub(super) until_ms: u64,
    pub(super) lines_max: usize,
    grep: Grep,
}

#[derive(Debug, Clone)]
enum Grep {
    All,
    Text(String),
    Pattern(Regex),
}

impl Filter {
    pub(super) fn new(query: &Query) -> Result<Filter, QueryError> {
        Ok(Filter {
            since_ms: query.since_ms.unwrap_or(0),
            until_ms: query.until_ms.unwrap_or(u64::MAX),
            lines_max: query.tail.unwrap_or(LINES_MAX).min(LINES_MAX),
            grep: grep(query.grep.as_deref().unwrap_or_default())?,
        })
    }

    pub(super) fn wants(&self, text: &str) -> bool {
        match &self.grep {
            Grep::All => true,
            Grep::Text(part) => text.contains(part),
            Grep::Pattern(pattern) => pattern.is_match(text),
        }
    }

    pub(super) fn covers(&self, time_ms: u64) -> bool {
        (self.since_ms..=self.until_ms).contains(&time_ms)
    }
}

fn grep(grep: &str) -> Result<Grep, QueryError> {
    if grep.len() > GREP_BYTES_MAX {
        return Err(QueryError::PatternLong(grep.len()));
    }
    if grep.is_empty() {
        return Ok(Grep::All);
    }
    let (inner, either_case) = match grep.strip_suffix("/i") {
        Some(inner) => (inner.strip_prefix('/'), true),
        None => (grep.strip_suffix('/').and_then(|inner| inner.strip_prefix('/')), false),
    };
    // A lone slash, or `/i`, is text.
    let Some(pattern) = inner.filter(|inner| !inner.is_empty()) else { return Ok(Grep::Text(grep.to_owned())) };
    RegexBuilder::new(pattern)
        .case_insensitive(either_case)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
        .map(Grep::Pattern)
        .map_err(|error| QueryError::Pattern(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        let query = Query { grep: Some(pattern.to_owned()), ..Query::default() };
        assert_eq!(Filter::new(&query).expect("is a pattern").wants(text), expected, "{pattern} in {text}");
    }

    #[test]
    fn text_and_patterns_select_lines() {
        check("", "anything", true);
        check("b.c", "abc", false);
        check("b.c", "ab.cd", true);
        check("/b.c/", "abxc", true);
        check("/^B/", "b", false);
        check("/^B/i", "b", true);
        check("/", "a/b", true);
        check("//", "a//b", true);
        check("/i", "a/in", true);
        check("/usr", "/usr/bin", true);
        check("usr/", "/usr/bin", true);
    }

    #[test]
    fn patterns_too_long_wrong_or_costly_are_refused() {
        let refused = |pattern: String| {
            Filter::new(&Query { grep: Some(pattern), ..Query::default() }).expect_err("is refused").to_string()
        };
        assert_eq!(refused("a".repeat(1_025)), "the pattern has 1025 bytes, more than 1024");
        assert_eq!(refused("/(/".to_owned()), "the pattern is not a regular expression");
        assert_eq!(refused(r"/(\w{1000}){1000}/".to_owned()), "the pattern is not a regular expression");
    }
}
