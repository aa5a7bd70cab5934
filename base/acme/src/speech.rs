//! How the authority is spoken to: HTTPS with deadlines and bounds, which the library leaves to others.

use crate::error::ObtainError;
use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Authorities answer within a second; issuing happens behind an order that is asked about.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A chain is some ten kilobytes, a directory one.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// An HTTP client that remembers when it was told to come back.
#[derive(Clone)]
pub(crate) struct Speech {
    client: reqwest::Client,
    /// Of the last answer; zero when it said nothing.
    retry_after_s: Arc<AtomicU64>,
}

impl Speech {
    pub(crate) fn new(roots: Option<&str>) -> Result<Speech, ObtainError> {
        let failed = |why: &dyn std::fmt::Display| ObtainError::Roots { why: why.to_string() };
        let mut store = RootCertStore::empty();
        match roots {
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    store.add(root.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
                }
                if store.is_empty() {
                    return Err(failed(&"there is no certificate in the file"));
                }
            }
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_root_certificates(store)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(ANSWER_DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            // Only the app reads the environment.
            .no_proxy()
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Speech { client, retry_after_s: Arc::default() })
    }

    /// What went wrong, in our words.
    pub(crate) fn explain(&self, error: Error) -> ObtainError {
        let retry_after_s = Some(self.retry_after_s.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0);
        if let Error::Api(problem) = &error {
            let kind = problem.r#type.clone().unwrap_or_default();
            return ObtainError::Refused { why: words(problem), kind, retry_after_s };
        }
        if let Error::Timeout(_) = error {
            return ObtainError::Undecided;
        }
        ObtainError::Speech { why: chain(&error), retry_after_s }
    }
}

/// What the authority says of a problem, on one line.
pub(crate) fn words(problem: &Problem) -> String {
    let parts = problem.subproblems.iter().filter_map(|part| part.detail.as_deref());
    let detail: Vec<&str> = problem.detail.as_deref().into_iter().chain(parts).collect();
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default();
    format!("{} ({kind})", detail.join("; "))
}

/// An error with all its causes, on one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

impl HttpClient for Speech {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, retry_after_s) = (self.client.clone(), Arc::clone(&self.retry_after_s));
        Box::pin(async move {
            let other = |error: reqwest::Error| Error::Other(Box::new(error.without_url()));
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let url = head.uri.to_string();
            let asked = client.request(head.method, url).headers(head.headers).body(body);
            let mut answer = asked.send().await.map_err(other)?;
            let told = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let counts = answer.status() == StatusCode::TOO_MANY_REQUESTS || answer.status().is_server_error();
            retry_after_s.store(told.filter(|_| counts).unwrap_or(0), Ordering::Relaxed);
            let mut body = BytesMut::new();
            while let Some(chunk) = answer.chunk().await.map_err(other)? {
                if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Err(Error::Str("an answer of a sane length"));
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::new(());
            *response.status_mut() = answer.status();
            response.headers_mut().clone_from(answer.headers());
            let (parts, ()) = response.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body.freeze()) })
        })
    }
}
