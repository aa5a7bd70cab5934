//! `/v1/certificates`: what the gateway shows, and whom to trust for it.

use super::App;
use axum::Json;
use axum::extract::State;
use wire::api::{AuthorityCertificate, CertificateState};

pub(super) async fn list(State(app): State<App>) -> Json<Vec<CertificateState>> {
    Json(app.certificates.borrow().states.clone())
}

pub(super) async fn authority(State(app): State<App>) -> Json<AuthorityCertificate> {
    Json(AuthorityCertificate { pem: app.certificates.borrow().authority_pem.to_string() })
}
