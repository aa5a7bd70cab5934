//! Content digests: the name of every blob, and the way to know that bytes are the ones asked for.
//!
//! Promises that a [`Digest`] is always `sha256:` and 64 lower-case hex digits, so that it can be a file name.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "sha256:";
const HEX_LENGTH: usize = 64;
/// 128 bits name a folder: nobody makes two contents share them, and thirty layer paths still fit the one page
/// that mount(2) takes as options.
const SHORT_LENGTH: usize = 32;

/// A SHA-256 digest in its written form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest of the form sha256:<64 hex digits>")]
pub(crate) struct NotADigest {
    pub(crate) text: String,
}

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The start of the digest, for file names.
    pub(crate) fn short(&self) -> &str {
        &self.hex()[..SHORT_LENGTH]
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Digest, NotADigest> {
        let hex = text.strip_prefix(PREFIX).unwrap_or_default();
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() == HEX_LENGTH && hex.bytes().all(lower_hex) {
            Ok(Digest(text.to_owned()))
        } else {
            Err(NotADigest { text: text.chars().take(2 * HEX_LENGTH).collect() })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Digest, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Computes a [`Digest`] as bytes go by.
#[derive(Clone)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher(Sha256::new())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(format!("{PREFIX}{}", hex::encode(self.0.finalize())))
    }
}
