//! What a peer's certificate says, and whether that peer is the one wanted. Knows nothing of sockets.
//!
//! Owns the verifiers of TLS. Whether a certificate is signed and in time is webpki's to say; whom it is for is said
//! here: by the one name in it that is ours, which has to be made of the key in it.

use crate::identity::Credentials;
use crate::revoked::Revoked;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::sync::{Arc, Mutex, PoisonError};
use wire::identity::{ClusterId, Fingerprint, NodeId, Principal};

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passport {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
}

/// What is wrong with a certificate that is signed and in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate is no machine's")]
    NotANode,
    #[error("the certificate names {node}, whose key is another")]
    NotItsKey { node: NodeId },
    #[error("the machine is of cluster {found}, not of {wanted}")]
    OtherCluster { wanted: ClusterId, found: ClusterId },
    #[error("the machine is {found}, not {wanted}")]
    OtherNode { wanted: NodeId, found: NodeId },
    #[error("{node} has been removed from the cluster")]
    Revoked { node: NodeId },
    #[error("none of the machine's certificates is of the authority in the token")]
    OtherAuthority,
}

impl Passport {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Passport, Objection> {
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| Objection::Unreadable)?;
        let mut claimed = parsed.valid_uri_names().filter(|uri| Principal::is_claimed_by(uri));
        // Two names would be two machines.
        let (Some(name), None) = (claimed.next(), claimed.next()) else { return Err(Objection::NotANode) };
        match name.parse() {
            Ok(Principal::Node { cluster, node }) => {
                if NodeId::of_key(&parsed.subject_public_key_info()) != node {
                    return Err(Objection::NotItsKey { node });
                }
                Ok(Passport { cluster, node })
            }
            Ok(Principal::Service { .. }) | Err(_) => Err(Objection::NotANode),
        }
    }

    fn is_welcome(&self, cluster: &ClusterId, revoked: &Revoked) -> Result<(), Objection> {
        if self.cluster != *cluster {
            return Err(Objection::OtherCluster { wanted: cluster.clone(), found: self.cluster.clone() });
        }
        if revoked.contains(self.node) {
            return Err(Objection::Revoked { node: self.node });
        }
        Ok(())
    }
}

impl From<Objection> for Error {
    fn from(objection: Objection) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(objection))))
    }
}

/// The same for a caller, who is told by an alert and nothing else: those it can do something about have alerts of
/// their own.
fn told(objection: Objection) -> Error {
    match objection {
        Objection::Revoked { .. } => Error::InvalidCertificate(CertificateError::Revoked),
        Objection::OtherCluster { .. } => Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
        Objection::Unreadable
        | Objection::NotANode
        | Objection::NotItsKey { .. }
        | Objection::OtherNode { .. }
        | Objection::OtherAuthority => objection.into(),
    }
}

/// Looks at those who call. Who shows no certificate is a stranger, and comes in.
#[derive(Debug)]
pub(crate) struct Callers {
    signed: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    revoked: Revoked,
}

impl Callers {
    pub(crate) fn new(credentials: &Credentials, revoked: Revoked) -> Result<Callers, Error> {
        let (roots, provider) = (Arc::clone(&credentials.roots), Arc::clone(&credentials.provider));
        let signed = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Callers { signed, cluster: credentials.cluster().clone(), revoked })
    }
}

impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // They know which certificate to show: they have one.
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.signed.verify_client_cert(own, others, now)?;
        Passport::read(own).and_then(|passport| passport.is_welcome(&self.cluster, &self.revoked)).map_err(told)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Looks at the peer that was called: it has to be this one.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) wanted: NodeId,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) revoked: Revoked,
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        signed(own, others, &self.credentials.roots, now, &self.credentials.provider)?;
        let passport = Passport::read(own)?;
        passport.is_welcome(self.credentials.cluster(), &self.revoked)?;
        if passport.node != self.wanted {
            return Err(Objection::OtherNode { wanted: self.wanted, found: passport.node }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.credentials.provider.signature_verification_algorithms;
        verify_tls13_signature(message, own, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Looks at a member for a machine that is none yet: it has to be of the authority in the token. When it is said to be
/// out of time it is let through and marked, since the machine's own clock may be what is wrong; whoever uses this asks
/// the member's clock, and says nothing secret before that is settled.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) authority: Fingerprint,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) met: Mutex<Option<Met>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Met {
    pub(crate) passport: Passport,
    /// What its certificate would be refused for, by this machine's clock.
    pub(crate) untimely: Option<CertificateError>,
}

impl Pinned {
    pub(crate) fn new(authority: Fingerprint) -> Pinned {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Pinned { authority, provider, met: Mutex::new(None) }
    }

    pub(crate) fn met(&self) -> Option<Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = |other: &&CertificateDer<'_>| {
            let parsed = webpki::EndEntityCert::try_from(*other);
            parsed.is_ok_and(|parsed| Fingerprint::of_key(&parsed.subject_public_key_info()) == self.authority)
        };
        let authority = others.iter().find(is_pinned).ok_or(Objection::OtherAuthority)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let untimely = match signed(own, others, &roots, now, &self.provider) {
            Ok(()) => None,
            Err(Error::InvalidCertificate(error)) => {
                let then = edge(&error).ok_or_else(|| Error::InvalidCertificate(error.clone()))?;
                signed(own, others, &roots, then, &self.provider)?;
                Some(error)
            }
            Err(other) => return Err(other),
        };
        let met = Met { passport: Passport::read(own)?, untimely };
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(met);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, own, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn signed(
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(own)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms)
}

/// The moment nearest to now at which a certificate that is out of time was not.
fn edge(error: &CertificateError) -> Option<UnixTime> {
    if let CertificateError::ExpiredContext { not_after: edge, .. }
    | CertificateError::NotValidYetContext { not_before: edge, .. } = error
    {
        return Some(*edge);
    }
    None
}

fn only_tls13() -> Error {
    Error::General("peers speak TLS 1.3 only".to_owned())
}
