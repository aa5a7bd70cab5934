//! An authority of our own: for names that no public one would sign, and machines that it cannot see.

use crate::certificate::{Certificate, ReadError};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::time::Duration;

pub(crate) const DAY_S: i64 = 86_400;
/// People install it by hand, so it lives long.
const AUTHORITY_DAYS: i64 = 3_650;
/// What public authorities give, and well below the 398 days that browsers take.
const LEAF_DAYS: i64 = 90;
/// It is looked at within minutes.
const PROVING_DAYS: i64 = 7;
/// Clocks of visitors may be behind ours.
const BACKDATED_S: i64 = 3_600;
/// As RFC 7468 has it.
const PEM_LINE_CHARACTERS: usize = 64;

/// Signs certificates. Whoever trusts its certificate trusts them.
pub struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    certificate_pem: String,
}

/// Why there is no authority, or no certificate by it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the authority's certificate and key cannot be used")]
    Damaged {
        #[source]
        source: rcgen::Error,
    },
    #[error("the authority's certificate cannot be read")]
    Unreadable {
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("no certificate can be made for {names}")]
    Issue {
        names: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("what was made for {names} cannot be read back")]
    Made {
        names: String,
        #[source]
        source: ReadError,
    },
}

impl Authority {
    /// Makes a new one, called `name`.
    ///
    /// # Errors
    /// [`AuthorityError::Damaged`] when the system gives no random numbers.
    pub fn create(name: &str, now_s: i64) -> Result<Authority, AuthorityError> {
        let failed = |source| AuthorityError::Damaged { source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now_s, BACKDATED_S, AUTHORITY_DAYS);
        let certificate = params.self_signed(&key).map_err(failed)?;
        Authority::open(&certificate.pem(), &key.serialize_pem())
    }

    /// Opens one from what [`Authority::certificate_pem`] and [`Authority::key_pem`] gave.
    ///
    /// # Errors
    /// [`AuthorityError`] for anything else.
    pub fn open(certificate_pem: &str, key_pem: &str) -> Result<Authority, AuthorityError> {
        use rustls_pki_types::pem::PemObject;
        let failed = |source| AuthorityError::Damaged { source };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|source| AuthorityError::Unreadable { source })?;
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed)?;
        Ok(Authority { issuer, certificate, certificate_pem: certificate_pem.to_owned() })
    }

    /// What others have to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A server's certificate for host names and addresses.
    ///
    /// # Errors
    /// [`AuthorityError::Issue`] for what is no name.
    pub fn issue(&self, names: &[String], now_s: i64) -> Result<Certificate, AuthorityError> {
        let issue = |source| AuthorityError::Issue { names: names.join(", "), source };
        let mut params = CertificateParams::new(names).map_err(issue)?;
        params.distinguished_name = called(names.first().map_or("", String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now_s, BACKDATED_S, LEAF_DAYS);
        let key = KeyPair::generate().map_err(issue)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(issue)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Certificate::from_der(vec![signed.der().clone(), self.certificate.clone()], &key)
            .map_err(|source| AuthorityError::Made { names: names.join(", "), source })
    }
}

/// What is shown at port 443 to prove to a public authority that `host` is ours (RFC 8737): signed by itself, with the
/// digest of the proof inside.
///
/// # Errors
/// [`AuthorityError::Issue`] for what is no name.
pub fn proving(host: &str, digest: &[u8; 32], now_s: i64) -> Result<Certificate, AuthorityError> {
    let issue = |source| AuthorityError::Issue { names: host.to_owned(), source };
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(issue)?;
    params.distinguished_name = called(host);
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    valid(&mut params, now_s, BACKDATED_S, PROVING_DAYS);
    let key = KeyPair::generate().map_err(issue)?;
    let signed = params.self_signed(&key).map_err(issue)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Certificate::from_der(vec![signed.der().clone()], &key)
        .map_err(|source| AuthorityError::Made { names: host.to_owned(), source })
}

/// A new private key, as PEM.
///
/// # Errors
/// [`AuthorityError::Issue`] when the system gives no random numbers.
pub fn key() -> Result<String, AuthorityError> {
    let issue = |source| AuthorityError::Issue { names: String::new(), source };
    Ok(KeyPair::generate().map_err(issue)?.serialize_pem())
}

/// What asks another authority for a certificate for `name`: PKCS #10, signed by this key.
///
/// # Errors
/// [`AuthorityError::Issue`] for what is no name or no key.
pub fn request(name: &str, key_pem: &str) -> Result<Vec<u8>, AuthorityError> {
    let issue = |source| AuthorityError::Issue { names: name.to_owned(), source };
    let key = KeyPair::from_pem(key_pem).map_err(issue)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(issue)?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key).map_err(issue)?.der().to_vec())
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate as text.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_LINE_CHARACTERS));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

pub(crate) fn valid(params: &mut CertificateParams, now_s: i64, backdated_s: i64, days: i64) {
    let at = |seconds: i64| {
        let age = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        (std::time::SystemTime::UNIX_EPOCH + age).into()
    };
    params.not_before = at(now_s.saturating_sub(backdated_s));
    params.not_after = at(now_s.saturating_add(days * DAY_S));
}

#[cfg(test)]
mod tests {
    use super::{Authority, DAY_S, LEAF_DAYS};

    const NOW_S: i64 = 1_700_000_000;

    #[test]
    fn what_it_issues_says_what_was_asked() {
        let authority = Authority::create("Bramble of test", NOW_S).unwrap();
        let names = ["shop.test", "*.shop.test", "127.0.0.1", "::1"].map(str::to_owned);
        let certificate = authority.issue(&names, NOW_S).unwrap();
        assert_eq!(certificate.names, names);
        assert_eq!(certificate.not_after_s, NOW_S + LEAF_DAYS * DAY_S);
        assert_eq!(certificate.issuer, "CN=Bramble of test");
        let third_s = (certificate.not_after_s - certificate.not_before_s) / 3;
        assert_eq!(certificate.renew_at_s(), certificate.not_after_s - third_s);
    }

    #[test]
    fn it_is_the_same_one_when_it_is_opened_again() {
        let first = Authority::create("test", NOW_S).unwrap();
        let again = Authority::open(first.certificate_pem(), &first.key_pem()).unwrap();
        let certificate = again.issue(&["a.test".to_owned()], NOW_S).unwrap();
        assert_eq!(certificate.chain[1], first.certificate);
        assert!(Authority::open(first.certificate_pem(), "nothing").is_err());
        let other = Authority::create("other", NOW_S).unwrap();
        assert!(Authority::open("", &other.key_pem()).is_err());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let authority = Authority::create("test", NOW_S).unwrap();
        assert!(authority.issue(&["münchen.test".to_owned()], NOW_S).unwrap_err().to_string().contains("münchen"));
    }
}
