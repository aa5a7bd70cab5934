//! The client side of the OCI distribution protocol: manifests and blobs over HTTP, with tokens, mirrors, retries.
//!
//! Promises that every request has a deadline, that credentials go only to their registry and the token server it
//! names, and that nothing is asked in clear beyond this machine unless a mirror's URL says so. Knows no disk.

use crate::Credentials;
use crate::auth::{Challenge, TokenAnswer, challenge};
use crate::digest::Digest;
use crate::error::PullError;
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::reference::DOCKER_HUB;
use crate::trust;
use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Docker Hub's registry does not live at its name.
const DOCKER_HUB_BASE: &str = "https://registry-1.docker.io";
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Silence for this long in the middle of an answer means that it will not come.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// For manifests, configurations and tokens: a few KiB each.
const SMALL_DEADLINE: Duration = Duration::from_secs(60);
/// The slowest line a blob is waited for: 32 KiB/s, on top of a minute. What has come is kept, so a slower one
/// still gets there in several pulls.
const BLOB_BYTES_PER_SECOND_MIN: u64 = 32 << 10;
const TOKEN_BYTES_MAX: usize = 256 << 10;
/// Registries redirect once to their store; some once more.
const REDIRECTS_MAX: usize = 5;
pub(crate) const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; four times as long before the third.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const CONTENT_DIGEST: &str = "docker-content-digest";
/// Tokens kept; more repositories than that are not pulled at the same time.
const TOKENS_MAX: usize = 1_000;

/// A place that serves a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Without a slash at its end, as `https://registry-1.docker.io`.
    base: String,
    /// For people and for finding credentials.
    name: String,
}

/// What a repository is asked for, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repository<'a> {
    pub(crate) path: &'a str,
    /// The whole image reference.
    pub(crate) reference: &'a str,
}

/// A manifest or an index, as it came.
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
}

pub(crate) struct Registry {
    client: Client,
    mirrors: BTreeMap<String, String>,
    credentials: BTreeMap<String, Credentials>,
    /// By base URL and repository.
    tokens: Mutex<HashMap<(String, String), Authorization>>,
}

#[derive(Clone)]
enum Authorization {
    Bearer(Arc<str>),
    Basic(Credentials),
}

impl Registry {
    pub(crate) fn new(
        mirrors: BTreeMap<String, String>,
        credentials: BTreeMap<String, Credentials>,
    ) -> Result<Registry, Box<dyn std::error::Error + Send + Sync>> {
        let client = Client::builder()
            .tls_backend_preconfigured(trust::tls()?)
            .user_agent(concat!("bramble/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(READ_DEADLINE)
            .redirect(reqwest::redirect::Policy::custom(redirect))
            // Only the app reads the environment.
            .no_proxy()
            .build()?;
        Ok(Registry { client, mirrors, credentials, tokens: Mutex::default() })
    }

    /// Where to ask for images of `registry`, in this order.
    pub(crate) fn sources(&self, registry: &str) -> Vec<Source> {
        let mirror = self.mirrors.get(registry).map(|base| {
            let base = base.trim_end_matches('/').to_owned();
            let name = base.split_once("://").map_or(base.as_str(), |(_, host)| host).to_owned();
            Source { base, name }
        });
        let base = match registry {
            DOCKER_HUB => DOCKER_HUB_BASE.to_owned(),
            local if is_loopback(local) => format!("http://{local}"),
            remote => format!("https://{remote}"),
        };
        mirror.into_iter().chain([Source { base, name: registry.to_owned() }]).collect()
    }

    /// Fetches a manifest or an index by tag or digest; a digest is checked.
    pub(crate) async fn manifest(
        &self,
        source: &Source,
        repository: Repository<'_>,
        selector: &str,
    ) -> Result<Fetched, PullError> {
        let url = format!("{}/v2/{}/manifests/{selector}", source.base, repository.path);
        let accept = manifest::accepted();
        let ask = Ask {
            source,
            repository,
            url: &url,
            what: "the manifest",
            accept: Some(&accept),
            from: 0,
            only_head: false,
        };
        retried(|| async {
            let response = self.ask(ask, SMALL_DEADLINE).await?;
            let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.map(|value| value.split(';').next().unwrap_or(value).trim().to_owned());
            let bytes = read_bounded(source, ask.what, response, MANIFEST_BYTES_MAX).await?;
            let digest = Digest::of(&bytes);
            if selector.starts_with("sha256:") && selector != digest.as_str() {
                return Err(mismatch("the manifest", selector, &digest));
            }
            Ok(Fetched { digest, content_type, bytes })
        })
        .await
    }

    /// What a tag stands for, without fetching it: Docker Hub counts fetches against a limit, but not this. `None` when
    /// the registry does not say.
    pub(crate) async fn digest(&self, source: &Source, repository: Repository<'_>, selector: &str) -> Option<Digest> {
        let url = format!("{}/v2/{}/manifests/{selector}", source.base, repository.path);
        let accept = manifest::accepted();
        let ask =
            Ask { source, repository, url: &url, what: "the digest", accept: Some(&accept), from: 0, only_head: true };
        // A failure is no answer either: whoever asks fetches, and fails with the reason.
        let response = self.ask(ask, SMALL_DEADLINE).await.ok()?;
        response.headers().get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
    }

    /// Fetches a small blob, checked.
    pub(crate) async fn small_blob(
        &self,
        source: &Source,
        repository: Repository<'_>,
        digest: &Digest,
    ) -> Result<Bytes, PullError> {
        let url = format!("{}/v2/{}/blobs/{digest}", source.base, repository.path);
        let ask =
            Ask { source, repository, url: &url, what: "the configuration", accept: None, from: 0, only_head: false };
        retried(|| async {
            let response = self.ask(ask, SMALL_DEADLINE).await?;
            let bytes = read_bounded(source, ask.what, response, MANIFEST_BYTES_MAX).await?;
            let found = Digest::of(&bytes);
            if found != *digest { Err(mismatch("the configuration", digest.as_str(), &found)) } else { Ok(bytes) }
        })
        .await
    }

    /// Starts to fetch a blob at the byte `from`. The answer says itself (by its status) whether it begins there.
    /// One attempt: whoever writes the bytes down knows where to go on.
    pub(crate) async fn blob(
        &self,
        source: &Source,
        repository: Repository<'_>,
        digest: &Digest,
        from: u64,
        size: u64,
    ) -> Result<Response, PullError> {
        let url = format!("{}/v2/{}/blobs/{digest}", source.base, repository.path);
        let what = format!("layer {digest}");
        let ask = Ask { source, repository, url: &url, what: &what, accept: None, from, only_head: false };
        let deadline = SMALL_DEADLINE + Duration::from_secs((size - from.min(size)) / BLOB_BYTES_PER_SECOND_MIN);
        self.ask(ask, deadline).await
    }

    /// One request, with one more after a challenge.
    async fn ask(&self, ask: Ask<'_>, deadline: Duration) -> Result<Response, PullError> {
        let key = (ask.source.base.clone(), ask.repository.path.to_owned());
        let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let response = self.send(ask, known.as_ref(), deadline).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return accept(ask, response);
        }
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).filter_map(challenge).collect();
        let Some(authorization) = self.answer(ask, &challenges).await? else {
            return Err(ask.unauthorized());
        };
        let response = self.send(ask, Some(&authorization), deadline).await?;
        let accepted = accept(ask, response)?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(key, authorization);
        Ok(accepted)
    }

    async fn send(
        &self,
        ask: Ask<'_>,
        authorization: Option<&Authorization>,
        deadline: Duration,
    ) -> Result<Response, PullError> {
        let method = if ask.only_head { Method::HEAD } else { Method::GET };
        let mut request = self.client.request(method, ask.url).timeout(deadline);
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        request = match authorization {
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            Some(Authorization::Basic(credentials)) => {
                request.basic_auth(&credentials.username, Some(&credentials.password))
            }
            None => request,
        };
        request.send().await.map_err(|error| unanswered(ask, &error))
    }

    /// Finds what a challenge asks for; `None` when we have nothing to show.
    async fn answer(&self, ask: Ask<'_>, challenges: &[Challenge]) -> Result<Option<Authorization>, PullError> {
        let credentials = self.credentials.get(&ask.source.name);
        for challenge in challenges {
            match challenge {
                Challenge::Bearer { realm, service, scope } => {
                    let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", ask.repository.path));
                    let token = self.token(ask, realm, service.as_deref(), &scope, credentials).await?;
                    return Ok(Some(Authorization::Bearer(token.into())));
                }
                Challenge::Basic => {
                    if let Some(credentials) = credentials {
                        return Ok(Some(Authorization::Basic(credentials.clone())));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn token(
        &self,
        ask: Ask<'_>,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<String, PullError> {
        let malformed = |why: &str| PullError::Malformed {
            what: format!("the token answer of {}", ask.source.name),
            why: why.to_owned(),
        };
        let mut url = Url::parse(realm).map_err(|_| malformed("its realm is not a URL"))?;
        // A registry reached in clear is on this machine or so configured; any other must not send secrets in clear.
        if url.scheme() != "https" && !ask.source.base.starts_with("http://") {
            return Err(malformed("its realm is not https"));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
        }
        let mut request = self.client.get(url).timeout(SMALL_DEADLINE);
        if let Some(credentials) = credentials {
            request = request.basic_auth(&credentials.username, Some(&credentials.password));
        }
        let response = request.send().await.map_err(|error| unanswered(ask, &error))?;
        let response = match accept(Ask { what: "a token", ..ask }, response) {
            Err(PullError::Unknown { .. }) => return Err(malformed("its realm does not exist")),
            other => other?,
        };
        let bytes = read_bounded(ask.source, "a token", response, TOKEN_BYTES_MAX).await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| malformed("it is not JSON"))?;
        answer.token().ok_or_else(|| malformed("it holds no token"))
    }
}

/// One request of the protocol.
#[derive(Clone, Copy)]
struct Ask<'a> {
    source: &'a Source,
    repository: Repository<'a>,
    url: &'a str,
    what: &'a str,
    accept: Option<&'a str>,
    from: u64,
    /// Ask for the head of the answer only.
    only_head: bool,
}

impl Ask<'_> {
    fn unauthorized(&self) -> PullError {
        PullError::Unauthorized { registry: self.source.name.clone(), reference: self.repository.reference.to_owned() }
    }
}

impl Source {
    pub(crate) fn interrupted(&self, what: &str, why: String) -> PullError {
        PullError::Interrupted { registry: self.name.clone(), what: what.to_owned(), why }
    }

    /// Turns an error in the middle of an answer into what a puller is told.
    pub(crate) fn cut(&self, what: &str, error: &reqwest::Error) -> PullError {
        self.interrupted(what, innermost(error))
    }
}

/// Sorts answers into success and the errors a person understands.
fn accept(ask: Ask<'_>, response: Response) -> Result<Response, PullError> {
    let status = response.status();
    let registry = || ask.source.name.clone();
    match status {
        // A range behind the end: the caller starts over.
        StatusCode::RANGE_NOT_SATISFIABLE if ask.from > 0 => Ok(response),
        _ if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(PullError::Unknown { reference: ask.repository.reference.to_owned() }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ask.unauthorized()),
        StatusCode::TOO_MANY_REQUESTS => Err(PullError::RateLimited { registry: registry() }),
        _ => Err(PullError::Refused { registry: registry(), what: ask.what.to_owned(), status: status.as_u16() }),
    }
}

/// Tries `attempt` a few times as long as its failure may pass.
async fn retried<T, F: Future<Output = Result<T, PullError>>>(attempt: impl Fn() -> F) -> Result<T, PullError> {
    for number in 1.. {
        match attempt().await {
            Err(error) if error.is_retryable() && number < ATTEMPTS_MAX => pause(number).await,
            outcome => return outcome,
        }
    }
    unreachable!("the last attempt returns")
}

/// Waits before the attempt after the `failed`th, a little longer for some so that machines do not come in step.
pub(crate) async fn pause(failed: u32) {
    let base = PAUSE_FIRST * 4u32.saturating_pow(failed.saturating_sub(1));
    let jitter = base.mul_f64((world::random::number() % 256) as f64 / 512.0);
    tokio::time::sleep(base + jitter).await;
}

async fn read_bounded(
    source: &Source,
    what: &str,
    mut response: Response,
    bytes_max: usize,
) -> Result<Bytes, PullError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| source.cut(what, &error))? {
        if bytes.len() + chunk.len() > bytes_max {
            return Err(PullError::TooLarge { what: what.to_owned(), bound: format!("{} KiB", bytes_max >> 10) });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn mismatch(what: &str, expected: &str, found: &Digest) -> PullError {
    PullError::DigestMismatch { what: what.to_owned(), expected: expected.to_owned(), found: found.to_string() }
}

/// A request that brought no answer.
fn unanswered(ask: Ask<'_>, error: &reqwest::Error) -> PullError {
    let registry = ask.source.name.clone();
    if error.is_redirect() {
        return PullError::Malformed { what: format!("the answer of {registry}"), why: innermost(error) };
    }
    if error.is_timeout() {
        return PullError::Unreachable { registry, why: "no answer in time".to_owned() };
    }
    if error.is_connect() {
        return PullError::Unreachable { registry, why: innermost(error) };
    }
    ask.source.cut(ask.what, error)
}

/// The last cause says what happened (`connection refused`); those before it say in which library.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Follows redirects to https, and within this machine when the way began there.
fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let began_in_clear = attempt.previous().first().is_some_and(|url| url.scheme() == "http");
    let to_loopback = attempt.url().host_str().is_some_and(is_loopback);
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if attempt.url().scheme() == "https" || (began_in_clear && to_loopback) {
        attempt.follow()
    } else {
        attempt.error("redirected to a place without TLS")
    }
}

/// Whether `host` or `host:port` is this machine: such registries speak plain HTTP.
fn is_loopback(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    without_port == "localhost" || without_port.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
