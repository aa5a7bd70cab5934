//! Proofs to public authorities that a host is served here, while they look.
//!
//! Owns what is shown. A proof comes before every route and redirect, since nobody but an authority asks for it, and only
//! while there is one: whatever else is below the same path is the services'. Does not know authorities.

use crate::swap::Swap;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use pki::Certificate;
use rustls::sign::CertifiedKey;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What an authority speaks when it looks for a certificate (RFC 8737).
pub(crate) const PROOF_PROTOCOL: &[u8] = b"acme-tls/1";

/// Where it looks for a text (RFC 8555, section 8.3).
const PROOF_PATH: &str = "/.well-known/acme-challenge/";

/// Everything that is to be shown; replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proofs {
    /// Texts by token, shown to requests without TLS.
    pub texts: BTreeMap<String, String>,
    /// Shown to whom asks for the host and speaks `acme-tls/1`.
    pub certificates: Vec<Arc<Certificate>>,
}

/// The same, made ready.
#[derive(Debug, Default)]
struct Ready {
    texts: BTreeMap<String, String>,
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

/// What is shown just now.
#[derive(Debug)]
pub(crate) struct Shown(Swap<Ready>);

impl Shown {
    pub(crate) fn new() -> Shown {
        Shown(Swap::new(Ready::default()))
    }

    /// Shows `proofs` and nothing else. A certificate whose key cannot sign is left out: it proves nothing.
    pub(crate) fn set(&self, proofs: Proofs) {
        let provider = rustls::crypto::ring::default_provider();
        let mut certificates = HashMap::new();
        for certificate in proofs.certificates {
            // Its extension is critical, so that whatever checks certificates refuses it; signing does not mind.
            match provider.key_provider.load_private_key(certificate.key()) {
                Ok(key) => {
                    let key = Arc::new(CertifiedKey::new(certificate.chain.clone(), key));
                    certificates.extend(certificate.names.iter().map(|name| (name.clone(), Arc::clone(&key))));
                }
                Err(error) => tracing::warn!(names = ?certificate.names, %error, "a proof cannot be shown"),
            }
        }
        self.0.set(Ready { texts: proofs.texts, certificates });
    }

    /// The answer to an authority's request, if this is one for a proof that is shown.
    pub(crate) fn answer(&self, method: &Method, path: &str, secure: bool) -> Option<Response<Bytes>> {
        let token = path.strip_prefix(PROOF_PATH)?;
        if secure || !(method == Method::GET || method == Method::HEAD) {
            return None;
        }
        let text = self.0.get().texts.get(token).cloned()?;
        let mut response = Response::new(Bytes::from(text));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }

    /// The certificate for an authority that looks at `host`.
    pub(crate) fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.0.get().certificates.get(&host.to_ascii_lowercase()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Proofs, Shown};
    use http::Method;
    use std::collections::BTreeMap;

    #[test]
    fn only_what_is_being_proven_is_answered() {
        let shown = Shown::new();
        let check = |method: Method, path: &str, secure: bool, expected: Option<&str>| {
            let answer = shown.answer(&method, path, secure);
            let body = answer.map(|answer| String::from_utf8(answer.into_body().to_vec()).unwrap());
            assert_eq!(body.as_deref(), expected, "{method} {path}");
        };
        check(Method::GET, "/.well-known/acme-challenge/token", false, None);
        let texts = BTreeMap::from([("token".to_owned(), "token.thumb".to_owned())]);
        shown.set(Proofs { texts, certificates: Vec::new() });
        check(Method::GET, "/.well-known/acme-challenge/token", false, Some("token.thumb"));
        check(Method::HEAD, "/.well-known/acme-challenge/token", false, Some("token.thumb"));
        check(Method::POST, "/.well-known/acme-challenge/token", false, None);
        check(Method::GET, "/.well-known/acme-challenge/token", true, None);
        check(Method::GET, "/.well-known/acme-challenge/token/x", false, None);
        check(Method::GET, "/.well-known/acme-challenge/other", false, None);
        check(Method::GET, "/x/.well-known/acme-challenge/token", false, None);
        let authority = pki::proving("a.test", &[7; 32], 1_700_000_000).unwrap();
        shown.set(Proofs { certificates: vec![std::sync::Arc::new(authority)], ..Proofs::default() });
        check(Method::GET, "/.well-known/acme-challenge/token", false, None);
        assert!(shown.certificate("A.test").is_some());
        assert!(shown.certificate("b.test").is_none());
    }
}
