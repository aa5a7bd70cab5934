//! Whether a text can be an image reference: `[registry[:port]/]name[:tag][@digest]`.
//!
//! Pure. Never asks a registry.

use crate::units::Wrong;

const REFERENCE_BYTES_MAX: usize = 512;
const TAG_BYTES_MAX: usize = 128;

/// The machine's own root file system instead of an image.
pub(crate) const HOST: &str = "host";

pub(crate) fn checked(reference: &str) -> Result<(), Wrong> {
    if reference == HOST {
        return Ok(());
    }
    if reference.len() > REFERENCE_BYTES_MAX {
        return Err(("is too long for an image reference", ""));
    }
    if reference.contains(|c: char| c.is_whitespace()) {
        return Err(("is not an image reference: it holds a blank", "write `name:tag`"));
    }
    if reference.contains("://") {
        return Err(("is not an image reference", "leave out `https://`: write `registry.example.org/name:tag`"));
    }
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].split_once(':') {
        Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), path),
        Some(_) | None => (None, name),
    };
    if let Some(registry) = registry {
        check_registry(registry)?;
    }
    path.split('/').try_for_each(check_component)
}

fn check_digest(digest: &str) -> Result<(), Wrong> {
    let wrong = ("has a digest that is none", "a digest is `sha256:` and 64 hexadecimal digits");
    let (algorithm, value) = digest.split_once(':').ok_or(wrong)?;
    let is_hex = value.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let right_length = algorithm != "sha256" || value.len() == 64;
    if !algorithm.is_empty() && is_hex && right_length && value.len() >= 32 { Ok(()) } else { Err(wrong) }
}

fn check_tag(tag: &str) -> Result<(), Wrong> {
    if tag.is_empty() {
        return Err(("has an empty tag", "write the tag, or leave out the `:`"));
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if tag.len() > TAG_BYTES_MAX || !tag.bytes().all(good) || tag.starts_with(['.', '-']) {
        return Err(("has a tag that is none", "tags hold letters, digits, `_`, `.` and `-`"));
    }
    Ok(())
}

fn check_registry(registry: &str) -> Result<(), Wrong> {
    let wrong = ("names a registry that is no host name", "write `registry.example.org:5000/name:tag`");
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'[' | b']' | b':');
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if !host.is_empty() && host.bytes().all(good) && port_is_good { Ok(()) } else { Err(wrong) }
}

fn check_component(part: &str) -> Result<(), Wrong> {
    if part.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(("is not an image reference: names are lower case", "write the name in small letters"));
    }
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = part.as_bytes();
    if bytes.iter().all(|byte| good(*byte)) && edge(bytes.first()) && edge(bytes.last()) {
        Ok(())
    } else {
        Err(("is not an image reference", "write `name:tag` or `registry.example.org/name:tag`"))
    }
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn references_are_told_from_other_texts() {
        let good = [
            "nginx",
            "host",
            "nginx:1.27-alpine",
            "localhost:5000/a/b:c",
            "ghcr.io/org/name@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "docker.redpanda.com/vectorized/redpanda:v22.2.2",
            "a__b/c-d.e",
        ];
        for reference in good {
            assert_eq!(checked(reference), Ok(()), "{reference}");
        }
        let bad = [
            "",
            "Nginx",
            "nginx:",
            "a b",
            "https://x/y",
            "a@sha256:12",
            "a//b",
            "-a",
            "a:-t",
            "x.y:port/z",
            "a:ü",
            ":tag",
        ];
        for reference in bad {
            assert!(checked(reference).is_err(), "{reference}");
        }
    }
}
