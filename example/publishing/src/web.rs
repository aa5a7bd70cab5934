//! Requests: routes, what every request goes through, and the state they share. Knows no HTML and no SQL.

mod account;
mod picture;
mod post;
mod visitor;

use crate::config::Config;
use crate::database::Database;
use crate::failure::{Cause, Failure};
use crate::password::Passwords;
use crate::view;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post as posting};
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A form with the longest post, every character escaped to three.
const FORM_BYTES_MAX: usize = 1 << 20;
/// A picture and the little around it.
const UPLOAD_BYTES_MAX: usize = crate::picture::SIZE_BYTES_MAX + (64 << 10);
/// A name and a password; the only forms that are read for those not logged in.
const CREDENTIALS_BYTES_MAX: usize = 8 << 10;
/// Requests at once. A request takes milliseconds, so this many at once are thousands a second, or an attack.
const REQUESTS_MAX: usize = 128;
/// Pictures in memory at once: the others wait. With the size of one, 40 MiB.
const UPLOADS_MAX: usize = 8;
/// Longer than the slowest honest upload of 5 MiB, at a quarter of a megabyte a second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A request id of a proxy is kept when it is a plain word not longer than this.
const REQUEST_ID_LENGTH_MAX: usize = 64;

/// What requests share. All that lasts is in the database and the folder of pictures.
pub(crate) struct Blog {
    pub(crate) config: Config,
    pub(crate) database: Database,
    pub(crate) passwords: Passwords,
    pub(crate) pictures: PathBuf,
    requests: Semaphore,
    uploads: Semaphore,
}

impl Blog {
    pub(crate) fn new(config: Config, database: Database, pictures: PathBuf) -> Blog {
        Blog {
            passwords: Passwords::new(config.password_memory_kib),
            config,
            database,
            pictures,
            requests: Semaphore::new(REQUESTS_MAX),
            uploads: Semaphore::new(UPLOADS_MAX),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct PageQuery {
    page: Option<String>,
}

impl PageQuery {
    /// Whatever is no number is the first page.
    fn number(&self) -> u32 {
        self.page.as_deref().and_then(|page| page.parse().ok()).unwrap_or(1)
    }
}

pub(crate) fn router(blog: Arc<Blog>) -> Router {
    let pages = Router::new()
        .route("/", get(post::front))
        .route("/search", get(post::search))
        .route("/by/{name}", get(post::profile))
        .route("/posts", posting(post::create))
        .route("/posts/new", get(post::new))
        .route("/posts/{id}", get(post::read).post(post::update))
        .route("/posts/{id}/edit", get(post::edit))
        .route("/posts/{id}/publish", posting(post::publish))
        .route("/posts/{id}/unpublish", posting(post::unpublish))
        .route("/posts/{id}/delete", posting(post::delete))
        .route("/logout", posting(account::logout))
        .route("/desk", get(account::desk))
        .route("/pictures/{name}", get(picture::show))
        .route("/pictures/{name}/delete", posting(picture::delete))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX));
    let doors = Router::new()
        .route("/signup", get(account::sign_up_form).post(account::sign_up))
        .route("/login", get(account::login_form).post(account::login))
        .layer(DefaultBodyLimit::max(CREDENTIALS_BYTES_MAX));
    let uploads =
        Router::new().route("/pictures", posting(picture::upload)).layer(DefaultBodyLimit::max(UPLOAD_BYTES_MAX));
    Router::new()
        .merge(pages)
        .merge(doors)
        .merge(uploads)
        .route("/healthz", get(health))
        .route(&view::STYLE_PATH, get(style))
        .fallback(async || Failure::NotFound)
        .layer(from_fn_with_state(Arc::clone(&blog), around))
        .with_state(blog)
}

/// Healthy is: the database answers a question about its tables.
async fn health(State(blog): State<Arc<Blog>>) -> Result<&'static str, Failure> {
    let question = "SELECT 1 FROM users LIMIT 1";
    blog.database.read(move |tx| tx.prepare_cached(question)?.query([])?.next().map(|_| ())).await?;
    Ok("ok\n")
}

async fn style() -> impl IntoResponse {
    let kept = "public, max-age=31536000, immutable";
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, kept)], view::STYLE)
}

/// Around every request: bounds, the check that no other site sent it, headers, and one line of log.
async fn around(State(blog): State<Arc<Blog>>, request: Request, next: Next) -> Response {
    let began = world::clock::monotonic();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request_id(request.headers());
    let mut response = bounded(&blog, request, next).await;
    let headers = response.headers_mut();
    secure(headers, blog.config.is_secure());
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", value);
    }
    let cause = response.extensions().get::<Cause>().map(|cause| cause.0.clone());
    log(&method, &path, response.status(), began.elapsed(), &id, cause.as_deref());
    response
}

async fn bounded(blog: &Blog, request: Request, next: Next) -> Response {
    if !request.method().is_safe() && is_foreign(request.headers()) {
        return Failure::ForgedForm.into_response();
    }
    let Ok(_turn) = blog.requests.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "busy, try again\n").into_response();
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

/// Whether a browser says that another site made this request. The forms' tokens are the second lock.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")) {
        return true;
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_none_or(|(_, from)| from != host),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn secure(headers: &mut HeaderMap, over_tls: bool) {
    // Nothing is loaded from elsewhere and nothing runs; a page that needs no script can say so.
    let policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    for (name, value) in [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if over_tls {
        headers.insert("strict-transport-security", HeaderValue::from_static("max-age=31536000"));
    }
    // A page may show who is logged in; what may be kept says so itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        !id.is_empty()
            && id.len() <= REQUEST_ID_LENGTH_MAX
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    given.filter(plain).map_or_else(|| world::random::word(16), str::to_owned)
}

/// One line of JSON on stdout: the platform collects, the app only says. What was searched for stays private.
fn log(method: &Method, path: &str, status: StatusCode, took: Duration, id: &str, cause: Option<&str>) {
    let line = serde_json::json!({
        "event": "request",
        "method": method.as_str(),
        "path": path,
        "status": status.as_u16(),
        "ms": took.as_secs_f64() * 1000.0,
        "request": id,
        "cause": cause,
    });
    // A reader of the log that has gone away is no reason to stop serving.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::{is_foreign, request_id};
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn another_sites_request_is_known_by_its_headers() {
        let check =
            |pairs: &[(&'static str, &'static str)], expected| assert_eq!(is_foreign(&headers(pairs)), expected);
        check(&[], false);
        check(&[("host", "b.example"), ("origin", "http://b.example")], false);
        check(&[("host", "b.example"), ("origin", "https://evil.example")], true);
        check(&[("host", "b.example"), ("origin", "null")], true);
        check(&[("origin", "http://b.example")], true);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("sec-fetch-site", "same-origin"), ("host", "b.example"), ("origin", "http://b.example")], false);
    }

    #[test]
    fn a_proxys_request_id_is_kept_when_it_is_a_word() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")])), "abc-1");
        assert_eq!(request_id(&headers(&[("x-request-id", "a b\"")])).len(), 16);
        assert_eq!(request_id(&headers(&[])).len(), 16);
    }
}
