//! Who is asking: the session behind the cookie, the token that guards forms, the client's address.

use super::Blog;
use crate::failure::Failure;
use crate::store::account::{self, Session};
use crate::view::Frame;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, Form, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;

/// Five bits a character: 160 and 120 bits.
const SESSION_LENGTH: usize = 32;
const CSRF_LENGTH: usize = 24;
const SESSION_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;

pub(crate) struct Visitor {
    pub(crate) session: Option<Session>,
    token: Option<String>,
    /// For the forms of those not logged in: the same value in a cookie, which no other site can set or read.
    seed: Option<String>,
    pub(crate) client: String,
}

/// Somebody who is logged in; others are sent to log in.
pub(crate) struct Writer {
    pub(crate) session: Session,
}

/// Why a page for writers is not shown.
pub(crate) enum NotWriter {
    LoggedOut,
    Failed(Failure),
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(world::clock::unix_ms()).unwrap_or(i64::MAX)
}

impl Visitor {
    pub(crate) fn frame<'a>(&'a self, blog: &'a Blog) -> Frame<'a> {
        frame(blog, self.session.as_ref())
    }

    /// The token for a form of somebody not logged in, and the cookie to set when there is none yet.
    pub(crate) fn seed(&self, blog: &Blog) -> (String, Option<HeaderValue>) {
        if let Some(seed) = &self.seed {
            return (seed.clone(), None);
        }
        let seed = world::random::word(CSRF_LENGTH);
        let cookie = cookie(blog, "seed", &seed, DAY_MS / 1000);
        (seed, Some(cookie))
    }

    /// Whether the form was made for this visitor who is not logged in.
    pub(crate) fn check_seed(&self, given: &str) -> Result<(), Failure> {
        check(self.seed.as_deref().unwrap_or_default(), given)
    }

    /// Ends the session; the cookie that says so.
    pub(crate) async fn log_out(self, blog: &Blog) -> Result<HeaderValue, Failure> {
        if let Some(token) = self.token {
            let hash = hashed(&token);
            blog.database.write(move |tx| account::close_session(tx, &hash)).await?;
        }
        Ok(cookie(blog, "session", "", 0))
    }
}

impl Writer {
    pub(crate) fn frame<'a>(&'a self, blog: &'a Blog) -> Frame<'a> {
        frame(blog, Some(&self.session))
    }

    /// Whether the form was made for this session.
    pub(crate) fn check(&self, given: &str) -> Result<(), Failure> {
        check(&self.session.csrf, given)
    }
}

fn frame<'a>(blog: &'a Blog, session: Option<&'a Session>) -> Frame<'a> {
    Frame { blog_name: &blog.config.blog_name, instance: &blog.config.instance, session }
}

/// Takes equally long wherever the two differ.
fn check(expected: &str, given: &str) -> Result<(), Failure> {
    let same_length = expected.len() == given.len() && expected.len() == CSRF_LENGTH;
    let difference = expected.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    if same_length && difference == 0 { Ok(()) } else { Err(Failure::ForgedForm) }
}

/// Begins a session; its cookie.
pub(crate) async fn log_in(blog: &Blog, user_id: i64) -> Result<HeaderValue, Failure> {
    let (token, csrf) = (world::random::word(SESSION_LENGTH), world::random::word(CSRF_LENGTH));
    let (hash, now) = (hashed(&token), now_ms());
    let ends = now + SESSION_DAYS * DAY_MS;
    blog.database.write(move |tx| account::open_session(tx, user_id, &hash, &csrf, now, ends)).await?;
    Ok(cookie(blog, "session", &token, SESSION_DAYS * DAY_MS / 1000))
}

fn hashed(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// Over TLS the name says that no other host and no clear connection may have set it.
fn cookie_name(blog: &Blog, name: &str) -> String {
    if blog.config.is_secure() { format!("__Host-{name}") } else { name.to_owned() }
}

fn cookie(blog: &Blog, name: &str, value: &str, age_s: i64) -> HeaderValue {
    let secure = if blog.config.is_secure() { "; Secure" } else { "" };
    let name = cookie_name(blog, name);
    let text = format!("{name}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("names and words are plain")
}

fn sent_cookie(headers: &HeaderMap, name: &str, length: usize) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    (value.len() == length).then(|| value.to_owned())
}

fn client(blog: &Blog, parts: &Parts) -> String {
    let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    // The last one is what the proxy before us saw; those before it anybody can make up.
    let last = forwarded.and_then(|list| list.rsplit(',').next()).map(str::trim).filter(|last| last.len() <= 45);
    if let (true, Some(last)) = (blog.config.trust_forwarded, last) {
        return last.to_owned();
    }
    parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(String::new(), |info| info.0.ip().to_canonical().to_string())
}

impl FromRequestParts<Arc<Blog>> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, blog: &Arc<Blog>) -> Result<Visitor, Failure> {
        let token = sent_cookie(&parts.headers, &cookie_name(blog, "session"), SESSION_LENGTH);
        let session = match &token {
            Some(token) => {
                let (hash, now) = (hashed(token), now_ms());
                blog.database.read(move |tx| account::session(tx, &hash, now)).await?
            }
            None => None,
        };
        let seed = sent_cookie(&parts.headers, &cookie_name(blog, "seed"), CSRF_LENGTH);
        Ok(Visitor { session, token, seed, client: client(blog, parts) })
    }
}

impl FromRequestParts<Arc<Blog>> for Writer {
    type Rejection = NotWriter;

    async fn from_request_parts(parts: &mut Parts, blog: &Arc<Blog>) -> Result<Writer, NotWriter> {
        let visitor = Visitor::from_request_parts(parts, blog).await.map_err(NotWriter::Failed)?;
        visitor.session.map(|session| Writer { session }).ok_or(NotWriter::LoggedOut)
    }
}

impl axum::response::IntoResponse for NotWriter {
    fn into_response(self) -> axum::response::Response {
        match self {
            NotWriter::LoggedOut => axum::response::Redirect::to("/login").into_response(),
            NotWriter::Failed(failure) => failure.into_response(),
        }
    }
}

/// The fields of a form.
pub(crate) struct Fields<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Blog>> for Fields<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, blog: &Arc<Blog>) -> Result<Fields<T>, Failure> {
        let fields = Form::<T>::from_request(request, blog).await.map_err(|rejection: FormRejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Failure::TooLarge
            } else {
                Failure::Invalid("the form lacks something")
            }
        })?;
        Ok(Fields(fields.0))
    }
}
