//! Whether a name in a certificate is that of a host.

/// As browsers have it (RFC 9525): `*.example.org` stands for one label, no other wildcard counts. Both in lower case.
pub fn matches(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(suffix) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix && !suffix.is_empty())
        }
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_wildcard_is_one_label() {
        let check = |name: &str, host: &str, expected: bool| assert_eq!(matches(name, host), expected, "{name} {host}");
        check("a.test", "a.test", true);
        check("a.test", "b.test", false);
        check("*.a.test", "x.a.test", true);
        check("*.a.test", "x.y.a.test", false);
        check("*.a.test", "a.test", false);
        check("*.a.test", ".a.test", false);
        check("*.", "a.", false);
        check("*", "a", false);
    }
}
