//! A machine's key and what the cluster's authority certifies of it.
//!
//! Owns the rule that a machine is its key: the id in a certificate is made of the key in it, whatever a request asked
//! for. Promises that nobody gets a certificate for a key they cannot sign with.

use crate::authority::{Authority, DAY_S, valid};
use crate::certificate::ReadError;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use wire::identity::{ClusterId, Fingerprint, NodeId, Principal};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A machine that was off for a weekend comes back with a certificate; one that was stolen has none next week.
const NODE_DAYS: i64 = 7;
/// A machine's clock may be behind by this much and still believe its peers. More is said when it joins.
pub const NODE_BACKDATED_S: i64 = DAY_S;
/// A request for one key with one signature has some 300 bytes.
const REQUEST_BYTES_MAX: usize = 4_096;
/// The machine's own, and those of its authorities.
const CHAIN_MAX: usize = 4;

/// The key a machine is known by, made once and kept.
pub struct MachineKey(KeyPair);

/// A machine's certificate with its authority's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The machine's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Seconds since 1970.
    pub not_before_s: i64,
    pub not_after_s: i64,
}

/// Why a machine has no key to be known by.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the machine's key cannot be made")]
    Make {
        #[source]
        source: rcgen::Error,
    },
    #[error("the machine's key cannot be read")]
    Read {
        #[source]
        source: rcgen::Error,
    },
    #[error("the machine's request cannot be signed")]
    Request {
        #[source]
        source: rcgen::Error,
    },
}

/// Why a machine gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("the request for a certificate has more than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    #[error("the request for a certificate cannot be read, or is not signed with the key in it")]
    Unproven {
        #[source]
        source: rcgen::Error,
    },
    #[error("the request for a certificate is no PEM")]
    NoPem {
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("the machine's key is neither Ed25519 nor ECDSA with P-256")]
    Key,
    #[error("the request is signed with the key of {found}, not of {wanted}")]
    OtherKey { wanted: NodeId, found: NodeId },
    #[error("no certificate can be made for {node}")]
    Issue {
        node: NodeId,
        #[source]
        source: rcgen::Error,
    },
    #[error("what was made for {node} cannot be read back")]
    Made {
        node: NodeId,
        #[source]
        source: ReadError,
    },
}

impl MachineKey {
    /// # Errors
    /// [`KeyError::Make`] when the system gives no random numbers.
    pub fn create() -> Result<MachineKey, KeyError> {
        KeyPair::generate().map(MachineKey).map_err(|source| KeyError::Make { source })
    }

    /// Reads what [`MachineKey::pem`] gave.
    ///
    /// # Errors
    /// [`KeyError::Read`].
    pub fn open(pem: &str) -> Result<MachineKey, KeyError> {
        KeyPair::from_pem(pem).map(MachineKey).map_err(|source| KeyError::Read { source })
    }

    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// Who the machine is.
    pub fn node(&self) -> NodeId {
        NodeId::of_key(&self.0.subject_public_key_info())
    }

    /// Asks for a certificate and proves possession of the key: PKCS #10, as PEM. It names nothing, since the authority
    /// takes the name from the key.
    ///
    /// # Errors
    /// [`KeyError::Request`].
    pub fn request(&self) -> Result<String, KeyError> {
        let failed = |source| KeyError::Request { source };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.0).and_then(|request| request.pem()).map_err(failed)
    }
}

impl Authority {
    /// What a join token pins: the fingerprint of the authority's key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_key(&self.issuer.key().subject_public_key_info())
    }

    /// Certifies the key that signed `request_pem`. Of a member that renews its certificate `known` is who it is, which
    /// has to stay so.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn enrol(
        &self,
        cluster: &ClusterId,
        request_pem: &str,
        known: Option<NodeId>,
        now_s: i64,
    ) -> Result<NodeCertificate, EnrolError> {
        if request_pem.len() > REQUEST_BYTES_MAX {
            return Err(EnrolError::TooLong);
        }
        let request = CertificateSigningRequestDer::from_pem_slice(request_pem.as_bytes())
            .map_err(|source| EnrolError::NoPem { source })?;
        let asked =
            CertificateSigningRequestParams::from_der(&request).map_err(|source| EnrolError::Unproven { source })?;
        let key = asked.public_key;
        if key.algorithm() != &PKCS_ED25519 && key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(EnrolError::Key);
        }
        let node = NodeId::of_key(&key.subject_public_key_info());
        if let Some(wanted) = known.filter(|wanted| *wanted != node) {
            return Err(EnrolError::OtherKey { wanted, found: node });
        }
        let issue = |source| EnrolError::Issue { node, source };
        let name = Principal::Node { cluster: cluster.clone(), node }.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(name).map_err(issue)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Each machine calls and is called.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now_s, NODE_BACKDATED_S, NODE_DAYS);
        let signed = params.signed_by(&key, &self.issuer).map_err(issue)?;
        NodeCertificate::from_der(vec![signed.der().clone(), self.certificate.clone()])
            .map_err(|source| EnrolError::Made { node, source })
    }
}

impl NodeCertificate {
    /// Reads what [`NodeCertificate::pem`] gave. Whether it is to be trusted shows when it is used.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn from_pem(chain: &str) -> Result<NodeCertificate, ReadError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .take(CHAIN_MAX)
            .collect::<Result<_, _>>()
            .map_err(|error| ReadError::Pem { why: error.to_string() })?;
        NodeCertificate::from_der(chain)
    }

    /// # Errors
    /// [`ReadError`].
    pub fn from_der(chain: Vec<CertificateDer<'static>>) -> Result<NodeCertificate, ReadError> {
        let damaged = |why: String| ReadError::Damaged { why };
        let own = chain.first().ok_or(ReadError::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(own).map_err(|error| damaged(error.to_string()))?;
        let alternative = parsed.subject_alternative_name().map_err(|error| damaged(error.to_string()))?;
        let names = alternative.iter().flat_map(|names| &names.value.general_names);
        let principal = names.filter_map(|name| if let GeneralName::URI(uri) = name { uri.parse().ok() } else { None });
        let Some(Principal::Node { cluster, node }) = principal.into_iter().next() else {
            return Err(ReadError::NoNode);
        };
        let (not_before_s, not_after_s) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        Ok(NodeCertificate { cluster, node, not_before_s, not_after_s, chain })
    }

    /// Who signed it: the fingerprint of its authority's key, if that is in the chain.
    pub fn authority(&self) -> Option<Fingerprint> {
        let (_, parsed) = X509Certificate::from_der(self.chain.get(1)?).ok()?;
        Some(Fingerprint::of_key(parsed.public_key().raw))
    }

    /// As text, the machine's own first.
    pub fn pem(&self) -> String {
        self.chain.iter().map(|one| crate::authority::pem(one)).collect()
    }

    /// When to ask for the next one: after two thirds of its life, as the machine lives it.
    pub fn renew_at_s(&self) -> i64 {
        let life_s = self.not_after_s.saturating_sub(self.not_before_s).saturating_sub(NODE_BACKDATED_S).max(0);
        self.not_after_s.saturating_sub(life_s / 3)
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "MachineKey({})", self.node())
    }
}

#[cfg(test)]
mod tests {
    use super::{DAY_S, EnrolError, MachineKey, NodeCertificate};
    use crate::Authority;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use wire::identity::ClusterId;

    const NOW_S: i64 = 1_700_000_000;

    fn cluster() -> ClusterId {
        "testtesttest".parse().unwrap()
    }

    #[test]
    fn a_machine_is_its_key() {
        let authority = Authority::create("test", NOW_S).unwrap();
        let key = MachineKey::create().unwrap();
        let certificate = authority.enrol(&cluster(), &key.request().unwrap(), None, NOW_S).unwrap();
        assert_eq!((certificate.node, certificate.cluster.clone()), (key.node(), cluster()));
        assert_eq!(MachineKey::open(&key.pem()).unwrap().node(), key.node());
        assert_eq!(NodeCertificate::from_pem(&certificate.pem()).unwrap(), certificate);
        let later = authority.enrol(&cluster(), &key.request().unwrap(), Some(key.node()), NOW_S + DAY_S).unwrap();
        assert_eq!(later.node, certificate.node);
    }

    #[test]
    fn it_is_renewed_after_two_thirds_of_a_week() {
        let authority = Authority::create("test", NOW_S).unwrap();
        let request = MachineKey::create().unwrap().request().unwrap();
        let certificate = authority.enrol(&cluster(), &request, None, NOW_S).unwrap();
        assert_eq!(certificate.not_after_s, NOW_S + 7 * DAY_S);
        assert_eq!(certificate.authority(), Some(authority.fingerprint()));
        assert_eq!(certificate.not_before_s, NOW_S - DAY_S);
        assert_eq!(certificate.renew_at_s(), NOW_S + 7 * DAY_S - 7 * DAY_S / 3);
    }

    #[test]
    fn a_member_cannot_become_another() {
        let authority = Authority::create("test", NOW_S).unwrap();
        let (one, other) = (MachineKey::create().unwrap(), MachineKey::create().unwrap());
        let refused = authority.enrol(&cluster(), &other.request().unwrap(), Some(one.node()), NOW_S).unwrap_err();
        assert!(matches!(refused, EnrolError::OtherKey { wanted, .. } if wanted == one.node()), "{refused}");
    }

    #[test]
    fn names_in_a_request_count_for_nothing() {
        let authority = Authority::create("test", NOW_S).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec!["bank.test".to_owned()]).unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let certificate = authority.enrol(&cluster(), &request, None, NOW_S).unwrap();
        let bearer = crate::Bearer::read(&certificate.chain[0]).unwrap();
        assert!(bearer.hosts.is_empty() && bearer.uris.len() == 1, "{bearer:?}");
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let authority = Authority::create("test", NOW_S).unwrap();
        let refused = |request: &str| authority.enrol(&cluster(), request, None, NOW_S).unwrap_err();
        assert!(matches!(refused(""), EnrolError::NoPem { .. }));
        assert!(matches!(refused(&"a".repeat(5_000)), EnrolError::TooLong));
        assert!(matches!(refused(authority.certificate_pem()), EnrolError::NoPem { .. }));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert!(matches!(refused(&request.pem().unwrap()), EnrolError::Key));
        // One byte of the signature is another.
        let mut der = request.der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        let forged = rcgen_pem(&der);
        assert!(matches!(refused(&forged), EnrolError::Unproven { .. }));
    }

    fn rcgen_pem(der: &[u8]) -> String {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
    }
}
