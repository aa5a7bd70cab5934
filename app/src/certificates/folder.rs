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

#[cfg(test)]
mod tests {
    use super::Folder;
    use acme::{Begun, Ledger};
    use std::os::unix::fs::PermissionsExt;

    const DIRECTORY: &str = "https://acme.test:14000/../directory?x=/y";

    #[test]
    fn what_was_kept_is_found_again_and_nobody_else_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path(), DIRECTORY).unwrap();
        let mut ledger = Ledger::default();
        ledger.record("*.a.test").begins(1_700_000_000);
        folder.keep_ledger(&ledger).unwrap();
        folder.keep_account("secret").unwrap();
        let begun = Begun { order: "https://acme.test/order/1".to_owned(), key_pem: "key".to_owned() };
        folder.keep_order("*.a.test", &begun).unwrap();
        let again = Folder::open(data.path(), DIRECTORY).unwrap();
        assert_eq!(again.ledger().names, ledger.names);
        assert_eq!(again.ledger().version, Ledger::VERSION);
        assert_eq!(again.account().as_deref(), Some("secret"));
        assert_eq!(again.order("*.a.test").map(|begun| begun.order), Some(begun.order));
        assert!(again.order("a.test").is_none());
        let files: Vec<_> = std::fs::read_dir(&again.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "nothing half-written is left: {files:?}");
        for file in &files {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        again.forget_order("*.a.test");
        again.forget_account();
        assert!(again.order("*.a.test").is_none() && again.account().is_none());
        let other = Folder::open(data.path(), "https://other.test/directory").unwrap();
        assert_eq!(other.ledger(), Ledger::default(), "another authority knows nothing of it");
    }

    #[test]
    fn what_is_damaged_is_as_good_as_missing() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path(), DIRECTORY).unwrap();
        for (file, content) in [
            ("ledger.json", &b"{\"names\": {\"a.test\": {\"failures\": -1}}}"[..]),
            ("a.test.order", b"\xff\xfe"),
            ("a.test.pem", b"-----BEGIN CERTIFICATE-----"),
        ] {
            std::fs::write(folder.0.join(file), content).unwrap();
        }
        std::fs::write(folder.0.join("account.json"), vec![b' '; 2 << 20]).unwrap();
        assert_eq!(folder.ledger(), Ledger::default());
        assert!(folder.order("a.test").is_none());
        assert!(folder.certificate("a.test").is_none());
        assert!(folder.account().is_none());
        let old: Ledger = serde_json::from_str(r#"{"version":1,"names":{"a.test":{"attempts_s":[1],"failures":2,"fault":"refused","retry_at_s":3,"problem":"no"}}}"#).unwrap();
        assert_eq!(old.names["a.test"].problem, "no", "this is the first form");
    }
}
