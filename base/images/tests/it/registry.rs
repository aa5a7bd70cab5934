//! A registry in this process, with faults to order.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, watch};

pub(crate) struct Registry {
    pub(crate) host: String,
    shared: Arc<Shared>,
    _server: world::task::Task,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    faults: Mutex<Faults>,
    log: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct Content {
    blobs: BTreeMap<String, Bytes>,
    /// By repository and tag or digest: media type and body.
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    guard: Guard,
    host: String,
}

#[derive(Default, Clone, Copy, PartialEq)]
pub(crate) enum Guard {
    #[default]
    Open,
    Bearer,
    Basic,
}

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "s3cret";
const TOKEN: &str = "a-token";

#[derive(Default)]
pub(crate) struct Faults {
    /// Answers for the next requests that are not for a token.
    pub(crate) statuses: VecDeque<u16>,
    /// Blob answers are cut after so many bytes, one answer each.
    pub(crate) cuts: VecDeque<usize>,
    pub(crate) no_ranges: bool,
    /// Where blobs really are.
    pub(crate) redirect: Option<String>,
    /// What every answer says its manifest's digest is.
    pub(crate) claimed_digest: Option<String>,
    /// Every blob answer waits for a permit after its first byte.
    pub(crate) gate: Option<Arc<Semaphore>>,
}

impl Registry {
    pub(crate) async fn start() -> Registry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        shared.content.lock().unwrap().host = host.clone();
        let router = axum::Router::new().fallback(answer).with_state(shared.clone());
        let server = world::task::spawn("test registry", async move {
            axum::serve(listener, router).await.unwrap();
        });
        Registry { host, shared, _server: server }
    }

    pub(crate) fn reference(&self, name: &str) -> images::Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    pub(crate) fn put_blob(&self, bytes: impl Into<Bytes>) -> (String, usize) {
        let bytes = bytes.into();
        let (digest, length) = (digest(&bytes), bytes.len());
        self.shared.content.lock().unwrap().blobs.insert(digest.clone(), bytes);
        (digest, length)
    }

    /// Serves other bytes under a digest.
    pub(crate) fn corrupt_blob(&self, digest: &str, bytes: Bytes) {
        self.shared.content.lock().unwrap().blobs.insert(digest.to_owned(), bytes);
    }

    pub(crate) fn blob(&self, digest: &str) -> Bytes {
        self.shared.content.lock().unwrap().blobs[digest].clone()
    }

    pub(crate) fn put_manifest(&self, repository: &str, tag: Option<&str>, media_type: &str, body: String) -> String {
        let digest = digest(body.as_bytes());
        let mut content = self.shared.content.lock().unwrap();
        for selector in [Some(digest.as_str()), tag].into_iter().flatten() {
            let key = (repository.to_owned(), selector.to_owned());
            content.manifests.insert(key, (media_type.to_owned(), Bytes::from(body.clone())));
        }
        digest
    }

    pub(crate) fn guard(&self, guard: Guard) {
        self.shared.content.lock().unwrap().guard = guard;
    }

    pub(crate) fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.shared.faults.lock().unwrap()
    }

    /// Waits until the requests so far are as they should be.
    pub(crate) async fn until(&self, reached: impl Fn(&[String]) -> bool) {
        self.shared.log.subscribe().wait_for(|log| reached(log)).await.unwrap();
    }

    /// Requests so far, as `GET /v2/… bytes=5- with secrets`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.log.borrow().clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let shown = if request.headers().contains_key(header::AUTHORIZATION) { "with secrets" } else { "" };
    let line = format!("{} {path} {} {shown}", request.method(), range.as_deref().unwrap_or_default());
    let line = line.trim().to_owned();
    shared.log.send_modify(|log| log.push(line));
    if path == "/token" {
        let query = request.uri().query().unwrap_or_default();
        let expected = basic_header();
        let known = request.headers().get(header::AUTHORIZATION).is_some_and(|value| *value == expected);
        if !known || !query.contains("service=test") || !query.contains("scope=repository%3A") {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        return format!("{{\"token\":\"{TOKEN}\",\"expires_in\":300}}").into_response();
    }
    if let Some(refusal) = refuse(&shared, request.headers()) {
        return refusal;
    }
    if let Some(status) = shared.faults.lock().unwrap().statuses.pop_front() {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if let Some((repository, selector)) = rest.split_once("/manifests/") {
        let found = {
            let content = shared.content.lock().unwrap();
            content.manifests.get(&(repository.to_owned(), selector.to_owned())).cloned()
        };
        return match found {
            Some((media_type, body)) => {
                let claimed = shared.faults.lock().unwrap().claimed_digest.clone();
                let digest = ("docker-content-digest", claimed.unwrap_or_else(|| digest(&body)));
                ([(header::CONTENT_TYPE.as_str(), media_type), digest], body).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    if let Some(base) = shared.faults.lock().unwrap().redirect.clone() {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("{base}{path}"))]).into_response();
    }
    let wanted = rest.split_once("/blobs/").map(|(_, digest)| digest).unwrap_or_default();
    let found = shared.content.lock().unwrap().blobs.get(wanted).cloned();
    match found {
        Some(bytes) => blob(&shared, bytes, range.as_deref()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn basic_header() -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

fn refuse(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let (guard, host) = {
        let content = shared.content.lock().unwrap();
        (content.guard, content.host.clone())
    };
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (wanted, challenge) = match guard {
        Guard::Open => return None,
        Guard::Bearer => (format!("Bearer {TOKEN}"), format!("Bearer realm=\"http://{host}/token\",service=\"test\"")),
        Guard::Basic => (basic_header(), "Basic realm=\"test\"".to_owned()),
    };
    if shown == wanted {
        return None;
    }
    Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response())
}

fn blob(shared: &Shared, bytes: Bytes, range: Option<&str>) -> Response {
    let mut faults = shared.faults.lock().unwrap();
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = from.filter(|_| !faults.no_ranges);
    let total = bytes.len();
    let body = bytes.slice(from.unwrap_or(0).min(total)..);
    let length = body.len();
    let cut = faults.cuts.pop_front();
    let gate = faults.gate.clone();
    drop(faults);
    let first = body.slice(..length.min(1));
    let sent = body.slice(length.min(1)..cut.unwrap_or(length).clamp(length.min(1), length));
    let steps = futures::stream::iter([Ok::<Bytes, std::io::Error>(first)]).chain(futures::stream::once(async move {
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(sent)
    }));
    let end = futures::stream::iter(cut.map(|_| Err(std::io::Error::other("cut"))));
    let builder = Response::builder().header(header::CONTENT_LENGTH, length);
    let builder = match from {
        Some(from) => builder
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {from}-{}/{total}", total.saturating_sub(1))),
        None => builder,
    };
    builder.body(Body::from_stream(steps.chain(end))).unwrap()
}
