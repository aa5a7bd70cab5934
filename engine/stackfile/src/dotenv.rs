//! `.env` files and `env_file`: lines of `NAME=value`.
//!
//! Pure. Variables inside values refer to names further up in the same file; others stay as written, since a password
//! with a dollar sign is commoner in such files than a reference to the outside.

use crate::interpolate::interpolate;
use std::collections::BTreeMap;
use wire::diagnostic::Diagnostic;

/// Larger files hold something other than settings.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Reads a `.env` file. The first error ends the reading; its `path` is empty, its line that of the file.
pub fn dotenv(text: &[u8]) -> Result<BTreeMap<String, String>, Diagnostic> {
    let text = decoded(text)?;
    let mut found = BTreeMap::new();
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((name, value)) = line.split_once(['=', ':']) else {
            // A bare name takes its value from the caller's environment, where it is already.
            if is_name(line.trim_end()) {
                continue;
            }
            return Err(wrong(number, 1, "the line is no `NAME=value`", "start comments with `#`"));
        };
        let name = name.trim_end();
        if !is_name(name) {
            let hint = "names hold letters, digits, `_`, `.` and `-`, and do not start with a digit";
            return Err(wrong(
                number,
                1,
                &format!("`{}` is not a variable's name", crate::read::shortened(name)),
                hint,
            ));
        }
        let mut value = value.trim_start().to_string();
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
        if let Some(quote) = quote {
            // A quoted value may go on over several lines.
            while closing_quote(&value, quote).is_none() {
                match lines.next() {
                    Some((_, next)) => {
                        value.push('\n');
                        value.push_str(next);
                    }
                    None => return Err(wrong(number, 1, &format!("the quote {quote} is never closed"), "")),
                }
            }
        }
        found.insert(name.to_string(), value_of(&value, quote, &found));
    }
    Ok(found)
}

/// As [`dotenv`], but values are what stands after the `=`: no quotes, no comments, no variables.
pub(crate) fn raw(text: &[u8]) -> Result<BTreeMap<String, String>, Diagnostic> {
    let lines = decoded(text)?.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect())
}

fn decoded(text: &[u8]) -> Result<&str, Diagnostic> {
    let whole = |message: &str| wrong(0, 0, message, "");
    if text.len() > TEXT_BYTES_MAX {
        return Err(whole("the file is larger than 1 MiB"));
    }
    let text = std::str::from_utf8(text).map_err(|_| whole("the file is not UTF-8 text"))?;
    if text.contains('\0') {
        return Err(whole("the file holds a NUL byte"));
    }
    Ok(text)
}

fn value_of(raw: &str, quote: Option<char>, known: &BTreeMap<String, String>) -> String {
    match quote {
        Some(quote) => {
            let end = closing_quote(raw, quote).unwrap_or(raw.len());
            let inside = &raw[1..end];
            if quote == '\'' { inside.to_string() } else { filled(&unescaped(inside), known) }
        }
        None => {
            let comment = raw.match_indices('#').find(|(at, _)| *at == 0 || raw[..*at].ends_with([' ', '\t']));
            let value = comment.map_or(raw, |(at, _)| &raw[..at]);
            filled(value.trim_end(), known)
        }
    }
}

/// Fills in variables if every one of them is known.
fn filled(value: &str, known: &BTreeMap<String, String>) -> String {
    match interpolate(value, known) {
        Ok(done) if done.unset.is_empty() => done.text,
        Ok(_) | Err(_) => value.to_string(),
    }
}

/// Where the quote that opens `text` ends.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if letter == '\\' && quote == '"' {
            escaped = true;
        } else if letter == quote {
            return Some(at);
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(escaped @ ('"' | '\\')) => out.push(escaped),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_alphabetic() || first == '_');
    starts_well && name.chars().all(|next| next.is_alphanumeric() || matches!(next, '_' | '.' | '-'))
}

fn wrong(line: u32, column: u32, message: &str, hint: &str) -> Diagnostic {
    Diagnostic { line, column, path: String::new(), message: message.to_string(), hint: hint.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[(&str, &str)], &str>) {
        let found = dotenv(text.as_bytes()).map_err(|error| format!("{}: {}", error.line, error.message));
        let expected = expected
            .map(|pairs| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>())
            .map_err(String::from);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn the_forms_people_write() {
        check(
            "A=1\n# c\n\nexport B = two words # c\nC=#no\nD=a#b",
            Ok(&[("A", "1"), ("B", "two words"), ("C", ""), ("D", "a#b")]),
        );
        check(
            "A=\"x\\n\\\"y\\\"\" # c\nB='a $A'\nC=\"l1\nl2\"",
            Ok(&[("A", "x\n\"y\""), ("B", "a $A"), ("C", "l1\nl2")]),
        );
        check("A=1\nB=${A}2\nC=pa$$w0rd\nD=$OUT", Ok(&[("A", "1"), ("B", "12"), ("C", "pa$w0rd"), ("D", "$OUT")]));
        check("BARE\nA: yaml\r\n", Ok(&[("A", "yaml")]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        check("A=1\nnot a line", Err("2: the line is no `NAME=value`"));
        check("1A=1", Err("1: `1A` is not a variable's name"));
        check("\nA=\"open\n", Err("2: the quote \" is never closed"));
        check("A=\0", Err("0: the file holds a NUL byte"));
    }
}
