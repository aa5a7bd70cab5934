//! Which certificates of registries are believed: those of the web's authorities, which the binary carries, and those
//! the machine's administrator added, for registries and proxies of their own.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Where distributions keep the machine's bundle: Debian and Alpine, Fedora and its kin, SUSE, the rest.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS as registries are spoken to. The provider is named, so that it works whether or not the process has chosen one.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(bundle) = BUNDLES.iter().find(|path| Path::new(path).exists()) {
        match CertificateDer::pem_file_iter(bundle) {
            Ok(certificates) => {
                let (added, ignored) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
                tracing::debug!(bundle, added, ignored, "certificates of the machine are believed too");
            }
            Err(error) => tracing::warn!(bundle, %error, "the machine's certificates cannot be read"),
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
