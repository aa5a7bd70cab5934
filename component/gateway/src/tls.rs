//! TLS at the front: which certificate a client is shown, and what is agreed with it.
//!
//! Owns the rustls configuration and the certificates in use, which change under it without anybody noticing.
//! Promises TLS 1.2 and newer only, HTTP/2 where the client can, and that sessions are resumed across changes of
//! certificates. Does not know where certificates come from.

use crate::proof::{self, PROOF_PROTOCOL};
use crate::swap::Swap;
use pki::Certificate;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// What TLS listeners share.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

/// The certificates in use.
struct Shown {
    current: Swap<Index>,
    proofs: Arc<proof::Shown>,
}

#[derive(Default)]
struct Index {
    /// As given, to see whether the next table changes anything.
    given: Vec<Arc<Certificate>>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// By the part after `*.`.
    by_wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that name no host, or one that no certificate is for: they see whom they have reached.
    first: Option<Arc<CertifiedKey>>,
}

impl Tls {
    /// # Errors
    /// When the crypto library lacks what TLS 1.2 and 1.3 need.
    pub(crate) fn new(proofs: Arc<proof::Shown>) -> Result<Tls, Error> {
        let shown = Arc::new(Shown { current: Swap::new(Index::default()), proofs });
        let config = config(&shown, Arc::new(NoClientAuth))?;
        Ok(Tls { config: Arc::new(config), shown })
    }

    /// The same, but clients are asked for certificates that `verifier` knows. Its tickets are its own: a session begun
    /// elsewhere, where nobody was asked, is not resumed here.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub(crate) fn asking(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, Error> {
        config(&self.shown, verifier)
    }

    /// What clients are shown, for those that come another way.
    #[cfg(feature = "http3")]
    pub(crate) fn certificates(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>
    }

    /// Shows `certificates` from now on. Returns those that cannot be used, with the reason.
    pub(crate) fn show(&self, certificates: &[Arc<Certificate>]) -> Vec<(String, String)> {
        if self.shown.current.get().given == certificates {
            return Vec::new();
        }
        let mut failed = Vec::new();
        let mut index = Index { given: certificates.to_vec(), ..Index::default() };
        let provider = rustls::crypto::ring::default_provider();
        for certificate in certificates {
            match signing(certificate, &provider) {
                Ok(key) => index.add(certificate, &Arc::new(key)),
                Err(error) => failed.push((certificate.names.join(", "), error.to_string())),
            }
        }
        self.shown.current.set(index);
        failed
    }
}

impl Index {
    /// The first certificate for a name is the one shown.
    fn add(&mut self, certificate: &Certificate, key: &Arc<CertifiedKey>) {
        for name in &certificate.names {
            let (index, name) = match name.strip_prefix("*.") {
                Some(suffix) => (&mut self.by_wildcard, suffix),
                None => (&mut self.by_name, name.as_str()),
            };
            index.entry(name.to_owned()).or_insert_with(|| Arc::clone(key));
        }
        self.first.get_or_insert_with(|| Arc::clone(key));
    }

    fn find(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let host = host.to_ascii_lowercase();
        let wildcard = || self.by_wildcard.get(host.split_once('.').filter(|(label, _)| !label.is_empty())?.1);
        self.by_name.get(&host).or_else(wildcard)
    }
}

fn config(shown: &Arc<Shown>, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(shown) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec(), PROOF_PROTOCOL.to_vec()];
    // Kept by the client, so that a million of them cost nothing here; the keys change every six hours.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(config)
}

fn signing(certificate: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let mut key = CertifiedKey::from_der(certificate.chain.clone(), certificate.key(), provider)?;
    key.ocsp.clone_from(&certificate.ocsp);
    Ok(key)
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // An authority asks for nothing else, and is shown nothing else.
        if hello.alpn().is_some_and(|mut offered| offered.any(|name| name == PROOF_PROTOCOL)) {
            return hello.server_name().and_then(|host| self.proofs.certificate(host));
        }
        let index = self.current.get();
        hello.server_name().and_then(|host| index.find(host)).or(index.first.as_ref()).cloned()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shown").field("certificates", &self.current.get().given).finish()
    }
}

/// Whether the client came for a proof, which it has seen by now.
pub(crate) fn is_proof(alpn: Option<&[u8]>) -> bool {
    alpn == Some(PROOF_PROTOCOL)
}

/// Whether the client and we agreed on HTTP/2.
pub(crate) fn is_http_2(alpn: Option<&[u8]>) -> bool {
    alpn == Some(HTTP_2)
}

#[cfg(test)]
mod tests {
    use super::Tls;
    use crate::proof;
    use pki::Authority;
    use std::sync::Arc;

    #[test]
    fn the_certificate_for_the_name_is_shown() {
        let authority = Authority::create("test", 1_700_000_000).unwrap();
        let issue = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Arc::new(authority.issue(&names, 1_700_000_000).unwrap())
        };
        let (one, wild, both) = (issue(&["a.test"]), issue(&["*.a.test"]), issue(&["x.a.test", "a.test"]));
        let tls = Tls::new(Arc::new(proof::Shown::new())).unwrap();
        assert_eq!(tls.show(&[Arc::clone(&one), Arc::clone(&wild), Arc::clone(&both)]), []);
        let index = tls.shown.current.get();
        let check = |host: &str, expected: Option<&pki::Certificate>| {
            let found = index.find(host).map(|key| key.cert[0].clone());
            assert_eq!(found, expected.map(|certificate| certificate.chain[0].clone()), "{host}");
        };
        check("a.test", Some(&one));
        check("A.Test", Some(&one));
        check("y.a.test", Some(&wild));
        check("x.a.test", Some(&both));
        check("x.y.a.test", None);
        check("b.test", None);
        check("", None);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = Authority::create("test", 1_700_000_000).unwrap();
        let one = authority.issue(&["a.test".to_owned()], 1_700_000_000).unwrap();
        let other = authority.issue(&["b.test".to_owned()], 1_700_000_000).unwrap();
        let mixed = pki::Certificate::from_der(one.chain.clone(), &other.key()).unwrap();
        let failed = Tls::new(Arc::new(proof::Shown::new())).unwrap().show(&[Arc::new(mixed)]);
        assert_eq!(failed.len(), 1);
        assert!(failed[0].0 == "a.test" && failed[0].1.to_lowercase().contains("key"), "{failed:?}");
    }
}
