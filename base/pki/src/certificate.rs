//! A certificate with its chain and private key.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// More in one file is a mistake, or meant to cost us.
const CHAIN_MAX: usize = 16;

/// What a server shows and signs with. Equal ones are interchangeable.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The server's own first.
    pub chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    /// Names and addresses it is for, in lower case.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before_s: i64,
    pub not_after_s: i64,
    /// Who signed it, for people.
    pub issuer: String,
    /// Its authority's word that it has not been taken back (RFC 6066, section 8), shown with it.
    pub ocsp: Option<Vec<u8>>,
}

/// Whom a certificate is for, as far as it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The distinguished name, as RFC 4514 writes it.
    pub subject: String,
    pub hosts: Vec<String>,
    pub uris: Vec<String>,
}

impl Bearer {
    /// # Errors
    /// [`ReadError::Damaged`].
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Bearer, ReadError> {
        let damaged = |why: String| ReadError::Damaged { why };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| damaged(error.to_string()))?;
        let alternative = parsed.subject_alternative_name().map_err(|error| damaged(error.to_string()))?;
        let (mut hosts, mut uris) = (Vec::new(), Vec::new());
        for name in alternative.iter().flat_map(|names| &names.value.general_names) {
            if let GeneralName::DNSName(name) = name {
                hosts.push(name.to_ascii_lowercase());
            } else if let GeneralName::URI(uri) = name {
                uris.push((*uri).to_owned());
            }
        }
        Ok(Bearer { subject: parsed.subject().to_string(), hosts, uris })
    }
}

/// Why a file is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no certificate in it")]
    NoCertificate,
    #[error("there is no private key in it")]
    NoKey,
    #[error("there are more than {CHAIN_MAX} certificates in it")]
    TooMany,
    #[error("its PEM is damaged: {why}")]
    Pem { why: String },
    #[error("its certificate is damaged: {why}")]
    Damaged { why: String },
    #[error("its certificate names no host")]
    NoName,
    #[error("its certificate is no machine's")]
    NoNode,
}

impl ReadError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ReadError::NoCertificate => "a PEM file has `-----BEGIN CERTIFICATE-----` with the server's own first",
            ReadError::NoKey => "put the key beside it as NAME.key, or into the same file; it may not be encrypted",
            ReadError::TooMany => "keep the server's certificate and those between it and the root",
            ReadError::Pem { .. } | ReadError::Damaged { .. } => "copy the file again, as text",
            ReadError::NoName => {
                "ask for one with a subject alternative name; common names have not counted since 2017"
            }
            ReadError::NoNode => "have the machine join again",
        }
    }
}

impl Certificate {
    /// Reads a chain and a key, each PEM; both may be the same text.
    ///
    /// # Errors
    /// [`ReadError`]. Whether key and certificate belong together shows when they are used.
    pub fn from_pem(chain: &str, key: &str) -> Result<Certificate, ReadError> {
        let pem = |error: rustls_pki_types::pem::Error| ReadError::Pem { why: error.to_string() };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .take(CHAIN_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(pem)?;
        if chain.len() > CHAIN_MAX {
            return Err(ReadError::TooMany);
        }
        let key = match PrivateKeyDer::from_pem_slice(key.as_bytes()) {
            Ok(key) => key,
            Err(rustls_pki_types::pem::Error::NoItemsFound) => return Err(ReadError::NoKey),
            Err(error) => return Err(pem(error)),
        };
        Certificate::from_der(chain, &key)
    }

    /// The same from what PEM holds.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<Certificate, ReadError> {
        let own = chain.first().ok_or(ReadError::NoCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(own).map_err(|error| ReadError::Damaged { why: error.to_string() })?;
        let names = names(&parsed)?;
        if names.is_empty() {
            return Err(ReadError::NoName);
        }
        let validity = parsed.validity();
        Ok(Certificate {
            names,
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
            issuer: parsed.issuer().to_string(),
            key: key.secret_der().to_vec(),
            ocsp: None,
            chain,
        })
    }

    /// The private key, for whoever signs with it.
    ///
    /// # Panics
    /// Never: it was read as one.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).expect("it was read as a key")
    }

    /// When to have the next one: after two thirds of its life.
    pub fn renew_at_s(&self) -> i64 {
        let life_s = self.not_after_s.saturating_sub(self.not_before_s).max(0);
        self.not_after_s.saturating_sub(life_s / 3)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after_s", &self.not_after_s)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

fn names(parsed: &X509Certificate<'_>) -> Result<Vec<String>, ReadError> {
    let damaged = |why: String| ReadError::Damaged { why };
    let Some(alternative) = parsed.subject_alternative_name().map_err(|error| damaged(error.to_string()))? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for name in &alternative.value.general_names {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::URI(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => {}
        }
    }
    Ok(names)
}

fn address(bytes: &[u8]) -> Option<String> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    let sixteen: Result<[u8; 16], _> = bytes.try_into();
    match (four, sixteen) {
        (Ok(four), _) => Some(std::net::Ipv4Addr::from(four).to_string()),
        (_, Ok(sixteen)) => Some(std::net::Ipv6Addr::from(sixteen).to_string()),
        (Err(_), Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Certificate, ReadError};
    use crate::Authority;
    use proptest::prelude::*;

    #[test]
    fn what_is_missing_is_said() {
        let read = |chain: &str, key: &str| Certificate::from_pem(chain, key).unwrap_err();
        let authority = Authority::create("test", 1_700_000_000).unwrap();
        let chain = authority.certificate_pem();
        assert!(matches!(read("", ""), ReadError::NoKey));
        assert!(matches!(read("", &authority.key_pem()), ReadError::NoCertificate));
        assert!(matches!(read(chain, ""), ReadError::NoKey));
        assert!(matches!(read(chain, &authority.key_pem()), ReadError::NoName), "an authority's own has none");
        assert!(matches!(read(&chain.repeat(17), &authority.key_pem()), ReadError::TooMany));
        let cut = chain.replace("-----END CERTIFICATE-----", "");
        assert!(matches!(read(&cut, &authority.key_pem()), ReadError::Pem { .. }));
    }

    proptest! {
        #[test]
        fn any_text_may_be_read(text in "(?s).{0,400}", body in "[A-Za-z0-9+/=\n]{0,200}") {
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n{text}");
            let _ = Certificate::from_pem(&pem, &pem);
            let key = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
            let _ = Certificate::from_pem(&pem, &key);
        }
    }
}
