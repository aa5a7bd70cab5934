//! What a machine keeps of its cluster: its key, its certificate, whom it trusts and whom it met, in one folder.
//!
//! Promises that each file is whole or not there, that only its owner reads them, and that a machine has a key before it
//! shows it to anybody. Never decides anything.

use base64::Engine;
use pki::{MachineKey, NodeCertificate};
use rpc::Credentials;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::resource::{Incarnation, Member};

const KEY: &str = "key.pem";
const CHAIN: &str = "certificate.pem";
const ROOTS: &str = "authorities.pem";
const MEMBERS: &str = "members.json";
/// Which of its lives the machine began last.
const INCARNATION: &str = "incarnation.json";
/// The secret of its announcements.
const DISCOVERY: &str = "discovery.key";
/// There while what this machine has counts no longer.
const SUPERSEDED: &str = "superseded";
/// There while this machine is to take the lead by force when its node begins.
const FORCE: &str = "force-leader";

/// Why the folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("make this machine's key")]
    Key(#[source] pki::KeyError),
    #[error("{path} cannot be used")]
    Damaged { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

/// A machine that is a member.
pub struct Standing {
    pub key: MachineKey,
    pub certificate: NodeCertificate,
    pub roots_pem: String,
}

impl Home {
    pub fn of(data: &Path) -> Home {
        Home { folder: data.join("cluster") }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// This machine's key; made when it is asked for the first time.
    pub fn key(&self) -> Result<MachineKey, HomeError> {
        let path = self.folder.join(KEY);
        if let Some(pem) = self.read(KEY)? {
            return MachineKey::open(&pem).map_err(|source| damaged(&path, source));
        }
        let key = MachineKey::create().map_err(HomeError::Key)?;
        self.write(KEY, &key.pem())?;
        Ok(key)
    }

    /// `None` for a machine that is on its own.
    pub fn standing(&self) -> Result<Option<Standing>, HomeError> {
        let (Some(chain), Some(roots_pem)) = (self.read(CHAIN)?, self.read(ROOTS)?) else { return Ok(None) };
        let path = self.folder.join(CHAIN);
        let certificate = NodeCertificate::from_pem(&chain).map_err(|source| damaged(&path, source))?;
        Ok(Some(Standing { key: self.key()?, certificate, roots_pem }))
    }

    pub fn keep(&self, chain_pem: &str, roots_pem: &str) -> Result<(), HomeError> {
        // The certificate last: with it the machine is a member.
        self.write(ROOTS, roots_pem)?;
        self.write(CHAIN, chain_pem)
    }

    /// Whom this machine met last, to have somebody to go to before it has read anything else.
    pub fn members(&self) -> Result<Vec<Member>, HomeError> {
        let Some(text) = self.read(MEMBERS)? else { return Ok(Vec::new()) };
        serde_json::from_str(&text).map_err(|source| damaged(&self.folder.join(MEMBERS), source))
    }

    pub fn keep_members(&self, members: &[Member]) -> Result<(), HomeError> {
        let text = serde_json::to_string(members).map_err(|source| damaged(&self.folder.join(MEMBERS), source))?;
        self.write(MEMBERS, &text)
    }

    pub fn incarnation(&self) -> Result<Option<Incarnation>, HomeError> {
        let Some(text) = self.read(INCARNATION)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| damaged(&self.folder.join(INCARNATION), source))
    }

    pub fn keep_incarnation(&self, incarnation: &Incarnation) -> Result<(), HomeError> {
        let text = serde_json::to_string(incarnation);
        let text = text.map_err(|source| damaged(&self.folder.join(INCARNATION), source))?;
        self.write(INCARNATION, &text)
    }

    /// What members share to find each other on a link; `None` until it was told.
    pub fn discovery(&self) -> Result<Option<Vec<u8>>, HomeError> {
        let Some(text) = self.read(DISCOVERY)? else { return Ok(None) };
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim());
        bytes.map(Some).map_err(|source| damaged(&self.folder.join(DISCOVERY), source))
    }

    pub fn keep_discovery(&self, secret: &[u8]) -> Result<(), HomeError> {
        self.write(DISCOVERY, &base64::engine::general_purpose::STANDARD.encode(secret))
    }

    pub fn is_to_force(&self) -> bool {
        self.folder.join(FORCE).exists()
    }

    /// Has the node take the lead when it begins next.
    pub fn force(&self) -> Result<(), HomeError> {
        self.write(FORCE, "")
    }

    /// It has.
    pub fn forced(&self) -> Result<(), HomeError> {
        let path = self.folder.join(FORCE);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(HomeError::Write { path, source }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Has the node put away the state it has when it begins next, and take the cluster's.
    pub fn supersede(&self) -> Result<(), HomeError> {
        self.write(SUPERSEDED, "")
    }

    /// Puts the state away, if that is to be done: people may still want to look at it.
    pub fn put_away_superseded(&self) -> Result<(), HomeError> {
        let mark = self.folder.join(SUPERSEDED);
        if !mark.exists() {
            return Ok(());
        }
        let Some(data) = self.folder.parent() else { return Ok(()) };
        let (state, away) =
            (data.join("control"), data.join(format!("control.superseded-{}", world::clock::unix_ms())));
        if state.exists() {
            std::fs::rename(&state, &away).map_err(|source| HomeError::Write { path: away.clone(), source })?;
            tracing::warn!(path = %away.display(), "what this machine had decided counts no longer and is kept here");
        }
        std::fs::remove_file(&mark).map_err(|source| HomeError::Write { path: mark.clone(), source })
    }

    fn read(&self, name: &str) -> Result<Option<String>, HomeError> {
        let path = self.folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Read { path, source }),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), HomeError> {
        let path = self.folder.join(name);
        let written = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let fresh = path.with_extension("new");
            let mut file =
                std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            std::fs::File::open(&self.folder)?.sync_all()
        };
        written().map_err(|source| HomeError::Write { path: path.clone(), source })
    }
}

impl Standing {
    pub fn credentials(&self) -> Result<Credentials, HomeError> {
        let wrong = |source| damaged(Path::new(ROOTS), source);
        let roots: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.roots_pem.as_bytes()).collect::<Result<_, _>>().map_err(wrong)?;
        Credentials::new(self.certificate.chain.clone(), self.key.der(), roots)
            .map_err(|source| damaged(Path::new(CHAIN), source))
    }
}

fn damaged(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> HomeError {
    HomeError::Damaged { path: path.to_owned(), source: Box::new(source) }
}
