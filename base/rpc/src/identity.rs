//! Who this machine is to its peers: a key, the certificate for it, and the authorities it trusts.
//!
//! Owns the change from one certificate to the next: connections made before go on with the old one. Promises that a
//! machine stays the same one: a renewed certificate is for the same key and cluster.

use crate::passport::{Objection, Passport};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, SupportedProtocolVersion};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::identity::{ClusterId, NodeId};

/// How the bytes between peers are framed; what they say has versions of its own (`Versions`).
pub(crate) const ALPN: &[u8] = b"bramble/1";
pub(crate) static TLS_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A certificate with its key, and whom to believe.
pub struct Credentials {
    pub(crate) own: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) provider: Arc<CryptoProvider>,
    passport: Passport,
}

/// The credentials in use. Clones are the same.
#[derive(Debug, Clone)]
pub struct Identity(Arc<watch::Sender<Arc<Credentials>>>);

/// Why a certificate and a key are of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("there is no certificate for this machine")]
    NoCertificate,
    #[error("this machine's certificate names nobody")]
    Nobody {
        #[source]
        source: Objection,
    },
    #[error("this machine's certificate and key do not belong together")]
    Key {
        #[source]
        source: rustls::Error,
    },
    #[error("the certificate of an authority cannot be used")]
    Root {
        #[source]
        source: rustls::Error,
    },
    #[error("there is no authority to trust")]
    NoRoot,
    #[error("the certificate is {found}'s; this machine is {wanted}")]
    OtherNode { wanted: NodeId, found: NodeId },
    #[error("the certificate is of cluster {found}; this machine is of {wanted}")]
    OtherCluster { wanted: ClusterId, found: ClusterId },
}

impl Credentials {
    /// `chain` has the machine's own first, then its authority's: machines that join look for that.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Credentials, CredentialsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = chain.first().ok_or(CredentialsError::NoCertificate)?;
        let passport = Passport::read(own).map_err(|source| CredentialsError::Nobody { source })?;
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|source| CredentialsError::Key { source })?;
        own.keys_match().map_err(|source| CredentialsError::Key { source })?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|source| CredentialsError::Root { source })?;
        }
        if store.is_empty() {
            return Err(CredentialsError::NoRoot);
        }
        Ok(Credentials { own: Arc::new(own), roots: Arc::new(store), provider, passport })
    }

    pub fn node(&self) -> NodeId {
        self.passport.node
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.passport.cluster
    }
}

impl Identity {
    pub fn new(credentials: Credentials) -> Identity {
        Identity(Arc::new(watch::Sender::new(Arc::new(credentials))))
    }

    pub fn node(&self) -> NodeId {
        self.0.borrow().node()
    }

    /// Shows another certificate from now on. What goes on over connections is not disturbed.
    ///
    /// # Errors
    /// [`CredentialsError::OtherNode`] and [`CredentialsError::OtherCluster`].
    pub fn renew(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        let before = self.current();
        if before.node() != credentials.node() {
            return Err(CredentialsError::OtherNode { wanted: before.node(), found: credentials.node() });
        }
        if before.cluster() != credentials.cluster() {
            let (wanted, found) = (before.cluster().clone(), credentials.cluster().clone());
            return Err(CredentialsError::OtherCluster { wanted, found });
        }
        self.0.send_replace(Arc::new(credentials));
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.0.borrow())
    }
}

/// The wall clock, by the house's door.
#[derive(Debug)]
pub(crate) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(world::clock::unix_ms())))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("passport", &self.passport).finish_non_exhaustive()
    }
}
