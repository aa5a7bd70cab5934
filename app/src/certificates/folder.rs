//! What is kept of a public authority: `<data>/acme/<authority>/`, a folder for each, so that changing from a test
//! authority to a real one begins anew.
//!
//! Owns the names of the files. Promises that each is whole or not there, and that only the node's user reads them: all
//! but the ledger hold keys.

use super::{OpenError, keep};
use acme::{Begun, Ledger};
use pki::Certificate;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Nothing here is longer than a chain.
const FILE_BYTES_MAX: u64 = 1 << 20;
const SECRET: u32 = 0o600;

pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(data: &Path, directory: &str) -> Result<Folder, OpenError> {
        let bare = directory.trim_start_matches("https://");
        let safe = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
        let path = data.join("acme").join(bare.chars().map(safe).collect::<String>());
        fs::create_dir_all(&path).map_err(|source| OpenError::Folder { path: path.clone(), source })?;
        Ok(Folder(path))
    }

    pub(super) fn account(&self) -> Option<String> {
        self.read("account.json")
    }

    pub(super) fn keep_account(&self, credentials: &str) -> io::Result<()> {
        keep(&self.0.join("account.json"), credentials, SECRET)
    }

    /// The account is of no use any more, and neither are its orders. It is moved aside, not lost.
    pub(super) fn forget_account(&self) {
        let path = self.0.join("account.json");
        if let Err(error) = fs::rename(&path, path.with_extension("gone"))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the account that the authority forgot cannot be moved aside");
        }
    }

    /// Key and chain in one file, so that they are replaced as one.
    pub(super) fn certificate(&self, name: &str) -> Option<Certificate> {
        let text = self.read(&file(name, "pem"))?;
        match Certificate::from_pem(&text, &text) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::warn!(name, %error, "a certificate that was obtained cannot be read");
                None
            }
        }
    }

    pub(super) fn keep_certificate(&self, name: &str, pem: &str) -> io::Result<()> {
        keep(&self.0.join(file(name, "pem")), pem, SECRET)
    }

    /// The order for `name` that is under way.
    pub(super) fn order(&self, name: &str) -> Option<Begun> {
        self.parsed(&file(name, "order"))
    }

    pub(super) fn keep_order(&self, name: &str, begun: &Begun) -> io::Result<()> {
        keep(&self.0.join(file(name, "order")), &serde_json::to_string(begun)?, SECRET)
    }

    pub(super) fn forget_order(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.0.join(file(name, "order"))) {
            tracing::debug!(name, %error, "an order that is through cannot be removed");
        }
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.parsed("ledger.json").unwrap_or_default()
    }

    pub(super) fn keep_ledger(&self, ledger: &Ledger) -> io::Result<()> {
        let ledger = Ledger { version: Ledger::VERSION, ..ledger.clone() };
        keep(&self.0.join("ledger.json"), &serde_json::to_string_pretty(&ledger)?, SECRET)
    }

    /// What is damaged is as good as missing: everything here can be had again.
    fn parsed<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        match serde_json::from_str(&self.read(name)?) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                tracing::warn!(name, %error, "a file about a public authority is damaged and left out");
                None
            }
        }
    }

    fn read(&self, name: &str) -> Option<String> {
        let path = self.0.join(name);
        let text = fs::metadata(&path).and_then(|about| match about.len() {
            0..=FILE_BYTES_MAX => fs::read_to_string(&path),
            _ => Err(io::Error::other("it is too long")),
        });
        match text {
            Ok(text) => Some(text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(name, %error, "a file about a public authority cannot be read");
                }
                None
            }
        }
    }
}

/// A host's file. No host begins with a dash, which stands for the star.
fn file(name: &str, end: &str) -> String {
    format!("{}.{end}", name.replace('*', "-"))
}
