//! `${NAME}` and its forms, as the compose specification has them.
//!
//! Pure text to text. Never knows where variables come from or which files they are used in.

use std::collections::BTreeMap;

/// `${A:-${B:-${C}}}` nests; nobody writes more.
const NESTING_MAX: usize = 16;
/// One value may not grow beyond this, whatever its variables hold.
const VALUE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpolated {
    pub text: String,
    /// Variables that were needed, had no default and are not set: they became empty.
    pub unset: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpolateError {
    #[error("`{found}` does not name a variable")]
    NotAName { found: String },
    #[error("`${{` is never closed")]
    Unclosed,
    #[error("variable `{name}` is required: {message}")]
    Required { name: String, message: String },
    #[error("defaults nest more than {NESTING_MAX} deep")]
    TooDeep,
    #[error("the value grows beyond {VALUE_BYTES_MAX} bytes")]
    TooLong,
}

impl InterpolateError {
    pub fn hint(&self) -> &'static str {
        match self {
            InterpolateError::NotAName { .. } => "write `$$` for a dollar sign, `${NAME}` for a variable",
            InterpolateError::Unclosed => "write `${NAME}`, or `$$` for a dollar sign",
            InterpolateError::Required { .. } => "set it in the environment or in `.env` beside the stack file",
            InterpolateError::TooDeep | InterpolateError::TooLong => "",
        }
    }
}

/// Fills in `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
/// `${NAME:+other}`, `${NAME+other}`; `$$` is a dollar sign, as is one that no name follows. Defaults, messages and others may hold variables too.
pub fn interpolate(text: &str, variables: &BTreeMap<String, String>) -> Result<Interpolated, InterpolateError> {
    let mut unset = Vec::new();
    let text = fill(text, variables, &mut unset, 0)?;
    Ok(Interpolated { text, unset })
}

fn fill(
    text: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    if depth > NESTING_MAX {
        return Err(InterpolateError::TooDeep);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{') {
            let end = closing_brace(inside).ok_or(InterpolateError::Unclosed)?;
            out.push_str(&braced(&inside[..end], variables, unset, depth)?);
            rest = &inside[end + 1..];
        } else {
            let length = name_length(rest);
            if length == 0 {
                // `$(`, `$1`, `$` at the end: for a shell or a pattern, and compose leaves it too.
                out.push('$');
            } else {
                out.push_str(&value_or_empty(&rest[..length], variables, unset));
                rest = &rest[length..];
            }
        }
        if out.len() > VALUE_BYTES_MAX {
            return Err(InterpolateError::TooLong);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands between `${` and its `}`.
fn braced(
    inside: &str,
    variables: &BTreeMap<String, String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    let length = name_length(inside);
    let (name, operation) = inside.split_at(length);
    if name.is_empty() {
        return Err(InterpolateError::NotAName { found: format!("${{{inside}}}") });
    }
    let value = variables.get(name);
    // A colon makes an empty variable count as one that is not set.
    let (present, operation) = match operation.strip_prefix(':') {
        Some(operation) => (value.filter(|value| !value.is_empty()), operation),
        None => (value, operation),
    };
    if let Some(default) = operation.strip_prefix('-') {
        match present {
            Some(value) => Ok(value.clone()),
            None => fill(default, variables, unset, depth + 1),
        }
    } else if let Some(other) = operation.strip_prefix('+') {
        if present.is_some() { fill(other, variables, unset, depth + 1) } else { Ok(String::new()) }
    } else if let Some(message) = operation.strip_prefix('?') {
        match present {
            Some(value) => Ok(value.clone()),
            None => {
                let message = fill(message, variables, unset, depth + 1)?;
                let message = if message.is_empty() { "it is not set".to_string() } else { message };
                Err(InterpolateError::Required { name: name.to_string(), message })
            }
        }
    } else if inside.len() == length {
        Ok(value_or_empty(name, variables, unset))
    } else {
        Err(InterpolateError::NotAName { found: format!("${{{inside}}}") })
    }
}

fn value_or_empty(name: &str, variables: &BTreeMap<String, String>, unset: &mut Vec<String>) -> String {
    match variables.get(name) {
        Some(value) => value.clone(),
        None => {
            if !unset.iter().any(|known| known == name) {
                unset.push(name.to_string());
            }
            String::new()
        }
    }
}

fn name_length(text: &str) -> usize {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well {
        return 0;
    }
    text.find(|next: char| !next.is_ascii_alphanumeric() && next != '_').unwrap_or(text.len())
}

/// Where the `}` is that closes what was opened before `text`, past nested `${…}`.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'$' if bytes.get(at + 1) == Some(&b'$') => at += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let variables = [("A", "a"), ("EMPTY", ""), ("B", "b")].map(|(k, v)| (k.to_string(), v.to_string())).into();
        let found = interpolate(text, &variables).map(|done| done.text).map_err(|error| error.to_string());
        assert!(found.as_deref().map_err(String::as_str) == expected, "{text:.100}: {found:.200?}");
    }

    #[test]
    fn every_form_is_filled_in() {
        check("$A-${B}/$$A", Ok("a-b/$A"));
        check("${X:-d}${X-d}${EMPTY:-d}${EMPTY-d}", Ok("ddd"));
        check("${A:+o}${A+o}${EMPTY:+o}${EMPTY+o}${X+o}", Ok("ooo"));
        check("${X:-${Y:-${A}}}!", Ok("a!"));
        check("${X:-a$${b}}", Ok("a${b}"));
        check("${A:?no}${EMPTY?no}", Ok("a"));
        check("$X.$UNSET", Ok("."));
        check("${X:-}", Ok(""));
        check("a$1 $(b) $ ^c$", Ok("a$1 $(b) $ ^c$"));
        check("äö$A", Ok("äöa"));
    }

    #[test]
    fn what_cannot_be_filled_in_is_said() {
        check("${X:?give it}", Err("variable `X` is required: give it"));
        check("${X?}", Err("variable `X` is required: it is not set"));
        check("${EMPTY:?needs ${A}}", Err("variable `EMPTY` is required: needs a"));
        check("${}", Err("`${}` does not name a variable"));
        check("${A!}", Err("`${A!}` does not name a variable"));
        check("${A", Err("`${` is never closed"));
        check(&format!("{}x{}", "${A+".repeat(40), "}".repeat(40)), Err("defaults nest more than 16 deep"));
        let long = "y".repeat(600_000);
        check(&format!("${{A}} {long} $A {long} $A"), Err("the value grows beyond 1048576 bytes"));
    }

    #[test]
    fn unset_variables_are_named_once() {
        let found = interpolate("$X ${Y} $X ${Z:-d}", &BTreeMap::new()).expect("valid");
        assert_eq!(found.unset, ["X", "Y"]);
    }
}
