//! Image references as people write them: `nginx`, `ghost:5`, `localhost:5000/team/app@sha256:…`.
//!
//! Promises that a parsed reference is complete (registry and repository are always there) and that no part of it
//! can leave its place in a URL. Never asks whether the image exists.

use crate::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// What `docker` calls the registry everybody means.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// Docker Hub answers to its older name too.
const DOCKER_HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
const LIBRARY: &str = "library/";
pub(crate) const TAG_DEFAULT: &str = "latest";
/// The distribution specification's bound for a tag.
const TAG_LENGTH_MAX: usize = 128;
/// What registries accept for a registry and repository together.
const NAME_LENGTH_MAX: usize = 255;

/// A complete image name. With neither tag nor digest, the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and optional port, as `docker.io` or `localhost:5000`.
    pub registry: String,
    /// As `library/nginx`.
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`; when given, it decides and the tag is only for the reader.
    pub digest: Option<String>,
}

/// Which part of a reference is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("the image name is empty")]
    Empty,
    #[error("the image name {name:?} is longer than {NAME_LENGTH_MAX} characters")]
    TooLong { name: String },
    #[error("{registry:?} is not a registry")]
    Registry { registry: String },
    #[error("{repository:?} is not an image name")]
    Repository { repository: String },
    #[error("{tag:?} is not a tag")]
    Tag { tag: String },
    #[error("{digest:?} is not a digest")]
    Digest { digest: String },
}

impl ReferenceError {
    /// What to write instead.
    pub fn hint(&self) -> &'static str {
        match self {
            ReferenceError::Empty => "write an image such as nginx or ghcr.io/owner/app:1.2",
            ReferenceError::TooLong { .. } => "use a shorter registry or repository name",
            ReferenceError::Registry { .. } => "write a host name or address with an optional :port, without https://",
            ReferenceError::Repository { .. } => {
                "use lower-case letters and digits, with single . _ - between them, and / between parts"
            }
            ReferenceError::Tag { .. } => "use up to 128 letters, digits, . _ -, starting with a letter, digit or _",
            ReferenceError::Digest { .. } => "write sha256: and 64 hex digits",
        }
    }
}

impl Reference {
    /// What stands behind `/manifests/`: the digest when there is one, else the tag.
    pub(crate) fn selector(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(TAG_DEFAULT)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(checked_digest(digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let tag_at = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (name, tag) = match tag_at {
            Some(colon) => (&rest[..colon], Some(checked_tag(&rest[colon + 1..])?)),
            None => (rest, None),
        };
        if name.len() > NAME_LENGTH_MAX {
            return Err(ReferenceError::TooLong { name: name.chars().take(64).collect() });
        }
        let (registry, repository) = split_registry(name)?;
        let tag = match (tag, &digest) {
            (None, None) => Some(TAG_DEFAULT.to_owned()),
            (tag, _) => tag,
        };
        Ok(Reference { registry, repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

/// A first part is a registry when it could not be a repository's: it holds a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> Result<(String, String), ReferenceError> {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        Some(_) | None => (DOCKER_HUB, name),
    };
    if !is_registry(registry) {
        return Err(ReferenceError::Registry { registry: registry.to_owned() });
    }
    if !is_repository(repository) {
        return Err(ReferenceError::Repository { repository: repository.to_owned() });
    }
    let registry = registry.to_ascii_lowercase();
    if registry != DOCKER_HUB && !DOCKER_HUB_ALIASES.contains(&registry.as_str()) {
        return Ok((registry, repository.to_owned()));
    }
    let repository = if repository.contains('/') { repository.to_owned() } else { format!("{LIBRARY}{repository}") };
    Ok((DOCKER_HUB.to_owned(), repository))
}

fn is_registry(text: &str) -> bool {
    let port_ok = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(port_ok));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.split('.').all(label_ok) && port.is_none_or(port_ok)
}

fn is_repository(text: &str) -> bool {
    text.split('/').all(is_repository_part)
}

/// Letters and digits, with `.`, one or two `_`, or any number of `-` between them.
fn is_repository_part(part: &str) -> bool {
    let edge_ok = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = part.as_bytes();
    edge_ok(bytes.first().copied())
        && edge_ok(bytes.last().copied())
        && bytes.iter().all(|byte| edge_ok(Some(*byte)) || b"._-".contains(byte))
        && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"].iter().any(|pair| part.contains(pair))
}

fn checked_tag(tag: &str) -> Result<String, ReferenceError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_ok = tag.bytes().next().is_some_and(word);
    if starts_ok && tag.len() <= TAG_LENGTH_MAX && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-') {
        Ok(tag.to_owned())
    } else {
        Err(ReferenceError::Tag { tag: tag.to_owned() })
    }
}

fn checked_digest(digest: &str) -> Result<String, ReferenceError> {
    let parsed: Digest = digest.parse().map_err(|_| ReferenceError::Digest { digest: digest.to_owned() })?;
    Ok(parsed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(input: &str, expected: &str) {
        let found = match input.parse::<Reference>() {
            Ok(reference) => reference.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(found, expected, "input {input:?}");
    }

    #[test]
    fn short_names_are_completed() {
        check("nginx", "docker.io/library/nginx:latest");
        check("ghost:5-alpine", "docker.io/library/ghost:5-alpine");
        check("grafana/grafana", "docker.io/grafana/grafana:latest");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/x", "localhost:5000/x:latest");
        check("[::1]:5000/x/y:1", "[::1]:5000/x/y:1");
        check("GHCR.io/owner/app_name:V1", "ghcr.io/owner/app_name:V1");
        check(&format!("nginx@{DIGEST}"), &format!("docker.io/library/nginx@{DIGEST}"));
        check(&format!("nginx:1@{DIGEST}"), &format!("docker.io/library/nginx:1@{DIGEST}"));
    }

    #[test]
    fn errors_name_the_bad_part() {
        check("", "error: the image name is empty");
        check("Nginx", "error: \"Nginx\" is not an image name");
        check("nginx:", "error: \"\" is not a tag");
        check("nginx:a b", "error: \"a b\" is not a tag");
        check("nginx@sha256:12", "error: \"sha256:12\" is not a digest");
        check("https://ghcr.io/x", "error: \"https:\" is not a registry");
        check("ghcr.io/a/../b", "error: \"a/../b\" is not an image name");
        check("ghcr.io/a//b", "error: \"a//b\" is not an image name");
        check("ghcr.io:99999/b", "error: \"ghcr.io:99999\" is not a registry");
        check("a.b/", "error: \"\" is not an image name");
    }

    #[test]
    fn a_written_reference_reads_back() {
        for text in ["nginx", "ghcr.io/owner/app:1", "localhost:5000/x"] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}
