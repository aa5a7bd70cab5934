//! The challenge a registry answers an unauthorised request with (RFC 9110 §11, and the Docker token flow).
//!
//! Pure: header text in, what to do out.

use serde::Deserialize;

/// What a registry wants to see before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Fetch a token at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    /// Send user name and password with each request.
    Basic,
}

/// What a token server answers; the older field is `token`.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl TokenAnswer {
    pub(crate) fn token(self) -> Option<String> {
        self.token.or(self.access_token).filter(|token| !token.is_empty())
    }
}

/// Reads a `WWW-Authenticate` value. A scheme we do not speak is `None`.
pub(crate) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest;
    while let Some((name, value, after)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
        rest = after;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// The next `name=value` or `name="value"`, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', ',', '\t']);
    let (name, rest) = text.split_once('=')?;
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(',').unwrap_or(rest.len());
        return Some((name.trim(), rest[..end].trim().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, letter) in quoted.char_indices() {
        match letter {
            _ if escaped => {
                value.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((name.trim(), value, &quoted[at + 1..])),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_read() {
        let check = |header: &str, expected: Option<Challenge>| assert_eq!(challenge(header), expected, "{header:?}");
        check(
            r#"Bearer realm="https://a.example/token",service="r",scope="repository:x/y:pull,push""#,
            bearer("https://a.example/token", Some("r"), Some("repository:x/y:pull,push")),
        );
        check(r#"bearer service=r , realm="h\"x""#, bearer("h\"x", Some("r"), None));
        check(r#"Basic realm="any""#, Some(Challenge::Basic));
        check("Negotiate abc", None);
        check(r#"Bearer service="r""#, None);
        check(r#"Bearer realm="open"#, None);
        check("", None);
    }
}
