//! Which image an instance runs from: decided when it first starts, the same until it is replaced.
//!
//! A tag may move while the instance lives. What its box wrote lies over the files of the image it started from and
//! means nothing over another's, so its restarts stay with that one; they also need no registry. Never knows how an
//! image gets here.

use images::Reference;
use std::fs;
use std::io;
use std::path::Path;

/// Beside what the box wrote, so that both go together.
const FILE: &str = "image";
const DIGEST_PREFIX: &str = "sha256:";

/// The digest of the image that the instance with this folder runs from, if it ever started.
pub(crate) fn digest(home: &Path) -> Option<String> {
    let text = fs::read_to_string(home.join(FILE)).ok()?;
    // Empty or cut short by a power cut: then the tag decides again.
    let hex = text.trim().strip_prefix(DIGEST_PREFIX)?;
    let whole = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| text.trim().to_owned())
}

/// Remembers the image for the restarts to come.
pub(crate) fn pin(home: &Path, digest: &str) -> io::Result<()> {
    fs::create_dir_all(home)?;
    let part = home.join("image.part");
    fs::write(&part, digest)?;
    fs::rename(part, home.join(FILE))
}

/// What to look for in place of the name as written; `None` before the first start.
pub(crate) fn reference(home: &Path, written: &Reference) -> Option<Reference> {
    digest(home).map(|digest| Reference { digest: Some(digest), ..written.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_stays_with_the_image_it_started_from() {
        let home = tempfile::tempdir().unwrap();
        let written: Reference = "shop:latest".parse().unwrap();
        assert_eq!(reference(home.path(), &written), None);
        let digest = format!("sha256:{}", "0a".repeat(32));
        pin(home.path(), &digest).unwrap();
        let found = reference(home.path(), &written).unwrap();
        assert_eq!((found.digest, found.repository), (Some(digest), written.repository.clone()));
        for broken in ["", "sha256:", "sha256:0a", "latest"] {
            pin(home.path(), broken).unwrap();
            assert_eq!(reference(home.path(), &written), None, "{broken:?}");
        }
    }
}
