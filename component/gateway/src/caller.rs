//! Clients that show a certificate: who vouches for them, and what instances are told of them.
//!
//! Owns the asking and the judging. Promises that a certificate counts only for routes whose own authority signed it,
//! whatever name the connection came under, and that one that has ended since does not count for a resumed session. Does
//! not know routes: a door is made for a set of authorities.

use crate::tls::Tls;
use http::HeaderValue;
use pki::Bearer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Names of one kind that instances are told.
const NAMES_MAX: usize = 16;

/// An authority as routes name it: the digest of its PEM.
pub(crate) type AuthorityId = [u8; 32];

/// Asks clients for certificates of any of some authorities, and goes on without.
pub(crate) struct Door {
    pub(crate) config: Arc<ServerConfig>,
    authorities: Vec<(AuthorityId, Arc<dyn ClientCertVerifier>)>,
}

/// What is known of who is at the other end of a connection.
pub(crate) struct Caller {
    /// Whose certificates it was asked for.
    asked: Vec<AuthorityId>,
    /// Who vouches for it.
    vouched: Vec<AuthorityId>,
    /// For instances.
    pub(crate) header: Option<HeaderValue>,
}

/// What a route makes of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Vouched,
    /// It was asked, and showed nothing that counts here.
    Unknown,
    /// It came under another name, and was not asked.
    Unasked,
}

pub(crate) fn id(authority: &str) -> AuthorityId {
    Sha256::digest(authority.as_bytes()).into()
}

impl Door {
    /// # Errors
    /// Why an authority cannot be used.
    pub(crate) fn new(authorities: &BTreeSet<String>, tls: &Tls) -> Result<Door, String> {
        let mut all = RootCertStore::empty();
        let mut each = Vec::new();
        for authority in authorities {
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
                let root = root.map_err(|error| format!("the authority's PEM is damaged: {error}"))?;
                roots.add(root.clone()).and_then(|()| all.add(root)).map_err(|error| error.to_string())?;
            }
            if roots.is_empty() {
                return Err("the authority's PEM holds no certificate".to_owned());
            }
            each.push((id(authority), verifier(roots)?));
        }
        let config = tls.asking(verifier(all)?).map_err(|error| error.to_string())?;
        Ok(Door { config: Arc::new(config), authorities: each })
    }

    /// Who came through, by the chain it showed.
    pub(crate) fn caller(&self, chain: Option<&[CertificateDer<'_>]>) -> Caller {
        let asked = self.authorities.iter().map(|(id, _)| *id).collect();
        let Some((own, between)) = chain.and_then(|chain| chain.split_first()) else {
            return Caller { asked, vouched: Vec::new(), header: None };
        };
        // The handshake believed one of them; which, and whether it still does, is asked here.
        let now = UnixTime::since_unix_epoch(Duration::from_millis(world::clock::unix_ms()));
        let vouches = |verifier: &Arc<dyn ClientCertVerifier>| verifier.verify_client_cert(own, between, now).is_ok();
        let vouched: Vec<AuthorityId> =
            self.authorities.iter().filter(|(_, verifier)| vouches(verifier)).map(|(id, _)| *id).collect();
        let header = if vouched.is_empty() { None } else { told(own) };
        Caller { asked, vouched, header }
    }
}

impl Caller {
    /// How this authority's routes see it.
    pub(crate) fn standing(caller: Option<&Caller>, authority: &AuthorityId) -> Standing {
        match caller {
            Some(caller) if caller.vouched.contains(authority) => Standing::Vouched,
            Some(caller) if caller.asked.contains(authority) => Standing::Unknown,
            Some(_) | None => Standing::Unasked,
        }
    }
}

fn verifier(roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.allow_unauthenticated().build().map_err(|error| error.to_string())
}

/// A client's certificate in a header, as Envoy writes `x-forwarded-client-cert`.
fn told(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    let bearer = Bearer::read(certificate).ok()?;
    let mut text = String::from("Hash=");
    for byte in Sha256::digest(certificate) {
        write!(text, "{byte:02x}").ok()?;
    }
    let plain = |letter: char| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' };
    let subject: String = bearer.subject.chars().map(plain).collect();
    write!(text, ";Subject=\"{}\"", subject.replace('\\', "\\\\").replace('"', "\\\"")).ok()?;
    // A name with letters that end a field would become another one.
    let safe = |name: &&String| name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;=\\".contains(&byte));
    for (key, names) in [("URI", &bearer.uris), ("DNS", &bearer.hosts)] {
        for name in names.iter().filter(safe).take(NAMES_MAX) {
            write!(text, ";{key}={name}").ok()?;
        }
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::{Caller, Door, Standing, id};
    use crate::proof;
    use crate::tls::Tls;
    use pki::Authority;
    use rustls::pki_types::CertificateDer;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    /// A certificate for a client.
    fn card(authority: &Authority, subject: &str, host: &str, ended: bool) -> Vec<CertificateDer<'static>> {
        let key = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(authority.certificate_pem(), key).unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, subject);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        if ended {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        vec![params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()]
    }

    #[test]
    fn an_authority_vouches_for_its_own_only() {
        let now_s = i64::try_from(world::clock::unix_ms() / 1_000).unwrap();
        let (ours, theirs) = (Authority::create("ours", now_s).unwrap(), Authority::create("theirs", now_s).unwrap());
        let tls = Tls::new(Arc::new(proof::Shown::new())).unwrap();
        let pems: BTreeSet<String> = [&ours, &theirs].map(|one| one.certificate_pem().to_owned()).into();
        let door = Door::new(&pems, &tls).unwrap();
        let (our_id, their_id) = (id(ours.certificate_pem()), id(theirs.certificate_pem()));
        let caller = door.caller(Some(&card(&ours, "ann \"the\" one", "ann.test", false)));
        assert_eq!(Caller::standing(Some(&caller), &our_id), Standing::Vouched);
        assert_eq!(Caller::standing(Some(&caller), &their_id), Standing::Unknown);
        assert_eq!(Caller::standing(Some(&caller), &[0; 32]), Standing::Unasked);
        assert_eq!(Caller::standing(None, &our_id), Standing::Unasked);
        let header = caller.header.unwrap();
        let header = header.to_str().unwrap();
        assert!(header.starts_with("Hash=") && header.contains(";DNS=ann.test"), "{header}");
        assert!(header.contains(";Subject=\"CN=ann \\\"the\\\" one\""), "{header}");
        let nobody = door.caller(None);
        assert_eq!(Caller::standing(Some(&nobody), &our_id), Standing::Unknown);
        let server = ours.issue(&["a.test".to_owned()], now_s).unwrap();
        let not_for_clients = door.caller(Some(&server.chain));
        assert_eq!(Caller::standing(Some(&not_for_clients), &our_id), Standing::Unknown);
        let ended = door.caller(Some(&card(&ours, "old", "old.test", true)));
        assert_eq!(Caller::standing(Some(&ended), &our_id), Standing::Unknown);
        assert!(ended.header.is_none());
    }

    #[test]
    fn what_is_no_authority_is_said() {
        let tls = Tls::new(Arc::new(proof::Shown::new())).unwrap();
        let check = |pem: &str, expected: &str| {
            let failed = Door::new(&[pem.to_owned()].into(), &tls).err().unwrap();
            assert!(failed.contains(expected), "{failed}");
        };
        check("", "no certificate");
        check("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "");
        check("-----BEGIN CERTIFICATE-----\n", "damaged");
    }
}
